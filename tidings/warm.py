"""What a forked flow run does, and everything it would otherwise import first.

This module is imported once in the process that runs are forked from. It starts no threads and opens nothing.
"""

from __future__ import annotations

import asyncio
import importlib
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import Any, cast
from uuid import UUID

from prefect._internal.control_listener import configure_from_env
from prefect.engine import handle_engine_signals
from prefect.flow_engine import load_flow, load_flow_run, run_flow
from prefect.logging.loggers import flow_run_logger
from prefect.settings import get_current_settings

import flows.canary
import flows.handler
import flows.notion_mirror
import flows.reconcile
import flows.send_email
import flows.sweep
from tidings import logs, tls
from tidings.adapters.blocks import keep_settings
from tidings.campaign import load_campaigns
from tidings.code import source
from tidings.errors import CampaignError
from tidings.settings import campaign_folders

#: What Prefect and its libraries import late, in the middle of every run: 50 ms of each. Names of their insides, so one
#: that is gone after an upgrade is done without.
LATE = (
    "anyio._backends._asyncio",
    "prefect.concurrency.services",
    "prefect.task_engine",
    "prefect.utilities.visualization",
)
#: Models that Prefect completes when they are first used, in every run: 20 ms.
INCOMPLETE = (
    "prefect.artifacts.MarkdownArtifact",
    "prefect.client.schemas.actions.ArtifactCreate",
    "prefect.client.schemas.actions.FlowRunUpdate",
    "prefect.client.schemas.actions.LogCreate",
    "prefect.client.schemas.objects.Artifact",
    "prefect.client.schemas.objects.ConcurrencyLeaseHolder",
    "prefect.client.schemas.objects.FlowRun",
    "prefect.client.schemas.objects.ServerDefaultResultStorage",
    "prefect.client.schemas.objects.WorkPool",
    "prefect.client.schemas.objects.WorkQueue",
    "prefect.client.schemas.responses.DeploymentResponse",
    "prefect.events.filters.EventFilter",
    "prefect.events.filters.EventIDFilter",
    "prefect.events.filters.EventNameFilter",
    "prefect.events.filters.EventOccurredFilter",
    "prefect.events.schemas.events.Event",
)


def prepare() -> None:
    """Make what every run would make for itself: late imports, the campaigns, their flows, the TLS context.

    And the name of the code that is imported here: files that change later are not what runs have.

    A campaign that cannot be loaded is told of by the runs, which try again.
    """
    source()
    tls.prepare()
    for name in LATE:
        with suppress(ImportError):
            importlib.import_module(name)
    for path in INCOMPLETE:
        module, _, name = path.rpartition(".")
        with suppress(ImportError, AttributeError, NameError):
            getattr(importlib.import_module(module), name).model_rebuild()
    try:
        campaigns = load_campaigns(campaign_folders())
    except CampaignError:
        return
    for campaign, webhook in campaigns.webhooks:
        flows.handler.handler(campaign, webhook)
    for campaign in campaigns.values():
        flows.send_email.sender(campaign)


def run(flow_run_id: UUID) -> int:
    """Run one flow run to its end, as `python -m prefect.engine` would."""
    configure_from_env()
    get_current_settings().client.server_version_check_enabled = False  # the worker has seen to that
    with handle_engine_signals(flow_run_id):
        with ThreadPoolExecutor(1) as beside:
            reading = beside.submit(keep_settings)  # asks Prefect, too
            flow_run = load_flow_run(flow_run_id=flow_run_id)
        logger = flow_run_logger(flow_run=flow_run)
        try:
            settings = reading.result()
            flow = load_flow(flow_run)
            logs.configure(as_json=settings.log_json)  # before Prefect's own first line
        except BaseException:
            logger.error("The flow of this run cannot be loaded", exc_info=True)
            raise
        # All flows of Tidings are async: a synchronous one loses a second at its end (design.md 4).
        asyncio.run(cast(Any, run_flow(flow, flow_run=flow_run, error_logger=cast(Any, logger))))
    return 0
