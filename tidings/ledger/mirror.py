"""Rows whose copy in Notion is out of date."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import ColumnElement, Table, and_, select, text, update
from sqlalchemy.ext.asyncio import AsyncConnection

from tidings.ledger.tables import contact, enrolment, message
from tidings.model import ASKING, FINAL_STATES, INTERNAL, MessageState

#: Canaries are not shown.
OF_PEOPLE = ~contact.c.attributes.has_key(INTERNAL)
#: A mail that still waits has no row. In the words of the index, which PostgreSQL would not know behind parameters.
_DONE = text("message.state <> 'scheduled' AND message.state NOT IN ('sending', 'held')")
_LEFT = {MessageState.SENT, MessageState.DELIVERED, MessageState.BOUNCED, MessageState.COMPLAINED}


@dataclass(frozen=True, slots=True)
class Row:
    """A row as Notion should show it."""

    id: UUID
    notion_page_id: str | None
    updated_at: datetime
    values: Mapping[str, Any]


@dataclass(frozen=True)
class Kind:
    """One kind of row: the setting's field that names its database, and how to read rows that meet a condition."""

    name: str
    field: str
    table: Table
    read: Callable[[AsyncConnection, ColumnElement[bool], int, Any], Awaitable[list[Row]]]

    async def changed(self, connection: AsyncConnection, limit: int) -> list[Row]:
        """Rows that Notion shows out of date, oldest change first."""
        behind = self.table.c.mirrored_at.is_distinct_from(self.table.c.updated_at)
        return await self.read(connection, behind, limit, self.table.c.updated_at)

    async def shown(self, connection: AsyncConnection, since: datetime, until: datetime, limit: int) -> list[Row]:
        """Rows that last changed in this time and that Notion should show as they are, newest first."""
        table = self.table.c
        up_to_date = and_(table.updated_at.between(since, until), table.mirrored_at == table.updated_at)
        return await self.read(connection, up_to_date, limit, table.updated_at.desc())

    async def write_again(self, connection: AsyncConnection, rows: Sequence[Row], *, on_a_new_page: bool) -> None:
        """Have the mirror write these rows once more, unless they have changed meanwhile, when it does so anyway."""
        page = {"notion_page_id": None} if on_a_new_page else {}
        for row in rows:
            await connection.execute(
                update(self.table)
                .where(self.table.c.id == row.id, self.table.c.updated_at == row.updated_at)
                .values(mirrored_at=None, **page)
            )

    async def mirrored(self, connection: AsyncConnection, row_id: UUID, page: str, updated_at: datetime) -> None:
        """Note that Notion shows the row as it was at `updated_at`; a change meanwhile is written next time."""
        await connection.execute(
            update(self.table).where(self.table.c.id == row_id).values(notion_page_id=page, mirrored_at=updated_at)
        )


async def _contacts(connection: AsyncConnection, which: ColumnElement[bool], limit: int, order: Any) -> list[Row]:
    rows = await connection.execute(select(contact).where(OF_PEOPLE, which).order_by(order).limit(limit))
    return [Row(r.id, r.notion_page_id, r.updated_at, _contact_values(r)) for r in rows]


def _contact_values(row: Any) -> dict[str, Any]:
    known = row.attributes
    return {
        "Name": known.get("name") or row.first_name or row.email,
        "email": row.email,
        "Business Name": row.business_name,
        "Assessment Score": known.get("assessment_score"),
        "Segment": known.get("segment"),
        "Phase": known.get("phase"),
        "Booking Status": known.get("booking_status"),
        "Diagnostic Call Date": known.get("diagnostic_call_date"),
    }


async def _enrolments(connection: AsyncConnection, which: ColumnElement[bool], limit: int, order: Any) -> list[Row]:
    rows = (
        await connection.execute(
            select(enrolment, contact.c.email)
            .join(contact, contact.c.id == enrolment.c.contact_id)
            .where(OF_PEOPLE, which)
            .order_by(order)
            .limit(limit)
        )
    ).all()
    theirs = await connection.execute(
        select(message.c.enrolment_id, message.c.position, message.c.state, message.c.sent_at).where(
            message.c.enrolment_id.in_([r.id for r in rows])
        )
    )
    messages: dict[UUID, list[Any]] = {}
    for each in theirs:
        messages.setdefault(each.enrolment_id, []).append(each)
    return [Row(r.id, r.notion_page_id, r.updated_at, _enrolment_values(r, messages.get(r.id, []))) for r in rows]


def _enrolment_values(row: Any, messages: Sequence[Any]) -> dict[str, Any]:
    return {
        "Email": row.email,
        "First Name": row.variables.get("first_name"),
        "Business Name": row.variables.get("business_name"),
        "Campaign": row.campaign,
        "Template Type": row.sequence,
        "Segment": row.segment,
        "Assessment Score": row.variables.get("assessment_score"),
        "Signup Date": row.created_at,
        **{
            f"Email {m.position} Sent": m.sent_at if m.state in _LEFT else None
            for m in messages
            if m.position != ASKING
        },
        "Sequence Completed": all(m.state in FINAL_STATES or m.state in _LEFT for m in messages),
    }


async def _messages(connection: AsyncConnection, which: ColumnElement[bool], limit: int, order: Any) -> list[Row]:
    """One row a send: messages that still wait have none."""
    rows = await connection.execute(
        select(message, contact.c.email)
        .join(enrolment, enrolment.c.id == message.c.enrolment_id)
        .join(contact, contact.c.id == enrolment.c.contact_id)
        .where(OF_PEOPLE)
        .where(_DONE)
        .where(which)
        .order_by(order)
        .limit(limit)
    )
    return [Row(r.id, r.notion_page_id, r.updated_at, _message_values(r)) for r in rows]


def _message_values(row: Any) -> dict[str, Any]:
    return {
        "Template ID": row.template,
        "Email": row.email,
        "Email Number": row.position,
        "Status": row.state,
        "Sent Date": row.sent_at,
        "Resend Email ID": row.provider_id,
        "Error Message": row.reason,
    }


KINDS = (
    Kind("contacts", "notion_contacts_db_id", contact, _contacts),
    Kind("enrolments", "notion_email_sequence_db_id", enrolment, _enrolments),
    Kind("messages", "notion_email_analytics_db_id", message, _messages),
)


async def waiting(connection: AsyncConnection, most: int) -> int:
    """How many rows Notion shows out of date; no more than `most` of each kind are counted."""
    return sum([len(await kind.changed(connection, most)) for kind in KINDS])
