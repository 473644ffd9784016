"""What someone might pick instead: the same job on Procrastinate, a job queue on PostgreSQL. One job sends one mail.

`uvicorn tidings.bench.rival:api` takes signups, `python -m tidings.bench.rival` works them off;
`… prepare` makes the queue's tables.
"""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import httpx
import procrastinate
from fastapi import FastAPI

from tidings.bench.bare import SIGNUP

CONCURRENCY = 8
queue = procrastinate.App(connector=procrastinate.PsycopgConnector(conninfo=os.environ.get("RIVAL_DSN", "")))
provider = httpx.AsyncClient(
    base_url=os.environ.get("RESEND_API_URL", ""), headers={"Authorization": "Bearer re_bench_rival"}, trust_env=False
)


@queue.task(name="send", retry=5)
async def send(to: str) -> None:
    mail = {"from": "Bench <bench@resend.dev>", "to": [to], "subject": "Welcome", "html": "<p>Hello</p>" * 100}
    (await provider.post("/emails", json=mail)).raise_for_status()


@asynccontextmanager
async def _open(_: FastAPI) -> AsyncIterator[None]:
    async with queue.open_async():
        yield


api = FastAPI(lifespan=_open)


@api.post("/signup")
async def signup(payload: SIGNUP) -> dict[str, int]:  # type: ignore[valid-type]
    return {"job": await send.defer_async(to=payload.email)}  # type: ignore[attr-defined]


async def prepare() -> None:
    """The queue's tables."""
    async with queue.open_async():
        await queue.schema_manager.apply_schema_async()


async def work() -> None:
    async with queue.open_async():
        await queue.run_worker_async(concurrency=CONCURRENCY, install_signal_handlers=True)


if __name__ == "__main__":
    # Jobs know their task by the module it is imported from, which `-m` would call __main__.
    from tidings.bench import rival

    asyncio.run(rival.prepare() if "prepare" in sys.argv else rival.work())
