"""Calendly, Cal.com and Stripe of the sandbox: what they post, how they sign it, and when Calendly gives up (F22)."""

from __future__ import annotations

import hashlib
import hmac
import json
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
import stripe
from sandbox_process import Receiver, Sandbox

EMAIL = "delivered+ana@resend.dev"
AHEAD = (datetime.now(UTC) + timedelta(days=3)).isoformat()
KEY = "a signing key"


def mac(text: str, key: str = KEY) -> str:
    return hmac.new(key.encode(), text.encode(), hashlib.sha256).hexdigest()


def subscribe(sandbox: Sandbox, url: str, **body: Any) -> Any:
    made = sandbox.http.post(
        f"{sandbox.url}/calendly/webhook_subscriptions",
        headers={"authorization": "Bearer token"},
        json={
            "url": url,
            "events": ["invitee.created", "invitee_no_show.created"],
            "organization": "https://api.calendly.com/organizations/SANDBOX",
            "scope": "organization",
            "signing_key": KEY,
            **body,
        },
    )
    assert made.status_code == 201, made.text
    return made.json()["resource"]


def state(sandbox: Sandbox) -> str:
    (found,) = sandbox.get("subscriptions", service="calendly")["data"]
    return str(found["status"])


def got(sandbox: Sandbox, receiver: Receiver, count: int = 1) -> list[tuple[dict[str, str], str]]:
    sandbox.wait_for(lambda: len(receiver.got) >= count, f"{count} webhooks")
    return [(headers, body.decode()) for headers, body in receiver.got]


def test_calendly__posts_what_its_subscription_asks_for_and_signs_it(sandbox: Sandbox, receiver: Receiver) -> None:
    subscribe(sandbox, receiver.url)
    made = sandbox.post("calendly/bookings", email=EMAIL, start=AHEAD)
    sandbox.post("calendly/cancellations", of=made["uri"])
    sandbox.post("calendly/no-shows", of=made["uri"])

    found = got(sandbox, receiver, 2)

    assert sorted(json.loads(body)["event"] for _, body in found) == ["invitee.created", "invitee_no_show.created"]
    for headers, body in found:
        at, _, signature = headers["calendly-webhook-signature"].partition(",")
        assert signature == f"v1={mac(f'{at[2:]}.{body}')}"


def test_calendly__without_a_signing_key_sends_no_signature(sandbox: Sandbox, receiver: Receiver) -> None:
    subscribe(sandbox, receiver.url, signing_key=None)
    sandbox.post("calendly/bookings", email=EMAIL, start=AHEAD)

    ((headers, _),) = got(sandbox, receiver)

    assert "calendly-webhook-signature" not in headers


def test_what_happens_without_a_word__is_in_the_list_and_posted_to_nobody(sandbox: Sandbox, receiver: Receiver) -> None:
    subscribe(sandbox, receiver.url)
    sandbox.post("calendly/bookings", email="delivered+silent@resend.dev", start=AHEAD, webhook=False)
    sandbox.post("calendly/bookings", email=EMAIL, start=AHEAD)

    ((_, body),) = got(sandbox, receiver)

    assert json.loads(body)["payload"]["email"] == EMAIL


def test_f22_after_a_day_of_failures__calendly_switches_the_subscription_off(
    sandbox: Sandbox, receiver: Receiver
) -> None:
    sandbox.set(webhook_retry_factor=0.000_001)
    receiver.status = 503
    subscribe(sandbox, receiver.url)
    sandbox.post("calendly/bookings", email=EMAIL, start=AHEAD)

    sandbox.wait_for(lambda: state(sandbox) == "disabled", "the subscription to be switched off")

    assert len(receiver.got) == 12
    receiver.status = 200
    sandbox.post("calendly/bookings", email=EMAIL, start=AHEAD)
    assert [d["state"] for d in sandbox.get("webhooks")["data"]] == ["failed"]


def test_a_subscription_that_was_switched_off__stays_so_over_a_restart(own_sandbox: Sandbox) -> None:
    subscribe(own_sandbox, "http://127.0.0.1:9/webhook")
    own_sandbox.post("calendly/disable")

    own_sandbox.kill()
    own_sandbox.start()

    assert state(own_sandbox) == "disabled"


def test_the_subscription_of_the_settings__is_made_once(sandbox: Sandbox) -> None:
    sandbox.set(calendly_webhook_url="http://127.0.0.1:9/webhook", calendly_signing_key=KEY)
    sandbox.post("calendly/disable")

    sandbox.set(deliver_after=0.03)

    assert state(sandbox) == "disabled"


def test_calcom__posts_its_triggers_signed(sandbox: Sandbox, receiver: Receiver) -> None:
    sandbox.set(calcom_webhook_url=receiver.url, calcom_webhook_secret=KEY)
    made = sandbox.post("calcom/bookings", email=EMAIL, start=AHEAD)
    sandbox.post("calcom/bookings", email=EMAIL, start=AHEAD, before=made["uid"])
    sandbox.post("calcom/no-shows", of=made["uid"])
    sandbox.post("calcom/cancellations", of=made["uid"])

    found = got(sandbox, receiver, 4)

    triggers = {json.loads(body)["triggerEvent"] for _, body in found}
    assert triggers == {"BOOKING_CREATED", "BOOKING_RESCHEDULED", "BOOKING_NO_SHOW_UPDATED", "BOOKING_CANCELLED"}
    assert all(headers["x-cal-signature-256"] == mac(body) for headers, body in found)


def test_stripe__posts_events_that_its_own_library_takes(sandbox: Sandbox, receiver: Receiver) -> None:
    sandbox.set(stripe_webhook_url=receiver.url, stripe_webhook_secret="whsec_sandbox")
    made = sandbox.post("stripe/checkouts", email=EMAIL, paid=False)
    sandbox.post("stripe/payments", of=made["data"]["object"]["id"])

    found = got(sandbox, receiver, 2)

    events = [stripe.Webhook.construct_event(b, h["stripe-signature"], "whsec_sandbox") for h, b in found]  # type: ignore[no-untyped-call]
    assert {(e.type, e.data.object.payment_status) for e in events} == {
        ("checkout.session.completed", "unpaid"),
        ("checkout.session.async_payment_succeeded", "paid"),
    }


@pytest.mark.parametrize(
    ("path", "body"),
    [("calendly/bookings", {"email": EMAIL}), ("calcom/no-shows", {}), ("stripe/checkouts", {"mail": EMAIL})],
)
def test_a_wrong_body__is_refused_with_a_reason(sandbox: Sandbox, path: str, body: dict[str, Any]) -> None:
    answer = sandbox.http.post(f"{sandbox.url}/control/{path}", json=body)

    assert answer.status_code == 422
    assert "Field required" in answer.json()["error"]


def test_what_is_not_known__is_said_to_be_so(sandbox: Sandbox) -> None:
    answer = sandbox.http.post(f"{sandbox.url}/control/calcom/no-shows", json={"of": "nobody's"})

    assert (answer.status_code, answer.json()["error"]) == (404, "Cal.com has no booking nobody's")
