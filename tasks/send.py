"""Sending one claim, tried again while Resend, Notion or the ledger are away."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from uuid import UUID

from prefect import task
from prefect.cache_policies import NO_CACHE

from tasks.retrying import DELAYS, as_told, worth_retrying
from tidings.deliver import BATCH, Selection, Sent, send_next
from tidings.errors import RetryLater
from tidings.wiring import App

#: Batches of one run that are under way at once, when there are enough mails.
LANES = 3


@task(
    name="send",
    retries=len(DELAYS),
    retry_delay_seconds=DELAYS,
    retry_condition_fn=worth_retrying,
    cache_policy=NO_CACHE,
    persist_result=False,
)
async def send_batch(app: App, selection: Selection, run_id: UUID | None) -> Sent | None:
    try:
        return await send_next(app.delivery, selection, run_id)
    except RetryLater as error:
        await as_told(error)
        raise


async def send_all(app: App, selection: Selection, run_id: UUID | None) -> tuple[Sent, list[Exception]]:
    """Batch after batch until nothing is due; in a wave several at a time, so that one is rendered while others travel.

    Returns what was done, and what batches raised, after the others under way have ended.
    """
    total = Sent()
    ends: list[object] = list(await asyncio.gather(_batch(app, selection, run_id, total), return_exceptions=True))
    if ends == [True]:
        lanes = LANES if total.count >= BATCH else 1
        ends = list(
            await asyncio.gather(*(_lane(app, selection, run_id, total) for _ in range(lanes)), return_exceptions=True)
        )
    return total, errors_of(ends)


async def _lane(app: App, selection: Selection, run_id: UUID | None, total: Sent) -> None:
    while await _batch(app, selection, run_id, total):
        pass


async def _batch(app: App, selection: Selection, run_id: UUID | None, total: Sent) -> bool:
    """Send one; False when nothing is due any more."""
    done = await send_batch(app, selection, run_id)
    if done is not None:
        total.add(done)
    return done is not None


def errors_of(ends: Sequence[object]) -> list[Exception]:
    """What failed of what was done at once. What ends the whole process, such as a cancellation, is raised."""
    for end in ends:
        if isinstance(end, BaseException) and not isinstance(end, Exception):
            raise end
    return [end for end in ends if isinstance(end, Exception)]
