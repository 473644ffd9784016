"""A running stack seen from outside: its webhooks, its ledger, Prefect's API and the sandbox's inbox."""

from __future__ import annotations

import asyncio
import sys
import time
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypeVar

import asyncpg
import httpx
from evidence import in_time
from itsdangerous import URLSafeSerializer

from tidings.local import environment, ports, services
from tidings.local.processes import Command, Process
from tidings.local.stack import Stack
from tidings.settings import ROOT

Json = dict[str, Any]
T = TypeVar("T")

#: How long anything may take on an idle machine: many times what it does take.
PATIENCE = 60.0


async def until(what: str, probe: Callable[[], Awaitable[T | None]], *, within: float = PATIENCE) -> T:
    """What the probe finds, as soon as it finds something. A busy machine is given more time."""
    began = time.monotonic()
    while True:
        found = await probe()
        if found:
            return found
        if time.monotonic() - began > in_time(within):
            raise AssertionError(f"waited {time.monotonic() - began:.0f} s in vain for {what}")
        await asyncio.sleep(0.1)


def address(label: str) -> str:
    """An address that is nobody else's; Resend's test inbox takes it."""
    return f"delivered+{label}-{uuid.uuid4().hex[:10]}@resend.dev"


class SandboxView:
    """The providers: their inbox, their faults and their settings."""

    def __init__(self, http: httpx.AsyncClient, url: str) -> None:
        self.http = http
        self.url = url
        self._changed: Json = {}

    async def get(self, path: str, **params: Any) -> Json:
        answer = await self.http.get(f"{self.url}/control/{path}", params=params)
        assert answer.status_code == 200, answer.text
        found: Json = answer.json()
        return found

    async def inbox(self, to: str, *, bodies: bool = True) -> list[Json]:
        """The mails of an address, oldest first."""
        params = {"to": to, "order": "asc", "limit": 1000, "bodies": str(bodies).lower()}
        return list((await self.get("inbox", **params))["data"])

    async def everything(self) -> list[Json]:
        """Every mail that was ever taken, without bodies."""
        found: list[Json] = []
        while True:
            page = await self.get("inbox", order="asc", limit=1000, offset=len(found), bodies="false")
            found += page["data"]
            if not page["has_more"]:
                return found

    async def requests(self, *, after: int = 0, service: str = "resend") -> list[Json]:
        return list((await self.get("requests", after=after, service=service, limit=100_000))["data"])

    async def fault(self, kind: str, **rule: Any) -> int:
        answer = await self.http.post(f"{self.url}/control/faults", json={"kind": kind, **rule})
        assert answer.status_code == 201, answer.text
        return int(answer.json()["id"])

    async def struck(self, fault: int) -> int:
        """How often a fault has struck."""
        return next(int(f["used"]) for f in (await self.get("faults"))["data"] if f["id"] == fault)

    async def heal(self) -> None:
        await self.http.delete(f"{self.url}/control/faults")

    async def change(self, **settings: Any) -> None:
        """Change settings until the end of the test."""
        before = await self.get("settings")
        answer = await self.http.put(f"{self.url}/control/settings", json=settings)
        assert answer.status_code == 200, answer.text
        for name in settings:
            self._changed.setdefault(name, before[name])

    async def mend(self) -> None:
        """No faults, and the settings as they were."""
        await self.heal()
        if self._changed:
            answer = await self.http.put(f"{self.url}/control/settings", json=self._changed)
            assert answer.status_code == 200, answer.text
            self._changed = {}


class LedgerView:
    """The rows, read past the product's own code."""

    def __init__(self, pool: Any) -> None:
        self._pool = pool

    async def rows(self, sql: str, *values: Any) -> list[Json]:
        return [dict(row) for row in await self._pool.fetch(sql, *values)]

    async def row(self, sql: str, *values: Any) -> Json:
        [row] = await self.rows(sql, *values)
        return row

    async def event(self, event_id: str) -> Json:
        return await self.row("SELECT * FROM event WHERE id = $1", uuid.UUID(event_id))

    async def contact(self, email: str) -> Json:
        return await self.row("SELECT * FROM contact WHERE email = $1", email)

    async def messages(self, email: str) -> list[Json]:
        """All messages of a contact, in the order in which they are due."""
        return await self.rows(
            "SELECT m.*, e.event_id FROM message m JOIN enrolment e ON e.id = m.enrolment_id "
            "JOIN contact c ON c.id = e.contact_id WHERE c.email = $1 ORDER BY m.due_at, m.position",
            email,
        )

    async def states(self, email: str) -> list[str]:
        return [m["state"] for m in await self.messages(email)]

    async def forget_burst(self) -> None:
        """Webhooks of the last minutes count as long ago, so that the next one has a run of its own again."""
        await self.rows("UPDATE dispatch SET created_at = created_at - interval '1 hour' RETURNING id")

    async def set_aside_failures(self) -> None:
        """Events that a test made fail: a later `replay --failed` is not to find them."""
        await self.rows("UPDATE event SET state = 'ignored' WHERE state = 'failed' RETURNING id")


class PrefectView:
    """Prefect, as its dashboard sees it."""

    def __init__(self, http: httpx.AsyncClient, api: str) -> None:
        self.http = http
        self.api = api

    async def post(self, path: str, body: Any) -> Any:
        answer = await self.http.post(f"{self.api}{path}", json=body)
        assert answer.status_code < 300, answer.text
        return answer.json()

    async def patch(self, path: str, body: Any) -> None:
        answer = await self.http.patch(f"{self.api}{path}", json=body)
        assert answer.status_code < 300, answer.text

    async def delete(self, path: str) -> None:
        answer = await self.http.delete(f"{self.api}{path}")
        assert answer.status_code < 300, answer.text

    async def all(self, what: str, **wanted: Any) -> list[Json]:
        """Every page of a query."""
        found: list[Json] = []
        while True:
            page = await self.post(f"/{what}/filter", {**wanted, "limit": 200, "offset": len(found)})
            found += page
            if len(page) < 200:
                return found

    async def run(self, run_id: str) -> Json:
        answer = await self.http.get(f"{self.api}/flow_runs/{run_id}")
        assert answer.status_code == 200, answer.text
        found: Json = answer.json()
        return found

    async def ended(self, run_id: str, *, within: float = PATIENCE) -> Json:
        """A run, once it is over."""

        async def over() -> Json | None:
            run = await self.run(run_id)
            return run if run["state_type"] in ("COMPLETED", "FAILED", "CRASHED", "CANCELLED") else None

        return await until(f"the end of run {run_id}", over, within=within)

    async def runs_of_deployment(self, name: str) -> list[Json]:
        return await self.all("flow_runs", deployments={"name": {"any_": [name]}})

    async def runs_of(self, messages: Sequence[Mapping[str, Any]]) -> list[Json]:
        """The runs that these messages count on."""
        ids = sorted({str(m["flow_run_id"]) for m in messages if m["flow_run_id"]})
        return await self.all("flow_runs", flow_runs={"id": {"any_": ids}})

    async def task_runs(self, run_id: str, name: str) -> list[Json]:
        """Task runs of one task. Prefect stores them a moment after the run."""

        async def recorded() -> list[Json] | None:
            found = await self.all("task_runs", flow_runs={"id": {"any_": [run_id]}})
            mine = [t for t in found if t["name"].startswith(name)]
            return mine if mine and all(t["end_time"] for t in mine) else None

        return await until(f"the task {name!r} of run {run_id}", recorded)

    async def artifacts(self, run_ids: Sequence[str]) -> list[Json]:
        """What these runs tell; without Prefect's own notes on where it keeps a result."""
        found = await self.all("artifacts", artifacts={"flow_run_id": {"any_": list(run_ids)}})
        return [artifact for artifact in found if artifact["key"]]

    async def deployment(self, name: str) -> Json | None:
        answer = await self.http.get(f"{self.api}/deployments/name/{name}/{name}")
        if answer.status_code == 404:
            return None
        assert answer.status_code == 200, answer.text
        found: Json = answer.json()
        return found

    async def start(self, deployment: str) -> str:
        """What the dashboard's "Quick run" does; returns the run's id."""
        there = await self.deployment(deployment)
        assert there is not None, deployment
        return str((await self.post(f"/deployments/{there['id']}/create_flow_run", {}))["id"])

    async def quick_run(self, deployment: str) -> Json:
        """A run from the dashboard, once it is over."""
        return await self.ended(await self.start(deployment))

    async def mirror(self) -> Json:
        """Bring Notion up to date, once no other run does: Prefect would make this one wait for half a minute."""

        async def free() -> bool:
            runs = await self.runs_of_deployment("tidings-notion-mirror")
            return not any(r["state_type"] in ("PENDING", "RUNNING") for r in runs)

        await until("other mirror runs to end", free)
        return await self.quick_run("tidings-notion-mirror")

    async def cancel(self, run_id: str) -> None:
        """What the dashboard's "Cancel" does."""
        answer = await self.post(
            f"/flow_runs/{run_id}/set_state", {"state": {"type": "CANCELLING", "name": "Cancelling"}, "force": False}
        )
        assert answer["status"] in ("ACCEPT", "REJECT"), answer


@dataclass
class Live:
    """Everything that a test does and looks at."""

    stack: Stack
    http: httpx.AsyncClient
    sandbox: SandboxView
    ledger: LedgerView
    prefect: PrefectView

    @classmethod
    @asynccontextmanager
    async def of(cls, stack: Stack) -> AsyncIterator[Live]:
        at = stack.addresses
        async with (
            asyncpg.create_pool(at.database(), min_size=1, max_size=4) as pool,
            httpx.AsyncClient(timeout=30, trust_env=False) as http,
        ):
            sandbox, prefect = SandboxView(http, at.sandbox), PrefectView(http, at.prefect_api)
            yield cls(stack, http, sandbox, LedgerView(pool), prefect)

    @property
    def web(self) -> str:
        return self.stack.addresses.web

    @property
    def environment(self) -> dict[str, str]:
        """What a process of the product is given, with nothing of the user's own settings."""
        return self.stack.environment_beside("tests")

    # -- webhooks --------------------------------------------------------------------------------------------

    async def post(self, path: str, body: Mapping[str, Any], *, web: str | None = None) -> httpx.Response:
        shown = environment.bearer(self.stack.environment)
        return await self.http.post(f"{web or self.web}/webhook/{path}", json=dict(body), headers=shown)

    async def accepted(self, path: str, body: Mapping[str, Any], *, web: str | None = None) -> Json:
        """The answer to a webhook that is processed at once."""
        answer = await self.post(path, body, web=web)
        assert answer.status_code == 200, answer.text
        found: Json = answer.json()
        assert found["flow_run_id"], found
        return found

    async def run_now(self, run_id: str) -> Json:
        """What the dashboard's "Run now" does to a run that is scheduled for later; returns it when it is over."""
        state = {"scheduled_time": datetime.now(UTC).isoformat()}
        body = {"state": {"type": "SCHEDULED", "name": "Scheduled", "state_details": state}, "force": True}
        answer = await self.prefect.post(f"/flow_runs/{run_id}/set_state", body)
        assert answer["status"] == "ACCEPT", answer
        await self.ledger.rows("SELECT pg_notify('tidings_run', '')")  # rather than wait for the worker's next poll
        return await self.prefect.ended(run_id)

    async def leave(self, enrolment_id: str) -> None:
        """What a mail program does when its unsubscribe button is pressed."""
        signer = URLSafeSerializer(self.stack.environment["SECRET_KEY"], salt="unsubscribe")
        address = f"{self.web}/unsubscribe/{signer.dumps(enrolment_id)}"
        answer = await self.http.post(address, data={"List-Unsubscribe": "One-Click"})
        assert answer.status_code == 200, answer.text

    # -- waiting ---------------------------------------------------------------------------------------------

    async def mails(self, to: str, count: int, *, within: float = PATIENCE) -> list[Json]:
        """The mails of an address once so many are delivered, and the ledger knows."""

        async def delivered() -> list[Json] | None:
            states = await self.ledger.states(to)
            if states.count("delivered") < count:
                return None
            return await self.sandbox.inbox(to)

        try:
            return await until(f"{count} delivered mails", delivered, within=within)
        except AssertionError as error:
            rows = [(m["template"], m["state"], m["reason"]) for m in await self.ledger.messages(to)]
            inbox = len(await self.sandbox.inbox(to, bodies=False))
            raise AssertionError(f"{error}; inbox: {inbox}; ledger: {rows}; {self._tails()}") from None

    async def event_is(self, event_id: str, state: str, *, within: float = PATIENCE) -> Json:
        async def reached() -> Json | None:
            event = await self.ledger.event(event_id)
            return event if event["state"] == state else None

        try:
            return await until(f"the event to be {state}", reached, within=within)
        except AssertionError as error:
            raise AssertionError(f"{error}; it is {await self.ledger.event(event_id)}; {self._tails()}") from None

    def _tails(self) -> str:
        return "\n".join(f"--- {name}\n{tail}" for name, tail in self.stack.tails(8).items() if tail)

    async def ready(self, web: str | None = None) -> tuple[int, dict[str, str]]:
        """What `/health/ready` says: its status, and what is wrong by check."""
        answer = await self.http.get(f"{web or self.web}/health/ready")
        return answer.status_code, {k: v for k, v in answer.json()["checks"].items() if v != "ok"}

    async def not_ready(self, check: str) -> str:
        """What is wrong by this check. A server's last word on it is good for some seconds, so it is waited for."""

        async def noticed() -> str | None:
            status, problems = await self.ready()
            return problems.get(check) if status == 503 else None

        return await until("readiness to notice", noticed, within=15)

    async def well_again(self, check: str) -> None:
        """Wait until nothing is wrong by this check any more."""

        async def well() -> bool:
            return check not in (await self.ready())[1]

        await until("readiness to be content", well, within=15)

    async def ready_afresh(self) -> tuple[int, dict[str, str]]:
        """What a server that has just started says: nothing of it is remembered from before."""
        async with self.web_server() as url:
            return await self.ready(url)

    # -- processes -------------------------------------------------------------------------------------------

    async def cli(self, *arguments: str, fails: bool = False, **env: str) -> str:
        """What `python -m tidings …` says, with these settings beside the stack's."""
        code, said = await self.stack.tidings(*arguments, mark="tests", **env)
        assert (code != 0) == fails, said
        return said

    @asynccontextmanager
    async def process(
        self, name: str, args: Sequence[str], *, url: str | None = None, cwd: Path | None = None, **env: str
    ) -> AsyncIterator[Process]:
        """A further process beside the stack's own; with a url, it is waited for."""
        command = Command(
            name=name,
            args=list(args),
            env={**self.environment, **env},
            cwd=cwd or self.stack.folder.run,
            log=self.stack.folder.log(name),
            ready=services.answering(url) if url else None,
            grace=15.0,
        )
        process = Process(command, lambda group: None)
        try:
            await process.start()
            yield process
        finally:
            await process.stop()

    @asynccontextmanager
    async def web_server(self, **env: str) -> AsyncIterator[str]:
        """A further web server on the same ledger, with other settings; gives its address."""
        port = ports.free_port()
        url = f"http://127.0.0.1:{port}"
        args = [sys.executable, "-m", "uvicorn", "server:app", "--port", str(port), "--app-dir", str(ROOT)]
        async with self.process(f"web-{port}", args, url=f"{url}/health", **env):
            yield url
