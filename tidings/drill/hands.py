"""What people and bad luck do to a running stack; everything is put back by `mend`."""

from __future__ import annotations

import asyncio
import sys
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import asyncpg
import httpx

from tidings.adapters.notion import API_VERSION, BODY, SUBJECT, TEMPLATES, TITLE, Notion, rich_text
from tidings.campaign import Campaigns
from tidings.errors import TidingsError
from tidings.local import environment
from tidings.local.environment import bearer
from tidings.local.stack import Stack
from tidings.model import Template

Json = dict[str, Any]
Undo = Callable[[], Awaitable[object]]
NOTION_FIELDS = {"subject": SUBJECT, "body": BODY}


class HandSlipped(TidingsError):
    """Something could not be broken, or not be put back: the drill itself is at fault."""


def address(label: str) -> str:
    """Somebody new, whose mailbox is Resend's own test inbox. `label` begins with what becomes of the mail."""
    return f"{label}-{uuid.uuid4().hex[:10]}@resend.dev"


@dataclass
class Hands:
    """Everything that is done to the stack from outside."""

    stack: Stack
    campaigns: Campaigns
    client: httpx.AsyncClient
    notion: Notion
    #: The copy as it was at the beginning.
    copy: dict[str, Template] = field(default_factory=dict)
    _undo: list[Undo] = field(default_factory=list)

    @classmethod
    @asynccontextmanager
    async def on(cls, stack: Stack, campaigns: Campaigns) -> AsyncIterator[Hands]:
        given = stack.environment
        notion = Notion(token=given["NOTION_TOKEN"], api_url=given["NOTION_API_URL"], requests_per_second=1000)
        async with httpx.AsyncClient(timeout=30, trust_env=False) as client:
            hands = cls(stack, campaigns, client, notion)
            try:
                hands.copy = await notion.templates(given[TEMPLATES], campaigns.templates)
                yield hands
            finally:
                await hands.mend()
                await notion.close()

    async def mend(self) -> None:
        """Put everything back, the newest change first."""
        while self._undo:
            await self._undo.pop()()

    # -- who posts -------------------------------------------------------------------------------------------

    async def post(self, path: str, email: str, **more: Any) -> httpx.Response:
        """The webhook's first example, about somebody else."""
        _, webhook = next((c, w) for c, w in self.campaigns.webhooks if w.path == path)
        body = _about(next(iter(webhook.examples.values())), email) | more
        return await self.client.post(
            f"{self.stack.addresses.web}/webhook/{path}", json=body, headers=bearer(self.stack.environment)
        )

    # -- the providers ---------------------------------------------------------------------------------------

    async def control(self, method: str, path: str, body: Any = None) -> Json:
        """The sandbox's own controls."""
        answer = await self.client.request(method, f"{self.stack.addresses.sandbox}/control/{path}", json=body)
        return _done(answer)

    async def provider(self, **settings: Any) -> None:
        """Change how the sandbox behaves."""
        before = await self.control("GET", "settings")
        old = {name: before[name] for name in settings}
        self._undo.append(lambda: self.control("PUT", "settings", old))
        await self.control("PUT", "settings", settings)

    async def fault(self, kind: str, **rule: Any) -> None:
        """A fault of Notion or Resend, until it is put back."""
        rule_id = (await self.control("POST", "faults", {"kind": kind, "times": None, **rule}))["id"]
        self._undo.append(lambda: self.control("DELETE", f"faults/{rule_id}"))
        return None

    # -- Notion ----------------------------------------------------------------------------------------------

    async def edit(self, name: str, *, title: str | None = None, **texts: str) -> None:
        """What a person does to a template: rename it, or write another `subject` or `body`."""
        known = self.copy[name]
        before = {"subject": known.subject, "body": known.body}
        self._undo.append(lambda: self._write(known.page_id, name, {part: before[part] for part in texts}))
        await self._write(known.page_id, title or name, texts)

    async def _write(self, page: str, title: str, texts: dict[str, str]) -> None:
        values = {NOTION_FIELDS[part]: {"rich_text": rich_text(text)} for part, text in texts.items()}
        await self.notion.update_row(page, {TITLE: {"title": rich_text(title)}, **values})

    async def rename_property(self, setting: str, old: str, new: str) -> None:
        source = await self.notion.source_id(setting, self.stack.environment[setting])
        self._undo.append(lambda: self._rename(source, new, old))
        await self._rename(source, old, new)

    async def _rename(self, source: str, old: str, new: str) -> None:
        """What the adapter has no need of: it never renames what is a person's."""
        url = f"{self.stack.environment['NOTION_API_URL']}/v1/data_sources/{source}"
        headers = {"Authorization": "Bearer ntn_person", "Notion-Version": API_VERSION}
        _done(await self.client.patch(url, json={"properties": {old: {"name": new}}}, headers=headers))

    async def unshare(self, setting: str) -> None:
        database = {"id": self.stack.environment[setting]}
        self._undo.append(lambda: self.control("POST", "notion/share", database))
        await self.control("POST", "notion/unshare", database)

    # -- Prefect ---------------------------------------------------------------------------------------------

    async def prefect(self, method: str, path: str, body: Any = None) -> Any:
        return _done(await self.client.request(method, f"{self.stack.addresses.prefect_api}{path}", json=body))

    async def deployment(self, name: str) -> Json:
        found: Json = await self.prefect("GET", f"/deployments/name/{name}/{name}")
        return found

    async def delete_deployment(self, name: str) -> None:
        known = await self.deployment(name)
        self._undo.append(lambda: self.tidings("deploy"))
        await self.prefect("DELETE", f"/deployments/{known['id']}")

    async def change_parameters(self, name: str) -> None:
        """A deployment that was made by other code."""
        known = await self.deployment(name)
        schema = known["parameter_openapi_schema"]
        other = {**schema, "properties": {**schema["properties"], "priority": {"type": "string", "title": "priority"}}}
        self._undo.append(lambda: self.tidings("deploy"))
        await self.prefect("PATCH", f"/deployments/{known['id']}", {"parameter_openapi_schema": other})

    async def run(self, deployment: str) -> str:
        """What the dashboard's "Quick run" does; returns the run's id."""
        known = await self.deployment(deployment)
        return str((await self.prefect("POST", f"/deployments/{known['id']}/create_flow_run", {}))["id"])

    # -- processes and the database --------------------------------------------------------------------------

    async def kill(self, name: str) -> None:
        """SIGKILL; started again when everything is put back."""
        self._undo.append(lambda: self.stack.restart(name))
        self.stack.kill(name)

    async def sql(self, *statements: str) -> list[Any]:
        """The last statement's rows, of the ledger's database, whether it is read-only or not."""
        connection = await asyncpg.connect(self.stack.addresses.database())
        try:
            await connection.execute("SET default_transaction_read_only = off")
            return [await connection.fetch(statement) for statement in statements][-1]
        finally:
            await connection.close()

    async def read_only(self) -> None:
        """PostgreSQL as it is after a failover that was not followed."""
        undo = ("ALTER SYSTEM RESET default_transaction_read_only", "SELECT pg_reload_conf()")
        self._undo.append(lambda: self.sql(*undo))
        await self.sql("ALTER SYSTEM SET default_transaction_read_only = on", "SELECT pg_reload_conf()")

    # -- whoever keeps it running ----------------------------------------------------------------------------

    async def tidings(self, *arguments: str, fails: bool = False, **env: str) -> str:
        """What `tidings …` says, with these settings beside the stack's."""
        base = environment.base_environment({}, "drill", without=environment.SETTINGS)
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "tidings", *arguments,
            env={**_path(), **base, **self.stack.environment, "COLUMNS": "250", **env}, cwd=Path(self.stack.folder.run),
            stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT,
        )  # fmt: skip
        said = (await process.communicate())[0].decode()
        if (process.returncode != 0) != fails:
            raise HandSlipped(f"tidings {' '.join(arguments)} ended with {process.returncode}: {said[-2000:]}")
        return said

    def later(self, undo: Undo) -> None:
        """Something else that has to be done to put everything back."""
        self._undo.append(undo)


def _about(example: Any, email: str) -> Json:
    body: Json = {**example, "email": email}
    if "payload" in body:  # Cal.com's
        del body["email"]
        attendees = [{**each, "email": email} for each in body["payload"]["attendees"]]
        body["payload"] = {**body["payload"], "attendees": attendees, "uid": email}
    if "calendly_event_uri" in body:
        body["calendly_event_uri"] = f"https://api.calendly.com/scheduled_events/{email}"
    return body


def _done(answer: httpx.Response) -> Any:
    if not answer.is_success:
        raise HandSlipped(f"{answer.request.method} {answer.request.url} was answered {answer.status_code}: {answer.text}")
    return answer.json() if answer.content else None
