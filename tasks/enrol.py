"""Enrolling, tried again while Notion or the ledger are away."""

from __future__ import annotations

from uuid import UUID

from prefect import task
from prefect.cache_policies import NO_CACHE

from tasks.retrying import DELAYS, as_told, worth_retrying
from tidings.enrol import Enrolled, enrol
from tidings.errors import RetryLater
from tidings.wiring import App, utc_now


@task(
    name="enrol",
    retries=len(DELAYS),
    retry_delay_seconds=DELAYS,
    retry_condition_fn=worth_retrying,
    cache_policy=NO_CACHE,
    persist_result=False,
)
async def enrol_events(app: App, event_ids: list[UUID]) -> Enrolled:
    try:
        facts = app.settings.facts
        return await enrol(app.ledger, app.copy, app.campaigns, facts, event_ids, utc_now(), app.projects, app.calendar)
    except RetryLater as error:
        await as_told(error)
        raise
