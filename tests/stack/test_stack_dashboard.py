"""What a person sees and does in Prefect's dashboard: every future mail, and its cancellation."""

from __future__ import annotations

import asyncio
import re
from datetime import UTC, datetime, timedelta

import pytest
from live_parts import Json, Live, address, until
from live_sequences import WEBHOOKS, Expected, noshow, signup, template_of

pytestmark = pytest.mark.stack

AFTER_HOURS = {
    "nurture": (0, 24, 72, 120, 168, 216, 264),
    "noshow": (5 / 60, 24, 48),
    "postcall": (1, 72, 168),
    "onboarding": (1, 24, 72),
    "precall": (-72, -24, -2),
}


@pytest.mark.parametrize("webhook", WEBHOOKS, ids=lambda webhook: str(webhook.path))
async def test_every_future_mail__is_a_scheduled_run(live: Live, real_time: str, webhook: Expected) -> None:
    email = address(f"future-{webhook.sequence}")
    body = webhook.body(email)
    before = datetime.now(UTC)
    answer = await live.accepted(webhook.path, body, web=real_time)
    await live.event_is(answer["event_id"], "handled")

    handler = await live.prefect.ended(answer["flow_run_id"])
    assert handler["state_type"] == "COMPLETED"
    assert handler["name"].startswith(f"{webhook.deployment} · ")
    assert {"tidings", "campaign:christmas", f"sequence:{webhook.sequence}"} <= set(handler["tags"])
    assert set(handler["parameters"]) <= {"event_ids", "dispatch_id"}

    messages = await live.ledger.messages(email)
    assert [m["template"] for m in messages] == list(webhook.templates)
    anchor = datetime.fromisoformat(body["payload"]["startTime"]) if webhook.sequence == "precall" else before
    for message, hours in zip(messages, AFTER_HOURS[webhook.sequence], strict=True):
        assert abs(message["due_at"] - anchor - timedelta(hours=hours)) < timedelta(seconds=30)

    later = [m for m in messages if m["due_at"] > datetime.now(UTC)]
    assert len(later) == len(webhook.templates) - (1 if webhook.sequence == "nurture" else 0)
    runs = {run["parameters"]["template"]: run for run in await live.prefect.runs_of(messages)}
    assert set(runs) == {m["template"] for m in later}
    for message in later:
        run = runs[message["template"]]
        assert run["state_type"] == "SCHEDULED"
        assert run["name"] == f"{message['template']} · {message['slot_at']:%Y-%m-%d %H:%M:%S} UTC"
        assert datetime.fromisoformat(run["expected_start_time"]) == message["slot_at"]
        assert timedelta(0) <= message["slot_at"] - message["due_at"] < timedelta(minutes=1)
        assert set(run["parameters"]) == {"template", "due"}
        tags = {"tidings", "campaign:christmas", f"sequence:{webhook.sequence}", f"template:{message['template']}"}
        assert tags <= set(run["tags"])


async def test_two_contacts_of_one_minute__share_their_runs(live: Live, real_time: str) -> None:
    emails = [address("shared"), address("shared")]
    answers = await asyncio.gather(*(live.accepted("calendly-noshow", noshow(e), web=real_time) for e in emails))
    for answer in answers:
        await live.prefect.ended(answer["flow_run_id"])

    one, two = [await live.ledger.messages(email) for email in emails]
    assert [m["slot_at"] for m in one] == [m["slot_at"] for m in two]
    assert [m["flow_run_id"] for m in one] == [m["flow_run_id"] for m in two]
    assert len(await live.prefect.runs_of([*one, *two])) == 3


async def test_a_cancelled_run__cancels_its_mails_and_no_others(live: Live, real_time: str) -> None:
    email = address("cancel")
    answer = await live.accepted("christmas-signup", signup(email), web=real_time)
    await live.prefect.ended(answer["flow_run_id"])
    third = (await live.ledger.messages(email))[2]

    await live.prefect.cancel(str(third["flow_run_id"]))

    async def cancelled() -> Json | None:
        message = (await live.ledger.messages(email))[2]
        return message if message["state"] == "cancelled" else None

    message = await until("the ledger to say so", cancelled, within=15)
    assert message["reason"] == "cancelled in Prefect's dashboard"
    assert message["sent_at"] is None

    second = (await live.ledger.messages(email))[1]
    assert (await live.run_now(str(second["flow_run_id"])))["state_type"] == "COMPLETED"
    mails = await live.mails(email, 2)
    assert sorted(map(template_of, mails)) == ["christmas_email_1", "christmas_email_2"]
    assert await live.ledger.states(email) == ["delivered", "delivered", "cancelled", *["scheduled"] * 4]
    said = await live.cli("contact", email)
    assert re.search(r"christmas_email_3\s*│ cancelled .*cancelled in Prefect's dashboard", said)


async def test_artifacts__count_what_was_sent_skipped_and_failed(live: Live, real_time: str) -> None:
    sent, left, refused = address("sent"), address("left"), address("refused").replace("resend.dev", "example.com")
    answers = await asyncio.gather(
        *(live.accepted("calendly-noshow", noshow(email), web=real_time) for email in (sent, left, refused))
    )
    for answer in answers:
        assert (await live.prefect.ended(answer["flow_run_id"]))["state_type"] == "COMPLETED"
    [enrolment] = await live.ledger.rows(
        "SELECT e.id FROM enrolment e JOIN contact c ON c.id = e.contact_id WHERE c.email = $1", left
    )
    await live.leave(str(enrolment["id"]))

    first = [(await live.ledger.messages(email))[0] for email in (sent, left, refused)]
    [run] = await live.prefect.runs_of(first)  # one slot, one run
    ended = await live.run_now(run["id"])

    [delivered] = await live.mails(sent, 1)
    assert template_of(delivered) == "noshow_recovery_email_1"
    assert await live.ledger.states(left) == ["skipped"] * 3
    assert (await live.ledger.messages(left))[0]["reason"] == "the contact unsubscribed"
    assert await live.sandbox.inbox(left) == []
    assert (await live.ledger.states(refused))[0] == "failed"
    assert "example.com" in (await live.ledger.messages(refused))[0]["reason"]

    [told] = await live.prefect.artifacts([run["id"]])
    assert told["key"] == "sent-noshow-recovery-email-1"
    assert re.search(r"\| sent \|  \| [1-9]", told["data"])  # with those of other tests that were due in this minute
    assert re.search(r"\| failed \| Resend: 422.*example\.com.* \| 1 \|", told["data"])
    assert ended["state_type"] == "FAILED"
    assert "example.com" in ended["state"]["message"]
    for email in (sent, left, refused):
        assert email not in told["data"] + ended["state"]["message"]
    enrolled = {a["key"] for a in await live.prefect.artifacts([a["flow_run_id"] for a in answers])}
    assert enrolled == {"enrolled-calendly-noshow"}
