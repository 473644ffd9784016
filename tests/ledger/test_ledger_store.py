"""The ledger's door: what is "not now" is told as such, and everything else is not hidden behind it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any
from unittest.mock import Mock

import asyncpg
import pytest
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError, IntegrityError, ProgrammingError

from tidings.errors import LedgerUnavailable
from tidings.ledger import Ledger
from tidings.ledger.store import unavailable_is_ours
from tidings.settings import asyncpg_url


async def run(ledger: Ledger, statement: str) -> Any:
    async with ledger.transaction() as connection:
        return await connection.execute(text(statement))


@pytest.fixture
async def own(postgres: str) -> AsyncIterator[Ledger]:
    """An access of its own, for what would spoil the shared one."""
    own = Ledger(asyncpg_url(postgres), pool_size=2)
    yield own
    await own.close()


async def test_a_server_that_is_not_there__is_unavailable() -> None:
    nowhere = Ledger("postgresql+asyncpg://postgres:x@127.0.0.1:1/tidings")

    with pytest.raises(LedgerUnavailable, match=r"PostgreSQL did not take it: .* Try again later"):
        await nowhere.ping()
    await nowhere.close()


async def test_a_read_only_ledger__is_unavailable(own: Ledger) -> None:
    with pytest.raises(LedgerUnavailable, match="read-only"):
        async with own.transaction() as connection:
            await connection.execute(text("SET TRANSACTION READ ONLY"))
            await connection.execute(text("DELETE FROM outcome"))


async def test_a_connection_that_is_killed__is_unavailable_and_the_next_one_works(own: Ledger, postgres: str) -> None:
    killer = await asyncpg.connect(postgres)

    with pytest.raises(LedgerUnavailable):
        async with own.transaction() as connection:
            pid = (await connection.execute(text("SELECT pg_backend_pid()"))).scalar_one()
            await killer.execute("SELECT pg_terminate_backend($1)", pid)
            await connection.execute(text("SELECT 1"))
    await killer.close()

    await own.ping()


async def test_a_connection_that_is_killed_between_two_uses__costs_nobody_anything(own: Ledger, postgres: str) -> None:
    pid = (await run(own, "SELECT pg_backend_pid()")).scalar_one()
    killer = await asyncpg.connect(postgres)
    await killer.execute("SELECT pg_terminate_backend($1, 5000)", pid)
    await killer.close()
    await asyncio.sleep(0.05)

    await own.ping()


@pytest.mark.parametrize(("fresh_for", "asked"), [(60.0, 0), (0.0, 1)])
async def test_only_a_rested_connection__is_asked_whether_it_lives(
    own: Ledger, monkeypatch: pytest.MonkeyPatch, fresh_for: float, asked: int
) -> None:
    await own.ping()
    monkeypatch.setattr("tidings.ledger.store.FRESH_SECONDS", fresh_for)
    ask = Mock(wraps=own.engine.dialect.do_ping)
    monkeypatch.setattr(own.engine.dialect, "do_ping", ask)

    await own.ping()

    assert ask.call_count == asked


async def test_a_rested_connection_that_does_not_answer__is_replaced(
    own: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tidings.ledger.store.FRESH_SECONDS", 0)
    before = (await run(own, "SELECT pg_backend_pid()")).scalar_one()
    error = own.engine.dialect.loaded_dbapi.OperationalError("no route")
    monkeypatch.setattr(own.engine.dialect, "do_ping", Mock(side_effect=[error, True]))

    after = (await run(own, "SELECT pg_backend_pid()")).scalar_one()

    assert after != before


async def test_a_pool_that_is_used_up__is_unavailable(postgres: str) -> None:
    small = Ledger(asyncpg_url(postgres), pool_size=1)
    small.engine.pool._timeout = 0.1  # type: ignore[attr-defined]
    small.engine.pool._max_overflow = 0  # type: ignore[attr-defined]

    async with small.reading():
        with pytest.raises(LedgerUnavailable):
            await small.ping()
    await small.close()


@pytest.mark.parametrize(
    "state",
    ["08006", "08001", "53100", "53200", "53300", "57P01", "57P03", "57014", "58030", "25006", "40P01"],
)
def test_a_state_that_says_not_now__is_unavailable(state: str) -> None:
    error = asyncpg.PostgresError.new({"C": state, "M": "not now"})

    with pytest.raises(LedgerUnavailable, match="not now"), unavailable_is_ours():
        raise error


@pytest.mark.parametrize("state", ["23505", "22021", "42601", "25P02", "XX000"])
def test_any_other_state__passes_as_it_is(state: str) -> None:
    error = asyncpg.PostgresError.new({"C": state, "M": "our fault"})

    with pytest.raises(asyncpg.PostgresError, match="our fault"), unavailable_is_ours():
        raise error


@pytest.mark.parametrize(
    "error", [ConnectionResetError(), TimeoutError(), OSError("no route"), asyncpg.InterfaceError("closed")]
)
def test_a_broken_line__is_unavailable(error: Exception) -> None:
    with pytest.raises(LedgerUnavailable) as told, unavailable_is_ours():
        raise error

    assert told.value.__cause__ is error


@pytest.mark.parametrize("error", [ValueError("x"), KeyError("x"), asyncio.CancelledError()])
def test_what_is_no_matter_of_the_ledger__passes(error: BaseException) -> None:
    with pytest.raises(type(error)), unavailable_is_ours():
        raise error


@pytest.mark.parametrize(
    ("statement", "kind"),
    [
        ("INSERT INTO memo VALUES ('k', 'v', now()), ('k', 'v', now())", IntegrityError),
        ("SELEC 1", ProgrammingError),
        ("SELECT '{'::json", DBAPIError),
    ],
)
async def test_a_mistake_of_ours__is_not_called_unavailable(
    ledger: Ledger, statement: str, kind: type[Exception]
) -> None:
    with pytest.raises(kind):
        await run(ledger, statement)


@pytest.mark.parametrize("statement", ["SELECT * FROM nowhere", "SELECT nothing FROM memo"])
async def test_a_ledger_that_was_not_migrated__is_told_with_the_cure(ledger: Ledger, statement: str) -> None:
    with pytest.raises(LedgerUnavailable, match="lacks a table or column; run: tidings migrate"):
        await run(ledger, statement)


async def test_a_transaction_that_fails__leaves_nothing(ledger: Ledger) -> None:
    with pytest.raises(ValueError, match="changed my mind"):
        async with ledger.transaction() as connection:
            await connection.execute(text("INSERT INTO memo VALUES ('k', 'v', now())"))
            raise ValueError("changed my mind")

    assert (await run(ledger, "SELECT count(*) FROM memo")).scalar_one() == 0
