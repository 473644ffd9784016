"""One run: the stack up, the rounds, then quiet, then the count."""

from __future__ import annotations

import asyncio
import random
import time
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

import httpx

from tidings.campaign import Campaigns
from tidings.chaos.disturb import Disturber, Marketer
from tidings.chaos.faults import LEASE
from tidings.chaos.load import Load
from tidings.chaos.observe import LEDGER_DOWN, Backlog, InboxSide, LedgerSide, PrefectSide
from tidings.chaos.progress import Progress
from tidings.chaos.recovery import Line, lines
from tidings.chaos.scenario import Round, Scenario
from tidings.chaos.verdict import Asked, Run, Sides, Verdict, judge
from tidings.local.config import StackConfig
from tidings.local.environment import bearer
from tidings.local.stack import Stack

LOOK_SECONDS = 1.0
#: A webhook is answered within this, or posted again.
ANSWER_SECONDS = 15.0
#: After this long the run ends even if things still move.
LONGEST_WAIT = 1800.0
#: Everything must have been done at this many looks in a row.
QUIET_LOOKS = 3


@dataclass(frozen=True)
class Outcome:
    """What a run found."""

    scenario: Scenario
    verdict: Verdict
    lines: tuple[Line, ...]
    seconds: float
    #: Seconds from the last round to quiet; None when it did not become quiet in time.
    quiet_after: float | None
    postings: int
    statuses: Counter[str]
    runs: Counter[str]
    failures: Counter[str]
    reports: Counter[str]
    #: Processes that ended although nobody killed them.
    deaths: tuple[str, ...] = field(default=())

    @property
    def right(self) -> bool:
        return self.verdict.right and self.quiet_after is not None


def stack_config(scenario: Scenario, folder: Path) -> StackConfig:
    return StackConfig.apart(
        folder,
        web_workers=2,
        workers=2,
        testing=True,
        testing_minute=scenario.size.testing_minute,
        sandbox_options={"notion-rate": "0", "resend-rate": "10"},
        env={"LEASE_SECONDS": f"{LEASE:g}", "RESEND_REQUESTS_PER_SECOND": "10"},
    )


async def run(scenario: Scenario, campaigns: Campaigns, folder: Path, progress: Progress) -> Outcome:
    deaths: list[str] = []

    def say(text: str) -> None:
        """Only what the supervisor has to tell of: nobody wants to read of each start."""
        if " ended with " in text and "SIGKILL" not in text:
            deaths.append(text)
            progress.say(text)

    progress.say("starting PostgreSQL, Prefect, sandbox, 2 workers, web server with 2 processes")
    async with Stack(stack_config(scenario, folder), say=say) as stack:
        progress.say(f"up: {stack.addresses.web}, Prefect {stack.addresses.prefect}, sandbox {stack.addresses.sandbox}")
        async with _watched(stack), _clients() as (senders, asking):
            chaos = Chaos.of(scenario, campaigns, stack, senders, asking, progress)
            try:
                return await chaos.run(deaths)
            finally:
                await chaos.ledger.close()


@asynccontextmanager
async def _watched(stack: Stack) -> AsyncIterator[None]:
    supervising = asyncio.create_task(stack.supervise())
    try:
        yield
    finally:
        supervising.cancel()
        with suppress(asyncio.CancelledError):
            await supervising


@asynccontextmanager
async def _clients() -> AsyncIterator[tuple[httpx.AsyncClient, httpx.AsyncClient]]:
    limits = httpx.Limits(max_connections=100, max_keepalive_connections=100)
    async with (
        httpx.AsyncClient(timeout=ANSWER_SECONDS, limits=limits, trust_env=False) as senders,
        httpx.AsyncClient(timeout=20, trust_env=False) as asking,
    ):
        yield senders, asking


@dataclass
class Chaos:
    """The parts of a run, wired together."""

    scenario: Scenario
    load: Load
    ledger: LedgerSide
    inbox: InboxSide
    prefect: PrefectSide
    disturber: Disturber
    marketer: Marketer
    progress: Progress
    templates: list[str]
    looks: list[Backlog] = field(default_factory=list)
    #: Faults under way: one that no request has met yet goes on into the next round.
    injections: list[asyncio.Task[None]] = field(default_factory=list)

    @classmethod
    def of(
        cls,
        scenario: Scenario,
        campaigns: Campaigns,
        stack: Stack,
        senders: httpx.AsyncClient,
        asking: httpx.AsyncClient,
        progress: Progress,
    ) -> Chaos:
        deployments = [w.deployment for _, w in campaigns.webhooks] + [c.send_deployment for c in campaigns.values()]
        ledger = LedgerSide(stack.addresses.database())
        prefect = PrefectSide(asking, stack.addresses.prefect_api, deployments)
        dice = random.Random(scenario.seed)  # noqa: S311
        return cls(
            scenario=scenario,
            load=Load(senders, stack.addresses.web, bearer(stack.environment)),
            ledger=ledger,
            inbox=InboxSide(stack.folder.sandbox),
            prefect=prefect,
            disturber=Disturber(stack, asking, ledger, prefect, progress, dice),
            marketer=Marketer(stack),
            progress=progress,
            templates=campaigns.templates,
        )

    async def run(self, deaths: list[str]) -> Outcome:
        began = time.monotonic()
        await self.disturber.prepare()
        await self.marketer.learn(self.templates)
        looking = asyncio.create_task(self._look())
        try:
            for each in self.scenario.rounds:
                await self._round(each)
            self.progress.say("waiting for the last faults to be met")
            await asyncio.gather(*self.injections)
            await self.disturber.clear()
            self.progress.say("no more faults; waiting until everything is done")
            ended = time.monotonic()
            quiet = await self._quiet()
        finally:
            for task in (looking, *self.injections):
                task.cancel()
            await self.marketer.close()
        accepted = await self.inbox.accepted_at()
        return Outcome(
            scenario=self.scenario,
            verdict=judge(await self._sides()),
            lines=tuple(lines(self.disturber.done, self.load.answered, accepted, self.looks)),
            seconds=time.monotonic() - began,
            quiet_after=time.monotonic() - ended if quiet else None,
            postings=sum(self.load.statuses.values()),
            statuses=self.load.statuses,
            runs=await self.prefect.counts(),
            failures=await self.prefect.failures(),
            reports=await self.inbox.reports(),
            deaths=tuple(deaths),
        )

    async def _round(self, each: Round) -> None:
        """Everything of a round at its time; the next begins when what was killed is back."""
        self.progress.say(f"round {each.number} of {len(self.scenario.rounds)}: {len(each.postings)} postings")
        self.load.start(each.postings)
        self.injections += [asyncio.create_task(self.disturber.inject(injection)) for injection in each.injections]
        async with asyncio.TaskGroup() as group:
            group.create_task(asyncio.sleep(each.seconds))
            group.create_task(self.marketer.edit(each.edits, each.seconds))
            for kill in each.kills:
                group.create_task(self.disturber.kill(kill))

    async def _look(self) -> None:
        """The ledger's backlog, over and over, for the progress and for the times to recover."""
        while True:
            with suppress(*LEDGER_DOWN):
                self.looks.append(await self.ledger.backlog())
                self.progress.show(f"{self._standing()}; {self.looks[-1]}")
            await asyncio.sleep(LOOK_SECONDS)

    def _standing(self) -> str:
        return f"{len(self.load.accepted)} webhooks accepted, {self.load.open} waiting for a 2xx"

    async def _quiet(self) -> bool:
        """Whether everything gets done: for as long as something moves, or is not due yet, it is waited for."""
        patience = self.scenario.size.patience
        await self.load.finish(patience)
        in_a_row, stood, moved, end = 0, "", time.time(), time.time() + LONGEST_WAIT
        while in_a_row < QUIET_LOOKS:
            await asyncio.sleep(LOOK_SECONDS)
            stands, now = self.looks[-1].stands if self.looks else "", time.time()
            # While mails are still to become due, nobody is late.
            waits = (self.looks[-1].next_due or 0.0) > now if self.looks else False
            if stands != stood or waits:
                stood, moved = stands, now
            if now > min(moved + patience, end):
                return False
            in_a_row = in_a_row + 1 if await self._nothing_left() else 0
        return True

    async def _nothing_left(self) -> bool:
        if not self.looks or not self.looks[-1].quiet or time.time() - self.looks[-1].at > 3 * LOOK_SECONDS:
            return False
        if await self.inbox.reports_waiting():
            return False
        left = await self._runs_left()
        if left:
            self.progress.show(f"all mails are out; {len(left)} runs have not ended, such as {left[0].name}")
        return not left

    async def _runs_left(self) -> list[Run]:
        try:
            return [run for run in await self.prefect.open_runs() if not run.future]
        except httpx.HTTPError as error:
            return [Run(f"Prefect does not answer: {error}", "unknown", future=False)]

    async def _sides(self) -> Sides:
        asked = [
            Asked(w.email, w.templates, frozenset(self.load.accepted.get(w.number, ())), w.number in self.load.tried)
            for w in self.scenario.webhooks
        ]
        return Sides(
            asked=asked,
            events=await self.ledger.events(),
            enrolments=await self.ledger.enrolments(),
            messages=await self.ledger.messages(),
            inbox=await self.inbox.mails(),
            runs=await self._runs_left(),
        )
