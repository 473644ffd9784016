"""The canary: one mail to Resend's test address, by which the whole chain shows that it works."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Any, ClassVar
from uuid import UUID

from tidings.campaign import Campaign, Payload, Sequence, Step, Webhook
from tidings.model import INTERNAL, ContactFacts


class Canary(Payload):
    """What a canary says: which it is."""

    whole: ClassVar[bool] = True
    canary_id: UUID

    def contact(self) -> ContactFacts:
        # Resend delivers to this address, and reports it, without any mailbox (apis.md 2.7).
        return ContactFacts(f"delivered+canary-{self.canary_id}@resend.dev", attributes={INTERNAL: True})

    def enrolment_key(self) -> str:
        return str(self.canary_id)

    def variables(self, settings: Mapping[str, Any], now: datetime) -> dict[str, Any]:
        return {"canary_id": str(self.canary_id)}


CAMPAIGN = Campaign(
    name="canary",
    title="Canary",
    internal=True,
    sequences=(Sequence("canary", "Canary", (Step("tidings_canary", timedelta(0)),)),),
    webhooks=(
        Webhook(
            path="canary",
            deployment="canary-handler",
            noun="Canary",
            sequence="canary",
            payload=Canary,
            examples={"a canary": {"canary_id": "00000000-0000-4000-8000-000000000000"}},
            summary="Tidings itself tries the whole chain",
        ),
    ),
)
