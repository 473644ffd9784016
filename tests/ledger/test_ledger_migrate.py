"""The schema: what the migrations make is what the code says, whoever runs them and how often."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import asyncpg
import pytest
from alembic.config import Config
from alembic.script import ScriptDirectory

from tidings.ledger import Ledger
from tidings.ledger.migrate import differences, migrate
from tidings.ledger.revisions import MIGRATIONS, head, known, revision
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
    assert await revision(session_ledger) == head()


def test_the_revisions_that_are_read_from_file_names__are_alembics_own() -> None:
    config = Config()
    config.set_main_option("script_location", str(MIGRATIONS))
    scripts = ScriptDirectory.from_config(config)

    assert list(known()) == [script.revision for script in scripts.walk_revisions()][::-1]
    assert head() == scripts.get_current_head()


async def test_several_processes_that_migrate_at_once__take_turns(empty: Ledger) -> None:
    assert await revision(empty) is None

    await asyncio.gather(*[migrate(empty.engine) for _ in range(3)])
    await migrate(empty.engine)

    assert await revision(empty) == head()
