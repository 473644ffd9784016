"""Which runs are alive: each holds a lock in PostgreSQL, which frees it the moment the run's process is gone.

Prefect learns of a run's end from the run itself, or from its worker. When both die at once it shows the run as
running for ever, and whatever counts on it would wait for ever.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Collection
from contextlib import asynccontextmanager, suppress
from uuid import UUID

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from tidings.errors import LedgerUnavailable
from tidings.ledger.store import Ledger

#: How soon a lock is taken anew that was lost with PostgreSQL.
BEAT_SECONDS = 5.0

_HELD = text("""
SELECT (classid::bigint << 32) | objid::bigint FROM pg_locks
WHERE locktype = 'advisory' AND objsubid = 1 AND granted
  AND database = (SELECT oid FROM pg_database WHERE datname = current_database())
""")


@asynccontextmanager
async def alive(ledger: Ledger, run_id: UUID | None) -> AsyncIterator[None]:
    """While in here, this run is known to be alive. Never waited for: the work goes on without the ledger, too."""
    if run_id is None:
        yield
        return
    holding = asyncio.create_task(_hold(ledger, _key(run_id)))
    try:
        yield
    finally:
        holding.cancel()
        with suppress(asyncio.CancelledError):
            await holding


async def living(connection: AsyncConnection, run_ids: Collection[UUID]) -> set[UUID]:
    """Of these runs, those whose process lives."""
    held = set((await connection.execute(_HELD)).scalars())
    return {run_id for run_id in run_ids if _key(run_id) in held}


async def _hold(ledger: Ledger, key: int) -> None:
    while True:
        with suppress(LedgerUnavailable):
            async with ledger.reading() as connection:
                # Outside of any transaction, so that it holds back no clean-up of old rows.
                await connection.execution_options(isolation_level="AUTOCOMMIT")
                await connection.execute(text("SELECT pg_try_advisory_lock(:k)"), {"k": key})
                while True:
                    await asyncio.sleep(BEAT_SECONDS)
                    await connection.execute(text("SELECT 1"))
        await asyncio.sleep(1)


def _key(run_id: UUID) -> int:
    return int.from_bytes(run_id.bytes[:8], signed=True)
