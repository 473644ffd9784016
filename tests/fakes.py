"""What stands in for Prefect: the `Runs` port in memory, with Prefect's own promise that a key names one run."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from uuid import UUID, uuid4

from tidings.errors import RetryLater
from tidings.model import Slot, UnderWay


@dataclass
class FakeRun:
    """A run as Prefect's dashboard would show it. `ended` is None while it waits or runs."""

    id: UUID
    key: str
    deployment: str
    event_ids: tuple[UUID, ...] = ()
    #: Takes whatever events its dispatch has when it starts.
    gathers: bool = False
    slot: Slot | None = None
    at: datetime | None = None
    ended: str | None = None


@dataclass
class FakeRuns:
    """Keeps runs by their idempotency key. `away` makes it as unreachable as a stopped server."""

    away: bool = False
    by_key: dict[str, FakeRun] = field(default_factory=dict)
    #: Runs that a worker has taken, as Prefect believes; and those that were said to be dead.
    taken: list[UnderWay] = field(default_factory=list)
    buried: list[UUID] = field(default_factory=list)
    #: Every call that reached it, repeats of a key too.
    calls: list[str] = field(default_factory=list)

    @property
    def handlers(self) -> list[FakeRun]:
        return [run for run in self.by_key.values() if run.event_ids or run.gathers]

    @property
    def sends(self) -> list[FakeRun]:
        return [run for run in self.by_key.values() if run.slot]

    def of(self, deployment: str) -> list[FakeRun]:
        return [run for run in self.by_key.values() if run.deployment == deployment]

    def forget(self, run_id: UUID) -> None:
        """As when a person deletes a run."""
        self.by_key = {key: run for key, run in self.by_key.items() if run.id != run_id}

    def end(self, run_id: UUID, how: str) -> None:
        """Let a run end: completed, failed, crashed or cancelled."""
        next(run for run in self.by_key.values() if run.id == run_id).ended = how

    async def start_handler(self, deployment: str, event_ids: Sequence[UUID], dispatch_id: UUID) -> UUID:
        run = self._once(FakeRun(uuid4(), f"dispatch:{dispatch_id}", deployment, event_ids=tuple(event_ids)))
        return run.id

    async def open_handler(self, deployment: str, dispatch_id: UUID, at: datetime) -> UUID:
        return self._once(FakeRun(uuid4(), f"dispatch:{dispatch_id}", deployment, gathers=True, at=at)).id

    async def start_mirror(self, now: datetime) -> UUID:
        return self._once(FakeRun(uuid4(), f"mirror:{now:%Y-%m-%dT%H:%M}", "tidings-notion-mirror", at=now)).id

    async def ended_lately(self, since: datetime) -> dict[UUID, str]:
        self._reach()
        return {run.id: run.ended for run in self.sends if run.ended and run.at and run.at >= since}

    async def start_send(self, slot: Slot, *, at: datetime, key: str) -> tuple[UUID, bool]:
        run = self._once(FakeRun(uuid4(), key, f"{slot.campaign}-send-email", slot=slot, at=at))
        return run.id, run.ended is None

    async def start_later(self, deployment: str, seconds: float, now: datetime) -> tuple[datetime, UUID]:
        at = now + timedelta(seconds=seconds)
        run = self._once(FakeRun(uuid4(), f"left:{deployment}:{at:%Y-%m-%dT%H:%M}", deployment, at=at))
        return at, run.id

    async def under_way(self) -> list[UnderWay]:
        self._reach()
        return list(self.taken)

    async def bury(self, run_id: UUID) -> None:
        self.buried.append(run_id)

    async def ended(self, run_ids: Sequence[UUID]) -> dict[UUID, str]:
        self._reach()
        known = {run.id: run.ended for run in self.by_key.values()}
        return {i: how for i in run_ids if (how := known.get(i, "gone")) is not None}

    def _once(self, run: FakeRun) -> FakeRun:
        self._reach()
        self.calls.append(run.key)
        return self.by_key.setdefault(run.key, run)

    def _reach(self) -> None:
        if self.away:
            raise RetryLater("Prefect", "cannot be reached", retry_after=2.0)
