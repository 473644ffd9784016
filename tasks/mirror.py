"""Mirroring to Notion, tried again while Notion or the ledger are away."""

from __future__ import annotations

from prefect import task
from prefect.cache_policies import NO_CACHE

from tasks.retrying import DELAYS, as_told, worth_retrying
from tidings.errors import RetryLater
from tidings.mirror import Mirror

#: Rows of each kind that one run writes: about four minutes at two requests a second, of Notion's three.
ROWS_A_RUN = 150


@task(
    name="mirror",
    retries=len(DELAYS),
    retry_delay_seconds=DELAYS,
    retry_condition_fn=worth_retrying,
    cache_policy=NO_CACHE,
    persist_result=False,
)
async def mirror_rows(mirror: Mirror) -> dict[str, int]:
    try:
        return await mirror.run(ROWS_A_RUN)
    except RetryLater as error:
        await as_told(error)
        raise
