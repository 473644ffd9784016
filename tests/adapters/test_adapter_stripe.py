"""Stripe's adapter against the sandbox, through Stripe's own library."""

from __future__ import annotations

import subprocess
import sys
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from sandbox_process import ROOT, Sandbox

from tidings.adapters.stripe import Stripe
from tidings.errors import OutcomeUnknown, Refused, RetryLater, ServiceError

NOW = datetime.now(UTC)
SINCE = NOW - timedelta(days=7)
KIM = "delivered+kim@resend.dev"


@pytest.fixture
def stripe(box: Sandbox) -> Stripe:
    return Stripe("rk_test", f"{box.url}/stripe")


async def test_a_payment__is_found_as_the_event_that_its_webhook_posts(stripe: Stripe, box: Sandbox) -> None:
    event = box.post("stripe/checkouts", email=KIM)

    (found,) = await stripe.found(SINCE, NOW)

    assert found.body == event
    assert found.at == datetime.fromtimestamp(event["created"], UTC)


async def test_a_payment_that_takes_days__is_found_when_it_has_come(stripe: Stripe, box: Sandbox) -> None:
    event = box.post("stripe/checkouts", email=KIM, paid=False)
    assert await stripe.found(SINCE, NOW) == []

    paid = box.post("stripe/payments", of=event["data"]["object"]["id"])

    assert [each.body["id"] for each in await stripe.found(SINCE, NOW)] == [paid["id"]]


async def test_payments_from_before__are_not_asked_about(stripe: Stripe, box: Sandbox) -> None:
    box.post("stripe/checkouts", email=KIM, created=(SINCE - timedelta(seconds=1)).isoformat())

    assert await stripe.found(SINCE, NOW) == []


async def test_more_than_a_page__is_read_to_its_end_oldest_first(stripe: Stripe, box: Sandbox) -> None:
    for n in range(103):
        at = NOW - timedelta(minutes=103 - n)
        box.post("stripe/checkouts", email=KIM, amount=n + 1, created=at.isoformat())

    found = await stripe.found(SINCE, NOW)

    assert [each.body["data"]["object"]["amount_total"] for each in found] == list(range(1, 104))


@pytest.mark.parametrize(
    ("fault", "error", "says"),
    [
        ({"status": 401}, Refused, "STRIPE_API_KEY"),
        ({"status": 403}, Refused, "may read events"),
        ({"status": 400}, Refused, "unknown error"),
        ({"status": 429, "retry_after": 7}, RetryLater, "429"),
        ({"status": 500}, OutcomeUnknown, "500"),
        ({"kind": "html", "status": 502}, OutcomeUnknown, "502"),
        ({"kind": "empty"}, OutcomeUnknown, "200"),
        ({"kind": "reset"}, RetryLater, "cannot be reached"),
    ],
)
async def test_what_goes_wrong__says_whether_trying_again_helps(
    stripe: Stripe, box: Sandbox, fault: dict[str, Any], error: type[ServiceError], says: str
) -> None:
    box.fault(service="stripe", times=None, **{"kind": "status", **fault})

    with pytest.raises(error, match=says) as caught:
        await stripe.found(SINCE, NOW)

    assert "rk_test" not in str(caught.value)
    if isinstance(caught.value, RetryLater) and "retry_after" in fault:
        assert caught.value.retry_after == 7.0


def test_stripes_library__is_not_imported_before_it_is_asked() -> None:
    said = subprocess.run(
        [sys.executable, "-c", "import sys, server, tidings.warm, tidings.wiring; print('stripe' in sys.modules)"],
        cwd=ROOT, capture_output=True, text=True, check=True,
    )  # fmt: skip

    assert said.stdout.strip() == "False"
