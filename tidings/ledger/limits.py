"""What the public form lets through, counted for all processes together, and what it turned away, by day."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from datetime import date, datetime, timedelta
from typing import Any

from sqlalchemy import delete, select, text
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncConnection

from tidings.ledger.tables import form_limit, form_tally
from tidings.model import Over, Quota

#: A quota is so many new events within this time. It begins with the first event, not with the clock's hour.
WINDOW = timedelta(minutes=10)
#: The reasons of one day are kept for this long.
TALLY_KEPT = timedelta(days=90)

# One statement for a whole group of webhooks. Buckets come in the order of their ids, so that two groups that share
# some cannot wait for each other.
_COUNT = text("""
WITH counted AS (
    INSERT INTO form_limit AS l (bucket, posts, until)
    SELECT bucket, posts, :until
    FROM unnest(CAST(:buckets AS bigint[]), CAST(:counts AS integer[])) AS asked (bucket, posts)
    ON CONFLICT (bucket) DO UPDATE SET
        posts = CASE WHEN l.until <= :now THEN excluded.posts ELSE l.posts + excluded.posts END,
        until = CASE WHEN l.until <= :now THEN excluded.until ELSE l.until END
    RETURNING bucket, posts, until
)
SELECT bucket, posts, until FROM counted WHERE posts > :limit
""")


async def take(connection: AsyncConnection, wanted: Sequence[tuple[Sequence[Quota], datetime]]) -> list[Over | None]:
    """Count posts (their quotas, when they came); returns for each the quota it is over, in the same order.

    Nothing is asked of PostgreSQL when none has quotas.
    """
    asked = Counter(quota.bucket for quotas, _ in wanted for quota in quotas)
    if not asked:
        return [None] * len(wanted)
    now = max(at for _, at in wanted)
    buckets = sorted(asked)
    rows = await connection.execute(
        _COUNT,
        {
            "buckets": buckets,
            "counts": [asked[bucket] for bucket in buckets],
            "until": now + WINDOW,
            "now": now,
            # Only those that may be over one are told of: most often none.
            "limit": min(quota.limit for quotas, _ in wanted for quota in quotas),
        },
    )
    state = {row.bucket: (row.posts - asked[row.bucket], row.until) for row in rows}
    if not state:
        return [None] * len(wanted)
    return [_over(quotas, state) for quotas, _ in wanted]


def _over(quotas: Sequence[Quota], state: dict[Any, tuple[int, datetime]]) -> Over | None:
    """Count one post on top of those before it in its group; the quota that it is over, if any."""
    over = None
    for quota in quotas:
        if quota.bucket not in state:
            continue
        before, until = state[quota.bucket]
        state[quota.bucket] = (before + 1, until)
        if before >= quota.limit and (over is None or until > over.until):
            over = Over(quota, until)
    return over


async def add_to_tally(connection: AsyncConnection, counts: Mapping[tuple[date, str, str], int]) -> None:
    """Add to what was turned away, by day, webhook and reason."""
    rows = [{"day": d, "source": s, "reason": r, "times": n} for (d, s, r), n in sorted(counts.items())]
    new = insert(form_tally).values(rows)
    await connection.execute(
        new.on_conflict_do_update(
            index_elements=["day", "source", "reason"], set_={"times": form_tally.c.times + new.excluded.times}
        )
    )


async def tally(connection: AsyncConnection, *, since: date) -> list[Any]:
    """What was turned away since this day (UTC), newest day first: day, source, reason, times."""
    rows = await connection.execute(
        select(form_tally)
        .where(form_tally.c.day >= since)
        .order_by(form_tally.c.day.desc(), form_tally.c.source, form_tally.c.reason)
    )
    return list(rows.all())


async def forget(connection: AsyncConnection, now: datetime) -> None:
    """Remove counts whose window is over, and days long past."""
    await connection.execute(delete(form_limit).where(form_limit.c.until < now - WINDOW))
    await connection.execute(delete(form_tally).where(form_tally.c.day < (now - TALLY_KEPT).date()))
