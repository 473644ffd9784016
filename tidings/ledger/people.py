"""Contacts, and who may not be mailed."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any
from uuid import UUID, uuid4

from sqlalchemy import and_, insert, or_, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from tidings.ledger.mails import in_order
from tidings.ledger.tables import contact, enrolment, event, message, suppression
from tidings.model import MessageState


async def stopped(connection: AsyncConnection, message_ids: Sequence[UUID]) -> dict[UUID, str]:
    """Of these messages, those whose contact may not be mailed any more, each with the reason."""
    rows = await connection.execute(
        select(message.c.id, suppression.c.reason)
        .join(enrolment, enrolment.c.id == message.c.enrolment_id)
        .join(
            suppression,
            and_(
                suppression.c.contact_id == enrolment.c.contact_id,
                suppression.c.lifted_at.is_(None),
                or_(suppression.c.sequence.is_(None), suppression.c.sequence == enrolment.c.sequence),
            ),
        )
        .where(message.c.id.in_(message_ids))
    )
    return {row.id: row.reason for row in rows}


async def find_contact(connection: AsyncConnection, email: str) -> Any:
    """A contact by address, or None."""
    rows = await connection.execute(select(contact).where(contact.c.email == email.strip().lower()))
    return rows.one_or_none()


async def of_enrolment(connection: AsyncConnection, enrolment_id: UUID) -> Any:
    """The contact and sequence of an enrolment, or None."""
    rows = await connection.execute(
        select(contact.c.id, contact.c.email, enrolment.c.campaign, enrolment.c.sequence)
        .join(contact, contact.c.id == enrolment.c.contact_id)
        .where(enrolment.c.id == enrolment_id)
    )
    return rows.one_or_none()


async def suppress(
    connection: AsyncConnection,
    contact_id: UUID,
    *,
    reason: str,
    source: str,
    now: datetime,
    sequence: str | None = None,
) -> None:
    """Stop mails to a contact, all or of one series; what waits is skipped. A repeat changes nothing."""
    active = await connection.execute(
        select(suppression.c.id)
        .where(suppression.c.contact_id == contact_id, suppression.c.lifted_at.is_(None))
        .where(suppression.c.sequence.is_not_distinct_from(sequence))
    )
    if active.first() is None:
        await connection.execute(
            insert(suppression).values(
                id=uuid4(),
                contact_id=contact_id,
                sequence=sequence,
                reason=reason,
                source=source,
                created_at=now,
            )
        )
    await _skip_waiting(connection, contact_id, sequence, reason, now)


async def _skip_waiting(
    connection: AsyncConnection, contact_id: UUID, sequence: str | None, reason: str, now: datetime
) -> None:
    theirs = select(enrolment.c.id).where(enrolment.c.contact_id == contact_id)
    if sequence is not None:
        theirs = theirs.where(enrolment.c.sequence == sequence)
    await connection.execute(
        update(message)
        .where(message.c.enrolment_id.in_(theirs), message.c.state == MessageState.SCHEDULED)
        .values(state=MessageState.SKIPPED, reason=reason, updated_at=now)
    )
    await connection.execute(update(enrolment).where(enrolment.c.id.in_(in_order(theirs))).values(updated_at=now))


async def suppressions(connection: AsyncConnection, contact_id: UUID) -> list[Any]:
    """Every suppression of a contact, lifted ones too."""
    rows = await connection.execute(
        select(suppression).where(suppression.c.contact_id == contact_id).order_by(suppression.c.created_at)
    )
    return list(rows.all())


async def events_of(connection: AsyncConnection, contact_id: UUID) -> list[Any]:
    """Every event of a contact, oldest first."""
    rows = await connection.execute(select(event).where(event.c.contact_id == contact_id).order_by(event.c.received_at))
    return list(rows.all())
