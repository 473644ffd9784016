"""What is wrong now, in words for who can act: every condition that somebody has to be told of.

Each look gives findings for the kinds that it looked at. What belongs to a campaign of Tidings' own is left out:
the canary is told of as a whole.
"""

from __future__ import annotations

import logging
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any, Protocol

from tidings.alerts import Finding
from tidings.campaign import Campaigns
from tidings.deliver import USED_UP
from tidings.errors import RetryLater, ServiceError
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
#: Of so many reasons the first is told; of a longer one its beginning.
LONGEST_REASON = 600


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


@dataclass
class Found:
    """What was found, of which kinds; and of which of their alerts nobody could tell (keys that begin so)."""

    findings: list[Finding] = field(default_factory=list)
    kinds: set[str] = field(default_factory=set)
    unknown: set[str] = field(default_factory=set)

    def add(self, kinds: Collection[str], findings: Sequence[Finding]) -> None:
        self.kinds |= set(kinds)
        self.findings += findings


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
        found = [_dead_events(row) for row in events]
        return found + [_dead_mails(row) for row in mails]

    # -- late mails ------------------------------------------------------------------------------------------

    async def _late_mails(self, now: datetime, deferred: bool) -> list[Finding]:
        before = now - self._limits.late_after
        async with self._ledger.reading() as connection:
            rows = await watch.late_mails(connection, self._internal, before=before, deferred=deferred)
        return [_late_mail(row, now) for row in rows]

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
            found.append(_rate("bounce-rate", row.bounced, row.sent, self._limits.bounce_rate))
        if row.complained >= ENOUGH_COMPLAINTS and row.complained > self._limits.complaint_rate * row.sent:
            found.append(_rate("complaint-rate", row.complained, row.sent, self._limits.complaint_rate))
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
                found += [_silence(source, at, allowed)] if allowed and now - at > allowed else []
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
        found.add({"stuck-run"}, [_stuck(name, runs, now) for name, runs in groups.items()])
        return found

    async def quota(self, account: Account, now: datetime) -> Found:
        """The quota used up, or near its end."""
        used_up, _ = await self._quota_used_up(now)
        findings = [_used_up()] if used_up else []
        try:
            near = [_near_end(a) for a in await account.allowances() if a.used >= NEAR_END * a.limit]
        except RetryLater:
            return _only({"quota"}, findings, unknown={"quota:"})
        except ServiceError as error:
            log.info("watch.quota_unknown", extra={"error": str(error)})
            return _only({"quota"}, findings, unknown={"quota:"})
        return _only({"quota"}, findings + near)


def _only(kinds: set[str], findings: list[Finding], unknown: set[str] | None = None) -> Found:
    return Found(findings, kinds, unknown or set())


# -- words -----------------------------------------------------------------------------------------------------------


def many(count: int, what: str) -> str:
    """1 mail, 2 mails."""
    return f"{count} {what}" + ("" if count == 1 else "s")


def _because(reason: str | None, reasons: int = 1) -> str:
    if not reason:
        return ""
    more = f" (and {many(reasons - 1, 'other reason')})" if reasons > 1 else ""
    return f"Because: {_cut(reason)}{more}\n"


def _cut(text: str) -> str:
    return text if len(text) <= LONGEST_REASON else f"{text[:LONGEST_REASON]}…"


def _dead_events(row: Any) -> Finding:
    source, times, day = row.source, row.times, row.day
    state, reason, reasons = row.state, row.reason, row.reasons
    if state == "failed":
        title = f"{many(times, 'webhook')} of {source} failed: no mails will come of " + (
            "it" if times == 1 else "them"
        )
        cure = f"Mend that, then: tidings events replay --failed --since {day}"
    else:
        title = f"{many(times, 'webhook')} of {source} " + ("was" if times == 1 else "were") + " not understood"
        cure = (
            "Its sender is known, and its body is not valid: mend the sender, or update Tidings, then: "
            "tidings events replay <id>"
        )
    body = f"{_because(reason, reasons)}{cure}\nMore: tidings events list --state {state} --source {source}"
    return Finding("dead-letter", title, body, subject=f"events/{source}/{state}/{day}")


def _dead_mails(row: Any) -> Finding:
    template, times, day = row.template, row.times, row.day
    state, reason, reasons = row.state, row.reason, row.reasons
    if state == "failed":
        title = f"{many(times, 'mail')} of {template} failed and will not go out"
        cure = f"Mend that, then: tidings messages retry --template {template}"
    else:
        title = f"Whether {many(times, 'mail')} of {template} left is not known"
        cure = (
            "Look into Resend's list. To send all the same: "
            f"tidings messages retry --template {template} --may-be-sent-twice"
        )
    body = f"{_because(reason, reasons)}{cure}\nMore: tidings messages retry --template {template} --dry-run"
    return Finding("dead-letter", title, body, subject=f"mails/{template}/{state}/{day}")


def _late_mail(row: Any, now: datetime) -> Finding:
    template, times, since, reason = row.template, row.times, row.since, row.reason
    minutes = (now - since).total_seconds() / 60
    title = (
        f"{many(times, 'mail')} of {template} " + ("is" if times == 1 else "are") + f" late, up to {minutes:.0f} min"
    )
    body = (
        f"{_because(reason)}Due since {since.astimezone(UTC):%Y-%m-%d %H:%M:%S} UTC. They go out by themselves as soon "
        "as Prefect, a worker, Notion and Resend all work. Which of them does not: tidings doctor\n"
        "More: the runs of the sending deployment in Prefect"
    )
    return Finding("late-mail", title, body, subject=template)


def _rate(kind: str, times: int, sent: int, limit: float) -> Finding:
    bounced = kind == "bounce-rate"
    title = f"{times} of {sent} mails of the last 24 h " + ("bounced" if bounced else "were called spam")
    cause = (
        "Addresses that do not exist, or a domain that receivers refuse. Look at where the addresses come from, and at "
        "SPF, DKIM and DMARC (tidings doctor)."
        if bounced
        else "People do not expect these mails, or do not see how to leave. Look at the form's consent and the copy."
    )
    shown = f"That is {times / sent:.1%}; the limit is {limit:.1%}, and Resend pauses accounts that stay above its own."
    return Finding(kind, title, f"{shown} {cause}\nMore: resend.com/emails, tidings suppress list")


def _silence(source: str, last: datetime, allowed: timedelta) -> Finding:
    at = f"{last.astimezone(UTC):%Y-%m-%d %H:%M} UTC"
    body = (
        f"Nothing came since {at}. In the four weeks before, it was never silent for more than "
        f"{_hours(allowed / SILENCES)}. Is the website or calendar still posting to this address? Post a test, and "
        "look at the sender's own log of its webhooks: Calendly switches a webhook off after 24 h of failures.\n"
        f"More: tidings doctor, tidings events list --source {source}"
    )
    return Finding("source-silent", f"The webhook {source} is silent since {at}", body, subject=source)


def _hours(time: timedelta) -> str:
    minutes = time.total_seconds() / 60
    return f"{minutes:.0f} min" if minutes < 120 else f"{minutes / 60:.0f} h"


def _stuck(deployment: str, runs: Sequence[Stuck], now: datetime) -> Finding:
    oldest = min(runs, key=lambda run: run.since)
    minutes = (now - oldest.since).total_seconds() / 60
    doing = "wait for a worker although one is there" if all(r.waits for r in runs) else "do not come to an end"
    title = f"{many(len(runs), 'run')} of {deployment} {doing}, up to {minutes:.0f} min"
    body = (
        f"The oldest is {oldest.id}. The worker is stuck or has too much to do: look at its log and restart it "
        "(tidings worker); what a run leaves undone gets another by itself.\n"
        f"More: Prefect's dashboard, flow runs of {deployment}"
    )
    return Finding("stuck-run", title, body, subject=deployment)


def _used_up() -> Finding:
    body = (
        "Mails wait, and go out by themselves when Resend takes mails again. Until then nothing leaves. Get a larger "
        "plan at resend.com/settings/billing if that is too late.\nMore: resend.com/settings/usage"
    )
    return Finding("quota", "Resend's quota is used up: mails wait", body, subject="used-up")


def _near_end(allowance: Allowance) -> Finding:
    title = f"{allowance.used} of {allowance.limit} mails of Resend's {allowance.period} quota are used"
    body = (
        "When it is used up, mails wait until Resend counts anew. Get a larger plan at resend.com/settings/billing if "
        "more are due.\nMore: resend.com/settings/usage"
    )
    return Finding("quota", title, body, subject=allowance.period)


# -- checks ----------------------------------------------------------------------------------------------------------

#: What a check can only tell when another is well.
BEHIND: Mapping[str, str] = {"deployments": "prefect", "worker": "prefect", "templates": "notion"}
#: A check that has never been well since this process began gets longer: everything is starting.
LOOKS, LOOKS_AT_START = 2, 6
#: How the check of Prefect begins when it answers, to everybody.
OPEN_PREFECT = "Prefect's API lets anyone in"
PLAIN = {
    "ledger": "The ledger (PostgreSQL) is not as this code needs it",
    "prefect": "Prefect is not as it must be",
    "deployments": "Prefect's deployments do not fit the code: webhooks start nothing",
    "worker": "No worker does the work: mails do not leave",
    "notion": "Notion cannot be read as it is",
    "templates": "Templates in Notion cannot be sent",
    "resend": "Resend is not ready to send",
    "resend-webhook": "Resend's reports do not arrive",
    "clock": "A clock is wrong",
    "alerts": "Not everybody can be told of alerts",
}


@dataclass(frozen=True, slots=True)
class Look:
    """What a check said, and when (any clock): the same look seen twice counts once."""

    at: float
    #: What is wrong; None when nothing is, or when nobody can tell.
    problem: str | None


class Checks:
    """Which checks fail: twice in a row before somebody is told, and well twice before it is over."""

    def __init__(self, *, starting: bool) -> None:
        """`starting`: everything may be starting together with this process, so the first looks say little."""
        self._looks: dict[str, list[Look]] = {}
        self._was_well: set[str] = set()
        self._starting = starting

    def judge(self, looks: Mapping[str, Look]) -> Found:
        found = Found(kinds={"not-ready", "prefect-down"})
        failing = {name for name, look in looks.items() if look.problem}
        for name, look in looks.items():
            if BEHIND.get(name) in failing:
                found.unknown |= _keys(name)
                continue
            self._remember(name, look)
            self._decide(name, look, found)
        return found

    def _remember(self, name: str, look: Look) -> None:
        known = self._looks.setdefault(name, [])
        if not known or known[-1].at != look.at:
            known.append(look)
        del known[:-LOOKS_AT_START]
        if look.problem is None:
            self._was_well.add(name)

    def _decide(self, name: str, look: Look, found: Found) -> None:
        wanted = LOOKS if name in self._was_well or not self._starting else LOOKS_AT_START
        last = self._looks[name][-(wanted if look.problem else LOOKS) :]
        agreed = len({each.problem is None for each in last}) == 1
        if not agreed or len(last) < (wanted if look.problem else LOOKS):
            found.unknown |= _keys(name)
        elif look.problem:
            found.findings.append(_failing(name, look.problem))


def _keys(name: str) -> set[str]:
    return {f"not-ready:{name}", *(["prefect-down"] if name == "prefect" else [])}


def _failing(name: str, problem: str) -> Finding:
    if name == "prefect" and not problem.startswith(OPEN_PREFECT):
        then = "Webhooks are still taken in; their mails leave when Prefect is back. Start it, and look at its log."
        return Finding("prefect-down", "Prefect does not answer", f"{problem}\n{then}\nMore: tidings doctor")
    body = f"{_cut(problem)}\nMore: tidings doctor, or /health/ready"
    return Finding("not-ready", PLAIN.get(name, f"The check {name!r} fails"), body, subject=name)
