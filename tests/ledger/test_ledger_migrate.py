"""The schema: what the migrations make is what the code says, whoever runs them and how often."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import asyncpg
import pytest

from tidings.ledger import Ledger
from tidings.ledger.migrate import differences, head, migrate, revision
from tidings.settings import asyncpg_url


@pytest.fixture
async def empty(postgres: str) -> AsyncIterator[Ledger]:
    """A database that has never been migrated."""
    admin = await asyncpg.connect(postgres)
    await admin.execute("CREATE DATABASE unmigrated")
    ledger = Ledger(asyncpg_url(postgres.rpartition("/")[0] + "/unmigrated"))
    yield ledger
    await ledger.close()
    await admin.execute("DROP DATABASE unmigrated WITH (FORCE)")
    await admin.close()


async def test_the_migrations__make_the_tables_of_the_code(session_ledger: Ledger) -> None:
    assert await differences(session_ledger.engine) == []
    assert await revision(session_ledger.engine) == head()


async def test_several_processes_that_migrate_at_once__take_turns(empty: Ledger) -> None:
    assert await revision(empty.engine) is None

    await asyncio.gather(*[migrate(empty.engine) for _ in range(3)])
    await migrate(empty.engine)

    assert await revision(empty.engine) == head()
