"""Bring the ledger's schema up to date, and say whether it is."""

from __future__ import annotations

from pathlib import Path

from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, text
from sqlalchemy.ext.asyncio import AsyncEngine

from tidings.ledger.tables import metadata

#: Any fixed number: two processes that migrate at the same time take turns.
MIGRATION_LOCK = 7_201_226


def _config(connection: Connection | None = None) -> Config:
    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent / "migrations"))
    config.attributes["connection"] = connection
    return config


def head() -> str | None:
    """The newest revision that this code knows."""
    return ScriptDirectory.from_config(_config()).get_current_head()


def lacks(at: str | None) -> bool:
    """Whether a ledger at this revision is older than this code. One that this code does not know is newer."""
    known = {script.revision for script in ScriptDirectory.from_config(_config()).walk_revisions()}
    return at != head() and (at is None or at in known)


async def migrate(engine: AsyncEngine) -> None:
    """Upgrade to this code's revision; harmless when already there or done by another process meanwhile."""
    async with engine.begin() as connection:
        await connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": MIGRATION_LOCK})
        await connection.run_sync(lambda sync: command.upgrade(_config(sync), "head"))


async def revision(engine: AsyncEngine) -> str | None:
    """The revision that the database is at."""
    async with engine.connect() as connection:
        return await connection.run_sync(lambda sync: MigrationContext.configure(sync).get_current_revision())


async def differences(engine: AsyncEngine) -> list[object]:
    """How the database differs from the tables in the code; empty when it does not."""
    async with engine.connect() as connection:
        return await connection.run_sync(
            lambda sync: list(compare_metadata(MigrationContext.configure(sync), metadata))
        )
