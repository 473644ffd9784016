"""Sending one claim, tried again while Resend, Notion or the ledger are away."""

from __future__ import annotations

from uuid import UUID

from prefect import task
from prefect.cache_policies import NO_CACHE

from tasks.retrying import DELAYS, as_told, worth_retrying
from tidings.deliver import Selection, Sent, send_next
from tidings.errors import RetryLater
from tidings.wiring import App


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
    """Batch after batch until nothing is due."""
    total = Sent()
    while (done := await send_batch(app, selection, run_id)) is not None:
        total.add(done)
    return total
