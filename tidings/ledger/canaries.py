"""Canaries: how far each has come, told from the rows that its webhook became."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from sqlalchemy import insert, text, update
from sqlalchemy.ext.asyncio import AsyncConnection

from tidings.ledger.tables import canary


@dataclass(frozen=True, slots=True)
class Journey:
    """A canary's way through the chain. A moment is None while it has not come so far."""

    id: UUID
    started_at: datetime
    event_id: UUID | None
    accepted_at: datetime | None
    event_state: str | None
    event_reason: str | None
    flow_run_id: UUID | None
    handled_at: datetime | None
    message_state: str | None
    message_reason: str | None
    sent_at: datetime | None
    delivered_at: datetime | None
    returned_at: datetime | None
    #: Why it was given up.
    problem: str | None


def sender_id(canary_id: UUID) -> str:
    """What the canary's webhook carries as its own id (without a dot, as Standard Webhooks wants)."""
    return f"canary-{canary_id}"


# By the event's key and not by canary.event_id: the answer that told the id may have been lost.
_JOURNEYS = """
SELECT c.id, c.started_at, coalesce(c.event_id, e.id) AS event_id, e.received_at AS accepted_at,
       e.state AS event_state, e.reason AS event_reason, e.flow_run_id, e.handled_at,
       m.state AS message_state, m.reason AS message_reason, m.sent_at, m.delivered_at, c.returned_at, c.problem
FROM canary c
LEFT JOIN event e ON e.source = 'canary' AND e.key = 'webhook-id:canary-' || c.id
LEFT JOIN enrolment n ON n.event_id = e.id
LEFT JOIN message m ON m.enrolment_id = n.id
"""
_OF = text(_JOURNEYS + "WHERE c.id = :id")
_LATEST = text(_JOURNEYS + "ORDER BY c.started_at DESC LIMIT 1")
_UNDER_WAY = text(_JOURNEYS + "WHERE c.returned_at IS NULL AND c.problem IS NULL ORDER BY c.started_at")


async def start(connection: AsyncConnection, canary_id: UUID, now: datetime) -> None:
    """Write it down before it leaves."""
    await connection.execute(insert(canary).values(id=canary_id, started_at=now))


async def accepted(connection: AsyncConnection, canary_id: UUID, event_id: UUID) -> None:
    """Its webhook was answered."""
    await connection.execute(update(canary).where(canary.c.id == canary_id).values(event_id=event_id))


async def give_up(connection: AsyncConnection, canary_id: UUID, problem: str) -> bool:
    """Say where it was lost; False when somebody has said so already, or it is back."""
    rows = await connection.execute(
        update(canary)
        .where(canary.c.id == canary_id, canary.c.returned_at.is_(None), canary.c.problem.is_(None))
        .values(problem=problem)
        .returning(canary.c.id)
    )
    return rows.first() is not None


async def journey(connection: AsyncConnection, canary_id: UUID) -> Journey:
    return Journey(**(await connection.execute(_OF, {"id": canary_id})).mappings().one())


async def latest(connection: AsyncConnection) -> Journey | None:
    """The canary that was started last."""
    row = (await connection.execute(_LATEST)).mappings().one_or_none()
    return Journey(**row) if row else None


async def under_way(connection: AsyncConnection) -> list[Journey]:
    """Those that are neither back nor given up, oldest first."""
    return [Journey(**row) for row in (await connection.execute(_UNDER_WAY)).mappings()]


_BACK = text("""
UPDATE canary c SET returned_at = :now
FROM event e JOIN enrolment n ON n.event_id = e.id JOIN message m ON m.enrolment_id = n.id
WHERE c.returned_at IS NULL AND e.source = 'canary' AND e.key = 'webhook-id:canary-' || c.id
      AND m.delivered_at IS NOT NULL
RETURNING c.id
""")


async def welcome(connection: AsyncConnection, now: datetime) -> list[UUID]:
    """Mark those whose delivery Resend has reported as back; each is returned once."""
    return list((await connection.execute(_BACK, {"now": now})).scalars())


_OLD = text("""
SELECT c.id AS canary, e.id AS event, e.contact_id AS contact, e.dispatch_id AS dispatch,
       m.claim_id AS claim, m.provider_id AS provider
FROM canary c
LEFT JOIN event e ON e.source = 'canary' AND e.key = 'webhook-id:canary-' || c.id
LEFT JOIN enrolment n ON n.event_id = e.id
LEFT JOIN message m ON m.enrolment_id = n.id
WHERE c.started_at < :before ORDER BY c.started_at LIMIT 100
""")
#: In an order that keeps every reference whole; each with what it is given of the above.
_FORGET = (
    ("provider", "DELETE FROM outcome WHERE provider_id = ANY(:ids)"),
    ("event", "DELETE FROM message USING enrolment n WHERE n.id = enrolment_id AND n.event_id = ANY(:ids)"),
    ("claim", "DELETE FROM claim WHERE id = ANY(:ids) AND NOT EXISTS (SELECT FROM message WHERE claim_id = claim.id)"),
    ("event", "DELETE FROM enrolment WHERE event_id = ANY(:ids)"),
    ("event", "DELETE FROM event WHERE id = ANY(:ids)"),
    ("dispatch", "DELETE FROM dispatch WHERE id = ANY(:ids) AND NOT EXISTS "
                 "(SELECT FROM event WHERE dispatch_id = dispatch.id)"),
    ("contact", "DELETE FROM suppression WHERE contact_id = ANY(:ids)"),
    ("contact", "DELETE FROM contact WHERE id = ANY(:ids)"),
    ("canary", "DELETE FROM canary WHERE id = ANY(:ids)"),
)  # fmt: skip


async def forget(connection: AsyncConnection, before: datetime) -> int:
    """Delete canaries that were started earlier, with every row that came of them; returns how many."""
    old = (await connection.execute(_OLD, {"before": before})).mappings().all()
    for kind, statement in _FORGET if old else ():
        ids = [row[kind] for row in old if row[kind] is not None]
        await connection.execute(text(statement), {"ids": ids})
    return len(old)
