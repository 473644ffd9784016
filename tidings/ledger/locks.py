"""Locks of PostgreSQL that one process of all has, for work that is done by one at a time."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from tidings.ledger.store import Ledger


@asynccontextmanager
async def alone(
    ledger: Ledger, lock: int, *, retry_every: float | None = None
) -> AsyncIterator[AsyncConnection | None]:
    """The connection that holds the lock, or None when another has it: PostgreSQL frees it when a process is gone.

    With `retry_every` it is asked for every so many seconds until it is free.
    """
    async with ledger.reading() as connection:
        # A connection of its own, outside of any transaction, so that it holds back no clean-up of old rows.
        await connection.execution_options(isolation_level="AUTOCOMMIT")
        while not (await connection.execute(text("SELECT pg_try_advisory_lock(:k)"), {"k": lock})).scalar_one():
            if retry_every is None:
                yield None
                return
            await asyncio.sleep(retry_every)
        try:
            yield connection
        finally:
            await connection.execute(text("SELECT pg_advisory_unlock(:k)"), {"k": lock})


async def still_there(connection: AsyncConnection) -> None:
    """Raises what the driver raises when the connection of a lock, and so the lock, is gone."""
    await connection.execute(text("SELECT 1"))
