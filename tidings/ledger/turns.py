"""Turns at a service whose limit all workers share, handed out by the clock that they share."""

from __future__ import annotations

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

#: Nobody is told to wait longer: a time further ahead than this was written by a clock that has since been set back.
LONGEST_SECONDS = 30.0

_TAKE = text("""
INSERT INTO memo AS t (key, value, updated_at)
VALUES (:key, CAST(extract(epoch FROM clock_timestamp()) + CAST(:gap AS float8) AS text), now())
ON CONFLICT (key) DO UPDATE SET
    value = CAST(least(greatest(CAST(t.value AS float8), extract(epoch FROM clock_timestamp())),
                       extract(epoch FROM clock_timestamp()) + CAST(:longest AS float8))
                 + CAST(:gap AS float8) AS text),
    updated_at = now()
RETURNING CAST(value AS float8) - CAST(:gap AS float8) - extract(epoch FROM clock_timestamp()) AS wait
""")


async def take(connection: AsyncConnection, name: str, gap: float) -> float:
    """The next turn, `gap` seconds after the one before it; returns in how many seconds it comes."""
    rows = await connection.execute(_TAKE, {"key": f"turn:{name}", "gap": gap, "longest": LONGEST_SECONDS})
    return max(0.0, float(rows.scalar_one()))
