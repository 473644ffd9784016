"""A worker goes on when Prefect answers with an error, as it does while its PostgreSQL is away."""

from __future__ import annotations

import asyncio
import re
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from urllib.parse import urlsplit

import pytest
from live_parts import Live, address
from live_sequences import noshow

pytestmark = pytest.mark.stack

ERROR = b"HTTP/1.1 500 Internal Server Error\r\ncontent-length: 0\r\n\r\n"


class Between:
    """Passes on what a process and Prefect say, but answers one kind of request itself, with an error, once."""

    def __init__(self, api: str, request: str) -> None:
        self._to = urlsplit(api)
        self._request = re.compile(request.encode())
        self.answered = 0

    @asynccontextmanager
    async def open(self) -> AsyncIterator[str]:
        server = await asyncio.start_server(self._connected, "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]
        async with server:
            yield f"http://127.0.0.1:{port}{self._to.path}"

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there, back = await asyncio.open_connection(self._to.hostname, self._to.port)
        with suppress(ConnectionError):
            await asyncio.gather(self._pass(reader, back, refuse=writer), self._pass(there, writer))

    async def _pass(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, refuse: asyncio.StreamWriter | None = None
    ) -> None:
        try:
            while said := await reader.read(65536):
                if refuse and not self.answered and self._request.match(said):
                    self.answered += 1
                    refuse.write(ERROR)
                else:
                    writer.write(said)
                    await writer.drain()
        finally:
            writer.close()


async def test_an_error_of_prefects_before_a_run__ends_no_worker(live: Live) -> None:
    email = address("outlives")
    between = Between(live.prefect.api, r"GET /api/deployments/[0-9a-f-]{36} ")
    await live.stack.stop_one("worker")
    try:
        async with (
            between.open() as api,
            live.process("worker-between", [sys.executable, "-m", "tidings", "worker"], PREFECT_API_URL=api) as worker,
        ):
            await live.accepted("calendly-noshow", noshow(email))
            await live.mails(email, 3)
            assert between.answered == 1
            assert worker.alive, worker.tail()
    finally:
        await live.stack.restart("worker")
