"""Quotas hold for all processes together, and cost a statement a group."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import date, timedelta
from random import randrange
from uuid import uuid4

import pytest
from worlds import World, address, now

from tidings.ledger import Ledger, inbox, limits
from tidings.model import Arrival, Over, Quota, Receipt
from tidings.settings import asyncpg_url

THEN = now()


def quotas(limit: int, *kinds: str) -> tuple[Quota, ...]:
    return tuple(Quota(kind, randrange(2**62), limit) for kind in kinds or ("email address",))


async def take(world: World, *wanted: tuple[Quota, ...], after: float = 0) -> list[Over | None]:
    async with world.ledger.transaction() as connection:
        return await limits.take(connection, [(each, THEN + timedelta(seconds=after)) for each in wanted])


@pytest.fixture
async def processes(postgres: str, world: World) -> AsyncIterator[list[Ledger]]:
    """Four accesses of their own, as four uvicorn workers have."""
    ledgers = [Ledger(asyncpg_url(postgres)) for _ in range(4)]
    yield ledgers
    for ledger in ledgers:
        await ledger.close()


async def test_a_quota__holds_across_processes_and_groups(world: World, processes: list[Ledger]) -> None:
    shared = quotas(20, "client address")
    arrivals = [replace(world.arrival(), quotas=(*shared, *quotas(5))) for _ in range(120)]

    async def accept(ledger: Ledger, group: list[Arrival]) -> list[Receipt]:
        async with ledger.transaction() as connection:
            return await inbox.accept(connection, group)

    groups = [arrivals[n : n + 3] for n in range(0, len(arrivals), 3)]
    done = await asyncio.gather(*[accept(processes[n % 4], group) for n, group in enumerate(groups)])

    receipts = [receipt for group in done for receipt in group]
    stored = {event.id for event in await world.events()}
    assert sum(receipt.over is None for receipt in receipts) == 20 == len(stored)
    assert stored == {receipt.event_id for receipt in receipts if not receipt.over}
    assert len(await world.rows("SELECT id FROM contact")) == 20


async def test_groups_that_share_senders__never_wait_for_each_other(world: World, processes: list[Ledger]) -> None:
    senders = [quotas(10_000)[0] for _ in range(12)]

    async def one(n: int) -> None:
        mixed = senders[n % 12 :] + senders[: n % 12]
        async with processes[n % 4].transaction() as connection:
            await limits.take(connection, [((quota,), THEN) for quota in mixed])

    await asyncio.gather(*[one(n) for n in range(60)])

    assert [row.posts for row in await world.rows("SELECT posts FROM form_limit")] == [60] * 12


async def test_a_repeat__is_not_counted(world: World) -> None:
    arrival = replace(world.arrival(), quotas=quotas(1))

    receipts = [(await world.accept(replace(arrival, id=uuid4())))[0] for _ in range(5)]

    assert [receipt.over for receipt in receipts] == [None] * 5
    assert [receipt.duplicate for receipt in receipts] == [False, True, True, True, True]


async def test_who_is_over__changes_nothing_and_others_of_the_group_get_in(world: World) -> None:
    known = quotas(1)
    await world.accept(replace(world.arrival(), quotas=known))
    late = replace(world.arrival(email=address("late")), quotas=known)
    other = replace(world.arrival(), quotas=quotas(1))

    refused, stored, again = await world.accept(late, other, replace(late, id=uuid4()))

    assert refused.over is not None
    assert again.over is not None
    assert (refused.dispatch_id, refused.contact_created) == (None, False)
    assert stored.over is None
    assert late.contact is not None
    assert await world.rows("SELECT id FROM contact WHERE email = :e", e=late.contact.email) == []


async def test_within_a_group__each_counts(world: World) -> None:
    shared = quotas(3)

    assert [over is None for over in await take(world, *[shared] * 5)] == [True, True, True, False, False]


async def test_after_the_window__the_count_begins_anew(world: World) -> None:
    shared = quotas(2)
    window = limits.WINDOW.total_seconds()
    first = await take(world, *[shared] * 3, after=30)

    still = await take(world, shared, after=window + 29)
    anew = await take(world, *[shared] * 3, after=window + 30)

    assert first[2] == still[0] == Over(shared[0], THEN + timedelta(seconds=window + 30))
    assert [over is None for over in anew] == [True, True, False]


async def test_of_two_quotas__the_longer_wait_is_told(world: World) -> None:
    early, late = quotas(1, "client address", "email address")
    await take(world, (early,), after=0)
    await take(world, (late,), after=100)

    (over,) = await take(world, (early, late), after=200)

    assert over is not None
    assert over.quota == late


async def test_old_counts_and_days__are_forgotten(world: World) -> None:
    await take(world, quotas(1))
    async with world.ledger.transaction() as connection:
        await limits.add_to_tally(connection, {(THEN.date(), "form", "x"): 2, (date(2020, 1, 1), "form", "x"): 1})
        await limits.forget(connection, THEN + limits.WINDOW)
        assert len(await world.rows("SELECT * FROM form_limit")) == 1

        await limits.forget(connection, THEN + 2 * limits.WINDOW + timedelta(seconds=1))
        assert [row.day for row in await limits.tally(connection, since=date(2000, 1, 1))] == [THEN.date()]
    assert await world.rows("SELECT * FROM form_limit") == []


async def test_the_tally__adds_up(world: World) -> None:
    for _ in range(2):
        async with world.ledger.transaction() as connection:
            await limits.add_to_tally(connection, {(THEN.date(), "form", "x"): 2, (THEN.date(), "form", "y"): 1})

    async with world.ledger.reading() as connection:
        rows = await limits.tally(connection, since=THEN.date())
    assert [(row.reason, row.times) for row in rows] == [("x", 4), ("y", 2)]
