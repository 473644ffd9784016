"""Watch, note and tell: what the web server does all the time, and the sweep when no web server does.

One process watches at a time. While the ledger is away nothing can be written down; then the web server tells of that
alone, from memory.
"""

from __future__ import annotations

import asyncio
import fcntl
import hashlib
import logging
import os
import tempfile
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path

from tidings.adapters.notify import channels_of
from tidings.alerts import Finding, note
from tidings.canary import KIND as CANARY
from tidings.canary import canary_findings
from tidings.doctor.check import State
from tidings.doctor.public import public
from tidings.doctor.run import examine
from tidings.doctor.telling import NOBODY, WATCHED, nobody_watches
from tidings.errors import LedgerUnavailable, ServiceError, TidingsError
from tidings.findings import Found
from tidings.ledger import alerts as ledger_alerts
from tidings.ledger.locks import alone, still_there
from tidings.ledger.memory import Memory
from tidings.looks import Checks, Look
from tidings.ports import Channels, Tone
from tidings.readiness import CHECKS
from tidings.settings import Settings
from tidings.telling import FIRST_PAUSE, Message, Teller, send
from tidings.watch import Limits, Watch
from tidings.wiring import App, utc_now

log = logging.getLogger("tidings.watch")

#: The quota costs a request to Resend, so it is looked at in every so manieth look.
QUOTA_LOOKS = 15
#: In every so manieth look Prefect is told that somebody watches: once a minute.
SAYING_LOOKS = 3
#: After Prefect or the worker was away, what waits takes at least so long to be taken up.
SETTLING = timedelta(seconds=60)
#: A web server that restarts is away for some seconds.
SECOND_TRY_SECONDS = 10.0

Looks = Callable[[], Awaitable[Mapping[str, Look]]]


class Watcher:
    """Looks at everything once a round."""

    def __init__(self, parts: App, channels: Channels | None, looks: Looks, *, starting: bool) -> None:
        """`looks` gives what each check of `/health/ready` says."""
        settings = parts.settings
        limits = Limits(
            late_after=timedelta(minutes=settings.late_after_minutes),
            bounce_rate=settings.bounce_rate_alert,
            complaint_rate=settings.complaint_rate_alert,
        )
        self._parts = parts
        self._looks = looks
        self._watch = Watch(parts.ledger, parts.campaigns, limits)
        self._checks = Checks(starting=starting)
        self._teller = Teller(parts.ledger, channels, settings.public_url)
        self._memory = Memory(parts.ledger)
        self._rounds = 0
        self._well_since: datetime | None = None

    async def round(self, now: datetime) -> None:
        """Look, note, tell. Raises LedgerUnavailable."""
        looks = {name: _without_us(look) for name, look in (await self._looks()).items()}
        settled = self._settled(looks, now)
        for found in (
            self._checks.judge(looks),
            await self._watch.ledger(now),
            await self._watch.runs(self._parts.runs, now, worker=settled),
            await self._quota(now),
            Found(await canary_findings(self._parts.ledger, self._parts.settings, now), {CANARY}),
        ):
            await note(self._parts.ledger, found.findings, found.kinds, now, unknown=found.unknown)
        await self._memory.remember(WATCHED, "")
        await self._teller.tell(now)
        if self._rounds % SAYING_LOOKS == 0:
            await _say_watched(self._parts, now)
        self._rounds += 1

    def _settled(self, looks: Mapping[str, Look], now: datetime) -> bool:
        """Whether Prefect and a worker have been there for so long that no run should wait any more."""
        if any(looks[name].problem for name in ("prefect", "worker")):
            self._well_since = None
            return False
        self._well_since = self._well_since or now
        return now - self._well_since >= max(SETTLING, timedelta(minutes=self._parts.settings.late_after_minutes))

    async def _quota(self, now: datetime) -> Found:
        looked_at = self._rounds % QUOTA_LOOKS == 0
        return await self._watch.quota(self._parts.resend, now) if looked_at else Found()


async def _say_watched(parts: App, now: datetime) -> None:
    """Tell Prefect that somebody watches, where its automations wait for it."""
    if parts.settings.alert_urls is None:
        return
    try:
        await parts.runs.say_watched(parts.settings.work_pool, now)
    except ServiceError as error:  # the checks have seen that
        log.info("watch.not_said", extra={"error": str(error)})


def _without_us(look: Look) -> Look:
    """A check may still say that nobody watches, while we do."""
    return replace(look, problem=None) if (look.problem or "").startswith(NOBODY) else look


async def watch(parts: App, looks: Looks, now: Callable[[], datetime]) -> None:
    """For ever, as the only one. Errors are said once each and do not end it."""
    channels = channels_of(parts.settings)
    watcher = Watcher(parts, channels, looks, starting=True)
    alarm = LedgerAlarm(parts.settings, channels)
    said = ""
    while True:
        try:
            async with alone(parts.ledger, ledger_alerts.WATCHING) as connection:
                while connection is not None:
                    await still_there(connection)
                    await watcher.round(now())
                    await alarm.over(now())
                    said = ""
                    await asyncio.sleep(parts.settings.watch_seconds)
            await alarm.over(now())
        except LedgerUnavailable as error:
            await alarm.raise_for(error, now())
        except TidingsError as error:
            if str(error) != said:
                said = str(error)
                log.warning("watch.waiting", extra={"error": said})
        await asyncio.sleep(parts.settings.watch_seconds)


class LedgerAlarm:
    """Tells that the ledger is away, and that it is back; from memory, once a machine."""

    def __init__(self, settings: Settings, channels: Channels | None) -> None:
        self._channels = channels
        self._since: datetime | None = None
        self._looks = 0
        self._told = False
        self._not_before: datetime | None = None
        self._place = MachineLock(settings.async_database_url)

    async def raise_for(self, error: LedgerUnavailable, now: datetime) -> None:
        """The ledger is away; the second look in a row tells people."""
        self._since = self._since or now
        self._looks += 1
        waits = self._not_before is not None and now < self._not_before
        if self._looks < 2 or self._told or waits or not self._place.take():
            return
        body = (
            f"{error}\nSenders are answered 503 and try again; no mail leaves. Look at PostgreSQL: does it run, is its "
            "disk full, is it read-only after a failover, and is DATABASE_URL right?\nMore: tidings doctor"
        )
        self._told = await self._send(Message("Tidings: the ledger (PostgreSQL) does not work", body, Tone.FAILURE))
        self._not_before = now + FIRST_PAUSE

    async def over(self, now: datetime) -> None:
        """The ledger works."""
        if self._told and self._since is not None:
            seconds = (now - self._since).total_seconds()
            body = f"After {seconds:.0f} s. What was taken in before goes on by itself."
            await self._send(Message("Tidings: over: the ledger (PostgreSQL) does not work", body, Tone.SUCCESS))
        self._since, self._looks, self._told, self._not_before = None, 0, False, None
        self._place.give_back()

    async def _send(self, message: Message) -> bool:
        log.error("alert.told", extra={"title": message.title})
        if self._channels is None:
            return True
        return any(answer.problem is None for answer in await send(self._channels, message))


class MachineLock:
    """Held by one process of this machine: several web servers on it tell once."""

    def __init__(self, what: str) -> None:
        digest = hashlib.sha256(what.encode()).hexdigest()[:16]
        self._path = Path(tempfile.gettempdir()) / f"tidings-{os.getuid()}-{digest}.lock"
        self._file: int | None = None

    def take(self) -> bool:
        """Whether this process has it now."""
        if self._file is None:
            file = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o600)
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                os.close(file)
                return False
            self._file = file
        return True

    def give_back(self) -> None:
        if self._file is not None:
            os.close(self._file)
            self._file = None


# -- from the worker -------------------------------------------------------------------------------------------------


async def look_from_the_worker(parts: App, now: datetime) -> None:
    """Whether the web server is there; and everything else when nobody watches, as it is not."""
    await _look_at_the_web(parts, now)
    async with alone(parts.ledger, ledger_alerts.WATCHING) as connection:
        if connection is None and not await _nobody_watches(parts, now):
            return
        watcher = Watcher(parts, channels_of(parts.settings), lambda: _examined(parts), starting=False)
        await watcher.round(now)
        await asyncio.sleep(parts.settings.watch_seconds)
        await watcher.round(utc_now())


async def _nobody_watches(parts: App, now: datetime) -> bool:
    last = await Memory(parts.ledger).since(WATCHED)
    return last is None or nobody_watches(parts.settings, last, now)


async def _look_at_the_web(parts: App, now: datetime) -> None:
    word = await public(parts, now)
    if word.state is State.WRONG:
        await _say_watched(parts, now)  # before Prefect thinks that nobody does
        await asyncio.sleep(min(SECOND_TRY_SECONDS, parts.settings.watch_seconds))
        word = await public(parts, now)
    found = []
    if word.state is State.WRONG:
        title = f"Nobody reaches Tidings at {parts.settings.public_url}"
        body = (
            f"{word.text}. What is posted meanwhile is lost unless its sender tries again. Is the web server running, "
            "and does its proxy lead to it?\nMore: tidings doctor, the log of the web server"
        )
        found.append(Finding("web-down", title, body))
    await note(parts.ledger, found, {"web-down"}, now)


async def _examined(parts: App) -> dict[str, Look]:
    at = asyncio.get_running_loop().time()
    return {each.name: Look(at, each.word.problem) async for each in examine(parts, CHECKS)}
