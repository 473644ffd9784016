"""F5, F9, F14 and F18: what cannot happen any more because of the ledger, and because of who is asked before a send."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta

import pytest
from evidence import Evidence
from live_parts import Json, Live, address
from live_sequences import booking, noshow, onboarding, signup, template_of

pytestmark = pytest.mark.stack


@pytest.mark.failure(
    "F5",
    now="Sent is what Resend has named with an id; an answer without one is asked for again under the same key",
)
async def test_f5_a_success_that_names_no_mail__is_not_believed(live: Live) -> None:
    email = address("f5")
    fault = await live.sandbox.fault(
        "empty", service="resend", path="^/emails", body="noshow_recovery_email_1", times=1
    )

    await live.accepted("calendly-noshow", noshow(email))

    mails = await live.mails(email, 3)
    assert await live.sandbox.struck(fault) == 1
    assert len(mails) == len({template_of(mail) for mail in mails}) == 3
    assert {m["provider_id"] for m in await live.ledger.messages(email)} == {mail["id"] for mail in mails}


@pytest.mark.failure(
    "F9",
    now="A moment without its UTC offset is refused by name, and one with any offset is kept to the second",
    says="scheduled_time: Input should have timezone info",
)
async def test_f9_a_naive_moment__is_refused_and_an_offset_is_kept(
    live: Live, real_time: str, evidence: Evidence
) -> None:
    refused = await live.post("calendly-noshow", noshow(address("f9"), scheduled_time="2026-12-01T15:00:00"))
    assert refused.status_code == 422
    [told] = refused.json()["detail"]
    evidence.read(f"{told['field']}: {told['msg']}")

    email = address("f9")
    body = booking(email)
    meeting = datetime.now(UTC).replace(hour=12, minute=0, second=0, microsecond=0) + timedelta(days=30)
    body["payload"]["startTime"] = meeting.strftime("%Y-%m-%dT07:00:00-05:00")
    answer = await live.accepted("calcom-booking", body, web=real_time)
    await live.event_is(answer["event_id"], "handled")
    due = [m["due_at"] for m in await live.ledger.messages(email)]
    assert due == [meeting - timedelta(hours=hours) for hours in (72, 24, 2)]


@pytest.mark.failure(
    "F14",
    now="A webhook is in PostgreSQL before it is answered, and whatever is killed then, its mails follow",
)
async def test_f14_accepted_and_then_everything_is_killed__and_the_mails_come(live: Live) -> None:
    emails = [address("f14") for _ in range(20)]

    answers = await asyncio.gather(*(live.post("calendly-noshow", noshow(email)) for email in emails))
    for name in ("web", "worker", "prefect", "postgres"):
        live.stack.kill(name)
    for name in ("postgres", "prefect", "web", "worker"):
        await live.stack.restart(name)

    assert {answer.status_code for answer in answers} <= {200, 202}
    events = [await live.ledger.event(answer.json()["event_id"]) for answer in answers]
    assert len({event["id"] for event in events}) == 20
    for email in emails:
        assert len(await live.mails(email, 3)) == 3


@pytest.mark.failure(
    "F18",
    now="Consent, suppression, a booking and a payment are asked for at the moment of sending, mail by mail",
    says="skipped: the contact …",
)
async def test_f18_who_paid_or_left__gets_no_last_chance(live: Live, real_time: str, evidence: Evidence) -> None:
    paid, left, refused = address("f18-paid"), address("f18-left"), address("f18-no")
    await live.accepted("christmas-signup", signup(paid), web=real_time)
    await live.accepted("christmas-signup", signup(left), web=real_time)
    await live.post("christmas-signup", signup(refused, consent=False), web=real_time)
    await live.mails(paid, 1)
    await live.mails(left, 1)

    answer = await live.accepted("onboarding-start", onboarding(paid), web=real_time)
    await live.event_is(answer["event_id"], "handled")
    await live.leave(str((await live.ledger.messages(left))[0]["enrolment_id"]))
    last = [(await live.ledger.messages(email))[6] for email in (paid, left)]
    for run in await live.prefect.runs_of([m for m in last if m["state"] == "scheduled"]):
        await live.run_now(run["id"])

    for email in (paid, left):
        ended = (await nurture(live, email))[6]
        evidence.read(f"{ended['state']}: {ended['reason']}")
        assert [template_of(mail) for mail in await live.sandbox.inbox(email)] == ["christmas_email_1"]
    assert await live.sandbox.inbox(refused) == []


async def nurture(live: Live, email: str) -> list[Json]:
    return [m for m in await live.ledger.messages(email) if m["template"].startswith("christmas_email")]
