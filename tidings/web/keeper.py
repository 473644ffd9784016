"""While the server runs, it makes up for what was not dispatched, scheduled or finished: one server at a time does."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine
from contextlib import suppress
from datetime import datetime
from typing import Any

from tidings.canary import look_after
from tidings.errors import CampaignError, Refused, TidingsError
from tidings.ledger import limits
from tidings.ledger.locks import alone
from tidings.reconcile import Steps, bury_dead, dispatch_waiting, reconcile
from tidings.watching import Looks, watch
from tidings.wiring import App, deadman_of

log = logging.getLogger("tidings.keeper")

#: Any fixed number; whoever holds this lock in PostgreSQL is the keeper.
LOCK = 7_201_227
#: How often events that Prefect has not confirmed are looked for: they are dispatched within 10 s of its return.
DISPATCH_SECONDS = 2.0
#: How often everything else is looked at: a cancelled run, a dead claim, a lost schedule.
RECONCILE_SECONDS = 10.0


async def keep_always(parts: App, now: Callable[[], datetime]) -> None:
    """Keep, whatever happens."""
    await _always("keeper.failed", lambda: keep(parts, now), DISPATCH_SECONDS)


async def watch_always(parts: App, looks: Looks, now: Callable[[], datetime]) -> None:
    """Watch and tell, whatever happens; beside the keeping and not in its way."""
    await _always("watch.failed", lambda: watch(parts, looks, now), parts.settings.watch_seconds)


async def _always(what: str, work: Callable[[], Coroutine[Any, Any, None]], pause: float) -> None:
    """Work, and begin anew after an error that nobody foresaw: it is said loudly, and does not end the work."""
    while True:
        working = asyncio.create_task(work())
        try:
            await asyncio.wait({working})
        finally:
            working.cancel()
        if not working.cancelled() and (error := working.exception()) is not None:
            log.critical(what, exc_info=error)
        await asyncio.sleep(pause)


async def keep(parts: App, now: Callable[[], datetime]) -> None:
    """For ever. Errors are said once each and do not end it: it is what mends them."""
    said = ""
    while True:
        try:
            async with alone(parts.ledger, LOCK, retry_every=DISPATCH_SECONDS):
                said = ""
                await _rounds(parts, now)
        except TidingsError as error:
            if str(error) != said:
                said = str(error)
                log.warning("keeper.waiting", extra={"error": said})
        await asyncio.sleep(DISPATCH_SECONDS)


async def _rounds(parts: App, now: Callable[[], datetime]) -> None:
    rounds_between = round(RECONCILE_SECONDS / DISPATCH_SECONDS)
    count = 0
    while True:
        if count % rounds_between == 0:
            await _whole_round(parts, now)
        else:
            await dispatch_waiting(parts.ledger, parts.runs, now())
        count += 1
        await asyncio.sleep(DISPATCH_SECONDS)


async def _whole_round(parts: App, now: Callable[[], datetime]) -> None:
    """Everything once, each step whatever became of the others. Raises what may pass by itself."""
    steps = Steps()
    with steps.step("dead runs"):
        await bury_dead(parts.ledger, parts.runs, now())
    with steps.step("canaries"):
        await look_after(parts.ledger, deadman_of(parts.settings), now())
    with steps.step("form limits"):
        async with parts.ledger.transaction() as connection:
            await limits.forget(connection, now())
    with suppress(Refused, CampaignError):  # which its step has said; what it concerns waits for a person
        done = await reconcile(parts.ledger, parts.runs, parts.campaigns, now())
        if any(done.values()):
            log.info("keeper.reconciled", extra={k.replace(" ", "_"): v for k, v in done.items() if v})
    steps.finish()
