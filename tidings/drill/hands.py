"""What people and bad luck do to a running stack. Every change knows how it is put back."""

from __future__ import annotations

import asyncio
import os
import signal
import time
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from typing import Any, TypeVar

import asyncpg
import httpx

from tidings.adapters.notion import API_VERSION, BODY, TEMPLATES, TITLE, Notion, rich_text
from tidings.campaign import Campaigns
from tidings.drill.receiver import Receiver
from tidings.errors import TidingsError
from tidings.local.environment import bearer
from tidings.local.stack import Stack
from tidings.model import Template

Json = dict[str, Any]
Undo = Callable[[], Awaitable[object]]
T = TypeVar("T")

#: How long anything may take that the drill itself waits for.
PATIENCE = 90.0
#: What ends a run, as Prefect names it.
OVER = {"COMPLETED", "FAILED", "CRASHED", "CANCELLED"}


class HandSlipped(TidingsError):
    """Something could not be broken, or not be mended: the drill itself is at fault."""


def address(outcome: str = "delivered") -> str:
    """Somebody new, whose mailbox is Resend's own test inbox; `outcome` is what becomes of the mails."""
    return f"{outcome}+drill-{uuid.uuid4().hex[:10]}@resend.dev"


async def until(what: str, probe: Callable[[], Awaitable[T | None]], *, within: float = PATIENCE) -> T:
    """What the probe finds, as soon as it finds something. Raises HandSlipped."""
    end = time.monotonic() + within
    while not (found := await probe()):
        if time.monotonic() > end:
            raise HandSlipped(f"waited {within:.0f} s in vain for {what}")
        await asyncio.sleep(0.2)
    return found


@dataclass
class Hands:
    """Everything that is done to the stack from outside."""

    stack: Stack
    receiver: Receiver
    campaigns: Campaigns
    client: httpx.AsyncClient
    notion: Notion
    #: The copy as it was at the beginning.
    copy: dict[str, Template] = field(default_factory=dict)
    _undo: list[Undo] = field(default_factory=list)

    @classmethod
    @asynccontextmanager
    async def on(cls, stack: Stack, receiver: Receiver, campaigns: Campaigns) -> AsyncIterator[Hands]:
        given = stack.environment
        notion = Notion(token=given["NOTION_TOKEN"], api_url=given["NOTION_API_URL"], requests_per_second=1000)
        async with httpx.AsyncClient(timeout=30, trust_env=False) as client:
            hands = cls(stack, receiver, campaigns, client, notion)
            try:
                hands.copy = await notion.templates(given[TEMPLATES], campaigns.templates)
                yield hands
            finally:
                await notion.close()

    def later(self, undo: Undo) -> None:
        """What has to be done to put something back."""
        self._undo.append(undo)

    async def put_back(self) -> None:
        """Undo everything, the newest change first."""
        while self._undo:
            await self._undo.pop()()

    # -- who posts -------------------------------------------------------------------------------------------

    async def post(self, path: str, email: str, **more: Any) -> httpx.Response:
        """The webhook's first example, about somebody else."""
        webhook = next(w for _, w in self.campaigns.webhooks if w.path == path)
        body = _about(next(iter(webhook.examples.values())), email) | more
        shown = bearer(self.stack.environment)
        return await self.client.post(f"{self.stack.addresses.web}/webhook/{path}", json=body, headers=shown)

    async def accepted(self, path: str, email: str, **more: Any) -> str:
        """The id of the event that a webhook became."""
        return str(_done(await self.post(path, email, **more))["event_id"])

    async def ready(self) -> dict[str, str]:
        """What `/health/ready` says is wrong, by check."""
        answer = await self.client.get(f"{self.stack.addresses.web}/health/ready")
        checks = answer.json()["checks"].items()
        return {name: said for name, said in checks if said != "ok" and not said.startswith("unknown:")}

    # -- the providers ---------------------------------------------------------------------------------------

    async def control(self, method: str, path: str, body: Any = None) -> Json:
        """The sandbox's own controls."""
        url = f"{self.stack.addresses.sandbox}/control/{path}"
        found: Json = _done(await self.client.request(method, url, json=body))
        return found

    async def provider(self, **settings: Any) -> None:
        """Change how the sandbox behaves."""
        before = await self.control("GET", "settings")
        old = {name: before[name] for name in settings}
        self.later(lambda: self.control("PUT", "settings", old))
        await self.control("PUT", "settings", settings)

    async def fault(self, kind: str, **rule: Any) -> None:
        """A fault of a provider, until it is put back."""
        made = await self.control("POST", "faults", {"kind": kind, "times": None, **rule})
        self.later(lambda: self.control("DELETE", f"faults/{made['id']}"))

    async def resend(self, method: str, path: str, body: Any = None) -> Json:
        """Resend's own API, as its dashboard uses it."""
        url, key = f"{self.stack.addresses.sandbox}/resend/{path}", self.stack.environment["RESEND_API_KEY"]
        answer = await self.client.request(method, url, json=body, headers={"Authorization": f"Bearer {key}"})
        found: Json = _done(answer)
        return found

    async def switch_reports_off(self) -> None:
        for each in (await self.resend("GET", "webhooks"))["data"]:
            await self._reports(each["id"], "disabled")
            self.later(lambda which=each["id"]: self._reports(which, "enabled"))  # type: ignore[misc]

    async def _reports(self, endpoint_id: str, status: str) -> None:
        await self.resend("PATCH", f"webhooks/{endpoint_id}", {"status": status})

    # -- Notion ----------------------------------------------------------------------------------------------

    async def edit(self, name: str, *, title: str | None = None, body: str | None = None) -> None:
        """What a person does to a template: rename it, or write another body."""
        known = self.copy[name]
        self.later(lambda: self._write(known.page_id, name, known.body))
        await self._write(known.page_id, title or name, known.body if body is None else body)

    async def _write(self, page: str, title: str, body: str) -> None:
        values = {TITLE: {"title": rich_text(title)}, BODY: {"rich_text": rich_text(body)}}
        await self.notion.update_row(page, values)

    async def rename_property(self, setting: str, old: str, new: str) -> None:
        source = await self.notion.source_id(setting, self.stack.environment[setting])
        self.later(lambda: self._rename(source, new, old))
        await self._rename(source, old, new)

    async def _rename(self, source: str, old: str, new: str) -> None:
        """What the adapter has no need of: it never renames what is a person's."""
        url = f"{self.stack.environment['NOTION_API_URL']}/v1/data_sources/{source}"
        headers = {"Authorization": "Bearer ntn_person", "Notion-Version": API_VERSION}
        _done(await self.client.patch(url, json={"properties": {old: {"name": new}}}, headers=headers))

    async def unshare(self, setting: str) -> None:
        database = {"id": self.stack.environment[setting]}
        self.later(lambda: self.control("POST", "notion/share", database))
        await self.control("POST", "notion/unshare", database)

    # -- Prefect ---------------------------------------------------------------------------------------------

    async def prefect(self, method: str, path: str, body: Any = None) -> Any:
        return _done(await self.client.request(method, f"{self.stack.addresses.prefect_api}{path}", json=body))

    async def deployment(self, name: str) -> Json:
        found: Json = await self.prefect("GET", f"/deployments/name/{name}/{name}")
        return found

    async def delete_deployment(self, name: str) -> None:
        known = await self.deployment(name)
        self.later(lambda: self.tidings("deploy"))
        await self.prefect("DELETE", f"/deployments/{known['id']}")

    async def start(self, deployment: str, **more: Any) -> str:
        """What the dashboard's "Quick run" does; returns the run's id."""
        known = await self.deployment(deployment)
        return str((await self.prefect("POST", f"/deployments/{known['id']}/create_flow_run", more))["id"])

    async def ended(self, run_id: str) -> None:
        async def over() -> bool:
            return (await self.prefect("GET", f"/flow_runs/{run_id}"))["state_type"] in OVER

        await until(f"the end of run {run_id}", over)

    # -- processes and the database --------------------------------------------------------------------------

    async def kill(self, *names: str) -> None:
        """SIGKILL; started again in reverse order when everything is put back."""
        for name in names:
            self.later(lambda which=name: self.stack.restart(which))  # type: ignore[misc]
            self.stack.kill(name)

    async def freeze(self, run_id: str) -> None:
        """SIGSTOP to the process of a run."""

        async def process() -> int | None:
            pid = (await self.prefect("GET", f"/flow_runs/{run_id}"))["infrastructure_pid"]
            return int(pid.rpartition(":")[2]) if pid else None

        pid = await until(f"the process of run {run_id}", process)
        os.kill(pid, signal.SIGSTOP)
        self.later(lambda: _go_on(pid))

    async def sql(self, statement: str, *values: Any) -> list[Any]:
        """Rows of the ledger's database, whether it is read-only or not."""
        connection = await asyncpg.connect(self.stack.addresses.database())
        try:
            await connection.execute("SET default_transaction_read_only = off")
            return list(await connection.fetch(statement, *values))
        finally:
            await connection.close()

    async def read_only(self) -> None:
        """PostgreSQL as it is after a failover that was not followed."""
        self.later(lambda: self.sql("SELECT pg_reload_conf()"))
        self.later(lambda: self.sql("ALTER SYSTEM RESET default_transaction_read_only"))
        await self.sql("ALTER SYSTEM SET default_transaction_read_only = on")
        await self.sql("SELECT pg_reload_conf()")

    async def delivered(self, email: str, count: int = 1) -> None:
        """Wait until so many mails of an address are delivered, and the ledger knows."""
        wanted = (
            "SELECT count(*) >= $2 FROM message m JOIN enrolment e ON e.id = m.enrolment_id "
            "JOIN contact c ON c.id = e.contact_id WHERE c.email = $1 AND m.state = 'delivered'"
        )

        async def there() -> bool:
            return bool((await self.sql(wanted, email, count))[0][0])

        await until(f"{count} delivered mails of {email}", there)

    # -- whoever keeps it running ----------------------------------------------------------------------------

    async def tidings(self, *arguments: str, fails: bool = False, **env: str) -> str:
        """What `tidings …` says, with these settings beside the stack's."""
        code, said = await self.stack.tidings(*arguments, mark="drill", **env)
        if (code != 0) != fails:
            raise HandSlipped(f"tidings {' '.join(arguments)} ended with {code}: {said[-2000:]}")
        return said


async def _go_on(pid: int) -> None:
    with suppress(ProcessLookupError):
        os.kill(pid, signal.SIGCONT)


def _about(example: Any, email: str) -> Json:
    body: Json = {**example, "email": email}
    if "payload" in body:  # Cal.com's
        del body["email"]
        attendees = [{**each, "email": email} for each in body["payload"]["attendees"]]
        body["payload"] = {**body["payload"], "attendees": attendees, "uid": uuid.uuid4().hex}
    if "calendly_event_uri" in body:
        body["calendly_event_uri"] = f"https://api.calendly.com/scheduled_events/{uuid.uuid4()}"
    return body


def _done(answer: httpx.Response) -> Any:
    if not answer.is_success:
        asked = f"{answer.request.method} {answer.request.url}"
        raise HandSlipped(f"{asked} was answered {answer.status_code}: {answer.text[:500]}")
    return answer.json() if answer.content else None
