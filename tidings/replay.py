"""Handle stored events again, at an operator's word."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from pydantic import ValidationError

from tidings.accept import arrivals, deferred, dispatch, says_away
from tidings.campaign import Campaigns
from tidings.errors import ServiceError
from tidings.ledger import Ledger, inbox
from tidings.model import TAKEN_IN, EventState
from tidings.ports import Runs

#: Events of one transaction, and of one handler run where they are of one deployment.
PAGE = 500
#: States of events that no handler run is for as they stand.
ASIDE = frozenset({EventState.IGNORED, EventState.QUARANTINED, EventState.BLOCKED})
#: Of events that are stored to be handled, by a run that Prefect has not taken yet: the keeper starts it.
WAITS = "waits for Prefect"


@dataclass(frozen=True, slots=True)
class Wanted:
    """Which events: those that are named, and those of a time or all that failed; these behind `after`."""

    ids: Sequence[UUID] = ()
    failed: bool = False
    since: datetime | None = None
    until: datetime | None = None
    #: When an event was received, and its id.
    after: tuple[datetime, UUID] | None = None

    def __bool__(self) -> bool:
        return bool(self.ids) or self.many

    @property
    def many(self) -> bool:
        return bool(self.failed or self.since or self.until)


@dataclass(frozen=True, slots=True)
class Page:
    """What became of some events, in their order, and how many are still to come."""

    told: Mapping[UUID, str]
    remaining: int


async def replay(
    ledger: Ledger, runs: Runs, campaigns: Campaigns, wanted: Wanted, *, dry_run: bool = False, now: datetime
) -> AsyncIterator[Page]:
    """Give events a new handler run, page by page: the named ones first, the others from the oldest on.

    An event whose enrolment exists changes nothing when it is handled again. What comes in after `now` is not meant.
    A quarantined body is validated anew, and taken in as an event of its own when it is valid now; so is one that was
    taken for a bot's, but only when it is named: a stretch of time may hold thousands of real bots.
    """
    again = _Again(ledger, runs, campaigns, dry_run, now)
    async for rows, unknown, remaining in _chosen(ledger, wanted, now):
        told = dict.fromkeys(unknown, "not known") | await again.handle(rows, named=frozenset(wanted.ids))
        yield Page(told, remaining)


async def _chosen(ledger: Ledger, wanted: Wanted, now: datetime) -> AsyncIterator[tuple[list[Any], list[UUID], int]]:
    """Pages of events, with the ids that nothing is known of, and how many events there are behind each page."""
    state = EventState.FAILED if wanted.failed else None
    until = min(wanted.until, now) if wanted.until else now
    ids, after = dict.fromkeys(wanted.ids), wanted.after

    async def page() -> tuple[list[Any], int]:
        if not wanted.many:
            return [], 0
        async with ledger.reading() as connection:
            return await inbox.page_of_events(
                connection, state=state, since=wanted.since, until=until, after=after, limit=PAGE
            )

    others = (await page())[1] if ids else 0
    for start in range(0, len(ids), PAGE):
        some = list(ids)[start : start + PAGE]
        async with ledger.reading() as connection:
            known = {row.id: row for row in await inbox.find_events(connection, some)}
        rows = [known[i] for i in some if i in known]
        yield rows, [i for i in some if i not in known], len(ids) - start - len(some) + others
    while True:
        rows, count = await page()
        if not rows:
            return
        after = (rows[-1].received_at, rows[-1].id)
        yield [row for row in rows if row.id not in ids], [], count - len(rows)


@dataclass
class _Again:
    """Handles pages of events again."""

    ledger: Ledger
    runs: Runs
    campaigns: Campaigns
    dry_run: bool
    now: datetime
    #: Prefect did not answer, so it is not asked for the rest either.
    away: bool = False

    async def handle(self, rows: Sequence[Any], *, named: frozenset[UUID]) -> dict[UUID, str]:
        """What becomes of each."""
        told = {row.id: _aside(row, named) for row in rows}
        again = [row for row in rows if row.state not in ASIDE]
        anew = [row for row in rows if told[row.id] is None and row.state in ASIDE]
        if self.dry_run:
            return {i: what or "would be replayed" for i, what in told.items()}
        async with self.ledger.transaction() as connection:
            dispatches = await inbox.requeue(connection, [row.id for row in again])
        waits = {deployment for deployment, each in dispatches.items() if not await self._dispatch(each)}
        done = {row.id: WAITS if row.deployment in waits else "replayed" for row in again}
        done |= {row.id: await self._take_in(row) for row in anew}
        return {i: what or done[i] for i, what in told.items()}

    async def _dispatch(self, dispatch_id: UUID) -> bool:
        """Whether Prefect has taken it; else it waits for the keeper, and keeps back no other."""
        if self.away:
            return False
        try:
            await dispatch(self.ledger, self.runs, dispatch_id, self.now)
        except ServiceError as error:
            deferred(dispatch_id, error)
            self.away = says_away(error)
            return False
        return True

    async def _take_in(self, row: Any) -> str:
        """A quarantined body as an event, if it is valid by now."""
        campaign = self.campaigns[row.campaign]
        webhook = campaign.webhook(row.source)
        try:
            payload = webhook.read(row.body)
        except ValidationError as error:
            return f"still not valid: {error.error_count()} problems, first: {error.errors()[0]['msg']}"
        except (ValueError, RecursionError) as error:
            return f"still not valid: {error}"
        events = arrivals(
            campaign,
            webhook,
            payload,
            body=row.body,
            key=None,
            now=row.received_at,  # what it says, such as consent, was said then
            testing_minute=row.testing_minute,
        )
        async with self.ledger.transaction() as connection:
            receipts = await inbox.accept(connection, events)
            taken = TAKEN_IN + f"{', '.join(str(r.event_id) for r in receipts)}"
            await inbox.settle_events(connection, [row.id], EventState.IGNORED, events[0].received_at, taken)
        new = {r.dispatch_id for r in receipts if r.dispatch_id and not r.duplicate}
        started = [await self._dispatch(each) for each in new]
        return taken if all(started) else f"{taken}; {WAITS}"


def _aside(row: Any, named: frozenset[UUID]) -> str | None:
    """Why an event is left alone; None for what is handled again or taken in."""
    if row.state == EventState.IGNORED:
        return "starts nothing by rule"
    if row.state == EventState.BLOCKED and row.id not in named:
        return "was taken for a bot's; name it to take it in"
    return None
