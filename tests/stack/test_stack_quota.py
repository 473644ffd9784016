"""A used-up quota at Resend: no failure, said where people look, and made up for by the run that is named."""

from __future__ import annotations

import re

import pytest
from live_parts import Json, Live, address
from live_sequences import signup, template_of

pytestmark = pytest.mark.stack


async def test_a_quota_that_is_used_up__defers_the_runs_that_enrol_and_that_send(live: Live, real_time: str) -> None:
    email = address("quota")
    await live.sandbox.change(daily_quota=0)

    answer = await live.accepted("christmas-signup", signup(email), web=real_time)
    enrolling = await live.prefect.ended(answer["flow_run_id"])
    await live.event_is(answer["event_id"], "handled")
    second = (await live.ledger.messages(email))[1]
    sending = await live.run_now(str(second["flow_run_id"]))

    later = await deferred_to(live, enrolling, "enrolled-christmas-signup")
    assert await deferred_to(live, sending, "sent-christmas-email-2")
    assert await live.ledger.states(email) == ["sending", "sending", *["scheduled"] * 5]
    assert await live.sandbox.inbox(email) == []

    await live.sandbox.mend()
    await live.ledger.rows("UPDATE claim SET lease_until = now() WHERE settled_at IS NULL RETURNING id")  # a day later
    await live.run_now(later)

    mails = await live.mails(email, 2)
    assert sorted(map(template_of, mails)) == ["christmas_email_1", "christmas_email_2"]


async def deferred_to(live: Live, run: Json, artifact: str) -> str:
    """Of a run that gave way: its artifact is there, and its message names a later run; returns that run's id."""
    assert (run["state_type"], run["state_name"]) == ("COMPLETED", "Deferred"), run["state"]
    said = re.fullmatch(
        r"Resend: 429 daily_quota_exceeded.*\. Goes on at .* UTC in run (\S+)\.", run["state"]["message"]
    )
    assert said, run["state"]["message"]
    assert (await live.prefect.run(said[1]))["state_type"] == "SCHEDULED"
    [told] = await live.prefect.artifacts([run["id"]])
    assert told["key"] == artifact
    assert "| sent |  | 0 |" in told["data"]
    return said[1]


async def test_a_run_that_fails__tells_what_it_had_done(live: Live, real_time: str) -> None:
    email = address("failing")
    answer = await live.accepted("christmas-signup", signup(email), web=real_time)
    await live.prefect.ended(answer["flow_run_id"])
    await live.sandbox.change(domains={"tidings.test": "pending"})

    run = await live.run_now(str((await live.ledger.messages(email))[1]["flow_run_id"]))

    assert run["state_type"] == "FAILED"
    assert "tidings.test" in run["state"]["message"]
    [told] = await live.prefect.artifacts([run["id"]])
    assert told["key"] == "sent-christmas-email-2"
    assert "| sent |  | 0 |" in told["data"]
