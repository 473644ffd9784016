"""When webhooks come faster than Prefect takes runs, many events share one handler run that is named in advance.

A gathering is such a run: created at once, due when the gathering closes. Events that come meanwhile are stored with
its id and answered with its run, without asking Prefect again. When webhooks come slowly there is none, and each event
has a run of its own.
"""

from __future__ import annotations

import asyncio
import logging
import time
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

from tidings.errors import RetryLater, ServiceError
from tidings.ledger import Ledger, dispatches, inbox
from tidings.ports import Runs

log = logging.getLogger("tidings.gather")

#: Runs of their own that one deployment may start in PERIOD, before its events are gathered.
OWN_RUNS = 60
PERIOD = timedelta(minutes=10)
#: Runs of one deployment that are being created at the same time before its events are gathered.
IN_FLIGHT = 2
#: Runs of one deployment that may wait for their turn before its events are gathered, and from when on for longer.
WAITING = 3
BACKLOG = 6
#: How long a gathering is open: briefly in a burst, longer when webhooks keep coming, so that Prefect stays small.
BURST_SECONDS = 2.0
STEADY_SECONDS = 10.0
#: A gathering takes no more events than this from one process; the next one is opened.
MOST_EVENTS = 2000
#: The run starts this long after the gathering has closed: commits under way at the closing still make it.
MARGIN_SECONDS = 0.5
#: From this many events on, the next gathering is opened before the last one closes or is full, so that nobody waits
#: for it.
BUSY = 50
AHEAD_SECONDS = 1.0
NEARLY_FULL = MOST_EVENTS // 2


@dataclass
class Gathering:
    """A handler run that is still open for events."""

    id: UUID
    #: By this process's monotonic clock, in seconds.
    closes: float
    starts_at: datetime
    opening: asyncio.Task[UUID | None]
    count: int = 0

    @property
    def open(self) -> bool:
        failed = self.opening.done() and self.run_id is None
        return time.monotonic() < self.closes and self.count < MOST_EVENTS and not failed

    @property
    def run_id(self) -> UUID | None:
        """The run, once Prefect has answered."""
        done = self.opening.done() and not self.opening.cancelled() and self.opening.exception() is None
        return self.opening.result() if done else None


class Gatherings:
    """One process's view of the open gatherings; those of other processes are joined."""

    def __init__(self, ledger: Ledger, runs: Runs, *, now: Any) -> None:
        self._ledger = ledger
        self._runs = runs
        self._now = now
        self._current: dict[str, Gathering] = {}
        self._next: dict[str, asyncio.Task[Gathering]] = {}

    async def join(self, deployment: str, count: int, in_flight: int) -> Gathering | None:
        """The gathering that these events go into, or None when they get a run of their own."""
        current = self._current.get(deployment)
        if current is None or not current.open:
            current = await self._find(deployment, in_flight)
        if current is None:
            return None
        current.count += count
        self._current[deployment] = current
        closes_soon = current.count >= BUSY and current.closes - time.monotonic() < AHEAD_SECONDS
        if closes_soon or current.count >= NEARLY_FULL:
            self._prepare(deployment)
        return current

    async def _find(self, deployment: str, in_flight: int) -> Gathering | None:
        prepared = self._next.pop(deployment, None)
        if prepared is not None:
            gathering = await prepared
            if gathering.open:
                return gathering
        async with self._ledger.reading() as connection:
            known = await dispatches.find_open(connection, deployment)
            if known is not None:
                return self._gathering(deployment, known.id, known.seconds_left)
            busy = await dispatches.pressure(connection, deployment, period=PERIOD, recent=OWN_RUNS, waiting=BACKLOG)
        if busy.recent < OWN_RUNS and busy.waiting < WAITING and in_flight < IN_FLIGHT:
            return None
        steady = busy.recent >= OWN_RUNS or busy.waiting >= BACKLOG
        return await self._open(deployment, STEADY_SECONDS if steady else BURST_SECONDS)

    async def _open(self, deployment: str, seconds: float) -> Gathering:
        dispatch_id = uuid4()
        async with self._ledger.transaction() as connection:
            await dispatches.add(connection, dispatch_id, deployment, seconds)
        return self._gathering(deployment, dispatch_id, seconds)

    def _gathering(self, deployment: str, dispatch_id: UUID, seconds: float) -> Gathering:
        starts_at = self._now() + timedelta(seconds=seconds + MARGIN_SECONDS)
        opening = asyncio.create_task(self._create_run(deployment, dispatch_id, starts_at))
        return Gathering(dispatch_id, time.monotonic() + seconds, starts_at, opening)

    async def _create_run(self, deployment: str, dispatch_id: UUID, at: datetime) -> UUID | None:
        """The gathering's run. Whoever joined it asks for the same key, and so gets the same run."""
        try:
            run_id = await self._runs.open_handler(deployment, dispatch_id, at)
        except ServiceError as error:
            level = logging.WARNING if isinstance(error, RetryLater) else logging.ERROR
            log.log(level, "gathering.not_opened", extra={"dispatch_id": str(dispatch_id), "error": str(error)})
            return None
        async with self._ledger.transaction() as connection:
            await inbox.dispatched(connection, dispatch_id, run_id, at)
        return run_id

    def _prepare(self, deployment: str) -> None:
        if deployment not in self._next:
            self._next[deployment] = asyncio.create_task(self._open(deployment, STEADY_SECONDS + AHEAD_SECONDS))

    async def drain(self) -> None:
        """Wait until the runs of all gatherings are created."""
        ahead = await asyncio.gather(*self._next.values(), return_exceptions=True)
        known = [*self._current.values(), *(g for g in ahead if isinstance(g, Gathering))]
        await asyncio.gather(*(g.opening for g in known), return_exceptions=True)
