"""The worker is woken by PostgreSQL, and outlives it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import asyncpg
import pytest

from tidings import worker
from tidings.worker import Wake

LISTENING = "SELECT pid FROM pg_stat_activity WHERE query LIKE 'LISTEN %tidings_run%' AND pid <> pg_backend_pid()"


@pytest.fixture
async def admin(postgres: str) -> AsyncIterator[Any]:
    connection = await asyncpg.connect(postgres)
    yield connection
    await connection.close()


async def reached(condition: Any) -> None:
    async with asyncio.timeout(10):
        while not await condition():
            await asyncio.sleep(0.02)


async def test_a_postgresql_that_dies__ends_no_worker_and_hides_no_run(
    postgres: str, admin: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(worker, "RECONNECT_SECONDS", 0.05)
    connect, lost = asyncpg.connect, []

    async def dies_before_it_listens(*given: Any, **named: Any) -> Any:
        connection = await connect(*given, **named)
        if not lost:
            lost.append(connection)
            connection.terminate()
        return connection

    monkeypatch.setattr(asyncpg, "connect", dies_before_it_listens)
    looks: list[None] = []

    async def looked(more_than: int = 0) -> bool:
        return len(looks) > more_than

    async def listens() -> list[Any]:
        return list(await admin.fetch(LISTENING))

    waking = asyncio.create_task(Wake(postgres).call(lambda: looks.append(None)))
    try:
        await reached(looked)  # what was created before it listened is looked for at once
        await reached(listens)
        for _ in range(2):
            before = len(looks)
            await admin.execute("SELECT pg_notify('tidings_run', '')")
            await reached(lambda before=before: looked(before))
            [row] = await listens()
            await admin.execute("SELECT pg_terminate_backend($1)", row["pid"])
            await reached(lambda pid=row["pid"]: another(listens, pid))
        assert lost
        assert not waking.done()
    finally:
        waking.cancel()


async def another(listens: Any, pid: int) -> bool:
    found = [row["pid"] for row in await listens()]
    return bool(found) and pid not in found
