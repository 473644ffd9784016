"""Which revision the ledger's schema has, and which one this code needs; told without Alembic, which only `tidings
migrate` needs: it costs each process that imports it 7 MB."""

from __future__ import annotations

from functools import cache
from pathlib import Path

from sqlalchemy import text

from tidings.ledger.store import Ledger

MIGRATIONS = Path(__file__).parent / "migrations"


@cache
def known() -> tuple[str, ...]:
    """Every revision that this code knows, the oldest first: a migration's file name begins with its revision."""
    return tuple(sorted(path.name.partition("_")[0] for path in (MIGRATIONS / "versions").glob("[0-9]*_*.py")))


def head() -> str:
    """The newest revision that this code knows."""
    return known()[-1]


def lacks(at: str | None) -> bool:
    """Whether a ledger at this revision is older than this code. One that this code does not know is newer."""
    return at is None or at in known()[:-1]


async def revision(ledger: Ledger) -> str | None:
    """The revision that the database is at; None when it was never migrated. Raises LedgerUnavailable."""
    async with ledger.reading() as connection:
        if await connection.scalar(text("SELECT to_regclass('alembic_version')")) is None:
            return None
        at: str | None = await connection.scalar(text("SELECT version_num FROM alembic_version"))
        return at
