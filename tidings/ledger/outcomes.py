"""What Resend reports of mails, each report counted once and in any order of arrival."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import select, text
from sqlalchemy.ext.asyncio import AsyncConnection

from tidings.ledger import mails, people
from tidings.ledger.tables import outcome
from tidings.model import MessageState, Report, Severity

#: Scanners open and click within this long of the delivery.
SCANNERS = timedelta(seconds=10)
#: So many soft bounces, without a mail that arrived between them, suppress an address for a time.
SOFT_LIMIT = 3
SOFT_WITHIN = timedelta(days=30)
SOFT_PAUSE = timedelta(days=7)


_RECORD = text("""
INSERT INTO outcome (svix_id, type, provider_id, state, severity, reason, occurred_at, received_at, body)
SELECT * FROM unnest(CAST(:ids AS text[]), CAST(:types AS text[]), CAST(:providers AS text[]),
                     CAST(:states AS text[]), CAST(:severities AS text[]), CAST(:reasons AS text[]),
                     CAST(:times AS timestamptz[]), CAST(:received AS timestamptz[]), CAST(:bodies AS text[]))
ON CONFLICT (svix_id) DO NOTHING
RETURNING svix_id
""")


async def record(connection: AsyncConnection, reports: Sequence[tuple[Report, str]], now: datetime) -> set[str]:
    """Store reports with their bodies as they came; returns the ids of new ones (Resend delivers at least once).

    Each id at most once in a call, and in order, so that two calls that share some cannot wait in a circle.
    """
    ordered = sorted(reports, key=lambda pair: pair[0].id)
    rows = await connection.execute(
        _RECORD,
        {
            "ids": [r.id for r, _ in ordered],
            "types": [r.type for r, _ in ordered],
            "providers": [r.provider_id for r, _ in ordered],
            "states": [r.state for r, _ in ordered],
            "severities": [r.severity for r, _ in ordered],
            "reasons": [r.reason for r, _ in ordered],
            "times": [r.at for r, _ in ordered],
            "received": [now] * len(ordered),
            "bodies": [body for _, body in ordered],
        },
    )
    return set(rows.scalars().all())


async def catch_up(connection: AsyncConnection, provider_ids: Sequence[str], now: datetime) -> None:
    """Apply reports that came before we knew these ids ourselves: Resend's webhook can outrun its answer."""
    if not provider_ids:
        return
    rows = (await connection.execute(select(outcome).where(outcome.c.provider_id.in_(provider_ids)))).all()
    if not rows:
        return
    await mails.apply_reports(connection, [_report(row) for row in rows])
    early = sorted({row.provider_id for row in rows})
    await note(connection, early)
    if any(row.severity for row in rows):
        await judge(connection, early, now)


def _report(row: Any) -> Report:
    return Report(
        id=row.svix_id,
        type=row.type,
        provider_id=row.provider_id,
        state=MessageState(row.state) if row.state else None,
        at=row.occurred_at,
        reason=row.reason,
    )


# An opening or a click within seconds of the delivery is a scanner's, which looks at every mail before the contact
# does. Before the delivery was reported nobody can tell, so these count when that has come in: in whatever order
# reports arrive, the result is the same.
# Notion does not show these times, so the row is not marked for it.
_NOTE = text("""
UPDATE message m SET delivered_at = n.delivered_at, delayed_at = n.delayed_at, opened_at = n.opened_at,
                     clicked_at = n.clicked_at
FROM (
    SELECT d.provider_id, d.delivered_at, d.delayed_at,
           min(o.occurred_at) FILTER (WHERE o.type = 'email.opened' AND late) AS opened_at,
           min(o.occurred_at) FILTER (WHERE o.type = 'email.clicked' AND late) AS clicked_at
    FROM (SELECT provider_id, min(occurred_at) FILTER (WHERE type = 'email.delivered') AS delivered_at,
                 min(occurred_at) FILTER (WHERE type = 'email.delivery_delayed') AS delayed_at
          FROM outcome WHERE provider_id = ANY(CAST(:ids AS text[])) GROUP BY provider_id) d
    JOIN outcome o ON o.provider_id = d.provider_id
    CROSS JOIN LATERAL (SELECT o.occurred_at >= d.delivered_at + make_interval(secs => :scanners) AS late) l
    GROUP BY d.provider_id, d.delivered_at, d.delayed_at
) n
WHERE m.provider_id = n.provider_id
  AND (m.delivered_at, m.delayed_at, m.opened_at, m.clicked_at)
      IS DISTINCT FROM (n.delivered_at, n.delayed_at, n.opened_at, n.clicked_at)
""")


async def note(connection: AsyncConnection, provider_ids: Sequence[str]) -> None:
    """Bring the times of delivery, delay, opening and click of these mails in line with all that was reported."""
    await connection.execute(_NOTE, {"ids": list(provider_ids), "scanners": SCANNERS.total_seconds()})


# Soft bounces count since the last mail that arrived, and since the last suppression for them.
_SEVERE = text("""
SELECT e.contact_id, o.severity, o.reason, o.occurred_at,
       (SELECT count(*) FROM outcome b JOIN message bm ON bm.provider_id = b.provider_id
               JOIN enrolment be ON be.id = bm.enrolment_id
        WHERE be.contact_id = e.contact_id AND b.severity = 'soft' AND b.occurred_at > :since
          AND b.occurred_at > coalesce((SELECT max(dm.delivered_at) FROM message dm
                                        JOIN enrolment de ON de.id = dm.enrolment_id
                                        WHERE de.contact_id = e.contact_id), '-infinity')
          AND b.received_at > coalesce((SELECT max(s.created_at) FROM suppression s
                                        WHERE s.contact_id = e.contact_id AND s.until IS NOT NULL), '-infinity')
       ) AS soft
FROM outcome o JOIN message m ON m.provider_id = o.provider_id JOIN enrolment e ON e.id = m.enrolment_id
WHERE o.provider_id = ANY(CAST(:ids AS text[])) AND o.severity IS NOT NULL
  AND NOT EXISTS (SELECT 1 FROM suppression s WHERE s.contact_id = e.contact_id AND s.lifted_at > o.received_at)
ORDER BY e.contact_id
""")


async def judge(connection: AsyncConnection, provider_ids: Sequence[str], now: datetime) -> None:
    """Suppress whom these mails' reports say may not be mailed: for good, or for a time after several soft bounces.

    A suppression that a person lifted does not come back for a report from before that.
    """
    rows = await connection.execute(_SEVERE, {"ids": list(provider_ids), "since": now - SOFT_WITHIN})
    for row in rows.all():
        detail = f": {row.reason}" if row.reason else ""
        if row.severity == Severity.COMPLAINT:
            reason = "the contact called a mail spam"
        elif row.severity == Severity.HARD:
            reason = f"mail to this address bounced for good{detail}"
        elif row.soft >= SOFT_LIMIT:
            reason = f"mail to this address bounced {SOFT_LIMIT} times in a row{detail}"
        else:
            continue
        until = now + SOFT_PAUSE if row.severity == Severity.SOFT else None
        await people.suppress(connection, row.contact_id, reason=reason, source="resend", now=now, until=until)
