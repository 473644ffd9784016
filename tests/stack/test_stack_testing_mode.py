"""TESTING_MODE is captured when a contact is enrolled: flipping it later moves nobody."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import Any

import pytest
from live_parts import Live, address
from live_sequences import signup

pytestmark = pytest.mark.stack


async def gaps(live: Live, email: str) -> list[timedelta]:
    messages = await live.ledger.messages(email)
    return [m["due_at"] - messages[0]["due_at"] for m in messages]


async def plan(live: Live, email: str) -> list[tuple[Any, ...]]:
    return [(m["id"], m["due_at"], m["slot_at"], m["flow_run_id"]) for m in await live.ledger.messages(email)]


async def test_flipping_testing_mode__moves_nobody_who_is_enrolled(live: Live, real_time: str) -> None:
    """Two servers on one ledger, one testing and one not; the worker is testing: what the event says counts."""
    tested, real = address("tested"), address("real")

    answers = await asyncio.gather(
        live.accepted("christmas-signup", signup(tested)),
        live.accepted("christmas-signup", signup(real), web=real_time),
    )
    for answer in answers:
        await live.prefect.ended(answer["flow_run_id"])
    planned = await plan(live, real)

    assert await gaps(live, tested) == [timedelta(seconds=n) for n in range(7)]
    assert await gaps(live, real) == [timedelta(hours=h) for h in (0, 24, 72, 120, 168, 216, 264)]

    # everything that looks after plans runs once more, in a process that is in testing mode
    await live.mails(tested, 7)
    assert (await live.prefect.quick_run("tidings-sweep"))["state_type"] == "COMPLETED"

    assert await plan(live, real) == planned
    assert [m["state"] for m in await live.ledger.messages(real)] == ["delivered", *["scheduled"] * 6]
