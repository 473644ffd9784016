"""A run that is killed and one that is cancelled while it works, on the warm worker."""

from __future__ import annotations

import os
import signal

import pytest
from live_parts import Json, Live, address, until
from live_sequences import noshow, template_of

pytestmark = pytest.mark.stack

#: Notion keeps the run that enrols waiting, and no other, so that it is caught at work.
SLOW = {"delay": 30.0, "service": "notion", "path": "query$", "times": 1,
        "body": "^(?!.*christmas_email_1).*noshow_recovery_email_1.*noshow_recovery_email_3"}  # fmt: skip


async def at_work(live: Live, run_id: str) -> Json:
    """A run that has begun, and its process."""

    async def begun() -> Json | None:
        run = await live.prefect.run(run_id)
        return run if run["state_type"] == "RUNNING" and run["infrastructure_pid"] else None

    return await until("the run to be at work", begun)


def alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


async def test_a_run_whose_process_is_killed__is_crashed_and_another_does_its_work(live: Live) -> None:
    email = address("killed")
    await live.sandbox.fault("delay", **SLOW)
    answer = await live.accepted("calendly-noshow", noshow(email))
    run = await at_work(live, answer["flow_run_id"])

    os.kill(int(run["infrastructure_pid"]), signal.SIGKILL)

    ended = await live.prefect.ended(run["id"], within=20)
    assert ended["state_type"] == "CRASHED"
    assert "status code -9" in ended["state"]["message"]  # its worker says so, at once, and not the keeper later
    mails = await live.mails(email, 3, within=90)
    assert len(mails) == len({template_of(mail) for mail in mails}) == 3
    event = await live.ledger.event(answer["event_id"])
    assert (event["state"], event["attempts"]) == ("handled", 1)
    assert str(event["flow_run_id"]) != run["id"]


async def test_a_run_that_is_cancelled_while_it_works__ends_and_starts_nothing(live: Live) -> None:
    email = address("stopped")
    await live.sandbox.fault("delay", **SLOW)
    answer = await live.accepted("calendly-noshow", noshow(email))
    run = await at_work(live, answer["flow_run_id"])
    pid = int(run["infrastructure_pid"])
    assert alive(pid)

    await live.prefect.cancel(run["id"])

    ended = await live.prefect.ended(run["id"], within=20)
    assert (ended["state_type"], ended["state_name"]) == ("CANCELLED", "Cancelled")

    async def gone() -> bool:
        return not alive(pid)

    await until("its process to be gone", gone, within=10)
    event = await live.event_is(answer["event_id"], "failed")
    assert event["reason"] == "cancelled in Prefect's dashboard"
    assert await live.sandbox.inbox(email) == []
