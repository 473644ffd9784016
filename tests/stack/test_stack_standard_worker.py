"""The deployments run on Prefect's own worker, unchanged."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from live_parts import Live, address
from live_sequences import signup, template_of

pytestmark = pytest.mark.stack


async def test_a_standard_worker__runs_the_deployments_as_they_are(live: Live, real_time: str, tmp_path: Path) -> None:
    email = address("standard")
    prefect = str(Path(sys.executable).parent / "prefect")
    await live.stack.stop_one("worker")
    try:
        command = [prefect, "worker", "start", "--pool", "tidings", "--type", "process"]
        async with live.process("standard-worker", command, cwd=tmp_path) as worker:
            answer = await live.accepted("christmas-signup", signup(email), web=real_time)
            [mail] = await live.mails(email, 1)
            assert template_of(mail) == "christmas_email_1"
            run = await live.prefect.ended(answer["flow_run_id"])
            assert run["state_type"] == "COMPLETED", worker.tail()
    finally:
        await live.stack.restart("worker")
    assert await live.ledger.states(email) == ["delivered", *["scheduled"] * 6]
