"""The start command of production, with its four processes: what holds for one holds for all."""

from __future__ import annotations

import asyncio
import socket
import subprocess
import sys
import time
from collections.abc import Iterator

import httpx
import pytest
from web_client import Web
from worlds import address

from tidings.metrics import FRESH_SECONDS, WRITE_SECONDS
from tidings.settings import ROOT

SIGNUP = "/webhook/christmas-signup"
LIMIT = 10


@pytest.fixture
def four_workers(web_environment: dict[str, str]) -> Iterator[str]:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [
        sys.executable,
        "-m",
        "uvicorn",
        "server:app",
        "--host",
        "127.0.0.1",
        "--port",
        str(port),
        "--workers",
        "4",
    ]
    environment = {
        **web_environment,
        "TRUSTED_PROXIES": "1",
        "FORM_LIMIT_PER_CLIENT": str(LIMIT),
        "PYTHONPATH": str(ROOT),
    }
    server = subprocess.Popen(
        command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    yield f"http://127.0.0.1:{port}"
    server.terminate()
    server.wait(30)


async def answers(http: httpx.AsyncClient) -> bool:
    try:
        return (await http.get("/health")).status_code == 200
    except httpx.TransportError:
        return False


async def up(url: str) -> None:
    async with httpx.AsyncClient(base_url=url, trust_env=False, timeout=60) as http:
        until = time.monotonic() + 90
        while not await answers(http):
            assert time.monotonic() < until, "the server does not come up"
            await asyncio.sleep(0.2)


@pytest.mark.slow
async def test_a_limit__holds_across_uvicorns_workers(web: Web, four_workers: str) -> None:
    async def post(n: int) -> int:
        # A connection of its own, so that the posts are spread over the processes.
        async with httpx.AsyncClient(base_url=four_workers, trust_env=False, timeout=60) as http:
            headers = {"x-forwarded-for": f"8.8.8.{n}, 9.9.9.9"}
            return (await http.post(SIGNUP, json={"email": address(), "consent": False}, headers=headers)).status_code

    await up(four_workers)

    found = await asyncio.gather(*[post(n) for n in range(60)])

    assert sorted(found) == [200] * LIMIT + [429] * (60 - LIMIT)
    assert len(await web.rows("SELECT id FROM event")) == LIMIT


@pytest.mark.slow
async def test_figures__are_those_of_all_of_uvicorns_workers_whichever_is_asked(web: Web, four_workers: str) -> None:
    await up(four_workers)
    posts = 40

    async def get(path: str, **body: object) -> httpx.Response:
        async with httpx.AsyncClient(base_url=four_workers, trust_env=False, timeout=60) as http:
            return await (http.post(path, json=body) if body else http.get(path))

    answered = await asyncio.gather(*[get(SIGNUP, email=address(), consent=False) for _ in range(posts)])
    assert [a.status_code for a in answered] == [200] * posts
    counted = 'tidings_webhooks_total{result="ignored",source="christmas-signup",status="200"}'
    until = time.monotonic() + 60  # on a busy machine a process may write its figures later than it means to
    while f"{counted} {posts}.0" not in (await get("/metrics")).text:
        assert time.monotonic() < until, [each for each in (await get("/metrics")).text.splitlines() if counted in each]
        await asyncio.sleep(1)
    await asyncio.sleep(WRITE_SECONDS + FRESH_SECONDS + 1)

    for page in [(await get("/metrics")).text for _ in range(12)]:
        assert f"{counted} {posts}.0" in page.splitlines()
        assert f'tidings_webhook_duration_seconds_count{{source="christmas-signup"}} {posts}.0' in page.splitlines()
