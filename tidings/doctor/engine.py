"""Prefect: it answers, only to us, knows every deployment, and a worker with this very code polls."""

from __future__ import annotations

import asyncio
import ipaddress
import socket
from datetime import datetime
from urllib.parse import urlsplit

from tidings.adapters.deployed import expected_of, live_workers, problems, signatures
from tidings.adapters.prefect import lets_anyone_in
from tidings.adapters.public import PublicSide
from tidings.code import TOLD, Code, of_this_process
from tidings.doctor.check import Word, all_of, cure, ok, unknown, wrong
from tidings.errors import LedgerUnavailable, ServiceError
from tidings.ledger.memory import Memory
from tidings.settings import LOOPBACK
from tidings.wiring import App

LOCK_IT = (
    "set PREFECT_SERVER_API_AUTH_STRING for its server and PREFECT_API_AUTH_STRING for Tidings, and let no proxy "
    "pass it on"
)


async def prefect(parts: App, now: datetime) -> Word:
    """The API answers and takes our password."""
    settings = parts.settings
    with cure("set PREFECT_API_AUTH_STRING to the PREFECT_SERVER_API_AUTH_STRING of Prefect's server", 401, 403):
        await parts.runs.ping()
    # With the real Resend this is a production; on the same machine nobody else reaches Prefect.
    if settings.real and not _of_this_machine(settings.prefect_api_url):
        if await lets_anyone_in(settings.prefect_api_url):
            return wrong(f"Prefect's API lets anyone in without a password; {LOCK_IT}")
        return ok("its API asks for a password")
    return ok()


async def exposed(parts: App, now: datetime) -> Word:
    """Prefect's API is not open to the world: neither at our public address nor at its own (F20)."""
    settings = parts.settings
    async with PublicSide(settings.public_url) as side:
        try:
            answer = await side.get("/api/admin/version")
        except ServiceError as error:
            return unknown(f"the public address does not answer: {error.detail}")
    if answer.status == 200 and isinstance(answer.body, str):
        return wrong(f"{settings.public_url}/api/ is Prefect's API, open to the world; {LOCK_IT}")
    where = urlsplit(settings.prefect_api_url)
    if where.scheme == "http" and await asyncio.to_thread(_is_public, where.hostname or ""):
        return wrong(
            f"PREFECT_API_URL leads through the internet in the clear ({where.scheme}://{where.hostname}); "
            "use its address in the internal network, or https"
        )
    return ok()


def _is_public(host: str) -> bool:
    """Whether any address of this host is one that the whole internet can reach."""
    try:
        found = socket.getaddrinfo(host, None)
    except OSError:
        return False
    return any(ipaddress.ip_address(str(each[4][0]).partition("%")[0]).is_global for each in found)


def _of_this_machine(url: str) -> bool:
    return urlsplit(url).hostname in LOOPBACK


async def deployments(parts: App, now: datetime) -> Word:
    """Every deployment is there and fits the code (F4, F8)."""
    expected = await expected_of(parts.settings.campaign_folders)
    found = await problems(parts.runs.api, expected, parts.settings.work_pool)
    return all_of(list(found.values()), f"{len(expected)} deployments")


async def worker(parts: App, now: datetime) -> Word:
    """A worker polls, and its runs have the code that is here (F6, F8)."""
    pool = parts.settings.work_pool
    live = await live_workers(parts.runs.api, pool, now)
    if not live:
        return wrong(f"no worker is polling the work pool {pool!r}; start one: tidings worker")
    try:
        told = await Memory(parts.ledger).beginning(TOLD)
    except LedgerUnavailable as error:
        return unknown(f"{', '.join(live)} polls {pool!r}; which code it runs is not known: {error}")
    known = {name: Code.from_json(told[name]) for name in live if name in told}
    if not known:
        return unknown(f"{', '.join(live)} polls {pool!r}, and has not told which code it runs")
    expected = await expected_of(parts.settings.campaign_folders)
    return _compared(known, of_this_process(signatures(expected)))


def _compared(workers: dict[str, Code], here: Code) -> Word:
    found = {name: code.differences(here) for name, code in workers.items()}
    differing = [
        f"the worker {name!r} runs {', '.join(what)}; restart it with this code and the packages of requirements.txt"
        for name, what in found.items()
        if what
    ]
    first = next(iter(workers.values()))
    seen = f"{len(workers)} with Python {first.python}, Prefect {first.packages.get('prefect')}, code {first.source}"
    return all_of(differing, seen)
