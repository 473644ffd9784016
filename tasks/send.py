"""Sending one claim, tried again while Resend, Notion or the ledger are away."""

from __future__ import annotations

import asyncio
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


async def send_all(app: App, selection: Selection, run_id: UUID | None) -> Sent:
    """Batch after batch until nothing is due; in a wave several at a time, so that one is rendered while others travel.

    Raises what a batch raised, after the others under way have ended.
    """
    total = Sent()
    first = await send_batch(app, selection, run_id)
    if first is None:
        return total
    total.add(first)
    lanes = LANES if first.count >= BATCH else 1
    ends = await asyncio.gather(*(_lane(app, selection, run_id, total) for _ in range(lanes)), return_exceptions=True)
    for error in ends:
        if error is not None:
            raise error
    return total


async def _lane(app: App, selection: Selection, run_id: UUID | None, total: Sent) -> None:
    while (done := await send_batch(app, selection, run_id)) is not None:
        total.add(done)
