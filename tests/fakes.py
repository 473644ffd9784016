"""What stands in for the outside: Prefect, Resend and Notion as their ports, in memory, with their own promises."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

from tidings.errors import KeyReused, MessageRefused, OutcomeUnknown, Refused, RetryLater
from tidings.model import Slot, Stuck, Template, UnderWay


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
    #: Deployments that Prefect does not know.
    missing: set[str] = field(default_factory=set)
    by_key: dict[str, FakeRun] = field(default_factory=dict)
    #: Runs that a worker has taken, as Prefect believes; and those that were said to be dead.
    taken: list[UnderWay] = field(default_factory=list)
    buried: list[UUID] = field(default_factory=list)
    #: Runs that do not get on.
    halted: list[Stuck] = field(default_factory=list)
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

    async def start_mirror(self, now: datetime, every: timedelta) -> UUID:
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

    async def stuck(self, *, under_way_since: datetime, late_since: datetime) -> list[Stuck]:
        self._reach()
        return [run for run in self.halted if run.since < (late_since if run.waits else under_way_since)]

    async def bury(self, run_id: UUID) -> None:
        self.buried.append(run_id)

    async def ended(self, run_ids: Sequence[UUID]) -> dict[UUID, str]:
        self._reach()
        known = {run.id: run.ended for run in self.by_key.values()}
        return {i: how for i in run_ids if (how := known.get(i, "gone")) is not None}

    def _once(self, run: FakeRun) -> FakeRun:
        self._reach()
        if run.deployment in self.missing:
            raise Refused("Prefect", f"deployment {run.deployment!r} does not exist; run: tidings deploy", status=404)
        self.calls.append(run.key)
        return self.by_key.setdefault(run.key, run)

    def _reach(self) -> None:
        if self.away:
            raise RetryLater("Prefect", "cannot be reached", retry_after=2.0)


#: What Resend says to an address that it does not like.
REFUSED = "there is no such address"
#: How long Resend remembers an idempotency key.
REMEMBERED = timedelta(hours=24)


@dataclass
class FakeMail:
    """A mail that has left, as its recipient and the sender's list have it."""

    id: str
    to: str
    subject: str
    payload: Mapping[str, Any]
    at: datetime

    def tag(self, name: str) -> str:
        return next(str(tag["value"]) for tag in self.payload["tags"] if tag["name"] == name)


@dataclass
class FakeSender:
    """Resend in memory, with its promise that a key names one call, for 24 hours."""

    #: None: it works. "away": it does nothing and says so. "broken": it does nothing, and answers no request with
    #: anything that says so. "lost": it works, and its answer is lost. "locked": it refuses our key.
    trouble: str | None = None
    #: Addresses that it refuses: each by itself, or (`strict`) with all that is in the same call.
    bad: set[str] = field(default_factory=set)
    strict: bool = False
    #: What its list says of these mails comes so much later than they leave; None: the key may not read the list.
    list_lag: timedelta | None = timedelta(minutes=5)
    #: Every mail that has left, in order; `on_mail` is told of each in the moment that it leaves.
    mails: list[FakeMail] = field(default_factory=list)
    on_mail: Callable[[FakeMail], None] = lambda mail: None
    #: Done when it has taken mails, before it answers.
    before_answer: Callable[[], Awaitable[None]] | None = None
    rate_limit: float | None = None
    _known: dict[str, tuple[datetime, str, list[str | Refused]]] = field(default_factory=dict)

    async def send(self, payloads: Sequence[Mapping[str, Any]], key: str) -> list[str | Refused]:
        self._reach()
        now = datetime.now(UTC)
        content = json.dumps(list(payloads))
        at, before, ids = self._known.get(key, (now - REMEMBERED, content, []))
        if now - at >= REMEMBERED:
            if any(self._is_bad(p) for p in payloads) and (self.strict or len(payloads) == 1):
                raise self._refusal()
            ids = [self._refusal() if self._is_bad(p) else self._leaves(p, now).id for p in payloads]
            self._known[key] = (now, content, ids)
            if self.before_answer:
                await self.before_answer()
        elif before != content:
            raise KeyReused("Resend", "the key is known with another content", status=409)
        if self.trouble == "lost":
            raise OutcomeUnknown("Resend", "the answer was lost")
        return list(ids)

    async def sent_since(self, since: datetime) -> list[Mapping[str, Any]]:
        self._reach()
        if self.list_lag is None:
            raise Refused("Resend", "the key may only send", status=401, code="restricted_api_key")
        listed = [m for m in self.mails if since <= m.at <= datetime.now(UTC) - self.list_lag]
        return [{"id": m.id, "to": [m.to], "subject": m.subject} for m in listed]

    def _is_bad(self, payload: Mapping[str, Any]) -> bool:
        return payload["to"][0] in self.bad

    def _refusal(self) -> Refused:
        return MessageRefused("Resend", REFUSED, status=422)

    def _reach(self) -> None:
        if self.trouble == "away":
            raise RetryLater("Resend", "asks to come again", status=429, retry_after=0.0)
        if self.trouble == "locked":
            raise Refused("Resend", "the API key is not valid", status=401, code="invalid_api_key")
        if self.trouble == "broken":
            raise OutcomeUnknown("Resend", "is broken", status=500)

    def age(self, by: timedelta) -> None:
        """As if this much time had passed since all that has happened."""
        self._known = {key: (at - by, content, ids) for key, (at, content, ids) in self._known.items()}
        for mail in self.mails:
            mail.at -= by

    def _leaves(self, payload: Mapping[str, Any], now: datetime) -> FakeMail:
        mail = FakeMail(str(uuid4()), str(payload["to"][0]), str(payload["subject"]), payload, now)
        self.mails.append(mail)
        self.on_mail(mail)
        return mail


@dataclass
class FakeCopy:
    """Notion's templates in memory: one that greets, for whatever name; `bodies` has those that differ."""

    bodies: dict[str, str] = field(default_factory=dict)

    async def templates(self, names: Sequence[str]) -> dict[str, Template]:
        return {n: Template(n, n, self.bodies.get(n, "<p>Hello</p>"), f"page-{n}", "") for n in names}
