"""What senders say of bookings, payments and signatures: the same in the end, in whatever order it comes."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from itertools import permutations
from typing import Any

import pytest
from standing import Standing, standing
from worlds import World, address, now

from tidings.ledger import facts
from tidings.model import BookingFact, BookingState, Fact, MilestoneFact, MilestoneKind

AT = datetime(2026, 12, 1, 9, tzinfo=UTC)
STARTS = datetime(2026, 12, 8, 15, tzinfo=UTC)


def booked(minute: int = 0, key: str = "b1", starts: datetime = STARTS, **details: Any) -> BookingFact:
    return BookingFact(key, BookingState.BOOKED, AT + timedelta(minutes=minute), starts, details)


def said(state: BookingState, minute: int, key: str = "b1") -> BookingFact:
    return BookingFact(key, state, AT + timedelta(minutes=minute))


async def tell(world: World, email: str, *told: Fact) -> None:
    for fact in told:
        await world.accept(replace(world.arrival(email=email, sent_at=now()), facts=(fact,)))


async def booking(world: World, key: str = "b1") -> Any:
    async with world.ledger.reading() as connection:
        return (await facts.bookings(connection, [key]))[key]


async def standing_of(world: World, email: str) -> Standing:
    ((contact_id,),) = await world.rows("SELECT id FROM contact WHERE email = :e", e=email)
    async with world.ledger.reading() as connection:
        return (await standing(connection, [contact_id]))[contact_id]


HISTORIES = [
    ([booked(), said(BookingState.CANCELLED, 1)], BookingState.CANCELLED),
    ([booked(), said(BookingState.MOVED, 1), said(BookingState.CANCELLED, 2)], BookingState.MOVED),
    ([booked(), said(BookingState.CANCELLED, 0)], BookingState.CANCELLED),
    ([said(BookingState.MISSED, 1), said(BookingState.ATTENDED, 2)], BookingState.ATTENDED),
    ([booked(), booked(1, starts=STARTS + timedelta(days=1)), booked(2)], BookingState.BOOKED),
]


@pytest.mark.parametrize(("history", "state"), HISTORIES)
async def test_a_booking__is_the_same_in_every_order_of_arrival(
    world: World, history: list[BookingFact], state: BookingState
) -> None:
    for order in permutations(history):
        await world.run_sql("DELETE FROM booking")
        await tell(world, address(), *order)

        known = await booking(world)

        assert known.state == state, order
        assert known.starts_at in {STARTS, None}


async def test_details__are_kept_from_whoever_said_them_and_the_later_word_counts(world: World) -> None:
    await tell(world, address(), booked(5, title="New"), booked(0, title="Old", zone="America/Toronto"))

    assert (await booking(world)).details == {"title": "New", "zone": "America/Toronto"}


async def test_a_contacts_standing__tells_what_still_stands(world: World) -> None:
    email = address()
    await tell(world, email, booked(), said(BookingState.MISSED, 3, "no-show"))
    await tell(world, email, MilestoneFact(MilestoneKind.PAID, "cs_1", AT + timedelta(hours=1)))

    before = await standing_of(world, email)
    await tell(world, email, said(BookingState.CANCELLED, 9), said(BookingState.ATTENDED, 9, "no-show"))
    after = await standing_of(world, email)

    assert before == Standing(AT, STARTS, AT + timedelta(minutes=3), AT + timedelta(hours=1), None)
    assert after == Standing(None, None, None, AT + timedelta(hours=1), None)


async def test_a_repeat__says_nothing_anew(world: World) -> None:
    email = address()
    arrival = replace(world.arrival(email=email), facts=(booked(),))
    await world.accept(arrival)
    await tell(world, email, said(BookingState.CANCELLED, 1))

    await world.accept(arrival)

    assert (await booking(world)).state == BookingState.CANCELLED
