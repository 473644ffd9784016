"""The proofs behind `/health/ready`: each returns None, or what is wrong and what to do."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import datetime
from email.utils import parseaddr

from tidings.adapters.deploy import live_workers, problems
from tidings.errors import Refused, TidingsError
from tidings.ledger.migrate import head, revision
from tidings.ledger.store import unavailable_is_ours
from tidings.notion_setup import check_templates, property_problems
from tidings.wiring import App, mirrored


@dataclass(frozen=True)
class Check:
    """One part of the chain; `problem` is None when it works."""

    name: str
    problem: str | None


def checks(parts: App, now: datetime) -> list[tuple[str, Awaitable[str | None]]]:
    """Every proof by name, ready to be awaited at the same time."""
    return [
        ("ledger", _said(lambda: _ledger(parts))),
        ("prefect", _said(lambda: _prefect(parts))),
        ("deployments", _said(lambda: _deployments(parts))),
        ("worker", _said(lambda: _worker(parts, now))),
        ("notion", _said(lambda: _notion(parts))),
        ("templates", _said(lambda: _templates(parts, now))),
        ("resend", _said(lambda: _resend(parts))),
    ]


async def _said(proof: Callable[[], Awaitable[str | None]]) -> str | None:
    """A proof's own word, or the error that kept it from one."""
    try:
        return await proof()
    except TidingsError as error:
        return str(error)


async def _ledger(parts: App) -> str | None:
    with unavailable_is_ours():
        at = await revision(parts.ledger.engine)
    return None if at == head() else f"the ledger is at revision {at}, this code needs {head()}; run: tidings migrate"


async def _prefect(parts: App) -> str | None:
    await parts.runs.ping()
    return None


async def _deployments(parts: App) -> str | None:
    return "; ".join(await problems(parts.runs.client, parts.campaigns)) or None


async def _worker(parts: App, now: datetime) -> str | None:
    pool = parts.settings.work_pool
    if await live_workers(parts.runs.client, pool, now):
        return None
    return f"no worker is polling the work pool {pool!r}; start one: tidings worker"


async def _notion(parts: App) -> str | None:
    await parts.notion.whoami()
    found = []
    for database, given in mirrored(parts.settings, parts.campaigns).values():
        found += await property_problems(parts.notion, database, given)
    return "; ".join(found) or None


async def _templates(parts: App, now: datetime) -> str | None:
    settings = parts.settings
    results = await check_templates(parts.notion, settings.notion_templates_db_id, parts.campaigns, settings.facts, now)
    return "; ".join(r.problem for r in results if r.problem) or None


async def _resend(parts: App) -> str | None:
    address = parseaddr(parts.settings.sender)[1]
    wanted = address.rpartition("@")[2].lower()
    try:
        domains = await parts.resend.domains()
    except Refused as error:
        if error.code == "restricted_api_key":
            return None  # a key that may only send cannot list domains, and is a good choice
        raise
    status = {d.name.lower(): d.status for d in domains}
    if wanted == "resend.dev" or status.get(wanted) == "verified":
        return None
    state = f"is {status[wanted]!r}" if wanted in status else "is not among its domains"
    return f"the domain {wanted} of SENDER {state} at Resend; add its DNS records and verify it at resend.com/domains"
