"""One step of a reconciliation, tried again while its service or the ledger are away."""

from __future__ import annotations

from prefect import task
from prefect.cache_policies import NO_CACHE

from tasks.retrying import DELAYS, as_told, worth_retrying
from tidings.errors import RetryLater
from tidings.gaps import Checked, Scope
from tidings.reconciliation import Step


@task(
    name="compare",
    retries=len(DELAYS),
    retry_delay_seconds=DELAYS,
    retry_condition_fn=worth_retrying,
    cache_policy=NO_CACHE,
    persist_result=False,
)
async def compare(step: Step, scope: Scope) -> Checked:
    try:
        return await step.check(scope)
    except RetryLater as error:
        await as_told(error)
        raise
