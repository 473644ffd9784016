"""Carries out kills, faults and edits, and notes when each began and ended."""

from __future__ import annotations

import asyncio
import random
import time
from dataclasses import dataclass, field
from typing import Any

import httpx

from tidings.adapters.notion import BODY, Notion, rich_text
from tidings.chaos import processes
from tidings.chaos.faults import NO_TROUBLE
from tidings.chaos.observe import LEDGER_DOWN, LedgerSide, PrefectSide
from tidings.chaos.progress import Progress
from tidings.chaos.scenario import Injection, Kill, Target
from tidings.errors import CopyError, ServiceError
from tidings.local.errors import PartFailed
from tidings.local.stack import Stack
from tidings.model import Template

#: How long a run in the middle of a send is waited for.
CATCH_SECONDS = 12.0
#: How much longer than planned a fault stays that no request has met.
MEET_SECONDS = 60.0
#: Keeps Resend's answer back for so long that a run can be caught waiting for it: the work done late, or at once.
CATCHING: tuple[dict[str, Any], ...] = (
    {"service": "resend", "path": "^/emails", "times": None, "kind": "delay", "delay": 3},
    {"service": "resend", "path": "^/emails", "times": None, "kind": "work_then_timeout", "delay": 6},
)
RESTARTED = {
    Target.WEB: "web",
    Target.SANDBOX: "sandbox",
    Target.PREFECT: "prefect",
    Target.POSTGRES: "postgres",
}


@dataclass
class Disturbance:
    """One kill or fault, as it happened."""

    title: str
    began: float
    ended: float = 0.0
    #: How often it struck.
    struck: int = 0


@dataclass
class Disturber:
    """Everything that goes wrong on purpose."""

    stack: Stack
    client: httpx.AsyncClient
    ledger: LedgerSide
    prefect: PrefectSide
    progress: Progress
    dice: random.Random
    done: list[Disturbance] = field(default_factory=list)

    @property
    def _control(self) -> str:
        return f"{self.stack.addresses.sandbox}/control"

    # -- kills -----------------------------------------------------------------------------------------------

    async def kill(self, planned: Kill) -> None:
        await asyncio.sleep(planned.at)
        noted = Disturbance(f"SIGKILL {planned.target.value}", time.time())
        self.progress.say(f"SIGKILL {planned.target.value}")
        match planned.target:
            case Target.WEB_WORKER:
                noted.struck = await self._kill_web_worker()
            case Target.SEND:
                noted.struck = await self._kill_send(noted)
            case Target.WORKER_ALONE:
                # Its runs live on until the supervisor, as for any dead process, clears away what is left of it.
                self.stack.kill(self._some_worker(), group=False)
                noted.struck = 1
            case _:
                name = RESTARTED.get(planned.target) or self._some_worker()
                self.stack.kill(name)
                noted.struck = 1
                await self._start_again(name, planned.pause)
        noted.ended = time.time()
        self.done.append(noted)

    def _workers(self) -> list[str]:
        return [name for name in self.stack.names if name.startswith("worker")]

    def _some_worker(self) -> str:
        return self.dice.choice(self._workers())

    async def _start_again(self, name: str, pause: float) -> None:
        await self.stack.stop_one(name)  # so that the supervisor leaves it to us
        await asyncio.sleep(pause)
        try:
            await self.stack.restart(name)
        except PartFailed as error:
            self.progress.say(f"{name} did not come back at once: {error}")

    async def _kill_web_worker(self) -> int:
        """uvicorn's own supervisor starts another."""
        below = processes.uvicorn_workers(self.stack.pid("web") or 0)
        return int(bool(below) and processes.kill(self.dice.choice(below)))

    async def _kill_send(self, noted: Disturbance) -> int:
        """Catch a run while Resend has its mails and it has no answer yet."""
        rule = await self._add_rule(self.dice.choice(CATCHING))
        try:
            async with asyncio.timeout(CATCH_SECONDS):
                while not (pid := await self._sending()):
                    await asyncio.sleep(0.1)
        except TimeoutError:
            self.progress.say("no run was in the middle of a send; another run is killed")
            pid = next((p for name in self._workers() for p in self._runs(name)), 0)
        finally:
            await self._remove_rule(rule)
        noted.began = time.time()
        return int(bool(pid) and processes.kill(pid))

    async def _sending(self) -> int:
        """The process of a run in the middle of a send, or 0."""
        ours = {pid for name in self._workers() for pid in self._runs(name)}
        try:
            for run_id in await self.ledger.in_flight():
                if (pid := await self.prefect.pid(run_id)) in ours:
                    return pid or 0
        except (*LEDGER_DOWN, httpx.HTTPError):
            pass  # something else is down too; tried again
        return 0

    def _runs(self, worker: str) -> list[int]:
        return processes.forked_runs(self.stack.pid(worker) or 0)

    # -- faults ----------------------------------------------------------------------------------------------

    async def inject(self, planned: Injection) -> None:
        await asyncio.sleep(planned.at)
        fault = planned.fault
        noted = Disturbance(fault.title, time.time())
        self.progress.say(f"fault {fault.title}")
        if fault.rule is not None:
            rule = await self._add_rule(dict(fault.rule))
            noted.struck = await self._until_struck(rule, planned.seconds)
        else:
            await self._ask("PUT", "settings", dict(fault.settings or {}))
            await asyncio.sleep(planned.seconds)
            await self._ask("PUT", "settings", NO_TROUBLE)
            noted.struck = 1
        noted.ended = time.time()
        self.done.append(noted)

    async def _until_struck(self, rule: int, seconds: float) -> int:
        """Leave a rule for so long, and longer when no request has met it yet; how often it struck."""
        deadline = time.monotonic() + seconds
        while True:
            await asyncio.sleep(min(1.0, seconds))
            rules = {each["id"]: each for each in (await self._ask("GET", "faults"))["data"]}
            struck, late = int(rules[rule]["used"]), time.monotonic() - deadline
            if rules[rule]["spent"] or (late > 0 and struck) or late > MEET_SECONDS:
                return await self._remove_rule(rule)

    async def clear(self) -> None:
        """No fault is left."""
        await self._ask("DELETE", "faults")
        await self._ask("PUT", "settings", NO_TROUBLE)

    async def prepare(self) -> None:
        """Reports that met a killed web server come again within the run; Svix's own pauses are minutes and hours."""
        await self._ask("PUT", "settings", {"webhook_retry_factor": 0.05})

    async def _add_rule(self, rule: dict[str, Any]) -> int:
        return int((await self._ask("POST", "faults", rule))["id"])

    async def _remove_rule(self, rule: int) -> int:
        """Take a rule away; how often it struck."""
        rules = {each["id"]: each for each in (await self._ask("GET", "faults"))["data"]}
        if rule not in rules:
            return 0
        await self._ask("DELETE", f"faults/{rule}")
        return int(rules[rule]["used"])

    async def _ask(self, method: str, path: str, body: Any = None) -> Any:
        """Ask the sandbox, which may be dead just now, until it answers."""
        while True:
            try:
                answer = await self.client.request(method, f"{self._control}/{path}", json=body)
            except httpx.TransportError:
                await asyncio.sleep(0.3)
                continue
            if answer.status_code != httpx.codes.NOT_FOUND:
                answer.raise_for_status()
            return answer.json()


class Marketer:
    """Changes copy in Notion while mails go out, so that a mail that is rendered twice differs."""

    def __init__(self, stack: Stack) -> None:
        given = stack.environment
        self._database = given["NOTION_TEMPLATES_DB_ID"]
        self._notion = Notion(token=given["NOTION_TOKEN"], api_url=given["NOTION_API_URL"], timeout=5)
        self._copy: dict[str, Template] = {}
        self._edits = 0

    async def learn(self, names: list[str]) -> None:
        self._copy = await self._notion.templates(self._database, names)

    async def edit(self, names: tuple[str, ...], seconds: float) -> None:
        """One edit after another over this time. Notion may be down: then this one is left out."""
        for name in names:
            await asyncio.sleep(seconds / len(names))
            self._edits += 1
            template = self._copy[name]
            body = f"{template.body}<p>Edition {self._edits}</p>"
            try:
                await self._notion.update_row(template.page_id, {BODY: {"rich_text": rich_text(body)}})
            except (ServiceError, CopyError):
                continue

    async def close(self) -> None:
        await self._notion.close()
