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
    await asyncio.sleep(max(0.0, 50 - datetime.now(UTC).second) if datetime.now(UTC).second > 55 else 0.0)
    answers = [await live.accepted("christmas-signup", signup(email), web=real_time) for email in emails]
    for answer in answers:
        await live.prefect.ended(answer["flow_run_id"])

    one, two = [[m for m in await live.ledger.messages(email) if m["position"] > 1] for email in emails]
    together = [(a, b) for a, b in zip(one, two, strict=True) if a["slot_at"] == b["slot_at"]]
    assert together
    assert all(a["flow_run_id"] == b["flow_run_id"] for a, b in together)


async def test_a_cancelled_run__cancels_its_mails_and_no_others(live: Live) -> None:
    email = address("cancel")
    async with live.web_server(TESTING_MINUTE_SECONDS="8") as slow:
        answer = await live.accepted("calendly-noshow", noshow(email), web=slow)
        await live.prefect.ended(answer["flow_run_id"])
        last = (await live.ledger.messages(email))[-1]
        assert last["template"] == "noshow_recovery_email_3"
        assert last["due_at"] - datetime.now(UTC) > timedelta(seconds=12), "the machine is too slow for this test"

        await live.prefect.cancel(str(last["flow_run_id"]))

        async def cancelled() -> Json | None:
            message = (await live.ledger.messages(email))[-1]
            return message if message["state"] == "cancelled" else None

        message = await until("the ledger to say so", cancelled, within=15)
        assert message["reason"] == "cancelled in Prefect's dashboard"
        assert message["sent_at"] is None

        mails = await live.mails(email, 2)
    assert sorted(map(template_of, mails)) == ["noshow_recovery_email_1", "noshow_recovery_email_2"]
    assert await live.ledger.states(email) == ["delivered", "delivered", "cancelled"]
    said = await live.cli("contact", email)
    assert re.search(r"noshow_recovery_email_3\s*│ cancelled .*cancelled in Prefect's dashboard", said)


async def test_artifacts__count_what_was_sent_skipped_and_failed(live: Live) -> None:
    sent, left, refused = address("artifact"), address("artifact"), f"{address('a').split('@')[0]}@example.com"
    async with live.web_server(TESTING_MINUTE_SECONDS="6") as slow:
        answers = await asyncio.gather(
            *(live.accepted("calendly-noshow", noshow(email), web=slow) for email in (sent, left, refused))
        )
        for answer in answers:
            await live.prefect.ended(answer["flow_run_id"])
        [enrolment] = await live.ledger.rows(
            "SELECT e.id FROM enrolment e JOIN contact c ON c.id = e.contact_id WHERE c.email = $1", left
        )
        token = await _token(live, enrolment["id"])
        await live.http.post(f"{live.web}/unsubscribe/{token}", data={"List-Unsubscribe": "One-Click"})
        await live.mails(sent, 3)

        async def failed() -> bool:
            return await live.ledger.states(refused) == ["failed"] * 3

        await until("the refused mails to be failed", failed)
    assert await live.ledger.states(left) == ["skipped"] * 3
    assert not await live.sandbox.inbox(left)

    enrolled = [a for a in await live.prefect.artifacts([answer["flow_run_id"] for answer in answers])]
    assert {a["key"] for a in enrolled} == {"enrolled-calendly-noshow"}
    runs = await live.prefect.runs_of(await live.ledger.messages(refused))
    for run in runs:
        ended = await live.prefect.ended(run["id"])
        assert ended["state_type"] == "FAILED"
        assert "example.com" in ended["state"]["message"]
        assert refused not in ended["state"]["message"]
    told = [a["data"] for a in await live.prefect.artifacts([run["id"] for run in runs])]
    assert len(told) == 3
    assert all(re.search(r"\| failed \| Resend: 422.*example\.com.* \| 1 \|", each) for each in told)
    ours = await live.prefect.runs_of(await live.ledger.messages(sent))
    assert all(
        re.search(r"\| sent \|  \| 1 \|", a["data"]) for a in await live.prefect.artifacts([run["id"] for run in ours])
    )


async def _token(live: Live, enrolment: object) -> str:
    from itsdangerous import URLSafeSerializer

    signed = URLSafeSerializer(live.stack.environment["SECRET_KEY"], salt="unsubscribe").dumps(str(enrolment))
    return str(signed)
