"""How far contacts have come, as the ledger's bookings and milestones say: for tests to look at."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection


@dataclass(frozen=True, slots=True)
class Standing:
    """How far a contact has come. Times are the senders'; None: not so far as anybody has said."""

    #: When the latest booking that still stands was made (not cancelled, not moved to another), and its start.
    booked_at: datetime | None
    booked_for: datetime | None
    #: When the latest no-show was reported that was not taken back.
    missed_at: datetime | None
    paid_at: datetime | None
    signed_at: datetime | None


_STANDING = text("""
SELECT c.id,
    b.booked_at, b.starts_at AS booked_for,
    (SELECT max(m.said_at) FROM booking m WHERE m.contact_id = c.id AND m.state = 'missed') AS missed_at,
    (SELECT max(m.at) FROM milestone m WHERE m.contact_id = c.id AND m.kind = 'paid') AS paid_at,
    (SELECT max(m.at) FROM milestone m WHERE m.contact_id = c.id AND m.kind = 'signed') AS signed_at
FROM unnest(CAST(:ids AS uuid[])) AS c (id)
LEFT JOIN LATERAL (SELECT booked_at, starts_at FROM booking
                   WHERE contact_id = c.id AND state = 'booked' AND booked_at IS NOT NULL
                   ORDER BY booked_at DESC LIMIT 1) b ON true
""")


async def standing(connection: AsyncConnection, contact_ids: Sequence[UUID]) -> Mapping[UUID, Standing]:
    """How far each of these contacts has come, by one statement for all of them."""
    rows = await connection.execute(_STANDING, {"ids": list(contact_ids)})
    return {row.id: Standing(row.booked_at, row.booked_for, row.missed_at, row.paid_at, row.signed_at) for row in rows}
