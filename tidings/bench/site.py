"""Where it is measured: a stack of its own, and the baselines' processes beside it."""

from __future__ import annotations

import asyncio
import os
import sys
import time
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any, TypeVar

import asyncpg
import httpx

from tidings.errors import TidingsError
from tidings.local import ports, services
from tidings.local.config import HOST
from tidings.local.processes import Command, Process
from tidings.local.stack import Stack
from tidings.settings import ROOT

T = TypeVar("T")
Say = Callable[[str], None]
RIVAL_DATABASE = "rival"


@dataclass
class Site:
    """The running stack with what measurements ask of it."""

    stack: Stack
    folder: Path
    http: httpx.AsyncClient
    say: Say
    #: The baselines' processes that run, by name.
    beside: dict[str, Process] = field(default_factory=dict)
    #: What stays until all is measured.
    stay: AsyncExitStack = field(default_factory=AsyncExitStack)
    _rival: str | None = None

    @property
    def signup(self) -> str:
        return f"{self.stack.addresses.web}/webhook/christmas-signup"

    @asynccontextmanager
    async def ledger(self, database: str = "tidings") -> AsyncIterator[asyncpg.Connection[Any]]:
        connection = await asyncpg.connect(self.stack.addresses.database(database))
        try:
            yield connection
        finally:
            await connection.close()

    async def value(self, query: str, *arguments: Any) -> Any:
        async with self.ledger() as connection:
            return await connection.fetchval(query, *arguments)

    async def provider(self, **settings: Any) -> None:
        """Change the sandbox's settings."""
        answer = await self.http.put(f"{self.stack.addresses.sandbox}/control/settings", json=settings)
        answer.raise_for_status()

    async def settled(self) -> None:
        """Wait until what came before is worked off: it would take turns at the provider from what is measured next."""
        await self.provider(resend_rate=0)

        async def nothing_left() -> bool:
            left = await self.value(
                "SELECT (SELECT count(*) FROM event WHERE state IN ('accepted', 'dispatched')) + (SELECT count(*) "
                "FROM message WHERE state IN ('scheduled', 'sending') AND due_at <= now())"
            )
            self.say(f"working off what came before: {left:,} left")
            return not left

        await until("what came before to be worked off", nothing_left, within=900, every=1.0)

    async def mail_to(self, email: str, within: float) -> datetime:
        """When the provider took the first mail to this address."""
        url = f"{self.stack.addresses.sandbox}/control/inbox"

        async def first() -> datetime | None:
            found = (await self.http.get(url, params={"to": email, "order": "asc", "bodies": "false"})).json()["data"]
            return datetime.fromisoformat(found[0]["created_at"]) if found else None

        return await until(f"a mail to {email}", first, within=within, every=0.05)

    async def runs(self, **filters: Any) -> int:
        """How many flow runs Prefect has."""
        answer = await self.http.post(f"{self.stack.addresses.prefect_api}/flow_runs/count", json=filters, timeout=30)
        return int(answer.json())

    async def start_run(self, deployment: str) -> None:
        """A run of one of Tidings' deployments, now."""
        api = self.stack.addresses.prefect_api
        found = (await self.http.get(f"{api}/deployments/name/{deployment}/{deployment}")).raise_for_status().json()
        answer = await self.http.post(f"{api}/deployments/{found['id']}/create_flow_run", json={})
        answer.raise_for_status()

    @asynccontextmanager
    async def process(
        self, name: str, args: list[str], *, env: Mapping[str, str] | None = None, url: str | None = None
    ) -> AsyncIterator[Process]:
        """A process beside the stack, stopped at the end."""
        process = self.beside[name] = Process(self._command(name, args, env or {}, url), lambda _: None)
        await process.start()
        try:
            yield process
        finally:
            del self.beside[name]
            await process.stop()

    def _command(self, name: str, args: list[str], env: Mapping[str, str], url: str | None = None) -> Command:
        return Command(
            name=name,
            args=args,
            env={**self._environment, **env},
            cwd=self.folder,
            log=self.folder / f"{name}.log",
            ready=services.answering(url) if url else None,
        )

    @property
    def _environment(self) -> dict[str, str]:
        return {**os.environ, **self.stack.environment, "PYTHONPATH": str(ROOT)}

    @asynccontextmanager
    async def uvicorn(
        self, name: str, app: str, *options: str, env: Mapping[str, str] | None = None
    ) -> AsyncIterator[str]:
        """A server started as Tidings' own is; yields its address."""
        port = ports.free_port()
        args = [sys.executable, "-m", "uvicorn", app, "--host", HOST, "--port", str(port), *options]
        base = f"http://{HOST}:{port}"
        async with self.process(name, args, env=env, url=f"{base}/openapi.json"):
            yield base

    @asynccontextmanager
    async def without_worker(self) -> AsyncIterator[None]:
        """Nothing is worked off meanwhile."""
        await self.stack.stop_one("worker")
        try:
            yield
        finally:
            await self.stack.restart("worker")

    @asynccontextmanager
    async def standard_worker(self) -> AsyncIterator[None]:
        """Prefect's own process worker in the place of ours."""
        prefect = str(Path(sys.executable).parent / "prefect")
        args = [prefect, "worker", "start", "--pool", "tidings", "--type", "process", "--limit", "4"]
        async with self.without_worker(), self.process("standard-worker", args):
            yield

    async def rival(self) -> str:
        """The address of the rival's server, which stays once it has been started."""
        if self._rival is None:
            server = self.uvicorn("rival", "tidings.bench.rival:api", env=await self.rival_environment())
            self._rival = await self.stay.enter_async_context(server)
        return self._rival

    async def rival_environment(self) -> dict[str, str]:
        """A database of its own for the rival."""
        dsn = self.stack.addresses.database(RIVAL_DATABASE)
        env = {"RIVAL_DSN": dsn, "RESEND_API_URL": self.stack.environment["RESEND_API_URL"]}
        async with self.ledger("postgres") as connection:
            known = await connection.fetchval("SELECT 1 FROM pg_database WHERE datname = $1", RIVAL_DATABASE)
            if not known:
                await connection.execute(f"CREATE DATABASE {RIVAL_DATABASE}")
        if not known:
            args = [sys.executable, "-m", "tidings.bench.rival", "prepare"]
            await Process(self._command("rival-prepare", args, env), lambda _: None).run()
        return env


async def until(what: str, probe: Callable[[], Awaitable[T | None]], *, within: float, every: float = 0.2) -> T:
    """What the probe finds. Raises TidingsError when it finds nothing in time."""
    deadline = time.monotonic() + within
    while True:
        found = await probe()
        if found:
            return found
        if time.monotonic() > deadline:
            raise TidingsError(f"waited {within:.0f} s in vain for {what}")
        await asyncio.sleep(every)


def person(label: str) -> str:
    """An address that is nobody else's."""
    return f"delivered+{label}-{uuid.uuid4().hex[:10]}@resend.dev"
