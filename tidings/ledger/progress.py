"""How far an event has come: its own state and those of its mails, in one statement by indexes."""

from __future__ import annotations

from typing import Any
from uuid import UUID

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

_ROWS = text("""
SELECT e.state AS event_state, e.reason AS event_reason, m.state, m.due_at, m.sent_at
FROM event e LEFT JOIN enrolment n ON n.event_id = e.id LEFT JOIN message m ON m.enrolment_id = n.id
WHERE e.id = :id ORDER BY m.position
""")


async def rows(connection: AsyncConnection, event_id: UUID) -> list[Any]:
    """One row a mail, in order, or one without a mail; none for an event that is not known."""
    return list(await connection.execute(_ROWS, {"id": event_id}))
