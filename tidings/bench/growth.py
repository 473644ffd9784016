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
#: How many messages of the ledger still wait. A business that sends ten thousand mails a month for eight years has as
#: many ahead of it as one that began last month.
WAITING = 5_000

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
INSERT INTO message (id, enrolment_id, campaign, sequence, position, template, due_at, slot_at, state, provider_id,
                     sent_at, created_at, updated_at, mirrored_at)
SELECT gen_random_uuid(), e.id, 'christmas', 'nurture', p, 'christmas_email_' || p, $3, $3, 'delivered',
       gen_random_uuid()::text, $3, $3, $3, $3
FROM enrolments e CROSS JOIN generate_series(1, $4::int) AS p
"""
_WAIT = """
UPDATE message SET state = 'scheduled', provider_id = NULL, sent_at = NULL, flow_run_id = gen_random_uuid(),
       due_at = $1::timestamptz + (n / 50) * interval '1 minute',
       slot_at = $1::timestamptz + (n / 50) * interval '1 minute'
FROM (SELECT id AS wanted, row_number() OVER () AS n FROM (SELECT id FROM message LIMIT $2::int) AS few) AS chosen
WHERE id = wanted
"""


@dataclass(frozen=True)
class Size:
    messages: tuple[int, ...]


Query = Callable[[AsyncConnection, int], Awaitable[object]]


async def measure(site: Site, size: Size) -> list[Figure]:
    """The hot queries at each size; all but the first stand beside the first."""
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
               baseline_name=f"{first:,} messages", baseline=times[0], aim_ratio=2.0,
               note="between: " + ", ".join(f"{t:.2f} ms" for t in times[1:-1]) if len(times) > 2 else "")
        for name, times in found.items()
    ]  # fmt: skip


async def _fill(site: Site, have: int, want: int) -> int:
    async with site.ledger(DATABASE) as connection:
        await fill(connection, have, want, datetime.now(UTC))
    return want


async def fill(connection: asyncpg.Connection[Any], have: int, want: int, now: datetime) -> None:
    """Contacts number `have` to `want`, each with a sequence that is over; WAITING mails of all of them still wait."""
    for start in range(have, want, 10_000):
        end = min(start + 10_000, want) - 1
        await connection.execute(_FILL, start, end, now - timedelta(days=30), MAILS, timeout=600)
    waiting = await connection.fetchval("SELECT count(*) FROM message WHERE state = 'scheduled'")
    if waiting < WAITING:
        await connection.execute(_WAIT, now.replace(second=0, microsecond=0), WAITING - waiting)
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
