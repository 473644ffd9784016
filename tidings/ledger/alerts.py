"""Alerts: one open row for everything that is wrong now, and the history of what was."""

from __future__ import annotations

from collections.abc import Collection
from datetime import datetime
from uuid import uuid4

from sqlalchemy import func, literal, select, update
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncConnection

from tidings.ledger.tables import alert


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
