"""What a body means together with what is known already: of its booking, of payments and signatures.

Senders say these things in several webhooks, in any order; what comes of them is the same.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncConnection

from tidings.campaign import Campaigns, Known, NotYet, Payload
from tidings.errors import Refused
from tidings.ledger import Ledger, facts, mails
from tidings.model import OVER, Booking, BookingState, Event, Milestone, Plan
from tidings.ports import Calendar


async def understand(
    ledger: Ledger, calendar: Calendar | None, campaigns: Campaigns, events: Sequence[Event]
) -> tuple[dict[UUID, Payload], dict[UUID, str], dict[UUID, str]]:
    """Each event's body joined with what is known; or why it failed; or why it starts nothing now."""
    payloads: dict[UUID, Payload] = {}
    failed: dict[UUID, str] = {}
    settled: dict[UUID, str] = {}
    for event in events:
        try:
            payloads[event.id] = campaigns[event.campaign].webhook(event.source).read_part(event.body, event.email)
        except ValueError as error:  # pydantic's, of a body that an earlier version had taken for valid
            failed[event.id] = str(error)
    bookings, milestones = await _look_up(ledger, events, payloads)
    for event in events:
        payload = payloads.pop(event.id, None)
        if payload is None:
            continue
        try:
            booking = await _booking(calendar, payload.looks_up(), bookings)
            theirs = milestones.get(event.contact_id, []) if event.contact_id else []
            payloads[event.id] = payload.joined(Known(booking, tuple(theirs)))
        except NotYet as reason:
            settled[event.id] = str(reason)
        except Refused as error:
            failed[event.id] = str(error)
    return payloads, failed, settled


async def _look_up(
    ledger: Ledger, events: Sequence[Event], payloads: Mapping[UUID, Payload]
) -> tuple[dict[str, Booking], dict[UUID, list[Milestone]]]:
    """What the ledger knows of these bodies' bookings and contacts; nothing is asked where no body wants to know."""
    keys = sorted({key for payload in payloads.values() if (key := payload.looks_up())})
    counting = {e.contact_id for e in events if e.id in payloads and payloads[e.id].counts_milestones()}
    contacts = sorted(contact for contact in counting if contact is not None)
    if not keys and not contacts:
        return {}, {}
    async with ledger.reading() as connection:
        return await facts.bookings(connection, keys), await facts.milestones(connection, contacts)


async def _booking(calendar: Calendar | None, key: str | None, stored: Mapping[str, Booking]) -> Booking | None:
    """What was stored of a booking; what the calendar says when that has no time; or None."""
    if key is None:
        return None
    known = stored.get(key)
    if (known is not None and known.starts_at is not None) or calendar is None:
        return known
    return await calendar.booking(key) or known


async def not_started(
    connection: AsyncConnection, campaigns: Campaigns, events: Sequence[Event], plans: Sequence[Plan], now: datetime
) -> tuple[list[Plan], dict[UUID, str]]:
    """The plans that are still to start; and for the others, whose purchase another plan has started, the reason.

    Several senders tell of one purchase, under dates of their own. What they told is locked, so that two runs cannot
    both start with it.
    """
    counting = {plan.contact_id for plan in plans if plan.counts_milestones}
    if not counting:
        return list(plans), {}
    said = await facts.milestones(connection, sorted(counting), lock=True)
    bodies = {event.id: event for event in events}
    left: list[Plan] = []
    settled: dict[UUID, str] = {}
    for plan in plans:
        if plan.counts_milestones:
            event, theirs = bodies[plan.event_id], said.get(plan.contact_id, [])
            body = campaigns[event.campaign].webhook(event.source).read_part(event.body, event.email)
            try:
                body.joined(Known(None, tuple(theirs)))
            except NotYet as reason:
                settled[plan.event_id] = str(reason)
                continue
            said[plan.contact_id] = [replace(m, used_at=m.used_at or now) for m in theirs]
        left.append(plan)
    return left, settled


async def follow_bookings(
    connection: AsyncConnection, plans: Sequence[Plan], now: datetime
) -> tuple[list[Plan], dict[UUID, str]]:
    """The plans that are to be enrolled; and for the others what became of them.

    A sequence about a booking that is over does not start, whichever was heard first; and one that runs for the
    booking's old time moves to the new one. The bookings are locked, so that nobody calls one off meanwhile.
    """
    about = sorted({key for plan in plans for key in (plan.booking, plan.follows) if key})
    if not about:
        return list(plans), {}
    standing = await facts.bookings(connection, about, lock=True)
    left: list[Plan] = []
    moves: dict[UUID, Plan] = {}
    settled: dict[UUID, str] = {}
    for plan in plans:
        booking = standing.get(plan.booking or "")
        if reason := _over(plan, booking):
            settled[plan.event_id] = reason
        elif (running := await _to_move(connection, plan, booking)) is not None:
            moves[running] = plan
            settled[plan.event_id] = f"the mails moved to {plan.anchor:%Y-%m-%d %H:%M} UTC"
        else:
            left.append(plan)
    await mails.move(connection, moves, now)
    return left, settled


def _over(plan: Plan, booking: Booking | None) -> str | None:
    if booking is None:
        return None
    if booking.state is BookingState.BOOKED and plan.said_at is not None and plan.said_at < booking.said_at:
        return "a later change of this booking is known"
    return OVER.get(booking.state)


async def _to_move(connection: AsyncConnection, plan: Plan, booking: Booking | None) -> UUID | None:
    """The enrolment that runs for this booking, or for the one before it, at another time; None: there is none."""
    if booking is None or booking.state is not BookingState.BOOKED:
        return None
    running = await mails.enrolment_about(connection, plan)
    if running is None or (running.booking == plan.booking and running.anchor == plan.anchor):
        return None
    enrolment_id: UUID = running.id
    return enrolment_id
