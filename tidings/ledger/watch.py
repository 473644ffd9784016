"""What whoever watches asks the ledger every few seconds: each by an index that holds little else."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

_DEAD_EVENTS = text("""
SELECT source, state, CAST(received_at AT TIME ZONE 'UTC' AS date) AS day, count(*) AS times, min(reason) AS reason,
       count(DISTINCT reason) AS reasons, CAST(min(CAST(id AS text)) AS uuid) AS example
FROM event
WHERE state IN ('failed', 'quarantined') AND campaign <> ALL(CAST(:internal AS text[]))
GROUP BY source, state, day
""")
_DEAD_MAILS = text("""
SELECT template, state, CAST(updated_at AT TIME ZONE 'UTC' AS date) AS day, count(*) AS times, min(reason) AS reason,
       count(DISTINCT reason) AS reasons
FROM message
WHERE state IN ('failed', 'unknown') AND campaign <> ALL(CAST(:internal AS text[]))
GROUP BY template, state, day
""")
# Those that wait, and those that a run has taken and not got rid of. What Resend has refused for our set-up gets a new
# slot, up to two minutes ahead, again and again, and has the reason.
_LATE = text("""
SELECT template, count(*) AS times, min(due_at) AS since, max(reason) AS reason FROM (
    SELECT campaign, template, due_at, reason FROM message
    WHERE state = 'scheduled' AND slot_at <= now() + interval '3 minutes' AND due_at < CAST(:before AS timestamptz)
      AND (slot_at < CAST(:before AS timestamptz) OR reason IS NOT NULL)
    UNION ALL
    SELECT m.campaign, m.template, m.due_at, m.reason FROM claim c JOIN message m ON m.claim_id = c.id
    WHERE c.settled_at IS NULL AND m.state = 'sending' AND m.slot_at < CAST(:before AS timestamptz)
      AND NOT CAST(:deferred AS boolean)
) late
WHERE campaign <> ALL(CAST(:internal AS text[])) GROUP BY template
""")
_RATES = text("""
SELECT count(*) AS sent, count(*) FILTER (WHERE state = 'bounced') AS bounced,
       count(*) FILTER (WHERE state = 'complained') AS complained
FROM message WHERE sent_at > CAST(:since AS timestamptz) AND campaign <> ALL(CAST(:internal AS text[]))
""")
_LAST = text("""
SELECT s.source, l.received_at FROM unnest(CAST(:sources AS text[])) AS s(source)
CROSS JOIN LATERAL (SELECT received_at FROM event WHERE source = s.source AND origin IS NULL
                    ORDER BY received_at DESC LIMIT 1) l
""")
# One look into the index for each slot, however many events it has.
_GAPS = text("""
WITH busy AS (
    SELECT at FROM generate_series(CAST(:last AS timestamptz) - make_interval(secs => :history),
                                   CAST(:last AS timestamptz), make_interval(secs => :slot)) AS at
    WHERE EXISTS (SELECT 1 FROM event WHERE source = :source AND origin IS NULL
                  AND received_at > at - make_interval(secs => :slot) AND received_at <= at)
)
SELECT count(*) AS slots, max(at) - min(at) AS span, max(gap) AS longest
FROM (SELECT at, at - lag(at) OVER (ORDER BY at) AS gap FROM busy) b
""")


@dataclass(frozen=True, slots=True)
class Habit:
    """How often a source posted in a stretch of time."""

    #: In how many slots of that time it posted at all.
    slots: int
    #: From the first of them to the last, and the longest time between two.
    span: timedelta
    longest: timedelta


async def dead_events(connection: AsyncConnection, internal: Collection[str]) -> list[Any]:
    """Events that wait for a person, by source, state and day: how many, a reason, how many reasons, one of them."""
    return list(await connection.execute(_DEAD_EVENTS, {"internal": list(internal)}))


async def dead_mails(connection: AsyncConnection, internal: Collection[str]) -> list[Any]:
    """Messages that wait for a person, by template, state and day."""
    return list(await connection.execute(_DEAD_MAILS, {"internal": list(internal)}))


async def late_mails(
    connection: AsyncConnection, internal: Collection[str], *, before: datetime, deferred: bool
) -> list[Any]:
    """Mails that should have left before then, by template: how many, since when, and why where that is known.

    `deferred`: without those that a run has taken, as they wait for a quota.
    """
    values = {"internal": list(internal), "before": before, "deferred": deferred}
    return list(await connection.execute(_LATE, values))


async def sent_since(connection: AsyncConnection, since: datetime) -> bool:
    """Whether any mail has left since then."""
    rows = await connection.execute(
        text("SELECT EXISTS (SELECT 1 FROM message WHERE sent_at > :since)"), {"since": since}
    )
    return bool(rows.scalar_one())


async def rates(connection: AsyncConnection, internal: Collection[str], since: datetime) -> Any:
    """How many mails were sent since then, and how many of them bounced or were called spam."""
    return (await connection.execute(_RATES, {"internal": list(internal), "since": since})).one()


async def last_posts(connection: AsyncConnection, sources: Collection[str]) -> dict[str, datetime]:
    """When each source posted last; one that never did is left out. What was found in a service's list is no post."""
    rows = await connection.execute(_LAST, {"sources": sorted(sources)})
    return {row.source: row.received_at for row in rows}


async def habit(
    connection: AsyncConnection, source: str, *, last: datetime, history: timedelta, slot: timedelta
) -> Habit:
    """How a source posted in the time before its last post, in slots of this length."""
    values = {
        "source": source,
        "last": last,
        "history": history.total_seconds(),
        "slot": slot.total_seconds(),
    }
    row = (await connection.execute(_GAPS, values)).one()
    return Habit(row.slots, row.span or timedelta(0), row.longest or timedelta(0))
