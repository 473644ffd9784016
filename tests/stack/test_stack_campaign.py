"""A second campaign in a folder of its own: everything follows from it, and the product is not touched."""

from __future__ import annotations

from pathlib import Path

import pytest
from live_parts import Live, address
from live_sequences import template_of

from tidings.local.config import StackConfig
from tidings.local.stack import Stack

pytestmark = pytest.mark.stack

CAMPAIGN = """
from datetime import timedelta

from pydantic import EmailStr

from tidings.campaign import Campaign, Payload, Sequence, Step, Webhook
from tidings.model import ContactFacts


class Order(Payload):
    email: EmailStr
    loaf: str | None = None

    def contact(self):
        return ContactFacts(email=self.email.lower())

    def enrolment_key(self):
        return self.email.lower()

    def variables(self, settings, now):
        return {**settings, "loaf": self.loaf}


CAMPAIGN = Campaign(
    name="bakery",
    title="Bakery",
    sequences=(
        Sequence("bread", "Bread", (Step("bread_1", timedelta(0)), Step("bread_2", timedelta(days=1)))),
    ),
    webhooks=(
        Webhook("bread-order", "bakery-order-handler", "Order", "bread", Order,
                {"rye": {"email": "delivered+rye@resend.dev", "loaf": "rye"}}, "A loaf was ordered"),
    ),
)
"""
COPY = {
    "bread_1": 'Subject: Your {{ loaf | default("loaf") }}\n\n<p>Your {{ loaf }} is in the oven.</p>\n',
    "bread_2": "Subject: How was it?\n\n<p>Did it taste good?</p>\n",
}


@pytest.fixture
def bakery(tmp_path: Path) -> Path:
    folder = tmp_path / "campaigns" / "bakery"
    (folder / "copy").mkdir(parents=True)
    (folder / "campaign.py").write_text(CAMPAIGN)
    for name, text in COPY.items():
        (folder / "copy" / f"{name}.html").write_text(text)
    return folder.parent


async def test_a_second_campaign__runs_without_touching_the_product(bakery: Path, tmp_path: Path) -> None:
    config = StackConfig.apart(
        tmp_path / "data",
        testing=True,
        testing_minute=1.0,
        campaigns_dirs=str(bakery),
        sandbox_options={"notion-rate": "0"},
    )
    async with Stack(config) as stack, Live.of(stack) as shop:
        email = address("rye")
        answer = await shop.accepted("bread-order", {"email": email, "loaf": "rye"})

        assert answer["message"] == "Order processed successfully"
        mails = sorted(await shop.mails(email, 2), key=template_of)
        assert [mail["subject"] for mail in mails] == ["Your rye", "How was it?"]
        assert "Your rye is in the oven." in mails[0]["text"]
        assert [(m["campaign"], m["sequence"], m["state"]) for m in await shop.ledger.messages(email)] == [
            ("bakery", "bread", "delivered")
        ] * 2

        assert (await shop.prefect.run(answer["flow_run_id"]))["name"].startswith("bakery-order-handler · ")
        names = {d["name"] for d in await shop.prefect.all("deployments")}
        assert names == {
            "bakery-order-handler", "bakery-send-email", "tidings-sweep", "tidings-notion-mirror",
            "canary-handler", "canary-send-email", "tidings-canary", "tidings-reconcile",
        }  # fmt: skip
        assert "3 of 3 templates can be sent" in await shop.cli("templates", "check")
        described = (await shop.http.get(f"{shop.web}/openapi.json")).json()["paths"]
        of_the_product = {"/webhook/resend", "/webhook/status/{event_id}"}
        assert {path for path in described if path.startswith("/webhook/")} - of_the_product == {"/webhook/bread-order"}
        assert (await shop.post("christmas-signup", {"email": email})).status_code == 404
        assert (await shop.ready())[1] == {}
