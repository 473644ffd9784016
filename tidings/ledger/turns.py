"""Turns at a service whose limit all workers share, handed out by the clock that they share."""

from __future__ import annotations

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

#: Nobody is told to wait longer: a time further ahead than this was written by a clock that has since been set back.
LONGEST_SECONDS = 60.0
#: Turns that were missed are made up for, but no closer to each other than this part of the even gap.
CLOSEST = 0.3

# The row holds the times of the last turns, as many as fit into a window. The next one comes when the first of them is
# a window ago.
_TAKE = text("""
INSERT INTO memo AS t (key, value, updated_at)
VALUES (:key, CAST(ARRAY[CAST(extract(epoch FROM clock_timestamp()) AS float8)] AS text), now())
ON CONFLICT (key) DO UPDATE SET
    value = (
        SELECT CAST(taken[greatest(1, cardinality(taken) - :turns + 2):] || least(
            greatest(clock, taken[cardinality(taken)] + :closest,
                     CASE WHEN cardinality(taken) >= :turns
                          THEN taken[cardinality(taken) - :turns + 1] + CAST(:window AS float8) END),
            clock + :longest) AS text)
        FROM (SELECT CAST(t.value AS float8[]) AS taken,
                     CAST(extract(epoch FROM clock_timestamp()) AS float8) AS clock) AS before
    ),
    updated_at = now()
RETURNING (CAST(value AS float8[]))[cardinality(CAST(value AS float8[]))]
          - CAST(extract(epoch FROM clock_timestamp()) AS float8) AS wait
""")

# As if the last turn were so many seconds ahead: all that are given out from now on come after it.
_REST = text("""
INSERT INTO memo AS t (key, value, updated_at)
VALUES (:key, CAST(ARRAY[CAST(extract(epoch FROM clock_timestamp()) AS float8) + :seconds] AS text), now())
ON CONFLICT (key) DO UPDATE SET
    value = CAST(CAST(t.value AS float8[]) || CAST(excluded.value AS float8[]) AS text), updated_at = now()
WHERE (CAST(t.value AS float8[]))[cardinality(CAST(t.value AS float8[]))] < (CAST(excluded.value AS float8[]))[1]
""")


async def take(connection: AsyncConnection, name: str, *, turns: int, window: float) -> float:
    """The next turn, so that there are at most `turns` in any `window` seconds; returns in how many seconds it comes.

    Turns come evenly, one behind the other; after a pause those that were missed come closer together.
    """
    even = window / turns
    rows = await connection.execute(
        _TAKE,
        {"key": f"turns:{name}", "turns": turns, "window": window, "closest": even * CLOSEST,
         "longest": LONGEST_SECONDS},
    )  # fmt: skip
    return max(0.0, float(rows.scalar_one()))


async def rest(connection: AsyncConnection, name: str, *, seconds: float) -> None:
    """Give out no turn before so many seconds have passed; LONGEST_SECONDS at most are kept."""
    await connection.execute(_REST, {"key": f"turns:{name}", "seconds": seconds})
