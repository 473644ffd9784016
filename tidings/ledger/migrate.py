"""Bring the ledger's schema up to date, and say how it differs from the code's."""

from __future__ import annotations

from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from sqlalchemy import Connection, text
from sqlalchemy.ext.asyncio import AsyncEngine

from tidings.ledger.revisions import MIGRATIONS
from tidings.ledger.tables import metadata

#: Any fixed number: two processes that migrate at the same time take turns.
MIGRATION_LOCK = 7_201_226


def _config(connection: Connection | None = None) -> Config:
    config = Config()
    config.set_main_option("script_location", str(MIGRATIONS))
    config.attributes["connection"] = connection
    return config


async def migrate(engine: AsyncEngine) -> None:
    """Upgrade to this code's revision; harmless when already there or done by another process meanwhile."""
    async with engine.begin() as connection:
        await connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": MIGRATION_LOCK})
        await connection.run_sync(lambda sync: command.upgrade(_config(sync), "head"))


async def differences(engine: AsyncEngine) -> list[object]:
    """How the database differs from the tables in the code; empty when it does not."""
    async with engine.connect() as connection:
        return await connection.run_sync(
            lambda sync: list(compare_metadata(MigrationContext.configure(sync), metadata))
        )
