"""The sending deployments, `<campaign>-send-email`: one run a template and due minute."""

from __future__ import annotations

from datetime import datetime
from functools import cache
from typing import Any

from prefect import Flow, flow, get_run_logger
from prefect.client.schemas.objects import State

from flows.reporting import end, report, run_id, running
from tasks.send import send_all
from tidings.adapters.blocks import settings_of_this_process
from tidings.campaign import Campaign, load_campaigns
from tidings.deliver import Selection
from tidings.errors import ServiceError
from tidings.ledger import mails
from tidings.model import Slot
from tidings.schedule import aware
from tidings.wiring import App, utc_now

#: From so many mails on, the run of a template and minute is joined by a second one.
WAVE = 1000


def __getattr__(attribute: str) -> Flow[..., Any]:
    if attribute.startswith("__"):
        raise AttributeError(attribute)
    for campaign in load_campaigns(settings_of_this_process().campaign_folders).values():
        if campaign.send_deployment == attribute.replace("_", "-"):
            return sender(campaign)
    raise AttributeError(f"no campaign sends with the deployment {attribute!r}")


@cache
def _flow(deployment: str, campaign: str) -> Flow[..., Any]:
    @flow(name=deployment, persist_result=False)
    async def send_email(template: str | None = None, due: datetime | None = None) -> State[Any] | None:
        """Send the mails of one template that are due by then; without a template, what a dead run left behind."""
        async with running() as app:
            return await _send(app, campaign, template, aware(due) if due else utc_now())

    return send_email


def sender(campaign: Campaign) -> Flow[..., Any]:
    """The flow that sends a campaign's mails."""
    return _flow(campaign.send_deployment, campaign.name)


async def _send(app: App, campaign: str, template: str | None, due: datetime) -> State[Any] | None:
    selection = Selection(campaign=campaign, template=template, until=due)
    if template is not None:
        await _share(app, campaign, template, due)
    sent, errors = await send_all(app, selection, run_id())
    await report(f"sent-{(template or campaign).replace('_', '-').lower()}", f"{sent.sent} sent", sent)
    return await end(app, campaign, sent, errors)


async def _share(app: App, campaign: str, template: str, due: datetime) -> None:
    """A second run for a wave, so that two workers send it. Whoever asks gets the same run, also that run itself."""
    async with app.ledger.reading() as connection:
        count = await mails.count_due(connection, campaign=campaign, template=template, slot_until=due)
    if count >= WAVE:
        sequence = app.campaigns[campaign].sequence_of_template(template).name
        slot = Slot(campaign, sequence, template, due)
        try:
            await app.runs.start_send(slot, at=utc_now(), key=f"send:{template}:{due.isoformat()}:shared")
        except ServiceError as error:  # a help, no need: this run sends all of it, only later
            get_run_logger().warning("this wave is sent by one run alone: %s", error)
