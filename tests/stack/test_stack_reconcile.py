"""Reconciliation on the running stack: what Calendly never told comes in all the same, once, and is told of."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from evidence import Evidence
from live_parts import Json, Live, address, until

pytestmark = pytest.mark.stack

RECONCILE = "tidings-reconcile"


async def do(live: Live, path: str, **body: Any) -> Json:
    """What people do at the calendars and at Stripe."""
    answer = await live.http.post(f"{live.sandbox.url}/control/{path}", json=body)
    assert answer.status_code == 201, answer.text
    found: Json = answer.json()
    return found


async def subscription(live: Live) -> str:
    (found,) = (await live.sandbox.get("subscriptions", service="calendly"))["data"]
    assert found["url"] == f"{live.web}/webhook/calendly-noshow"
    return str(found["status"])


async def reconciled(live: Live) -> str:
    """A run of the deployment; returns what its artifact says."""
    run = await live.prefect.quick_run(RECONCILE)
    assert run["state_type"] == "COMPLETED", run["state"]
    (artifact,) = await live.prefect.all("artifacts", artifacts={"flow_run_id": {"any_": [run["id"]]}})
    return str(artifact["data"])


async def missed(live: Live, email: str, *, webhook: bool) -> None:
    start = datetime.now(UTC) - timedelta(minutes=40)
    created = start - timedelta(days=1)
    made = await do(live, "calendly/bookings", email=email, start=start.isoformat(), created=created.isoformat(),
                    webhook=False)  # fmt: skip
    await do(live, "calendly/no-shows", of=made["uri"], webhook=webhook)


async def noshow_mails(live: Live, email: str) -> list[str]:
    return sorted(m["template"] for m in await live.ledger.messages(email) if m["template"].startswith("noshow"))


async def test_a_signed_webhook_of_the_sandboxs_calendly__becomes_mails(live: Live) -> None:
    """The subscription that the stack begins with works; what follows is about losing it."""
    email = address("told")
    await missed(live, email, webhook=True)

    mails = await live.mails(email, 3)

    assert len(mails) == 3
    assert {row["origin"] for row in await _events(live, email)} == {None}


@pytest.mark.failure(
    "F22",
    now="Every hour the subscription is looked at and made anew, and what it did not tell is taken in",
    noticed_by="the reconciliation's run",
    within=60,
    says="was switched off, and was made anew",
)
async def test_f22_a_subscription_that_calendly_switched_off__is_made_anew_and_its_gap_filled(
    live: Live, evidence: Evidence
) -> None:
    email = address("lost")
    await do(live, "calendly/disable")
    await missed(live, email, webhook=True)
    assert await subscription(live) == "disabled"

    evidence.broken()
    doctor = await live.cli("doctor", fails=True)
    said = await reconciled(live)
    evidence.read(said)
    again = await reconciled(live)

    mails = await live.mails(email, 3)
    assert "calendly has switched off the subscription that posts to" in doctor
    assert (await subscription(live), len(mails)) == ("active", 3)
    assert "made anew" not in again.partition("\n")[2]
    events = await _events(live, email)
    assert {row["origin"] for row in events} == {"calendly"}
    assert await noshow_mails(live, email) == [f"noshow_recovery_email_{n}" for n in (1, 2, 3)]
    titles = {r["title"] for r in await live.ledger.rows("SELECT title FROM alert WHERE kind = 'reconciliation'")}
    assert "Calendly's webhook subscription was switched off; it was made anew" in titles
    assert any("never arrived from Calendly" in title for title in titles)

    other = address("told-again")
    await missed(live, other, webhook=True)
    assert len(await live.mails(other, 3)) == 3


async def test_a_service_that_is_away__makes_the_run_red_after_the_others_are_done(live: Live) -> None:
    email = address("booked")
    start = datetime.now(UTC) + timedelta(days=30)
    await do(live, "calcom/bookings", email=email, start=start.isoformat(), webhook=False)
    await live.sandbox.fault("status", service="calendly", path="/users/me", status=401, times=None)

    run = await live.prefect.quick_run(RECONCILE)

    assert run["state_type"] == "FAILED"
    assert "CALENDLY_TOKEN" in run["state"]["message"]
    assert {row["origin"] for row in await _events(live, email)} == {"calcom"}
    alerts = await live.ledger.rows("SELECT key FROM alert WHERE recovered_at IS NULL AND kind = 'reconciliation'")
    assert {"reconciliation:calendly/away", "reconciliation:calendly-subscription/away"} <= {r["key"] for r in alerts}

    await live.sandbox.heal()
    await reconciled(live)
    assert await live.ledger.rows("SELECT 1 FROM alert WHERE recovered_at IS NULL AND key LIKE '%/away'") == []


async def test_an_operator__reconciles_from_the_command_line(live: Live) -> None:
    email = address("paid")
    await do(live, "stripe/checkouts", email=email, webhook=False)

    dry = await live.cli("reconcile", "--dry-run")
    assert "1 would be taken in for onboarding-start" in dry
    assert await _events(live, email) == []

    said = await live.cli("reconcile")
    assert "1 taken in for onboarding-start" in said
    assert {row["origin"] for row in await _events(live, email)} == {"stripe"}
    assert email not in said

    async def handled() -> bool:
        return all(row["state"] == "handled" for row in await _events(live, email))

    await until("the payment to be handled", handled)


async def _events(live: Live, email: str) -> list[Json]:
    return await live.ledger.rows(
        "SELECT e.origin, e.state, e.source FROM event e JOIN contact c ON c.id = e.contact_id WHERE c.email = $1",
        email,
    )
