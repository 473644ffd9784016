"""Make Prefect's work pool and deployments match the campaigns and the code.

`python -m tidings.adapters.deploy FOLDER…` says which deployments those are, as JSON, for processes that do without
Prefect's imports.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from contextlib import redirect_stdout
from dataclasses import asdict, dataclass
from datetime import timedelta
from functools import cache
from pathlib import Path
from typing import Any
from uuid import UUID

from prefect import Flow
from prefect.client.orchestration import PrefectClient, get_client
from prefect.client.schemas.actions import DeploymentScheduleCreate, WorkPoolCreate
from prefect.client.schemas.schedules import IntervalSchedule
from prefect.exceptions import ObjectNotFound
from prefect.utilities.callables import parameter_schema

from tidings.adapters.deployed import Expected, signature
from tidings.adapters.prefect import CANARY_DEPLOYMENT, MIRROR_DEPLOYMENT, RECONCILE_DEPLOYMENT
from tidings.campaign import Campaigns, load_campaigns
from tidings.settings import ROOT, Settings


@dataclass(frozen=True)
class Wanted:
    """A deployment as the code needs it."""

    name: str
    flow: Flow[..., Any]
    entrypoint: str
    tags: tuple[str, ...] = ()
    every: timedelta | None = None
    concurrency: int | None = None
    description: str = ""


def wanted(campaigns: Campaigns, canary_hours: float = 0) -> Iterator[Wanted]:
    """Every deployment: a handler a webhook, a sender a campaign, and those that look after all of them."""
    from flows import canary, handler, notion_mirror, reconcile, send_email, sweep

    for campaign, webhook in campaigns.webhooks:
        yield Wanted(
            name=webhook.deployment,
            flow=handler.handler(campaign, webhook),
            entrypoint=f"flows.handler.{webhook.deployment.replace('-', '_')}",
            tags=("tidings", f"campaign:{campaign.name}", f"sequence:{webhook.sequence}"),
            description=webhook.summary,
        )
    for campaign in campaigns.values():
        yield Wanted(
            name=campaign.send_deployment,
            flow=send_email.sender(campaign),
            entrypoint=f"flows.send_email.{campaign.send_deployment.replace('-', '_')}",
            tags=("tidings", f"campaign:{campaign.name}"),
            description=f"Sends the mails of {campaign.title}",
        )
    yield Wanted(
        name="tidings-sweep",
        flow=sweep.sweep,
        entrypoint="flows.sweep.sweep",
        tags=("tidings",),
        every=timedelta(minutes=5),
        concurrency=1,
        description="Makes up for what a crash or an outage left undone",
    )
    yield Wanted(
        name=MIRROR_DEPLOYMENT,
        flow=notion_mirror.mirror_to_notion,
        entrypoint="flows.notion_mirror.mirror_to_notion",
        tags=("tidings",),
        every=timedelta(minutes=15),
        concurrency=1,
        description="Brings Notion's rows up to date from the ledger",
    )
    yield Wanted(
        name=CANARY_DEPLOYMENT,
        flow=canary.canary,
        entrypoint="flows.canary.canary",
        tags=("tidings",),
        every=timedelta(hours=canary_hours) if canary_hours else None,
        concurrency=1,
        description="Sends a canary through the whole chain",
    )
    yield Wanted(
        name=RECONCILE_DEPLOYMENT,
        flow=reconcile.reconcile,
        entrypoint="flows.reconcile.reconcile",
        tags=("tidings",),
        every=timedelta(hours=1),
        concurrency=1,
        description="Takes in what never arrived as a webhook, and compares the ledger with Resend and Notion",
    )


async def deploy(campaigns: Campaigns, settings: Settings) -> list[str]:
    """Create or update the work pool, every deployment and automation; returns their names. Harmless to repeat."""
    async with get_client() as client:
        return await _deploy_all(client, campaigns, settings)


async def _deploy_all(client: PrefectClient, campaigns: Campaigns, settings: Settings) -> list[str]:
    # Apprise comes with them, and others import this module for what the code needs.
    from tidings.adapters.automations import put_automations

    await _work_pool(client, settings.work_pool)
    every = wanted(campaigns, settings.canary_hours)
    ids = {each.name: await _deploy(client, each, settings.work_pool) for each in every}
    return [*ids, *await put_automations(client, settings, ids)]


async def _work_pool(client: PrefectClient, name: str) -> None:
    try:
        await client.read_work_pool(name)
    except ObjectNotFound:
        # Here, as Prefect's worker costs the webhook server 5 MB, which needs this module to compare deployments.
        from prefect.workers.process import ProcessWorker

        template = ProcessWorker.get_default_base_job_template()
        await client.create_work_pool(WorkPoolCreate(name=name, type="process", base_job_template=template))


async def _deploy(client: PrefectClient, each: Wanted, pool: str) -> UUID:
    flow_id = await client.create_flow(each.flow)
    schema = _schema(each.flow)
    schedules = [DeploymentScheduleCreate(schedule=IntervalSchedule(interval=each.every))] if each.every else []
    return await client.create_deployment(
        flow_id=flow_id,
        name=each.name,
        entrypoint=each.entrypoint,
        # A standard `prefect worker start` goes to this folder before it imports the flow.
        pull_steps=[{"prefect.deployments.steps.set_working_directory": {"directory": str(ROOT)}}],
        # an unknown parameter is refused when a run is made, and not when it executes days later (F8)
        parameter_openapi_schema={**schema, "additionalProperties": False},
        enforce_parameter_schema=True,
        work_pool_name=pool,
        tags=list(each.tags),
        description=each.description,
        concurrency_limit=each.concurrency,
        schedules=schedules,
        paused=False,
    )


@cache
def _schema(flow: Flow[..., Any]) -> dict[str, Any]:
    return parameter_schema(flow).model_dump_for_openapi()


def expected(campaigns: Campaigns) -> dict[str, Expected]:
    """By deployment, how this process's code needs it."""
    return {each.name: Expected(each.entrypoint, signature(_schema(each.flow))) for each in wanted(campaigns)}


if __name__ == "__main__":
    with redirect_stdout(sys.stderr):  # for a campaign that prints something when it is imported
        needed = expected(load_campaigns([Path(folder) for folder in sys.argv[1:]]))
    print(json.dumps({name: asdict(each) for name, each in needed.items()}))
