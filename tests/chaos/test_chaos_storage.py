"""A ledger that cannot be written: the webhook says 503 and when to come again, the process lives, and it recovers."""

from __future__ import annotations

import asyncio
import os
import secrets
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from pathlib import Path
from typing import Any

import asyncpg
import httpx
import pytest

from tidings.chaos.processes import uvicorn_workers
from tidings.local.config import Part, StackConfig, Step
from tidings.local.stack import Stack

pytestmark = [pytest.mark.slow, pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")]

#: PostgreSQL's first 16 MB of journal and three databases take about 65 MB.
DISK = "200m"
#: Each body adds as much to the ledger: random, so that it cannot be compressed.
PADDING = 150_000
PATIENCE = 60.0


@asynccontextmanager
async def stacked(data: Path) -> AsyncIterator[Stack]:
    """PostgreSQL, sandbox and web server with two processes, supervised. Prefect is away: that must not matter."""
    config = StackConfig.apart(
        data,
        web_workers=2,
        parts=frozenset({Part.POSTGRES, Part.SANDBOX, Part.WEB}),
        steps=frozenset({Step.MIGRATE, Step.NOTION_INIT}),
        sandbox_options={"notion-rate": "0"},
    )
    async with Stack(config) as stack:
        supervising = asyncio.create_task(stack.supervise())
        try:
            yield stack
        finally:
            supervising.cancel()
            with suppress(asyncio.CancelledError):
                await supervising


class Website:
    """Posts signups, each another contact."""

    def __init__(self, stack: Stack, client: httpx.AsyncClient) -> None:
        self._stack = stack
        self._client = client
        self._count = 0
        self.accepted: list[str] = []

    async def post(self, padding: int = 0) -> httpx.Response:
        self._count += 1
        body = {
            "email": f"delivered+disk{self._count}@resend.dev",
            "consent": True,
            "remark": secrets.token_hex(padding),
        }
        answer = await self._client.post(f"{self._stack.addresses.web}/webhook/christmas-signup", json=body)
        if answer.is_success:
            self.accepted.append(answer.json()["event_id"])
        return answer

    async def until(self, *statuses: int, padding: int = 0) -> httpx.Response:
        """Post until the answer is one of these; no answer may be anything but yes or "not now"."""
        deadline = time.monotonic() + PATIENCE
        while (answer := await self.post(padding)).status_code not in statuses:
            assert answer.status_code in {200, 202, 503}, f"{answer.status_code} {answer.text}"
            assert time.monotonic() < deadline, f"still {answer.status_code} after {PATIENCE:g} s: {answer.text}"
            await asyncio.sleep(0.02)
        return answer

    async def lives(self) -> bool:
        return (await self._client.get(f"{self._stack.addresses.web}/health")).status_code == 200


@asynccontextmanager
async def website(stack: Stack) -> AsyncIterator[Website]:
    async with httpx.AsyncClient(timeout=40, trust_env=False) as client:
        yield Website(stack, client)


async def sql(stack: Stack, *statements: str) -> list[Any]:
    connection = await asyncpg.connect(stack.addresses.database())
    try:
        await connection.execute("SET default_transaction_read_only = off")
        return [await connection.fetch(statement) for statement in statements]
    finally:
        await connection.close()


async def stored(stack: Stack) -> set[str]:
    (rows,) = await sql(stack, "SELECT id FROM event")
    return {str(row["id"]) for row in rows}


async def test_a_read_only_database__is_answered_503_and_recovers_by_itself(tmp_path: Path) -> None:
    async with stacked(tmp_path / "data") as stack, website(stack) as site:
        assert (await site.post()).is_success
        before = uvicorn_workers(stack.pid("web") or 0)

        await sql(stack, "ALTER SYSTEM SET default_transaction_read_only = on", "SELECT pg_reload_conf()")
        refused = await site.until(503)
        assert int(refused.headers["retry-after"]) > 0
        assert "nothing was accepted" in refused.json()["detail"]
        assert await site.lives()

        await sql(stack, "ALTER SYSTEM RESET default_transaction_read_only", "SELECT pg_reload_conf()")
        await site.until(200, 202)

        assert uvicorn_workers(stack.pid("web") or 0) == before, "no process has ended"
        assert set(site.accepted) <= await stored(stack)


@contextmanager
def small_disk(folder: Path) -> Iterator[Path]:
    """A file system of its own that is soon full. Logs and the sandbox stay outside."""
    folder.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={DISK},mode=755", "tidings-test", str(folder)], capture_output=True
    )
    if mounted.returncode:
        pytest.skip(f"this machine does not let us mount: {mounted.stderr.decode().strip()}")
    try:
        for name in ("logs", "sandbox"):
            outside = folder.with_name(f"{folder.name}-{name}")
            outside.mkdir()
            (folder / name).symlink_to(outside)
        yield folder
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


def fill(file: Path, leave: int) -> None:
    """Take all room but so many bytes."""
    room = os.statvfs(file.parent)
    with file.open("wb") as filler:
        os.posix_fallocate(filler.fileno(), 0, room.f_bavail * room.f_frsize - leave)


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() != 0, reason="only root may mount")
async def test_a_full_disk__is_answered_503_and_recovers_by_itself(tmp_path: Path) -> None:
    with small_disk(tmp_path / "data") as data:
        async with stacked(data) as stack, website(stack) as site:
            assert (await site.post()).is_success
            before = uvicorn_workers(stack.pid("web") or 0)

            fill(data / "filler", leave=4_000_000)
            refused = await site.until(503, padding=PADDING // 2)
            assert int(refused.headers["retry-after"]) > 0
            assert await site.lives()
            for _ in range(5):
                assert (await site.post(PADDING // 2)).status_code in {200, 202, 503}

            (data / "filler").unlink()
            await site.until(200, 202, padding=PADDING // 2)

            assert uvicorn_workers(stack.pid("web") or 0) == before, "no process has ended"
            assert set(site.accepted) <= await stored(stack), "a 2xx means stored, on a full disk too"
