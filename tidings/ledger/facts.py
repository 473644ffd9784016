"""Bookings, payments and signatures: what senders said of them, right in whatever order it was said."""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import func, select, text, update
from sqlalchemy.ext.asyncio import AsyncConnection

from tidings.ledger.mails import touch_enrolments
from tidings.ledger.tables import booking, enrolment, message, milestone
from tidings.model import (
    Arrival,
    Booking,
    BookingFact,
    BookingState,
    MessageState,
    Milestone,
    MilestoneFact,
    MilestoneKind,
)

# The later word counts, whichever came first; a booking that was moved stays moved, and a cancellation of the very
# same moment outweighs.
_BOOKING = text("""
INSERT INTO booking AS b (key, contact_id, state, starts_at, details, booked_at, said_at)
VALUES (:key, :contact_id, :state, :starts_at, CAST(:details AS jsonb), :booked_at, :said_at)
ON CONFLICT (key) DO UPDATE SET
    state = CASE WHEN b.state = 'moved' THEN b.state
                 WHEN excluded.state = 'moved' THEN excluded.state
                 WHEN excluded.said_at < b.said_at THEN b.state
                 WHEN excluded.said_at = b.said_at AND b.state = 'cancelled' THEN b.state
                 ELSE excluded.state END,
    starts_at = CASE WHEN excluded.said_at < b.said_at THEN coalesce(b.starts_at, excluded.starts_at)
                     ELSE coalesce(excluded.starts_at, b.starts_at) END,
    details = CASE WHEN excluded.said_at < b.said_at THEN excluded.details || b.details
                   ELSE b.details || excluded.details END,
    booked_at = least(b.booked_at, excluded.booked_at),
    said_at = greatest(b.said_at, excluded.said_at)
""")

_MILESTONE = text("""
INSERT INTO milestone (kind, key, contact_id, at, details)
VALUES (:kind, :key, :contact_id, :at, CAST(:details AS jsonb))
ON CONFLICT (kind, key) DO NOTHING
""")


async def record(connection: AsyncConnection, said: Sequence[tuple[Arrival, UUID]]) -> None:
    """Store what new events say, each with the contact that it is about; what ends with it ends at once."""
    bookings = [(f, a, c) for a, c in said for f in a.facts if isinstance(f, BookingFact)]
    milestones = [(f, a, c) for a, c in said for f in a.facts if isinstance(f, MilestoneFact)]
    if bookings:
        # In the order of their keys, so that two groups with the same bookings cannot wait for each other.
        rows = sorted((_booking_row(f, a, c) for f, a, c in bookings), key=lambda row: str(row["key"]))
        await connection.execute(_BOOKING, rows)
    if milestones:
        rows = sorted((_milestone_row(f, a, c) for f, a, c in milestones), key=lambda row: str(row["key"]))
        await connection.execute(_MILESTONE, rows)
    ending = [(f, a, *end) for f, a, _ in sorted(bookings, key=lambda one: one[0].key) for end in f.ends.items()]
    # All messages before any enrolment, as everybody locks them.
    touched = [await _end(connection, *one) for one in ending]
    if ending:
        await touch_enrolments(connection, set().union(*touched), max(a.received_at for _, a, *_ in ending))


def _booking_row(fact: BookingFact, arrival: Arrival, contact_id: UUID) -> dict[str, Any]:
    said_at = fact.said_at or arrival.received_at
    return {
        "key": fact.key,
        "contact_id": contact_id,
        "state": fact.state.value,
        "starts_at": fact.starts_at,
        "details": json.dumps(dict(fact.details)),
        "booked_at": said_at if fact.state is BookingState.BOOKED else None,
        "said_at": said_at,
    }


def _milestone_row(fact: MilestoneFact, arrival: Arrival, contact_id: UUID) -> dict[str, Any]:
    return {
        "kind": fact.kind.value,
        "key": fact.key,
        "contact_id": contact_id,
        "at": fact.at or arrival.received_at,
        "details": json.dumps(dict(fact.details)),
    }


async def _end(
    connection: AsyncConnection, fact: BookingFact, arrival: Arrival, sequence: str, reason: str
) -> set[UUID]:
    """Cancel what still waits about this booking, unless something later was said of it; returns whose mails."""
    still_so = select(booking.c.key).where(booking.c.key == fact.key, booking.c.state == fact.state).exists()
    theirs = select(enrolment.c.id).where(
        enrolment.c.campaign == arrival.campaign, enrolment.c.sequence == sequence, enrolment.c.booking == fact.key
    )
    rows = await connection.execute(
        update(message)
        .where(message.c.enrolment_id.in_(theirs), message.c.state == MessageState.SCHEDULED, still_so)
        .values(state=MessageState.CANCELLED, reason=reason, updated_at=func.now())
        .returning(message.c.enrolment_id)
    )
    return set(rows.scalars().all())


async def bookings(connection: AsyncConnection, keys: Sequence[str], *, lock: bool = False) -> dict[str, Booking]:
    """Bookings by key. Locked, nobody can say anything new of them before this transaction ends."""
    if not keys:
        return {}
    query = select(booking).where(booking.c.key.in_(keys)).order_by(booking.c.key)
    rows = await connection.execute(query.with_for_update() if lock else query)
    return {row.key: Booking(row.key, BookingState(row.state), row.said_at, row.starts_at, row.details) for row in rows}


async def milestones(
    connection: AsyncConnection, contact_ids: Sequence[UUID], *, lock: bool = False
) -> dict[UUID, list[Milestone]]:
    """Each contact's payments and signatures, oldest first. Locked, nobody else can use them meanwhile."""
    if not contact_ids:
        return {}
    query = select(milestone).where(milestone.c.contact_id.in_(contact_ids))
    query = query.order_by(milestone.c.at, milestone.c.key, milestone.c.kind)
    rows = await connection.execute(query.with_for_update() if lock else query)
    found: dict[UUID, list[Milestone]] = {}
    for row in rows:
        one = Milestone(MilestoneKind(row.kind), row.key, row.at, row.details, row.used_at)
        found.setdefault(row.contact_id, []).append(one)
    return found


async def known_milestones(connection: AsyncConnection, keys: Sequence[str]) -> set[tuple[MilestoneKind, str]]:
    """Payments and signatures by key, whoever's they are."""
    rows = await connection.execute(select(milestone.c.kind, milestone.c.key).where(milestone.c.key.in_(keys)))
    return {(MilestoneKind(row.kind), row.key) for row in rows}


async def use_milestones(connection: AsyncConnection, contact_ids: Sequence[UUID], now: datetime) -> None:
    """Payments and signatures of these contacts have had their effect: none of them starts anything again."""
    if contact_ids:
        await connection.execute(
            update(milestone)
            .where(milestone.c.contact_id.in_(contact_ids), milestone.c.used_at.is_(None))
            .values(used_at=now)
        )
