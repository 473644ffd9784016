"""The proofs behind `/health/ready`: each returns None, or what is wrong and what to do."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import datetime
from email.utils import parseaddr
from urllib.parse import urlsplit

from tidings.adapters.deploy import live_workers, problems
from tidings.adapters.prefect import lets_anyone_in
from tidings.errors import Refused, RetryLater, TidingsError
from tidings.ledger.migrate import head, revision
from tidings.ledger.store import unavailable_is_ours
from tidings.notion_setup import check_templates, property_problems
from tidings.wiring import App, mirrored

TOO_MANY = 429


@dataclass(frozen=True)
class Check:
    """One part of the chain. Its word is good for `fresh` seconds: Notion and Resend must not be asked often."""

    name: str
    proof: Callable[[App, datetime], Awaitable[str | None]]
    fresh: float

    async def prove(self, parts: App, now: datetime) -> str | None:
        """None when it works, else what is wrong and what to do."""
        try:
            return await self.proof(parts, now)
        except RetryLater as error:
            if error.status == TOO_MANY:
                raise  # it answers, so it lives; what was known of it before still holds
            return str(error)
        except TidingsError as error:
            return str(error)


async def _ledger(parts: App, now: datetime) -> str | None:
    with unavailable_is_ours():
        at = await revision(parts.ledger.engine)
    return None if at == head() else f"the ledger is at revision {at}, this code needs {head()}; run: tidings migrate"


async def _prefect(parts: App, now: datetime) -> str | None:
    await parts.runs.ping()
    settings = parts.settings
    # With the real Resend this is a production; on the same machine nobody else reaches Prefect.
    if (
        settings.real
        and not _of_this_machine(settings.prefect_api_url)
        and await lets_anyone_in(settings.prefect_api_url)
    ):
        return (
            "Prefect's API lets anyone in without a password; set PREFECT_SERVER_API_AUTH_STRING for its server and "
            "PREFECT_API_AUTH_STRING for Tidings"
        )
    return None


def _of_this_machine(url: str) -> bool:
    return urlsplit(url).hostname in {"127.0.0.1", "::1", "localhost"}


async def _deployments(parts: App, now: datetime) -> str | None:
    return "; ".join(await problems(parts.runs.client, parts.campaigns)) or None


async def _worker(parts: App, now: datetime) -> str | None:
    pool = parts.settings.work_pool
    if await live_workers(parts.runs.client, pool, now):
        return None
    return f"no worker is polling the work pool {pool!r}; start one: tidings worker"


async def _notion(parts: App, now: datetime) -> str | None:
    await parts.notion.whoami()
    found = []
    for database, given in mirrored(parts.settings, parts.campaigns).values():
        found += await property_problems(parts.notion, database, given)
    return "; ".join(found) or None


async def _templates(parts: App, now: datetime) -> str | None:
    settings = parts.settings
    results = await check_templates(parts.notion, settings.notion_templates_db_id, parts.campaigns, settings.facts, now)
    return "; ".join(r.problem for r in results if r.problem) or None


async def _resend(parts: App, now: datetime) -> str | None:
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


NEAR, FAR = 5.0, 30.0
CHECKS = (
    Check("ledger", _ledger, NEAR),
    Check("prefect", _prefect, NEAR),
    Check("deployments", _deployments, NEAR),
    Check("worker", _worker, NEAR),
    Check("notion", _notion, FAR),
    Check("templates", _templates, FAR),
    Check("resend", _resend, FAR),
)
