"""One pace for all workers, whatever each of them knows."""

from __future__ import annotations

import asyncio
import time
from itertools import pairwise

import pytest

from tidings.ledger import Ledger, turns
from tidings.ledger.memory import Memory
from tidings.pace import MEMO, SHARE, Pace


def pace(ledger: Ledger, rate: float) -> Pace:
    return Pace(ledger, Memory(ledger), rate=rate)


async def test_workers_together__make_no_more_requests_than_allowed(ledger: Ledger) -> None:
    workers = [pace(ledger, 20) for _ in range(4)]
    at: list[float] = []

    async def work(worker: Pace) -> None:
        for _ in range(15):
            await worker.turn()
            at.append(time.monotonic())

    await asyncio.gather(*(work(worker) for worker in workers))

    assert len(at) == 60
    seconds = [later - sooner for sooner, later in zip(at, at[20:], strict=False)]
    assert min(seconds) >= 1 / SHARE - 0.05


async def waits(ledger: Ledger, name: str, count: int) -> list[float]:
    """Of so many turns at four in two seconds, asked for at one moment: how long each has to wait."""
    async with ledger.transaction() as connection:
        return [await turns.take(connection, name, turns=4, window=2.0) for _ in range(count)]


async def test_who_comes_after_a_pause__waits_for_nobody(ledger: Ledger) -> None:
    first, other = await waits(ledger, "x", 6), await waits(ledger, "y", 1)

    assert first[0] == other[0] == 0
    gaps = [later - sooner for sooner, later in pairwise(first)]
    assert gaps[:3] == pytest.approx([0.15] * 3, abs=0.05)  # what was missed comes closely
    assert first[4] == pytest.approx(2.0, abs=0.05)  # and no fifth in two seconds
    assert first[5] == pytest.approx(2.15, abs=0.05)


async def test_no_window_of_any_two_seconds__has_more_turns_than_it_may(ledger: Ledger) -> None:
    at: list[float] = []
    for pause in (0.0, 0.3, 0.7, 0.0, 0.4):
        await asyncio.sleep(pause)
        at += [time.monotonic() + wait for wait in await waits(ledger, "x", 3)]

    assert at == sorted(at)
    assert all(later - sooner > 1.95 for sooner, later in zip(at, at[4:], strict=False))


async def test_a_rest__is_kept_by_everybody_and_by_whoever_comes_first(ledger: Ledger) -> None:
    await waits(ledger, "resend", 2)
    await asyncio.gather(*(pace(ledger, 20).rest(seconds) for seconds in (0.5, 5.0, 5.0, 1.0)))
    async with ledger.transaction() as connection:
        await turns.rest(connection, "fresh", seconds=5.0)

    assert await waits(ledger, "resend", 2) == pytest.approx([5.15, 5.3], abs=0.2)
    assert (await waits(ledger, "fresh", 1))[0] == pytest.approx(5.15, abs=0.2)


async def test_a_rest_of_hours__is_no_matter_of_pace(ledger: Ledger) -> None:
    await pace(ledger, 20).rest(3600.0)

    assert await waits(ledger, "resend", 1) == [0]


async def test_a_clock_that_was_set_back__stops_nobody_for_long(ledger: Ledger) -> None:
    await Memory(ledger).remember("turns:x", f"{{{time.time() + 3600}}}")

    assert (await waits(ledger, "x", 1))[0] <= turns.LONGEST_SECONDS


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
