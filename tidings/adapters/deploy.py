"""Make Prefect's work pool and deployments match the campaigns and the code."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import cache
from typing import Any
from uuid import UUID

from prefect import Flow
from prefect.client.orchestration import PrefectClient
from prefect.client.schemas.actions import DeploymentScheduleCreate, WorkPoolCreate
from prefect.client.schemas.responses import DeploymentResponse
from prefect.client.schemas.schedules import IntervalSchedule
from prefect.exceptions import ObjectNotFound
from prefect.utilities.callables import parameter_schema

from tidings.adapters.prefect import CANARY_DEPLOYMENT, MIRROR_DEPLOYMENT, RECONCILE_DEPLOYMENT, prefect_errors
from tidings.campaign import Campaigns
from tidings.settings import ROOT, Settings

#: A worker says every 30 s that it lives; after three missed words it counts as gone.
HEARTBEAT_SECONDS = 95.0


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


async def deploy(client: PrefectClient, campaigns: Campaigns, settings: Settings) -> list[str]:
    """Create or update the work pool, every deployment and automation; returns their names. Harmless to repeat."""
    # Apprise comes with them, and others import this module for what it knows of deployments.
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


async def problems(client: PrefectClient, campaigns: Campaigns, pool: str) -> dict[str, str]:
    """By deployment, what differs between Prefect and the code: missing, other parameters (F4, F8), or stopped."""
    async with prefect_errors("deployments"):
        there = {d.name: d for d in await client.read_deployments(limit=200)}
    found = {each.name: _problem(each, there.get(each.name), pool) for each in wanted(campaigns)}
    return {name: problem for name, problem in found.items() if problem}


def _problem(each: Wanted, deployment: DeploymentResponse | None, pool: str) -> str | None:
    what = f"deployment {each.name!r}"
    if deployment is None:
        return f"{what} is missing in Prefect; run: tidings deploy"
    if _signature(deployment.parameter_openapi_schema or {}) != _signature(_schema(each.flow)):
        return f"{what} has other parameters than the code; run: tidings deploy, and restart the worker"
    if deployment.entrypoint != each.entrypoint:
        return f"{what} runs {deployment.entrypoint} and not {each.entrypoint}; run: tidings deploy"
    if deployment.work_pool_name != pool:
        return f"{what} runs in the work pool {deployment.work_pool_name!r}, not {pool!r}; run: tidings deploy"
    return f"{what} is paused in Prefect; resume it there" if deployment.paused else None


@cache
def _schema(flow: Flow[..., Any]) -> dict[str, Any]:
    return parameter_schema(flow).model_dump_for_openapi()


def _signature(schema: Mapping[str, Any]) -> str:
    """What a run may be given: names, types, which of them must be there."""
    signature = {"properties": schema.get("properties", {}), "required": sorted(schema.get("required", []))}
    return hashlib.sha256(json.dumps(signature, sort_keys=True).encode()).hexdigest()[:12]


def signatures(campaigns: Campaigns) -> dict[str, str]:
    """By deployment, a digest of the parameters that its flow takes in this process's code."""
    return {each.name: _signature(_schema(each.flow)) for each in wanted(campaigns)}


async def live_workers(client: PrefectClient, pool: str, now: datetime) -> list[str]:
    """The names of workers that have polled the pool lately."""
    async with prefect_errors(f"work pool {pool!r}"):
        workers = await client.read_workers_for_work_pool(pool)
    return [
        w.name
        for w in workers
        if w.last_heartbeat_time and now - w.last_heartbeat_time < timedelta(seconds=HEARTBEAT_SECONDS)
    ]
