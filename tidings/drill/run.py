"""One drill: the stack up, one way after the other, and then quiet."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, TypeVar

import asyncpg
import httpx

from tidings.campaign import Campaigns
from tidings.chaos.progress import Progress
from tidings.drill.hands import Hands, HandSlipped, address, until
from tidings.drill.receiver import Receiver
from tidings.drill.verdict import Alert, Quiet, Result, alerts
from tidings.drill.ways import Way
from tidings.errors import TidingsError
from tidings.local.config import StackConfig
from tidings.local.stack import Stack

T = TypeVar("T")

#: So many times as fast as otherwise people are told.
SPEED = 20
#: Everything is looked at every second and not every 20 s; a mail is late after 15 s and not after 5 min.
ACCELERATED = {"WATCH_SECONDS": f"{20 / SPEED:g}", "LATE_AFTER_MINUTES": f"{5 / SPEED:g}"}
#: How long everything may take to be well again after a way was mended.
SETTLING_SECONDS = 150.0
#: Between two ordinary webhooks of the quiet period.
PAUSE = 3.0
#: What comes in on an ordinary day, and what makes it so: the first signup is of a critical contact.
ORDINARY: tuple[tuple[str, Mapping[str, Any]], ...] = (
    ("calendly-noshow", {}),
    ("postcall-maybe", {}),
    ("christmas-signup", {"assessment_data": None}),
    ("onboarding-start", {}),
    ("calcom-booking", {}),
)
AWAY = (httpx.HTTPError, OSError, asyncpg.PostgresError, asyncpg.InterfaceError)
_OPEN = """
SELECT title FROM alert WHERE recovered_at IS NULL OR (told_at IS NULL) <> (recovery_told_at IS NULL)
"""
_WAITING = "SELECT count(*) FROM message WHERE state IN ('scheduled', 'sending') AND slot_at <= now()"
_LOST_CANARY = "SELECT 1 FROM alert WHERE kind = 'canary' AND recovered_at IS NULL"
_MAILS = """
SELECT count(*) FILTER (WHERE m.state = 'delivered'), count(*) FILTER (WHERE m.state <> 'delivered')
FROM message m JOIN enrolment e ON e.id = m.enrolment_id JOIN contact c ON c.id = e.contact_id
WHERE c.email = ANY($1)
"""


def stack_config(folder: Path, receiver: Receiver) -> StackConfig:
    return StackConfig.apart(
        folder,
        testing=True,
        testing_minute=1.0,
        sandbox_options={"notion-rate": "0"},
        env={
            "NOTION_REQUESTS_PER_SECOND": "1000",
            "ALERT_URLS": receiver.url,
            "CANARY_HOURS": "24",
            **ACCELERATED,
        },
    )


@dataclass(frozen=True)
class Outcome:
    """What a drill found."""

    results: tuple[Result, ...]
    quiet: Quiet


async def run(ways: Sequence[Way], minutes: float, campaigns: Campaigns, folder: Path, progress: Progress) -> Outcome:
    """`minutes` of quiet are of the accelerated clock."""
    settings = " ".join(f"{name}={value}" for name, value in ACCELERATED.items())
    progress.say(f"the clock of the watch runs {SPEED} times as fast: {settings}")
    with Receiver() as receiver:
        async with Stack(stack_config(folder, receiver)) as stack:
            at = stack.addresses
            progress.say(f"up: {at.web}, Prefect {at.prefect}, sandbox {at.sandbox}; alerts go to {receiver.url}")
            async with Hands.on(stack, receiver, campaigns) as hands:
                return await Drill(hands, receiver, progress).run(ways, minutes)


@dataclass
class Drill:
    """The parts of a drill."""

    hands: Hands
    receiver: Receiver
    progress: Progress
    #: What an earlier way left wrong, and is its trouble alone.
    known: set[str] = field(default_factory=set)

    async def run(self, ways: Sequence[Way], minutes: float) -> Outcome:
        await self._settled()
        results = []
        for number, way in enumerate(ways, 1):
            self.progress.say(f"{number} of {len(ways)}, {way.name}: {way.failure}")
            results.append(await self._way(way))
        return Outcome(tuple(results), await self._quiet(minutes))

    # -- one way -----------------------------------------------------------------------------------------------

    async def _way(self, way: Way) -> Result:
        first = len(self.receiver.told)
        result = Result(way=way)
        try:
            result = await self._broken(result, first)
        except (TidingsError, *AWAY) as error:
            result = self._trouble(result, f"it could not be broken: {error}")
        try:
            result = await self._mended(result, first)
        except (TidingsError, *AWAY) as error:
            result = self._trouble(result, f"it could not be mended: {error}")
        return replace(result, told=tuple(self.receiver.told[first:]))

    def _trouble(self, result: Result, words: str) -> Result:
        self.progress.say(f"    {words}")
        return replace(result, trouble=words.partition("\n")[0])

    async def _broken(self, result: Result, first: int) -> Result:
        way, began = result.way, time.monotonic()
        await way.do(self.hands)
        found = await self._wait(way.within, lambda: self._shown(way, first))
        if not found:
            self.progress.say(f"    NO ALERT within {way.within:.0f} s")
            return result
        self.progress.say(f"    told after {found[1] - began:.1f} s: {found[0]}")
        return replace(result, alert=found[0], seconds=found[1] - began)

    async def _shown(self, way: Way, first: int) -> tuple[str, float] | None:
        """What a person reads, and when."""
        if way.on_ready:
            said = await self._on_ready(way)
            return (f"/health/ready: {way.on_ready}: {said}", time.monotonic()) if said else None
        alert = await self._told(way, first, over=False)
        return (alert.read, alert.at) if alert else None

    async def _mended(self, result: Result, first: int) -> Result:
        way, began = result.way, time.monotonic()
        await way.mend(self.hands)
        if result.alert and way.recovers:
            over = await self._wait(way.within, lambda: self._over(way, first))
            self.progress.say(f"    over after {over - began:.1f} s" if over else "    NOBODY WAS TOLD THAT IT IS OVER")
            result = replace(result, recovery=over and over - began)
        left = await self._settled()
        return self._trouble(result, left) if left else result

    async def _over(self, way: Way, first: int) -> float | None:
        if way.on_ready:
            return None if await self._on_ready(way) else time.monotonic()
        alert = await self._told(way, first, over=True)
        return alert.at if alert else None

    async def _told(self, way: Way, first: int, *, over: bool) -> Alert | None:
        for alert in alerts(self.receiver.told[first:]):
            if alert.over == over and alert.fits(way.alert) and (over or all(w in alert.text for w in way.says)):
                return alert
        return None

    async def _on_ready(self, way: Way) -> str | None:
        return (await self.hands.ready()).get(way.on_ready)

    # -- until all is well -------------------------------------------------------------------------------------

    async def _settled(self) -> str | None:
        """Wait until nothing is wrong and nothing waits to be told; what is left of it when that takes too long."""
        if await self._wait(SETTLING_SECONDS, self._well):
            return None
        left = await self._left()
        self.known |= left
        return f"not well after {SETTLING_SECONDS:.0f} s: {'; '.join(sorted(left))}"

    async def _well(self) -> bool:
        if await self.hands.sql(_LOST_CANARY):  # as its alert says
            await self.hands.tidings("canary")
        return not await self._left()

    async def _left(self) -> set[str]:
        """Open alerts, checks that fail, and mails that should have left."""
        left = {row[0] for row in await self.hands.sql(_OPEN)}
        left |= {f"the check {name}" for name in await self.hands.ready()}
        left |= {"mails that wait"} if (await self.hands.sql(_WAITING))[0][0] else set()
        return left - self.known

    async def _wait(self, seconds: float, probe: Callable[[], Awaitable[T | None]]) -> T | None:
        """What the probe finds within so long. A part that is broken just now answers later."""
        end = time.monotonic() + seconds
        while True:
            with suppress(*AWAY):
                if found := await probe():
                    return found
            if time.monotonic() > end:
                return None
            await asyncio.sleep(0.3)

    # -- quiet -------------------------------------------------------------------------------------------------

    async def _quiet(self, minutes: float) -> Quiet:
        seconds = minutes * 60 / SPEED
        self.progress.say(
            f"quiet: {minutes:g} min of the accelerated clock, which are {seconds:.0f} s, of ordinary work"
        )
        first, began, emails = len(self.receiver.told), time.monotonic(), list[str]()
        while time.monotonic() - began < seconds:
            path, more = ORDINARY[len(emails) % len(ORDINARY)]
            emails.append(address())
            await self.hands.accepted(path, emails[-1], **more)
            self.progress.show(f"{len(emails)} ordinary webhooks; told: {self._titles(first)}")
            await asyncio.sleep(min(PAUSE, max(0.0, began + seconds - time.monotonic())))
        with suppress(HandSlipped):
            await until("the mails of the quiet period", lambda: self._all_delivered(emails))
        delivered, others = await self._mails(emails)
        told = tuple(self.receiver.told[first:])
        self.progress.say(f"    {len(emails)} webhooks, {delivered} mails delivered, told: {self._titles(first)}")
        return Quiet(minutes, time.monotonic() - began, len(emails), delivered, others, told)

    async def _all_delivered(self, emails: Sequence[str]) -> bool:
        delivered, others = await self._mails(emails)
        return delivered > 0 and others == 0

    async def _mails(self, emails: Sequence[str]) -> tuple[int, int]:
        [row] = await self.hands.sql(_MAILS, list(emails))
        return int(row[0]), int(row[1])

    def _titles(self, first: int) -> str:
        return "; ".join(told.title for told in self.receiver.told[first:]) or "nothing"
