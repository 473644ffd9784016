"""The handler deployments, one for each webhook of each campaign: from stored events to enrolments and first mails.

Flows are made from the campaigns when they are asked for by name: `flows.handler.christmas_signup_handler`.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from functools import cache
from typing import Any
from uuid import UUID

from prefect import Flow, flow, get_run_logger
from prefect.client.schemas.objects import State

from flows.reporting import end, report, run_id, running
from tasks.enrol import enrol_events
from tasks.send import errors_of, send_all
from tidings.adapters.blocks import settings_of_this_process
from tidings.campaign import Campaign, Webhook, load_campaigns
from tidings.deliver import Selection, Sent
from tidings.enrol import Enrolled, schedule
from tidings.errors import TidingsError
from tidings.ledger import inbox
from tidings.wiring import App, utc_now

#: Events that are enrolled by one transaction, when a run has many.
CHUNK = 200
#: For so long first mails have Prefect and the processor to themselves: somebody waits for those.
HEAD_START_SECONDS = 0.5


def flow_name(attribute: str) -> str:
    """christmas_signup_handler → christmas-signup-handler."""
    return attribute.replace("_", "-")


def __getattr__(attribute: str) -> Flow[..., Any]:
    if attribute.startswith("__"):
        raise AttributeError(attribute)
    for campaign, webhook in load_campaigns(settings_of_this_process().campaign_folders).webhooks:
        if webhook.deployment == flow_name(attribute):
            return handler(campaign, webhook)
    raise AttributeError(f"no campaign has a webhook with the deployment {flow_name(attribute)!r}")


@cache
def _flow(deployment: str, campaign: str, path: str) -> Flow[..., Any]:
    @flow(name=deployment, persist_result=False)
    async def handle(event_ids: list[UUID] | None = None, dispatch_id: UUID | None = None) -> State[Any] | None:
        """Enrol the contacts of these events (or of a dispatch's), send what is due at once, schedule the rest."""
        async with running() as app:
            return await _handle(app, campaign, path, event_ids or await _events_of(app, dispatch_id))

    return handle


def handler(campaign: Campaign, webhook: Webhook) -> Flow[..., Any]:
    """The flow of one webhook."""
    return _flow(webhook.deployment, campaign.name, webhook.path)


async def _events_of(app: App, dispatch_id: UUID | None) -> list[UUID]:
    if dispatch_id is None:
        return []
    async with app.ledger.reading() as connection:
        return await inbox.events_of_dispatch(connection, dispatch_id)


async def _handle(app: App, campaign: str, path: str, event_ids: list[UUID]) -> State[Any] | None:
    total, sent, errors = Enrolled(), Sent(), list[Exception]()
    for start in range(0, len(event_ids), CHUNK):
        chunk = event_ids[start : start + CHUNK]
        try:
            total = total + await enrol_events(app, chunk)
        except TidingsError as error:  # the rest would fare the same; what was done before is told all the same
            errors.append(error)
            break
        done, failed = await _send_and_schedule(app, campaign, chunk)
        sent.add(done)
        errors += failed
    await report(f"enrolled-{path}", f"{len(total.new)} enrolled from {path}", sent, notes=_notes(total))
    return await end(app, campaign, sent, errors, Counter(total.failed.values()))


async def _send_and_schedule(app: App, campaign: str, event_ids: list[UUID]) -> tuple[Sent, list[Exception]]:
    """Both at once, with a head start for what is due; a failure of one does not keep the other from being done."""
    now = utc_now()
    logger = get_run_logger()
    selection = Selection(campaign=campaign, until=now, event_ids=tuple(event_ids))
    sending = asyncio.create_task(send_all(app, selection, run_id()))
    await asyncio.wait([sending], timeout=HEAD_START_SECONDS)
    done, scheduled = await asyncio.gather(
        sending,
        schedule(
            app.ledger,
            app.runs,
            event_ids,
            now,
            lambda s: logger.info("scheduled %s at %s", s.template, s.at),
        ),
        return_exceptions=True,
    )
    errors = errors_of([done, scheduled])
    sent, failed = done if isinstance(done, tuple) else (Sent(), [])
    return sent, [*failed, *errors]


def _notes(enrolled: Enrolled) -> list[str]:
    failed = Counter(enrolled.failed.values())
    return [
        f"{len(enrolled.new)} enrolled",
        *([f"{len(enrolled.known)} in this sequence already"] if enrolled.known else []),
        *[f"{count} need nothing more: {reason}" for reason, count in Counter(enrolled.settled.values()).items()],
        *[f"{count} not enrolled: {reason}" for reason, count in failed.items()],
    ]
