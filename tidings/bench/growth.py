"""Whether the ledger's queries stay as fast when it is a hundred times as large."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import uuid4

import asyncpg
from sqlalchemy.ext.asyncio import AsyncConnection

from tidings.bench.figures import Figure, percentile
from tidings.bench.seed import arrival
from tidings.bench.site import Site, person
from tidings.ledger import Ledger, inbox, mails, migrate
from tidings.model import Slot

SECTION = "growth"
DATABASE = "growth"
REPEATS = 60
#: Mails of one sequence; so many messages does an enrolment have.
MAILS = 7
#: One in so many messages of the ledger still waits: a business that has sent more has more ahead of it.
WAITING_SHARE = 10

# Everything that is over is delivered and mirrored; what waits is spread over the minutes of the next days.
_FILL = """
WITH numbers AS (SELECT generate_series($1::int, $2::int) AS n),
contacts AS (
    INSERT INTO contact (id, email, first_name, consent, created_at, updated_at, mirrored_at)
    SELECT gen_random_uuid(), 'delivered+g' || n || '@resend.dev', 'Ada', true, $3, $3, $3 FROM numbers
    RETURNING id, email),
events AS (
    INSERT INTO event (id, source, key, campaign, deployment, body, contact_id, contact_created, received_at, state,
                       dispatch_id, flow_run_id, dispatched_at, handled_at)
    SELECT gen_random_uuid(), 'christmas-signup', email, 'christmas', 'christmas-signup-handler', '{}', id, true, $3,
           'handled', gen_random_uuid(), gen_random_uuid(), $3, $3 FROM contacts
    RETURNING id, contact_id, key),
enrolments AS (
    INSERT INTO enrolment (id, contact_id, event_id, campaign, sequence, key, variables, anchor, created_at,
                           updated_at, mirrored_at)
    SELECT gen_random_uuid(), contact_id, id, 'christmas', 'nurture', key, '{}', $3, $3, $3, $3 FROM events
    RETURNING id)
INSERT INTO message (id, enrolment_id, campaign, sequence, position, template, due_at, slot_at, state, flow_run_id,
                     provider_id, sent_at, created_at, updated_at, mirrored_at)
SELECT gen_random_uuid(), e.id, 'christmas', 'nurture', p, 'christmas_email_' || p, $3, $3, 'delivered',
       gen_random_uuid(), gen_random_uuid()::text, $3, $3, $3, $3
FROM enrolments e CROSS JOIN generate_series(1, $4::int) AS p
"""
# What goes with them: what each was handed over with, what Resend reported, and what else is known of the contacts.
_BESIDE = (
    """INSERT INTO dispatch (id, deployment, created_at)
       SELECT dispatch_id, deployment, received_at FROM event ON CONFLICT DO NOTHING""",
    """INSERT INTO claim (id, campaign, created_at, lease_until, attempts, first_sent_at, settled_at)
       SELECT id, campaign, updated_at, updated_at, 1, updated_at, updated_at FROM message WHERE position = 1
       ON CONFLICT DO NOTHING""",
    """UPDATE message m SET claim_id = c.id FROM message c
       WHERE c.enrolment_id = m.enrolment_id AND c.position = 1 AND m.claim_id IS NULL AND m.state <> 'scheduled'""",
    """INSERT INTO outcome (svix_id, type, provider_id, state, occurred_at, received_at, body)
       SELECT kind || provider_id, 'email.' || kind, provider_id, kind, sent_at, sent_at, '{}'
       FROM message CROSS JOIN (VALUES ('sent'), ('delivered')) AS k (kind) WHERE provider_id IS NOT NULL
       ON CONFLICT DO NOTHING""",
    """INSERT INTO booking (key, contact_id, state, starts_at, booked_at, said_at)
       SELECT 'bench:' || id, id, 'cancelled', created_at, created_at, created_at FROM contact
       ON CONFLICT DO NOTHING""",
    """INSERT INTO milestone (kind, key, contact_id, at)
       SELECT kind, 'bench:' || id, id, created_at FROM contact CROSS JOIN (VALUES ('paid'), ('signed')) AS k (kind)
       ON CONFLICT DO NOTHING""",
    """INSERT INTO suppression (id, contact_id, reason, source, created_at, until)
       SELECT id, id, 'bounced 3 times in a row', 'resend', created_at, created_at FROM contact
       ON CONFLICT DO NOTHING""",
)
# As many of a minute have one run.
_WAIT = """
UPDATE message SET state = 'scheduled', provider_id = NULL, sent_at = NULL, claim_id = NULL,
       flow_run_id = CAST(md5(CAST(n / 50 AS text)) AS uuid),
       due_at = $1::timestamptz + (n / 50) * interval '1 minute',
       slot_at = $1::timestamptz + (n / 50) * interval '1 minute'
FROM (SELECT id AS wanted, row_number() OVER () AS n
      FROM (SELECT id FROM message WHERE state <> 'scheduled' LIMIT $2::int) AS few) AS chosen
WHERE id = wanted
"""


@dataclass(frozen=True)
class Size:
    messages: tuple[int, ...]


#: Looked at every five minutes, and by its nature as long as what waits.
LINEAR = {"runs that mails count on"}

Query = Callable[[AsyncConnection, int], Awaitable[object]]


async def measure(site: Site, size: Size) -> list[Figure]:
    """The hot queries at each size; all but the first stand beside the first."""
    await site.settled()
    found: dict[str, list[float]] = {}
    async with site.ledger("postgres") as connection:
        await connection.execute(f"CREATE DATABASE {DATABASE}")
    ledger = Ledger(site.stack.addresses.database(DATABASE, scheme="postgresql+asyncpg"))
    try:
        await migrate.migrate(ledger.engine)
        filled = 0
        for messages in size.messages:
            site.say(f"growth: filling the ledger to {messages:,} messages")
            filled = await _fill(site, filled, messages // MAILS)
            for name, query in QUERIES.items():
                found.setdefault(name, []).append(await _time(ledger, query, filled))
    finally:
        await ledger.close()
        async with site.ledger("postgres") as connection:
            await connection.execute(f"DROP DATABASE {DATABASE} WITH (FORCE)")
    first, last = size.messages[0], size.messages[-1]
    return [
        Figure(section=SECTION, name=f"{name}, {last:,} messages", value=times[-1], unit="ms", better="less",
               baseline_name=f"{first:,} messages", baseline=times[0], aim_ratio=None if name in LINEAR else 2.0,
               note="between: " + ", ".join(f"{t:.2f} ms" for t in times[1:-1]) if len(times) > 2 else "")
        for name, times in found.items()
    ]  # fmt: skip


async def _fill(site: Site, have: int, want: int) -> int:
    async with site.ledger(DATABASE) as connection:
        await fill(connection, have, want, datetime.now(UTC))
    return want


async def fill(connection: asyncpg.Connection[Any], have: int, want: int, now: datetime) -> None:
    """Contacts number `have` to `want`, each with a sequence that is over but for the mails that still wait."""
    for start in range(have, want, 10_000):
        end = min(start + 10_000, want) - 1
        await connection.execute(_FILL, start, end, now - timedelta(days=30), MAILS, timeout=600)
    for statement in _BESIDE:
        await connection.execute(statement, timeout=900)
    waiting = await connection.fetchval("SELECT count(*) FROM message WHERE state = 'scheduled'")
    wanted = want * MAILS // WAITING_SHARE
    if waiting < wanted:
        await connection.execute(_WAIT, now.replace(second=0, microsecond=0), wanted - waiting)
    await connection.execute("VACUUM ANALYZE", timeout=600)


async def _time(ledger: Ledger, query: Query, contacts: int) -> float:
    """The median of its milliseconds, its changes undone."""
    times = []
    for number in range(REPEATS):
        async with ledger.reading() as connection:
            began = time.perf_counter()
            await query(connection, number * 7919 % contacts)
            times.append(1000 * (time.perf_counter() - began))
            await connection.rollback()
    return percentile(times[REPEATS // 6 :], 0.5)


async def _accept(connection: AsyncConnection, _: int) -> object:
    return await inbox.accept(connection, [arrival(datetime.now(UTC), person("growth"))])


async def _claim(connection: AsyncConnection, _: int) -> object:
    later = datetime.now(UTC) + timedelta(days=30)
    return await mails.claim_due(
        connection, campaign="christmas", template=None, slot_until=later, event_ids=None, lease=60,
        flow_run_id=uuid4(), limit=100,
    )  # fmt: skip


async def _story(connection: AsyncConnection, number: int) -> object:
    return await mails.story(connection, f"delivered+g{number}@resend.dev")


async def _upcoming(connection: AsyncConnection, _: int) -> object:
    return await mails.unplanned_slots(connection, event_ids=None, due_after=datetime.now(UTC))


async def _run_of_slot(connection: AsyncConnection, _: int) -> object:
    slot = Slot("christmas", "nurture", "christmas_email_2", datetime.now(UTC))
    return await mails.run_of_slot(connection, slot)


async def _runs_waiting(connection: AsyncConnection, _: int) -> object:
    return await mails.runs_waiting(connection)


async def _waiting(connection: AsyncConnection, _: int) -> Any:
    return await inbox.undispatched(connection, older_than=datetime.now(UTC))


QUERIES: dict[str, Query] = {
    "acceptance of a webhook": _accept,
    "claim of 100 mails": _claim,
    "a contact's story": _story,
    "upcoming mails without a run": _upcoming,
    "the run of a minute": _run_of_slot,
    "runs that mails count on": _runs_waiting,
    "events that wait": _waiting,
}
