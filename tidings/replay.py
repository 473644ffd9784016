"""Handle stored events again, at an operator's word."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from uuid import UUID

from tidings.accept import dispatch
from tidings.ledger import Ledger, inbox
from tidings.model import EventState
from tidings.ports import Runs

#: Most events that one call replays; call again for more.
LIMIT = 10_000


async def replay(
    ledger: Ledger,
    runs: Runs,
    *,
    ids: Sequence[UUID] = (),
    failed: bool = False,
    since: datetime | None = None,
    until: datetime | None = None,
    dry_run: bool = False,
) -> dict[UUID, str]:
    """Give events a new handler run. An event whose enrolment exists changes nothing when it is handled again."""
    async with ledger.reading() as connection:
        rows = await inbox.find_events(connection, ids) if ids else []
        if failed or since or until:
            state = EventState.FAILED if failed else None
            rows += await inbox.list_events(connection, state=state, since=since, until=until, limit=LIMIT)
    wanted = {row.id: row for row in rows}
    result = dict.fromkeys(set(ids) - set(wanted), "not known")
    result |= {i: "starts nothing by rule" for i, row in wanted.items() if row.state == EventState.IGNORED}
    again = [i for i, row in wanted.items() if row.state != EventState.IGNORED]
    if dry_run:
        return result | dict.fromkeys(again, "would be replayed")
    async with ledger.transaction() as connection:
        dispatches = await inbox.requeue(connection, again)
    for dispatch_id in dispatches:
        await dispatch(ledger, runs, dispatch_id, datetime.now(UTC))
    return result | dict.fromkeys(again, "replayed")
