"""Contacts, the evidence of their consent, and suppressions."""

from __future__ import annotations

from datetime import datetime
from typing import Any
from uuid import UUID, uuid4

from sqlalchemy import func, insert, or_, select, update
from sqlalchemy.dialects.postgresql import insert as pg_insert
from sqlalchemy.ext.asyncio import AsyncConnection

from tidings.ledger.mails import in_order, lock_messages
from tidings.ledger.tables import contact, enrolment, event, message, suppression
from tidings.model import MessageState


async def find_contact(connection: AsyncConnection, email: str) -> Any:
    """A contact by address, or None."""
    rows = await connection.execute(select(contact).where(contact.c.email == email.strip().lower()))
    return rows.one_or_none()


async def of_enrolment(connection: AsyncConnection, enrolment_id: UUID) -> Any:
    """The contact and sequence of an enrolment, or None."""
    rows = await connection.execute(
        select(
            contact.c.id,
            contact.c.email,
            enrolment.c.campaign,
            enrolment.c.sequence,
            enrolment.c.testing_minute,
        )
        .join(contact, contact.c.id == enrolment.c.contact_id)
        .where(enrolment.c.id == enrolment_id)
    )
    return rows.one_or_none()


async def known_contact(connection: AsyncConnection, email: str, now: datetime) -> UUID:
    """The contact with this address, made when there is none: addresses can be suppressed before they are used."""
    address = email.strip().lower()
    await connection.execute(
        pg_insert(contact)
        .values(id=uuid4(), email=address, created_at=now, updated_at=now)
        .on_conflict_do_nothing(index_elements=["email"])
    )
    found = await connection.execute(select(contact.c.id).where(contact.c.email == address))
    return UUID(str(found.scalar_one()))


def _active(now: datetime) -> Any:
    return suppression.c.lifted_at.is_(None) & or_(suppression.c.until.is_(None), suppression.c.until > now)


async def mark_confirmed(connection: AsyncConnection, enrolment_id: UUID, now: datetime) -> bool:
    """Note the click; False when it was noted before."""
    rows = await connection.execute(
        update(enrolment)
        .where(enrolment.c.id == enrolment_id, enrolment.c.confirmed_at.is_(None))
        .values(confirmed_at=now, updated_at=now)
        .returning(enrolment.c.id)
    )
    return rows.first() is not None


async def lock_contact(connection: AsyncConnection, contact_id: UUID) -> None:
    """Two that change what a contact may be sent take turns. Locked before the contact's messages and enrolments."""
    query = select(contact.c.id).where(contact.c.id == contact_id)
    await connection.execute(query.with_for_update(key_share=True))


async def suppress(
    connection: AsyncConnection,
    contact_id: UUID,
    *,
    reason: str,
    source: str,
    now: datetime,
    sequence: str | None = None,
    campaign: str | None = None,
    until: datetime | None = None,
) -> bool:
    """Stop mails to a contact, all or of one series; False when the same source had stopped them as long or longer.

    A series is its campaign's; without `campaign` it is every one of that name.

    Each source's word is on record of its own: a complaint of somebody who had left counts when that is looked at.

    What waits is skipped at once; with an end (`until`) only what comes due before it is, and at its time.
    """
    await lock_contact(connection, contact_id)
    as_long = suppression.c.until.is_(None)
    active = await connection.execute(
        select(suppression.c.id)
        .where(suppression.c.contact_id == contact_id, suppression.c.source == source, _active(now))
        .where(suppression.c.sequence.is_not_distinct_from(sequence))
        .where(or_(suppression.c.campaign.is_(None), suppression.c.campaign == campaign))
        .where(as_long if until is None else or_(as_long, suppression.c.until >= until))
    )
    new = active.first() is None
    if new:
        await connection.execute(
            insert(suppression).values(
                id=uuid4(),
                contact_id=contact_id,
                sequence=sequence,
                campaign=campaign,
                reason=reason,
                source=source,
                created_at=now,
                until=until,
            )
        )
    if until is None:
        theirs = select(enrolment.c.id).where(enrolment.c.contact_id == contact_id)
        theirs = theirs if sequence is None else theirs.where(enrolment.c.sequence == sequence)
        theirs = theirs if campaign is None else theirs.where(enrolment.c.campaign == campaign)
        await _skip_waiting(connection, theirs, reason, now)
    return new


async def lift(
    connection: AsyncConnection, contact_id: UUID, *, reason: str, now: datetime, sequence: str | None = None
) -> int:
    """End the suppressions of a contact, of everything or of one series; returns how many. They stay on record."""
    rows = await connection.execute(
        update(suppression)
        .where(suppression.c.contact_id == contact_id, _active(now))
        .where(suppression.c.sequence.is_not_distinct_from(sequence))
        .values(lifted_at=now, lifted_because=reason)
        .returning(suppression.c.id)
    )
    return len(rows.all())


async def _skip_waiting(connection: AsyncConnection, theirs: Any, reason: str, now: datetime) -> None:
    waiting = message.c.state.in_([MessageState.SCHEDULED, MessageState.HELD])
    ids = await lock_messages(connection, message.c.enrolment_id.in_(theirs), waiting)
    await connection.execute(
        update(message).where(message.c.id.in_(ids)).values(state=MessageState.SKIPPED, reason=reason, updated_at=now)
    )
    await connection.execute(update(enrolment).where(enrolment.c.id.in_(in_order(theirs))).values(updated_at=now))


async def suppressions(connection: AsyncConnection, contact_id: UUID) -> list[Any]:
    """Every suppression of a contact, ended and lifted ones too."""
    rows = await connection.execute(
        select(suppression).where(suppression.c.contact_id == contact_id).order_by(suppression.c.created_at)
    )
    return list(rows.all())


async def list_suppressions(
    connection: AsyncConnection, *, now: datetime, ended: bool = False, limit: int = 1000
) -> list[Any]:
    """Suppressions with their addresses, newest first: those in force, or with `ended` all of them."""
    query = select(suppression, contact.c.email).join(contact, contact.c.id == suppression.c.contact_id)
    if not ended:
        query = query.where(_active(now))
    return list((await connection.execute(query.order_by(suppression.c.created_at.desc()).limit(limit))).all())


async def evidence(connection: AsyncConnection, contact_id: UUID) -> list[Any]:
    """Each enrolment of a contact with the evidence that it might be mailed, and the webhook's body as it was sent."""
    rows = await connection.execute(
        select(
            enrolment,
            event.c.source,
            event.c.body,
            event.c.received_at,
            func.count(message.c.provider_id).label("mails"),
        )
        .join(event, event.c.id == enrolment.c.event_id)
        .outerjoin(message, message.c.enrolment_id == enrolment.c.id)
        .where(enrolment.c.contact_id == contact_id)
        .group_by(enrolment.c.id, event.c.id)
        .order_by(event.c.received_at)
    )
    return list(rows.all())


async def events_of(connection: AsyncConnection, contact_id: UUID) -> list[Any]:
    """Every event of a contact, oldest first."""
    rows = await connection.execute(select(event).where(event.c.contact_id == contact_id).order_by(event.c.received_at))
    return list(rows.all())
