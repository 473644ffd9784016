"""Which handler runs were asked for lately, and which are still open for events."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from uuid import UUID

from sqlalchemy import func, insert, select
from sqlalchemy.ext.asyncio import AsyncConnection

from tidings.ledger.mails import from_now
from tidings.ledger.tables import dispatch, event

#: A gathering with less time left than this is not joined any more, in seconds.
TOO_LATE = 0.3


@dataclass(frozen=True, slots=True)
class Open:
    """A gathering of some process, and for how long it is open by the database's clock."""

    id: UUID
    seconds_left: float


@dataclass(frozen=True, slots=True)
class Pressure:
    """How busy Prefect is with a deployment, each counted up to a limit."""

    #: Runs asked for in the period.
    recent: int
    #: Runs that have not handled their events yet.
    waiting: int


async def find_open(connection: AsyncConnection, deployment: str) -> Open | None:
    """The open gathering of a deployment, if there is one."""
    left = func.extract("epoch", dispatch.c.closes_at - func.clock_timestamp())
    row = (
        await connection.execute(
            select(dispatch.c.id, left.label("left"))
            .where(dispatch.c.deployment == deployment, dispatch.c.closes_at > func.now())
            .order_by(dispatch.c.closes_at.desc())
            .limit(1)
        )
    ).one_or_none()
    return Open(row.id, float(row.left) - TOO_LATE) if row and row.left > TOO_LATE else None


async def pressure(
    connection: AsyncConnection, deployment: str, *, period: timedelta, recent: int, waiting: int
) -> Pressure:
    """How busy Prefect is with a deployment; `recent` and `waiting` are how far it is worth counting."""
    lately = (
        select(dispatch.c.id)
        .where(dispatch.c.deployment == deployment, dispatch.c.created_at > from_now(-period.total_seconds()))
        .limit(recent)
    )
    unhandled = (
        select(event.c.dispatch_id)
        .where(event.c.deployment == deployment, event.c.state.in_(["accepted", "dispatched"]))
        .distinct()
        .limit(waiting)
    )
    counts = select(
        select(func.count()).select_from(lately.subquery()).scalar_subquery(),
        select(func.count()).select_from(unhandled.subquery()).scalar_subquery(),
    )
    row = (await connection.execute(counts)).one()
    return Pressure(int(row[0]), int(row[1]))


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
