"""Handle stored events again, at an operator's word."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

from pydantic import ValidationError

from tidings.accept import arrivals, deferred, dispatch
from tidings.campaign import Campaigns
from tidings.errors import ServiceError
from tidings.ledger import Ledger, inbox
from tidings.model import TAKEN_IN, EventState
from tidings.ports import Runs

#: Most events that one call replays; call again for more.
LIMIT = 10_000
#: States of events that no handler run is for as they stand.
ASIDE = frozenset({EventState.IGNORED, EventState.QUARANTINED, EventState.BLOCKED})


async def replay(
    ledger: Ledger,
    runs: Runs,
    campaigns: Campaigns,
    *,
    ids: Sequence[UUID] = (),
    failed: bool = False,
    since: datetime | None = None,
    until: datetime | None = None,
    dry_run: bool = False,
) -> dict[UUID, str]:
    """Give events a new handler run. An event whose enrolment exists changes nothing when it is handled again.

    A quarantined body is validated anew, and taken in as an event of its own when it is valid now; so is one that was
    taken for a bot's, but only when it is named: a stretch of time may hold thousands of real bots.
    """
    rows = {row.id: row for row in await _chosen(ledger, ids, failed, since, until)}
    result = dict.fromkeys(set(ids) - set(rows), "not known")
    result |= {i: "starts nothing by rule" for i, row in rows.items() if row.state == EventState.IGNORED}
    blocked = {i for i, row in rows.items() if row.state == EventState.BLOCKED}
    result |= dict.fromkeys(blocked - set(ids), "was taken for a bot's; name it to take it in")
    quarantined = [r for i, r in rows.items() if r.state == EventState.QUARANTINED or i in blocked & set(ids)]
    again = [i for i, r in rows.items() if r.state not in ASIDE]
    if dry_run:
        return result | dict.fromkeys([*again, *(r.id for r in quarantined)], "would be replayed")
    async with ledger.transaction() as connection:
        dispatches = await inbox.requeue(connection, again)
    for row in quarantined:
        result[row.id] = await _take_in(ledger, campaigns, row, dispatches)
    for dispatch_id in dispatches:
        try:
            await dispatch(ledger, runs, dispatch_id, datetime.now(UTC))
        except ServiceError as error:  # it waits for the keeper, and keeps back no other
            deferred(dispatch_id, error)
    return result | dict.fromkeys(again, "replayed")


async def _chosen(
    ledger: Ledger, ids: Sequence[UUID], failed: bool, since: datetime | None, until: datetime | None
) -> list[Any]:
    async with ledger.reading() as connection:
        rows = await inbox.find_events(connection, ids) if ids else []
        if failed or since or until:
            state = EventState.FAILED if failed else None
            rows += await inbox.list_events(connection, state=state, since=since, until=until, limit=LIMIT)
    return rows


async def _take_in(ledger: Ledger, campaigns: Campaigns, row: Any, dispatches: list[UUID]) -> str:
    """A quarantined body as an event, if it is valid by now."""
    campaign = campaigns[row.campaign]
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
    async with ledger.transaction() as connection:
        receipts = await inbox.accept(connection, events)
        taken = TAKEN_IN + f"{', '.join(str(r.event_id) for r in receipts)}"
        await inbox.settle_events(connection, [row.id], EventState.IGNORED, events[0].received_at, taken)
    dispatches += {r.dispatch_id for r in receipts if r.dispatch_id and not r.duplicate}
    return taken
