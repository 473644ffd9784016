"""Which handler runs were asked for lately, and which are still open for events."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from uuid import UUID

from sqlalchemy import func, insert, select
from sqlalchemy.ext.asyncio import AsyncConnection

from tidings.ledger.mails import from_now
from tidings.ledger.tables import dispatch

#: A gathering with less time left than this is not joined any more, in seconds.
TOO_LATE = 0.3


@dataclass(frozen=True, slots=True)
class Open:
    """A gathering of some process, and for how long it is open by the database's clock."""

    id: UUID
    seconds_left: float


async def look(connection: AsyncConnection, deployment: str, period: timedelta, enough: int) -> tuple[Open | None, int]:
    """The open gathering of a deployment, and how many runs it got in this period, counted up to `enough`."""
    left = func.extract("epoch", dispatch.c.closes_at - func.clock_timestamp())
    row = (
        await connection.execute(
            select(dispatch.c.id, left.label("left"))
            .where(dispatch.c.deployment == deployment, dispatch.c.closes_at > func.now())
            .order_by(dispatch.c.closes_at.desc())
            .limit(1)
        )
    ).one_or_none()
    lately = (
        select(dispatch.c.id)
        .where(dispatch.c.deployment == deployment, dispatch.c.created_at > from_now(-period.total_seconds()))
        .limit(enough)
    )
    count = (await connection.execute(select(func.count()).select_from(lately.subquery()))).scalar_one()
    known = Open(row.id, float(row.left) - TOO_LATE) if row and row.left > TOO_LATE else None
    return known, int(count)


async def add(connection: AsyncConnection, dispatch_id: UUID, deployment: str, seconds: float | None) -> None:
    """Note a dispatch; one with `seconds` is open for events for that long."""
    await connection.execute(
        insert(dispatch).values(
            id=dispatch_id,
            deployment=deployment,
            created_at=func.now(),
            closes_at=None if seconds is None else from_now(seconds),
        )
    )
