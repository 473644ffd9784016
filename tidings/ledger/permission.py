"""Who may be sent what, asked at the moment of sending: suppressions, consent, exits and priority in one statement."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from tidings.campaign import Campaign
from tidings.ledger.mails import touch_enrolments
from tidings.model import MOVED, OVER

WITHDRAWN = "the contact has withdrawn its consent"

# When an enrolment (e) was entered, to be compared with senders' times. A webhook can come in hours late: then what
# the sender said of the booking that the enrolment is about was earlier.
_ENTERED = "least(v.received_at, (SELECT said_at FROM booking WHERE key = e.booking))"

# The campaign's rules, and why an enrolment (w) has been left for good, if it has. What contacts have done is kept by
# tidings.ledger.facts from the moment that a webhook is answered. Looked up contact by contact: the planner must not
# choose anything else while it has no statistics yet.
_RULES = """
rule AS (
    SELECT * FROM unnest(CAST(:leaving AS text[]), CAST(:turns AS text[]), CAST(:ever AS boolean[]),
                         CAST(:because AS text[])) WITH ORDINALITY AS r (sequence, turn, ever, because, place)
)
"""
_LEFT = """
(SELECT r.because FROM rule r
 WHERE r.sequence = w.sequence AND CASE r.turn
     WHEN 'paid' THEN EXISTS (
         SELECT 1 FROM milestone t
         WHERE t.contact_id = w.contact_id AND t.kind = 'paid' AND (r.ever OR t.at > w.entered_at))
     ELSE EXISTS (
         SELECT 1 FROM booking t
         WHERE t.contact_id = w.contact_id AND t.state = 'booked' AND (r.ever OR t.booked_at > w.entered_at)
           AND t.booked_at IS NOT NULL) END
 ORDER BY r.place LIMIT 1)
"""

_STOPPED = text(f"""
WITH wanted AS (
    SELECT m.id, m.claim_id, e.id AS enrolment_id, e.contact_id, e.sequence, e.consent_basis, e.consent_expires_at,
           coalesce(e.consent_at, e.created_at) AS consent_at, {_ENTERED} AS entered_at,
           e.anchor, b.state AS booking, b.starts_at
    FROM message m JOIN enrolment e ON e.id = m.enrolment_id JOIN event v ON v.id = e.event_id
    LEFT JOIN LATERAL (SELECT state, starts_at FROM booking WHERE key = e.booking LIMIT 1) b ON true
    WHERE m.id = ANY(CAST(:ids AS uuid[]))
), {_RULES},
rank AS (
    SELECT * FROM unnest(CAST(:sequences AS text[]), CAST(:priorities AS integer[]), CAST(:titles AS text[]))
                  AS k (sequence, priority, title)
)
SELECT * FROM (
    SELECT w.id, coalesce(
        CASE WHEN CAST(:claim AS uuid) IS NOT NULL AND w.claim_id IS DISTINCT FROM CAST(:claim AS uuid) THEN :moved END,
        (SELECT s.reason FROM suppression s
         WHERE s.contact_id = w.contact_id AND s.lifted_at IS NULL AND (s.until IS NULL OR s.until > now())
           AND (s.sequence IS NULL OR s.sequence = w.sequence)
           AND (s.campaign IS NULL OR s.campaign = :campaign)
         ORDER BY s.created_at LIMIT 1),
        (SELECT CAST(:withdrawn AS text) FROM contact c
         WHERE c.id = w.contact_id AND c.consent IS FALSE AND c.consent_at >= w.consent_at
           AND w.consent_basis IS DISTINCT FROM 'purchase'),
        CASE WHEN w.consent_expires_at <= now()
             THEN 'consent implied by ' || w.consent_basis || ' has run out' END,
        (SELECT o.because FROM unnest(CAST(:over AS text[]), CAST(:over_because AS text[])) AS o (state, because)
         WHERE o.state = w.booking),
        CASE WHEN w.starts_at <> w.anchor AND w.sequence = ANY(CAST(:before_start AS text[])) THEN :moved END,
        {_LEFT},
        (SELECT 'the sequence "' || k.title || '" goes first'
         FROM enrolment o JOIN rank k ON k.sequence = o.sequence JOIN rank mine ON mine.sequence = w.sequence
         WHERE o.contact_id = w.contact_id AND o.campaign = :campaign AND k.priority > mine.priority
           AND EXISTS (SELECT 1 FROM message om
                       WHERE om.enrolment_id = o.id AND om.state IN ('scheduled', 'sending'))
         ORDER BY k.priority DESC LIMIT 1)
    ) AS reason
    FROM wanted w
) found WHERE reason IS NOT NULL
""")  # noqa: S608  (only our own words are put in)

_LEAVING = text(f"""
WITH wanted AS (
    SELECT e.id, e.contact_id, e.sequence, {_ENTERED} AS entered_at
    FROM enrolment e JOIN event v ON v.id = e.event_id
    WHERE e.campaign = :campaign AND e.contact_id = ANY(CAST(:contacts AS uuid[]))
), {_RULES}
SELECT * FROM (SELECT w.id, {_LEFT} AS reason FROM wanted w) found WHERE reason IS NOT NULL
""")  # noqa: S608

# Messages in the order of their ids and before their enrolments, as everybody locks them (tidings.ledger.mails).
_SKIP = text("""
WITH left_ AS (
    SELECT * FROM unnest(CAST(:ids AS uuid[]), CAST(:reasons AS text[])) AS l (id, reason)
), locked AS (
    SELECT m.id, l.reason FROM message m JOIN left_ l ON l.id = m.enrolment_id
    WHERE m.state IN ('scheduled', 'held') ORDER BY m.id FOR UPDATE OF m
)
UPDATE message m SET state = 'skipped', reason = locked.reason, updated_at = :now
FROM locked WHERE m.id = locked.id RETURNING m.enrolment_id
""")


async def stopped(
    connection: AsyncConnection, campaign: Campaign, message_ids: Sequence[UUID], *, claim_id: UUID | None = None
) -> dict[UUID, str]:
    """Of these messages, those that may not be sent (any more), each with the reason.

    With `claim_id`, also those that are not under this claim any more: only a move of their booking takes them out.
    """
    if not message_ids:
        return {}
    ranked = campaign.sequences
    rows = await connection.execute(
        _STOPPED,
        {
            **_rules(campaign),
            "ids": list(message_ids),
            "claim": claim_id,
            "withdrawn": WITHDRAWN,
            "over": [state.value for state in OVER],
            "over_because": list(OVER.values()),
            # Mails before a meeting count from its start. What others count from is the campaign's own affair.
            "before_start": [s.name for s in ranked if s.steps[0].after < timedelta(0)],
            "moved": MOVED,
            "sequences": [s.name for s in ranked],
            "priorities": [s.priority for s in ranked],
            "titles": [s.title for s in ranked],
        },
    )
    return {row.id: row.reason for row in rows}


async def leave(
    connection: AsyncConnection, campaign: Campaign, contact_ids: Collection[UUID], now: datetime
) -> set[UUID]:
    """Skip at once what waits of sequences that these contacts have left; returns the enrolments that changed.

    Sending asks again: this is so that the ledger says early what will not be sent.
    """
    rows = await connection.execute(_LEAVING, {**_rules(campaign), "contacts": list(contact_ids)})
    reasons = {row.id: row.reason for row in rows}
    if not reasons:
        return set()
    skipped = await connection.execute(_SKIP, {"ids": list(reasons), "reasons": list(reasons.values()), "now": now})
    changed = set(skipped.scalars().all())
    await touch_enrolments(connection, changed, now)
    return changed


def _rules(campaign: Campaign) -> dict[str, Any]:
    exits = [(s.name, exit) for s in campaign.sequences for exit in s.exits]
    return {
        "campaign": campaign.name,
        "leaving": [name for name, _ in exits],
        "turns": [exit.on.value for _, exit in exits],
        "ever": [exit.ever for _, exit in exits],
        "because": [exit.because for _, exit in exits],
    }
