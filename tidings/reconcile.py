"""Make up for what a crash or an outage left undone. Every step is harmless when there is nothing to make up for."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime, timedelta
from typing import Protocol, TypeVar
from uuid import UUID

from tidings.accept import deferred, dispatch, says_away
from tidings.campaign import Campaign, Campaigns
from tidings.enrol import schedule_slot
from tidings.errors import CampaignError, Refused, ServiceError, TidingsError
from tidings.ledger import Ledger, inbox, liveness, mails, mirror
from tidings.model import EventState, Slot, UnderWay
from tidings.ports import Runs

log = logging.getLogger("tidings.reconcile")

T = TypeVar("T")

#: A webhook that Prefect does not know of after this long was not dispatched by whoever took it in.
DISPATCH_AFTER = timedelta(seconds=5)
#: A handler run gets this long before its end is looked into; doubled with every further attempt.
HANDLE_AFTER = timedelta(seconds=20)
#: How far back runs are looked at that have ended with their mails still waiting.
LOOK_BACK = timedelta(hours=1)
#: An overdue mail that no run stands for gets one after this long: a handler that sends it itself needs less.
ORPHANED_AFTER = timedelta(seconds=20)
#: A run shows that it lives (tidings.ledger.liveness) this soon after it has begun, and begins this soon after
#: a worker has taken it, even on a machine that is very busy.
SHOWN_AFTER, BEGUN_AFTER = timedelta(seconds=15), timedelta(seconds=45)
#: Between the two looks at a run that seems dead: one that is just ending has by then said so.
SECOND_LOOK_SECONDS = 3.0
MOST_ATTEMPTS = 12
#: Events that came while Prefect was away and are dispatched together.
GROUP = 1000

#: Notion is brought up to date once in such a while; from so many rows on more seldom, as Notion takes three a second
#: and ten thousand signups in an hour are to be a thousand runs in Prefect at most.
OFTEN, SELDOM, MANY_ROWS = timedelta(minutes=1), timedelta(minutes=10), 100

CANCELLED_BY_A_PERSON = "cancelled in Prefect's dashboard"


class AllRuns(Runs, Protocol):
    """What is needed beyond starting runs."""

    async def start_later(self, deployment: str, seconds: float, now: datetime) -> tuple[datetime, UUID]: ...
    async def ended_lately(self, since: datetime) -> dict[UUID, str]: ...
    async def start_mirror(self, now: datetime, every: timedelta) -> UUID: ...


class Graves(Protocol):
    """What is needed to tell of runs that died in silence."""

    async def under_way(self) -> list[UnderWay]: ...
    async def bury(self, run_id: UUID) -> None: ...


async def bury_dead(ledger: Ledger, runs: Graves, now: datetime) -> int:
    """Runs that died together with their worker end in Prefect too, so that what counts on them gets another."""
    dead = await _seem_dead(ledger, runs, now)
    if not dead:
        return 0
    await asyncio.sleep(SECOND_LOOK_SECONDS)
    dead &= await _seem_dead(ledger, runs, now)
    buried = 0
    for run_id in dead:
        log.warning("run.dead", extra={"other_run_id": str(run_id)})
        try:
            await runs.bury(run_id)
            buried += 1
        except Refused as error:  # a person has deleted it meanwhile
            log.warning("run.not_buried", extra={"other_run_id": str(run_id), "error": str(error)})
    return buried


async def _seem_dead(ledger: Ledger, runs: Graves, now: datetime) -> set[UUID]:
    overdue = {
        run.id for run in await runs.under_way() if run.since < now - (BEGUN_AFTER if run.pending else SHOWN_AFTER)
    }
    if not overdue:
        return set()
    async with ledger.reading() as connection:
        return overdue - await liveness.living(connection, overdue)


class Steps:
    """Steps that are each done whatever became of the others."""

    def __init__(self) -> None:
        self._errors: list[TidingsError] = []

    @contextmanager
    def step(self, name: str) -> Iterator[None]:
        """Say what fails in here, and keep it until all steps are through."""
        try:
            yield
        except TidingsError as error:
            log.error("reconcile.failed", extra={"step": name, "error": str(error)})
            self._errors.append(error)

    def finish(self) -> None:
        """Raise the first of what failed; one that may pass by itself comes before one that waits for a person."""
        for error in sorted(self._errors, key=lambda error: not error.retryable):
            raise error


async def reconcile(
    ledger: Ledger, runs: AllRuns, campaigns: Campaigns, now: datetime, *, thorough: bool = False
) -> dict[str, int]:
    """All steps; returns how much each had to do. `thorough` also finds runs that were deleted from Prefect.

    A step that fails keeps back no other. Raises what failed when all are through.
    """
    work: dict[str, Callable[[], Awaitable[int]]] = {
        "dispatched": lambda: dispatch_waiting(ledger, runs, now),
        "handled again": lambda: handle_again(ledger, runs, now),
        "cancelled": lambda: follow_cancellations(ledger, runs, now, thorough=thorough),
        "scheduled": lambda: schedule_unplanned(ledger, runs, campaigns, now),
        "late": lambda: send_late(ledger, runs, campaigns, now),
        "taken over": lambda: take_over(ledger, runs, campaigns, now),
        "mirrors": lambda: mirror_changes(ledger, runs, now),
    }
    steps, done = Steps(), {}
    for name, work_of_step in work.items():
        with steps.step(name):
            done[name] = await work_of_step()
    steps.finish()
    return done


async def dispatch_waiting(ledger: Ledger, runs: Runs, now: datetime) -> int:
    """Hand to Prefect what it has not confirmed. A deployment that it refuses keeps back no other.

    What came while Prefect was away has never been handed over, so many such events go together in one dispatch.
    """
    async with ledger.reading() as connection:
        waiting = await inbox.undispatched(connection, older_than=now - DISPATCH_AFTER)
    done, away = await _dispatch_all(ledger, runs, waiting, now)
    if away:
        return done
    async with ledger.transaction() as connection:
        grouped = await inbox.group_waiting(connection, limit=GROUP)
    return done + (await _dispatch_all(ledger, runs, grouped, now))[0]


async def _dispatch_all(ledger: Ledger, runs: Runs, waiting: list[tuple[str, UUID]], now: datetime) -> tuple[int, bool]:
    """How many were handed over, and whether Prefect is away: then the rest is not tried."""
    done, refused = 0, set[str]()
    for deployment, dispatch_id in waiting:
        if deployment in refused:
            continue
        try:
            done += await dispatch(ledger, runs, dispatch_id, now) is not None
        except ServiceError as error:
            deferred(dispatch_id, error)
            if says_away(error):
                return done, True
            refused.add(deployment)
    return done, False


async def handle_again(ledger: Ledger, runs: Runs, now: datetime) -> int:
    """Events whose run has ended without handling them get another, unless a person cancelled it."""
    async with ledger.reading() as connection:
        pairs = await inbox.unhandled(connection, dispatched_before=now - HANDLE_AFTER)
    ended = await runs.ended(list({run for _, run in pairs}))
    async with ledger.transaction() as connection:
        # The answer is older than this moment: a run that has handled its event since has done its work.
        waiting = await inbox.lock_unhandled(connection, [(event, run) for event, run in pairs if run in ended])
        cancelled = [event for event, run in waiting if ended[run] == "cancelled"]
        again = [event for event, run in waiting if ended[run] != "cancelled"]
        await inbox.settle_events(connection, cancelled, EventState.FAILED, now, CANCELLED_BY_A_PERSON)
        hopeless = await inbox.worn_out(connection, again, MOST_ATTEMPTS)
        reason = f"its run ended {MOST_ATTEMPTS} times without an answer; see the runs in Prefect, then replay it"
        await inbox.settle_events(connection, hopeless, EventState.FAILED, now, reason)
        rest = [e for e in again if e not in set(hopeless)]
        await inbox.requeue(connection, rest)
    return len(rest)


async def follow_cancellations(ledger: Ledger, runs: AllRuns, now: datetime, *, thorough: bool = False) -> int:
    """A run that a person cancelled in Prefect cancels its mails; a run that ended otherwise gives them back."""
    if thorough:
        async with ledger.reading() as connection:
            ended = await runs.ended(await mails.runs_waiting(connection))
    else:
        ended = await runs.ended_lately(now - LOOK_BACK)
    cancelled = 0
    async with ledger.transaction() as connection:
        for run_id in await mails.still_counting_on(connection, list(ended)):
            if ended[run_id] == "cancelled":
                cancelled += await mails.cancel_run(connection, run_id, CANCELLED_BY_A_PERSON, now)
            else:
                await mails.unname_run(connection, run_id)
    return cancelled


async def mirror_changes(ledger: Ledger, runs: AllRuns, now: datetime) -> int:
    """Have Notion brought up to date when rows have changed."""
    async with ledger.reading() as connection:
        waiting = await mirror.waiting(connection, MANY_ROWS)
    if waiting:
        await runs.start_mirror(now, SELDOM if waiting >= MANY_ROWS else OFTEN)
    return int(waiting > 0)


async def schedule_unplanned(ledger: Ledger, runs: Runs, campaigns: Campaigns, now: datetime) -> int:
    """Future mails without a run get theirs."""
    async with ledger.reading() as connection:
        slots = await mails.unplanned_slots(connection, event_ids=None, due_after=now)

    async def plan(slot: Slot, _campaign: Campaign) -> None:
        await schedule_slot(ledger, runs, slot)

    return await _each([(slot.campaign, slot) for slot in slots], campaigns, plan)


async def send_late(ledger: Ledger, runs: Runs, campaigns: Campaigns, now: datetime) -> int:
    """Overdue mails whose run is gone get another at once. Those whose run still waits for a worker are left to it."""
    async with ledger.reading() as connection:
        slots = await mails.orphans(connection, due_before=now - ORPHANED_AFTER)

    async def send(slot: Slot, _campaign: Campaign) -> None:
        # One attempt in 20 s at most, whoever asks.
        key = f"late:{slot.template}:{int(now.timestamp() // 20)}"
        run_id, _ = await runs.start_send(slot, at=now, key=key)
        async with ledger.transaction() as connection:
            await mails.name_late_run(connection, slot, run_id)
        log.warning(
            "mails.late",
            extra={"campaign": slot.campaign, "template": slot.template, "due": slot.at.isoformat(),
                   "other_run_id": str(run_id)},
        )  # fmt: skip

    return await _each([(slot.campaign, slot) for slot in slots], campaigns, send)


async def take_over(ledger: Ledger, runs: AllRuns, campaigns: Campaigns, now: datetime) -> int:
    """Claims of dead runs are sent by a new run, with the same bodies under the same key."""
    async with ledger.reading() as connection:
        names = await mails.abandoned(connection)

    async def start(_name: str, campaign: Campaign) -> None:
        await runs.start_later(campaign.send_deployment, 0.0, now)

    return await _each([(name, name) for name in names], campaigns, start)


async def _each(
    work: Sequence[tuple[str, T]], campaigns: Campaigns, do: Callable[[T, Campaign], Awaitable[None]]
) -> int:
    """Do it for each (campaign, item). A campaign that cannot send keeps back no other; raises why it cannot, last."""
    refused: dict[str, TidingsError] = {}
    for name, item in work:
        if name in refused:
            continue
        try:
            await do(item, _known(campaigns, name))
        except (Refused, CampaignError) as error:
            refused[name] = error
    for reason in refused.values():
        raise reason
    return len(work)


def _known(campaigns: Campaigns, name: str) -> Campaign:
    if name not in campaigns:
        raise CampaignError(
            f"Campaign {name!r} has mails to send, but its folder is gone: put it back (CAMPAIGNS_DIRS), "
            "or stop its mails: tidings cancel EMAIL"
        )
    return campaigns[name]
