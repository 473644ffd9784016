"""The ledger's connection pool, and how its failures become ours."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import asyncpg
from sqlalchemy import event, text
from sqlalchemy.exc import DBAPIError, InterfaceError, InvalidatePoolError, OperationalError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, create_async_engine
from sqlalchemy.pool import ConnectionPoolEntry

from tidings.errors import LedgerUnavailable

#: SQLSTATE classes that say "not now": connection, resources (53: disk full), operator intervention, I/O, read-only,
#: and a transaction that was rolled back in favour of another (40: deadlock).
_UNAVAILABLE = ("08", "53", "57", "58", "25006", "40")


#: A server that ends closes its connections, which is seen at once; one that can no longer be reached does not.
FRESH_SECONDS = 1.0


class Ledger:
    """One process's access to PostgreSQL. Query functions live beside this file and take a connection."""

    def __init__(self, url: str, *, pool_size: int = 5) -> None:
        self.engine: AsyncEngine = create_async_engine(
            url,
            pool_size=pool_size,
            max_overflow=5,
            pool_timeout=10,
            hide_parameters=True,  # which are people's addresses and bodies, and would stand in every error
            # A statement that hangs must not hang a webhook: 30 s is far above the slowest query measured.
            connect_args={
                "timeout": 5,
                "command_timeout": 30,
                "server_settings": {"application_name": "tidings"},
            },
        )
        _ask_rested_connections(self.engine)

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[AsyncConnection]:
        """A connection inside a transaction, committed at the end; LedgerUnavailable when there is none."""
        with unavailable_is_ours():
            async with self.engine.begin() as connection:
                yield connection

    @asynccontextmanager
    async def reading(self) -> AsyncIterator[AsyncConnection]:
        """A connection for reading."""
        with unavailable_is_ours():
            async with self.engine.connect() as connection:
                yield connection

    async def ping(self) -> None:
        """Raises LedgerUnavailable when PostgreSQL does not answer."""
        async with self.reading() as connection:
            await connection.execute(text("SELECT 1"))

    async def close(self) -> None:
        await self.engine.dispose()


def _ask_rested_connections(engine: AsyncEngine) -> None:
    """Before a connection is used again, ask it whether it lives, unless it was used just now.

    In the place of SQLAlchemy's `pool_pre_ping`, which asks each time: one more round trip in each transaction.
    """

    def note(_: Any, record: ConnectionPoolEntry) -> None:
        record.info["used"] = time.monotonic()

    def ask(connection: Any, record: ConnectionPoolEntry, _: Any) -> None:
        if time.monotonic() - record.info["used"] < FRESH_SECONDS and not connection.driver_connection.is_closed():
            return
        try:
            engine.dialect.do_ping(connection)
        except engine.dialect.loaded_dbapi.Error as error:
            raise InvalidatePoolError from error  # which has the pool make a new connection

    event.listen(engine.sync_engine, "connect", note)
    event.listen(engine.sync_engine, "checkin", note)
    event.listen(engine.sync_engine, "checkout", ask)


class unavailable_is_ours:  # noqa: N801  (reads as a phrase at its `with`)
    """Turns the driver's connection and resource errors into LedgerUnavailable; all others pass."""

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if error is not None and _is_unmigrated(error):
            raise LedgerUnavailable(f"the ledger lacks a table or column; run: tidings migrate ({_first_line(error)})")
        if error is not None and _is_unavailable(error):
            raise LedgerUnavailable(f"PostgreSQL did not take it: {_first_line(error)}. Try again later.") from error


def _is_unmigrated(error: BaseException) -> bool:
    """A table that the code knows and the database does not (SQLSTATE 42P01 and 42703)."""
    code = str(getattr(getattr(error, "orig", error), "sqlstate", "") or "")
    return code in {"42P01", "42703"}


def _is_unavailable(error: BaseException) -> bool:
    if isinstance(error, (OSError, TimeoutError, asyncpg.InterfaceError)):
        return True
    if isinstance(error, asyncpg.PostgresError):
        return str(error.sqlstate or "").startswith(_UNAVAILABLE)
    if isinstance(error, DBAPIError):
        if error.connection_invalidated or isinstance(error, InterfaceError):
            return True
        code = str(getattr(error.orig, "sqlstate", "") or "")
        return code.startswith(_UNAVAILABLE) or (isinstance(error, OperationalError) and not code)
    return type(error).__name__ == "TimeoutError" and type(error).__module__.startswith("sqlalchemy")


def _first_line(error: BaseException) -> str:
    return (str(error) or type(error).__name__).splitlines()[0]
