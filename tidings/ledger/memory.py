"""Facts learned from outside that seldom change, shared by all processes: asking again each time would cost a call."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import delete, func, select
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncConnection

from tidings.ledger.store import Ledger
from tidings.ledger.tables import event, memo


class Memory:
    """Remembers words under a key. Whoever finds a memory wrong forgets it."""

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger

    async def recall(self, key: str) -> str | None:
        async with self._ledger.reading() as connection:
            return (await connection.execute(select(memo.c.value).where(memo.c.key == key))).scalar_one_or_none()

    async def remember(self, key: str, value: str) -> None:
        statement = insert(memo).values(key=key, value=value, updated_at=func.now())
        update = {"value": statement.excluded.value, "updated_at": func.now()}
        async with self._ledger.transaction() as connection:
            await connection.execute(statement.on_conflict_do_update(index_elements=["key"], set_=update))

    async def once(self, key: str, value: str) -> str:
        """What is remembered under the key; this value, for ever, when nothing was."""
        async with self._ledger.transaction() as connection:
            statement = insert(memo).values(key=key, value=value, updated_at=func.now())
            await connection.execute(statement.on_conflict_do_nothing(index_elements=["key"]))
            return str((await connection.execute(select(memo.c.value).where(memo.c.key == key))).scalar_one())

    async def since(self, key: str) -> datetime | None:
        """When this was remembered last; None: it is not."""
        async with self._ledger.reading() as connection:
            return (await connection.execute(select(memo.c.updated_at).where(memo.c.key == key))).scalar_one_or_none()

    async def beginning(self, prefix: str) -> dict[str, str]:
        """Everything whose key begins with these letters, by the rest of the key."""
        async with self._ledger.reading() as connection:
            rows = await connection.execute(
                select(memo.c.key, memo.c.value).where(memo.c.key.startswith(prefix, autoescape=True))
            )
            return {row.key.removeprefix(prefix): row.value for row in rows}

    async def forget(self, key: str) -> None:
        async with self._ledger.transaction() as connection:
            await connection.execute(delete(memo).where(memo.c.key == key))

    async def forget_older(self, prefix: str, seconds: float) -> None:
        """Forget what begins with these letters and was not remembered anew for so long."""
        limit = func.now() - func.make_interval(0, 0, 0, 0, 0, 0, seconds)
        async with self._ledger.transaction() as connection:
            await connection.execute(
                delete(memo).where(memo.c.key.startswith(prefix, autoescape=True), memo.c.updated_at < limit)
            )


async def oldest_trace(connection: AsyncConnection) -> datetime | None:
    """When the ledger was first written to, as far as it shows; None for an empty one."""
    first = select(func.least(func.min(memo.c.updated_at), select(func.min(event.c.received_at)).scalar_subquery()))
    at: datetime | None = (await connection.execute(first)).scalar_one_or_none()
    return at
