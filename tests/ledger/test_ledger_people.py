"""Who may not be mailed, and what is remembered."""

from __future__ import annotations

import asyncio
from typing import Any

from sqlalchemy import text
from winter import WINTER
from worlds import World, now

from tidings.ledger import people, permission
from tidings.ledger.memory import Memory


async def suppress(world: World, email: str, sequence: str | None = None, reason: str = "stop") -> None:
    async with world.ledger.transaction() as connection:
        who = await people.find_contact(connection, email)
        await people.suppress(connection, who.id, reason=reason, source="test", now=now(), sequence=sequence)


async def states(world: World) -> list[tuple[str, Any]]:
    return [(m.state, m.reason) for m in await world.rows("SELECT * FROM message ORDER BY position")]


async def test_a_suppression__skips_what_waits_and_leaves_what_was_sent(world: World) -> None:
    (who,) = await world.enrolled()
    await world.send()

    await suppress(world, who)

    assert await states(world) == [("sent", None), ("skipped", "stop"), ("skipped", "stop")]


async def test_a_suppression_of_one_series__leaves_the_others(world: World) -> None:
    (who,) = await world.enrolled()

    await suppress(world, who, "meeting")

    assert {state for state, _ in await states(world)} == {"scheduled"}


async def test_a_suppression_said_twice__is_one(world: World) -> None:
    (who,) = await world.enrolled()

    await suppress(world, who)
    await suppress(world, who, reason="again")
    await suppress(world, who, "hello")

    assert len(await world.rows("SELECT id FROM suppression WHERE sequence IS NULL")) == 1
    assert {reason for _, reason in await states(world)} == {"stop"}


async def test_a_suppression__is_of_one_contact_only(world: World) -> None:
    gone, stays = await world.enrolled(2)

    await suppress(world, gone)

    async with world.ledger.reading() as connection:
        rows = await world.messages()
        stopped = await permission.stopped(connection, WINTER, [m.id for m in rows])
    assert len(stopped) == 1
    await world.send()
    assert world.mailed() == [stays]


async def test_a_lifted_suppression__stops_nothing(world: World) -> None:
    (who,) = await world.enrolled()
    await suppress(world, who, "hello")
    await world.run_sql("UPDATE suppression SET lifted_at = now()")

    async with world.ledger.reading() as connection:
        assert await permission.stopped(connection, WINTER, [m.id for m in await world.messages()]) == {}


async def test_a_contact__is_found_in_any_case(world: World) -> None:
    (who,) = await world.enrolled()

    async with world.ledger.reading() as connection:
        assert (await people.find_contact(connection, f" {who.upper()} ")).email == who
        assert await people.find_contact(connection, "nobody@x.co") is None


async def test_memory__recalls_the_last_word_until_it_is_forgotten(world: World) -> None:
    memory = Memory(world.ledger)

    assert await memory.recall("k") is None
    await memory.remember("k", "one")
    await memory.remember("k", "two")
    assert await memory.recall("k") == "two"
    await memory.forget("k")
    assert await memory.recall("k") is None


async def test_leaving__waits_for_a_handler_that_skips_the_same_mails_and_neither_is_turned_away(world: World) -> None:
    """Everybody locks mails by their ids: here the last mail of the contact has the lowest one."""
    (who,) = await world.enrolled()
    for position in (1, 2, 3):
        moved = f"0{4 - position}000000-0000-4000-8000-000000000000"
        await world.run_sql("UPDATE message SET id = CAST(:id AS uuid) WHERE position = :n", id=moved, n=position)
    locked = "SELECT id FROM message WHERE position >= :n ORDER BY id FOR UPDATE"

    async with world.ledger.transaction() as handler:
        await handler.execute(text(locked), {"n": 3})
        leaving = asyncio.create_task(suppress(world, who))
        await asyncio.wait([leaving], timeout=0.3)
        assert not leaving.done()
        await handler.execute(text(locked), {"n": 1})
    await leaving

    assert {state for state, _ in await states(world)} == {"skipped"}
