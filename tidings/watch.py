"""What is wrong now, in words for who can act: every condition that somebody has to be told of.

Each look gives findings for the kinds that it looked at. What belongs to a campaign of Tidings' own is left out:
the canary is told of as a whole.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Protocol

from tidings import findings as words
from tidings.alerts import Finding
from tidings.campaign import Campaigns
from tidings.deliver import USED_UP
from tidings.errors import RetryLater, ServiceError
from tidings.findings import Found
from tidings.ledger import Ledger, watch
from tidings.ledger.memory import Memory
from tidings.model import Allowance, Stuck

log = logging.getLogger("tidings.watch")

#: A rate says something from so many mails on; and one or two wrong addresses, or one angry reader, are no pattern.
ENOUGH_MAILS, ENOUGH_BOUNCES, ENOUGH_COMPLAINTS = 20, 3, 2
RATES_OVER = timedelta(hours=24)
#: The part of a quota from which on its end is near.
NEAR_END = 0.8
#: A source's habit is learned from so much time before its last post, in slots of ten minutes.
HISTORY, SLOT = timedelta(days=28), timedelta(minutes=10)
#: It has one when it posted in so many of them, over so long.
ENOUGH_SLOTS, ENOUGH_TIME = 20, timedelta(days=7)
#: It is silent after so many times its longest silence, and never before this long.
SILENCES, SHORTEST_SILENCE = 2, timedelta(hours=1)
#: A run may be under way for this many times what makes a mail late.
RUN_FACTOR = 6


class Engine(Protocol):
    """Prefect, as far as it is watched."""

    async def stuck(self, *, under_way_since: datetime, late_since: datetime) -> Sequence[Stuck]: ...


class Account(Protocol):
    """Resend, as far as it is watched."""

    async def allowances(self) -> Sequence[Allowance]: ...


@dataclass(frozen=True)
class Limits:
    """From when on something is wrong."""

    late_after: timedelta
    bounce_rate: float
    complaint_rate: float


class Watch:
    """Looks at the ledger, at Prefect's runs and at the quota, again and again."""

    def __init__(self, ledger: Ledger, campaigns: Campaigns, limits: Limits) -> None:
        self._ledger = ledger
        self._internal = campaigns.internal
        self._sources = {webhook.path for campaign, webhook in campaigns.for_people.webhooks}
        self._limits = limits
        #: How long each source may be silent, and since which post that holds.
        self._habits: dict[str, tuple[datetime, timedelta | None]] = {}

    async def ledger(self, now: datetime) -> Found:
        """Everything that the ledger knows. Raises LedgerUnavailable."""
        found = Found()
        found.add({"dead-letter"}, await self._dead_letters())
        used_up, deferred = await self._quota_used_up(now)
        found.add({"late-mail"}, [] if used_up else await self._late_mails(now, deferred))
        found.add({"bounce-rate", "complaint-rate"}, await self._rates(now))
        found.add({"source-silent"}, await self._silent(now))
        return found

    # -- dead letters ----------------------------------------------------------------------------------------

    async def _dead_letters(self) -> list[Finding]:
        """One finding a source or template and day: open while any waits for a person, and a new one on a new day.

        So nobody is told twice of what happened once, and what goes on failing is told every day.
        """
        async with self._ledger.reading() as connection:
            events = await watch.dead_events(connection, self._internal)
            mails = await watch.dead_mails(connection, self._internal)
        found = [words.dead_events(row) for row in events]
        return found + [words.dead_mails(row) for row in mails]

    # -- late mails ------------------------------------------------------------------------------------------

    async def _late_mails(self, now: datetime, deferred: bool) -> list[Finding]:
        before = now - self._limits.late_after
        async with self._ledger.reading() as connection:
            rows = await watch.late_mails(connection, self._internal, before=before, deferred=deferred)
        return [words.late_mail(row, now) for row in rows]

    async def _quota_used_up(self, now: datetime) -> tuple[bool, bool]:
        """Whether mails wait for a quota, and whether those that runs have taken still wait for one."""
        memory = Memory(self._ledger)
        said, at = await memory.recall(USED_UP), await memory.since(USED_UP)
        if said is None or at is None or now > datetime.fromisoformat(said) + self._limits.late_after:
            return False, False
        async with self._ledger.reading() as connection:
            return not await watch.sent_since(connection, at), True

    # -- rates -----------------------------------------------------------------------------------------------

    async def _rates(self, now: datetime) -> list[Finding]:
        """Of the mails of the last 24 h: at least 20 of them, and 3 bounces or 2 complaints, so that a mistyped address
        or one reader's mood raises no alarm where few mails are sent."""
        async with self._ledger.reading() as connection:
            row = await watch.rates(connection, self._internal, now - RATES_OVER)
        if row.sent < ENOUGH_MAILS:
            return []
        found = []
        if row.bounced >= ENOUGH_BOUNCES and row.bounced > self._limits.bounce_rate * row.sent:
            found.append(words.rate("bounce-rate", row.bounced, row.sent, self._limits.bounce_rate))
        if row.complained >= ENOUGH_COMPLAINTS and row.complained > self._limits.complaint_rate * row.sent:
            found.append(words.rate("complaint-rate", row.complained, row.sent, self._limits.complaint_rate))
        return found

    # -- silence ---------------------------------------------------------------------------------------------

    async def _silent(self, now: datetime) -> list[Finding]:
        """A source that posts nothing for more than twice its longest silence of the four weeks before its last post,
        and for more than an hour. It has a habit when it posted over at least a week, in at least 20 stretches of ten
        minutes; a source that never did so is not missed."""
        async with self._ledger.reading() as connection:
            last = await watch.last_posts(connection, self._sources)
        found = []
        for source, at in last.items():
            if now - at > SHORTEST_SILENCE:
                allowed = await self._allowed(source, at)
                found += [words.silence(source, at, allowed / SILENCES)] if allowed and now - at > allowed else []
        return found

    async def _allowed(self, source: str, last: datetime) -> timedelta | None:
        """How long this source may be silent; asked once for each silence."""
        since, allowed = self._habits.get(source, (None, None))
        if since != last:
            async with self._ledger.reading() as connection:
                habit = await watch.habit(connection, source, last=last, history=HISTORY, slot=SLOT)
            known = habit.slots >= ENOUGH_SLOTS and habit.span >= ENOUGH_TIME
            allowed = max(SILENCES * habit.longest, SHORTEST_SILENCE) if known else None
            self._habits[source] = (last, allowed)
        return allowed

    # -- services --------------------------------------------------------------------------------------------

    async def runs(self, engine: Engine, now: datetime, *, worker: bool) -> Found:
        """Prefect's runs that do not get on: under way for six times what makes a mail late (30 min), or due and not
        begun although a worker is there. Nothing when Prefect does not answer: that has an alert of its own."""
        late = self._limits.late_after
        try:
            stuck = await engine.stuck(under_way_since=now - RUN_FACTOR * late, late_since=now - late)
        except ServiceError as error:
            log.info("watch.runs_unknown", extra={"error": str(error)})
            return Found()
        groups: dict[str, list[Stuck]] = {}
        for run in stuck:
            if worker or not run.waits:
                groups.setdefault(run.deployment, []).append(run)
        found = Found()
        found.add({"stuck-run"}, [words.stuck(name, runs, now) for name, runs in groups.items()])
        return found

    async def quota(self, account: Account, now: datetime) -> Found:
        """The quota used up, or near its end."""
        used_up, _ = await self._quota_used_up(now)
        findings = [words.used_up()] if used_up else []
        try:
            near = [words.near_end(a) for a in await account.allowances() if a.used >= NEAR_END * a.limit]
        except RetryLater:
            return _only({"quota"}, findings, unknown={"quota:"})
        except ServiceError as error:
            log.info("watch.quota_unknown", extra={"error": str(error)})
            return _only({"quota"}, findings, unknown={"quota:"})
        return _only({"quota"}, findings + near)


def _only(kinds: set[str], findings: list[Finding], unknown: set[str] | None = None) -> Found:
    return Found(findings, kinds, unknown or set())
