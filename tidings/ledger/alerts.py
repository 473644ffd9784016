"""Alerts: one open row for everything that is wrong now, and the history of what was."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from datetime import datetime
from typing import Any
from uuid import UUID, uuid4

from sqlalchemy import and_, func, literal, or_, select, update
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncConnection

from tidings.ledger.tables import alert

#: Any fixed numbers: who holds the first looks at everything, who holds the second tells.
WATCHING, TELLING = 7_201_230, 7_201_231


async def seen(
    connection: AsyncConnection, *, key: str, kind: str, title: str, body: str, lasting: bool, now: datetime
) -> None:
    """Open an alert, or say of an open one that it is still so. What does not last is written once for its key."""
    values = {"id": uuid4(), "key": key, "kind": kind, "title": title, "body": body, "opened_at": now, "seen_at": now}
    if lasting:
        new = insert(alert).values(**values)
        await connection.execute(
            new.on_conflict_do_update(
                index_elements=["key"],
                index_where=alert.c.recovered_at.is_(None),
                set_={"title": title, "body": body, "seen_at": now, "times": alert.c.times + 1},
            )
        )
        return
    # Two processes may see it at the same moment.
    await connection.execute(select(func.pg_advisory_xact_lock(func.hashtextextended(key, 0))))
    values |= {"recovered_at": now, "recovery_told_at": now}
    known = select(alert.c.id).where(alert.c.key == key).exists()
    row = select(*[literal(value, alert.c[name].type) for name, value in values.items()]).where(~known)
    await connection.execute(insert(alert).from_select(list(values), row))


async def happened(connection: AsyncConnection, kind: str, rows: Sequence[Mapping[str, str]], now: datetime) -> None:
    """What is not over later and was never seen before: key, title and body of each."""
    if rows:
        same = {"kind": kind, "opened_at": now, "seen_at": now, "recovered_at": now, "recovery_told_at": now}
        await connection.execute(insert(alert).values([{"id": uuid4(), **row, **same} for row in rows]))


async def over(
    connection: AsyncConnection,
    kinds: Collection[str],
    still: Collection[str],
    now: datetime,
    *,
    unknown: Collection[str] = (),
) -> None:
    """Close the open alerts of these kinds, but for those whose keys are `still` so or begin with what is `unknown`."""
    await connection.execute(
        update(alert)
        .where(alert.c.recovered_at.is_(None), alert.c.kind.in_(kinds), alert.c.key.not_in(still))
        .where(*[~alert.c.key.startswith(beginning, autoescape=True) for beginning in unknown])
        .values(recovered_at=now)
    )


async def untold(connection: AsyncConnection) -> list[Any]:
    """Alerts that nobody was told of and that are not over; what does not last stays to be told. Oldest first."""
    lasts_still = alert.c.recovered_at.is_(None)
    happened = alert.c.recovery_told_at.is_not(None)
    return await _listed(connection, and_(alert.c.told_at.is_(None), or_(lasts_still, happened)))


async def untold_recoveries(connection: AsyncConnection) -> list[Any]:
    """Alerts that somebody was told of, and that are over without anybody having been told. Oldest first."""
    over_now = and_(alert.c.recovered_at.is_not(None), alert.c.recovery_told_at.is_(None))
    return await _listed(connection, and_(over_now, alert.c.told_at.is_not(None)))


async def told(connection: AsyncConnection, ids: Sequence[UUID], now: datetime) -> None:
    """A channel took these alerts."""
    await connection.execute(update(alert).where(alert.c.id.in_(ids)).values(told_at=now))


async def recovery_told(connection: AsyncConnection, ids: Sequence[UUID], now: datetime) -> None:
    """A channel took that these alerts are over."""
    await connection.execute(update(alert).where(alert.c.id.in_(ids)).values(recovery_told_at=now))


async def listed(connection: AsyncConnection, *, history: bool, limit: int) -> list[Any]:
    """Open alerts, or all that there were, newest first."""
    wanted = select(alert).order_by(alert.c.opened_at.desc()).limit(limit)
    return list((await connection.execute(wanted if history else wanted.where(alert.c.recovered_at.is_(None)))).all())


async def _listed(connection: AsyncConnection, condition: Any) -> list[Any]:
    return list(
        (await connection.execute(select(alert).where(condition).order_by(alert.c.opened_at, alert.c.key))).all()
    )
