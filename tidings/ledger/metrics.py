"""The ledger in figures: what processes count, what was sent and reported, what waits; cheap however large it is.

What is counted since the beginning of time (mails sent, Resend's reports) is not counted from there each time: sums up
to a moment that is some minutes past are kept, and only what came since is counted, by an index.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import select, text
from sqlalchemy.ext.asyncio import AsyncConnection

from tidings.ledger.tables import metric

SENT = "tidings_messages_sent_total"
OUTCOMES = "tidings_outcomes_total"
#: The moment up to which these are summed up, in `memo`.
SUMMED = "metrics:summed-until"
#: Sums stay this far behind: no transaction that began before is still under way.
BEHIND = timedelta(minutes=5)
#: How far they may stay behind before they are brought up.
AT_MOST = timedelta(minutes=20)
#: Any fixed number, by which only one process at a time brings them up.
LOCK = 7_201_228

_ADD = text("""
INSERT INTO metric AS m (name, labels, value)
SELECT * FROM unnest(CAST(:names AS text[]), CAST(:labels AS text[]), CAST(:values AS float8[]))
ON CONFLICT (name, labels) DO UPDATE SET value = m.value + excluded.value
""")
_PUT = text("""
INSERT INTO metric AS m (name, labels, value)
SELECT * FROM unnest(CAST(:names AS text[]), CAST(:labels AS text[]), CAST(:values AS float8[]))
ON CONFLICT (name, labels) DO UPDATE SET value = excluded.value
""")

_SENT = text("""
SELECT campaign, template, count(*) AS times FROM message
WHERE sent_at > CAST(:since AS timestamptz) AND sent_at <= CAST(:until AS timestamptz)
GROUP BY campaign, template
""")
_OUTCOMES = text("""
SELECT m.campaign, o.type, o.severity, count(*) AS times
FROM outcome o JOIN message m ON m.provider_id = o.provider_id
WHERE o.received_at > CAST(:since AS timestamptz) AND o.received_at <= CAST(:until AS timestamptz)
GROUP BY m.campaign, o.type, o.severity
""")
_LOCK = text("SELECT pg_try_advisory_xact_lock(:lock) AS free, now() AS now")
_SUMMED = text("SELECT (SELECT CAST(value AS timestamptz) FROM memo WHERE key = :key) AS until, now() AS now")
_KEEP = text("""
INSERT INTO memo (key, value, updated_at) VALUES (:key, :value, now())
ON CONFLICT (key) DO UPDATE SET value = excluded.value, updated_at = excluded.updated_at
""")
BEGINNING = datetime.fromisoformat("1970-01-01T00:00:00+00:00")

#: Resend's words for what became of a mail; any other counts as "other".
KINDS = (
    "sent",
    "delivered",
    "delivery_delayed",
    "bounced",
    "bounced_softly",
    "complained",
    "failed",
    "suppressed",
    "opened",
    "clicked",
    "other",
)

# Each by a partial index of its own that holds only such rows.
_WAITING = text("""
SELECT source, state, count(*) AS times, extract(epoch FROM now() - min(received_at)) AS age FROM event
WHERE state IN ('accepted', 'dispatched') AND campaign <> ALL(CAST(:internal AS text[])) GROUP BY source, state
""")
_STUCK = text("""
SELECT source, state, count(*) AS times FROM event
WHERE state IN ('failed', 'quarantined') AND campaign <> ALL(CAST(:internal AS text[])) GROUP BY source, state
""")
# A slot is the end of the minute in which a mail is due, or two minutes later where Resend has refused our set-up.
_DUE = text("""
SELECT campaign, template, count(*) AS times, extract(epoch FROM now() - min(due_at)) AS age,
       count(*) FILTER (WHERE due_at < now() - make_interval(secs => :late)) AS late
FROM (
    SELECT campaign, template, due_at FROM message
    WHERE state = 'scheduled' AND slot_at <= now() + interval '3 minutes' AND due_at <= now()
    UNION ALL
    SELECT m.campaign, m.template, m.due_at FROM claim c JOIN message m ON m.claim_id = c.id
    WHERE c.settled_at IS NULL AND m.state = 'sending'
) waiting
WHERE campaign <> ALL(CAST(:internal AS text[])) GROUP BY campaign, template
""")
_FAILED = text("""
SELECT campaign, template, state, count(*) AS times FROM message
WHERE state IN ('failed', 'unknown') AND campaign <> ALL(CAST(:internal AS text[]))
GROUP BY campaign, template, state
""")
_ALERTS = text("SELECT kind, count(*) AS times FROM alert WHERE recovered_at IS NULL GROUP BY kind")
_CANARY = text("""
SELECT (SELECT extract(epoch FROM max(started_at)) FROM canary) AS started,
       (SELECT extract(epoch FROM max(returned_at)) FROM canary) AS returned, last.took, last.back
FROM (SELECT 1) one LEFT JOIN LATERAL (
    SELECT extract(epoch FROM returned_at - started_at) AS took, returned_at IS NOT NULL AS back FROM canary
    WHERE returned_at IS NOT NULL OR problem IS NOT NULL ORDER BY started_at DESC LIMIT 1) last ON true
""")


@dataclass(frozen=True, slots=True)
class Figures:
    """The ledger at one moment. Campaigns that are Tidings' own are left out."""

    #: What processes have counted, and the sums of what was sent and reported: value by sample name and labels.
    counted: Mapping[tuple[str, str], float]
    waiting: list[Any]
    stuck: list[Any]
    due: list[Any]
    failed: list[Any]
    alerts: list[Any]
    canary: Any


async def add(connection: AsyncConnection, added: Mapping[tuple[str, str], float]) -> None:
    """Add to what has been counted; always in the same order, so that two processes cannot wait for each other."""
    if added:
        await connection.execute(_ADD, _columns(added))


async def put(connection: AsyncConnection, said: Mapping[tuple[str, str], float]) -> None:
    """Write down what was said last, in the place of what was said before."""
    if said:
        await connection.execute(_PUT, _columns(said))


def _columns(values: Mapping[tuple[str, str], float]) -> dict[str, Any]:
    ordered = sorted(values)
    return {
        "names": [name for name, _ in ordered],
        "labels": [labels for _, labels in ordered],
        "values": [values[key] for key in ordered],
    }


async def sum_up(connection: AsyncConnection) -> None:
    """Bring up the sums of what was sent and reported where they are far behind, unless another process is at it."""
    now = (await connection.execute(_LOCK, {"lock": LOCK})).one()
    if not now.free:
        return
    summed = await _summed(connection)
    if summed > now.now - AT_MOST:
        return
    until = now.now - BEHIND
    await add(connection, await _between(connection, summed, until))
    await connection.execute(_KEEP, {"key": SUMMED, "value": until.isoformat()})


async def _summed(connection: AsyncConnection) -> datetime:
    until: datetime | None = (await connection.execute(_SUMMED, {"key": SUMMED})).one().until
    return until or BEGINNING


async def _between(connection: AsyncConnection, since: datetime, until: datetime) -> dict[tuple[str, str], float]:
    found: dict[tuple[str, str], float] = {}
    period = {"since": since, "until": until}
    for row in await connection.execute(_SENT, period):
        found[SENT, labels(campaign=row.campaign, template=row.template)] = row.times
    for row in await connection.execute(_OUTCOMES, period):
        key = OUTCOMES, labels(campaign=row.campaign, kind=_kind(row.type, row.severity))
        found[key] = found.get(key, 0.0) + row.times
    return found


def _kind(said: str, severity: str | None) -> str:
    kind = said.removeprefix("email.")
    if kind == "bounced" and severity == "soft":
        return "bounced_softly"
    return kind if kind in KINDS else "other"


def labels(**values: str) -> str:
    """Labels as they are kept."""
    return json.dumps(values, sort_keys=True)


async def read(connection: AsyncConnection, internal: Collection[str], late: timedelta) -> Figures:
    """Everything at one moment; the connection's transaction must be REPEATABLE READ. `late` is when a mail is."""
    mails = {"internal": list(internal), "late": late.total_seconds()}
    events = {"internal": list(internal)}
    counted = {(r.name, r.labels): r.value for r in await connection.execute(select(metric))}
    since = await _between(connection, await _summed(connection), datetime.max.replace(tzinfo=BEGINNING.tzinfo))
    return Figures(
        counted=_for_people({k: counted.get(k, 0.0) + since.get(k, 0.0) for k in counted | since}, internal),
        waiting=list(await connection.execute(_WAITING, events)),
        stuck=list(await connection.execute(_STUCK, events)),
        due=list(await connection.execute(_DUE, mails)),
        failed=list(await connection.execute(_FAILED, events)),
        alerts=list(await connection.execute(_ALERTS)),
        canary=(await connection.execute(_CANARY)).one(),
    )


def _for_people(values: Mapping[tuple[str, str], float], internal: Collection[str]) -> dict[tuple[str, str], float]:
    return {key: value for key, value in values.items() if json.loads(key[1]).get("campaign") not in internal}
