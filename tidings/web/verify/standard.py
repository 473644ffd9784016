"""Standard Webhooks: `webhook-id`, `webhook-timestamp` and `webhook-signature`, checked by their own library."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime

from standardwebhooks import Webhook, WebhookVerificationError

from tidings.web.verify.scheme import TIMESTAMP, Forged

SIGNATURE, ID, TIME = "webhook-signature", "webhook-id", "webhook-timestamp"
ADVICE = "sign as Standard Webhooks does, with a secret of STANDARD_WEBHOOK_SECRETS"


def shown(headers: Mapping[str, str]) -> bool:
    return SIGNATURE in headers


def check(raw: bytes, headers: Mapping[str, str], secrets: Sequence[str], now: datetime) -> None:
    given = {name: headers.get(name, "") for name in (SIGNATURE, ID, TIME)}
    # An id with a dot could be read as another id and another time under the same signature.
    if not given[ID] or "." in given[ID] or not TIMESTAMP.fullmatch(given[TIME]):
        raise Forged("webhook-id must be given, without a dot, and webhook-timestamp in seconds")
    for secret in secrets:
        try:
            Webhook(secret).verify(raw, given, json_parse=False)
        except (WebhookVerificationError, ValueError):  # ValueError: a signature that is not of the form v1,<base64>
            continue
        return
    raise Forged("the signature does not fit or is more than 5 minutes old (check STANDARD_WEBHOOK_SECRETS)")
