"""One pace for all workers, whatever each of them knows."""

from __future__ import annotations

import asyncio
import time

from tidings.ledger import Ledger, turns
from tidings.ledger.memory import Memory
from tidings.pace import MEMO, SHARE, Pace


def pace(ledger: Ledger, rate: float) -> Pace:
    return Pace(ledger, Memory(ledger), rate=rate)


async def test_workers_together__make_no_more_requests_than_allowed(ledger: Ledger) -> None:
    workers = [pace(ledger, 20) for _ in range(4)]
    at: list[float] = []

    async def work(worker: Pace) -> None:
        for _ in range(5):
            await worker.turn()
            at.append(time.monotonic())

    began = time.monotonic()
    await asyncio.gather(*(work(worker) for worker in workers))

    assert len(at) == 20
    assert time.monotonic() - began >= 19 / (20 * SHARE) - 0.05


async def test_who_comes_after_a_pause__waits_for_nobody(ledger: Ledger) -> None:
    async with ledger.transaction() as connection:
        first = [await turns.take(connection, "x", 0.5) for _ in range(3)]
    async with ledger.transaction() as connection:
        other = await turns.take(connection, "y", 0.5)

    assert first[0] == other == 0
    assert 0.4 < first[1] <= 0.5
    assert 0.9 < first[2] <= 1.0


async def test_a_clock_that_was_set_back__stops_nobody_for_long(ledger: Ledger) -> None:
    await Memory(ledger).remember("turn:x", str(time.time() + 3600))

    async with ledger.transaction() as connection:
        assert await turns.take(connection, "x", 0.5) <= turns.LONGEST_SECONDS


async def test_a_rate_that_resend_names__counts_for_all_from_now_on(ledger: Ledger) -> None:
    first, second = pace(ledger, 2), pace(ledger, 2)

    await first.turn()
    await first.learn(100)
    await first.learn(None)
    began = time.monotonic()
    for worker in (second, first, second, first):
        await worker.turn()

    assert await Memory(ledger).recall(MEMO) == "100"
    assert time.monotonic() - began < 1.5  # at two a second it would take two
