"""What Prefect's server does by itself, also when neither the web server nor a worker is there: its automations.

Whoever watches says so to Prefect every minute, as an event. When nothing was heard for a while, Prefect starts a
sweep, by which a worker takes the watch over; when then still nothing is heard, Prefect tells people itself. So it says
only what nobody else can say, and nothing is told twice.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import timedelta
from uuid import UUID

from prefect.blocks.notifications import SlackWebhook
from prefect.client.orchestration import PrefectClient
from prefect.events.actions import RunDeployment, SendNotification
from prefect.events.schemas.automations import AutomationCore, EventTrigger, Posture
from prefect.exceptions import ObjectNotFound
from pydantic import SecretStr

from tidings.adapters.notify import addresses
from tidings.adapters.prefect import RECONCILE_DEPLOYMENT, WATCHED_EVENT, watched_resource
from tidings.ports import Tone
from tidings.settings import Settings

#: Seconds without a word before a sweep looks, and before people are told, in times of WATCH_SECONDS: 150 and 270 s.
SWEEP_AFTER, TELL_AFTER = 7.5, 13.5
#: Prefect takes no shorter time than the first for what does not happen; a sweep needs the second to take over.
SHORTEST_SWEEP, SHORTEST_TELL = 10.0, 45.0
#: So many failures of one deployment within this long are told: the next run usually makes up for one.
FAILURES, WITHIN = 3, timedelta(hours=1)
#: The deployments whose failures nobody else tells of: no webhook and no mail depends on them.
LOOKING_AFTER = ("tidings-sweep", "tidings-notion-mirror", RECONCILE_DEPLOYMENT)

NOBODY = (
    "Prefect's server tells this itself: for {seconds:.0f} s neither the web server of Tidings nor a worker has looked "
    "after anything. Webhooks are probably lost, and no mails leave. Start both, and look at their logs. More: tidings "
    "doctor. No message comes when this is over."
)
FAILING = (
    "Three runs of {{ deployment.name }} have failed within an hour, the last with: {{ flow_run.state.message }} "
    "Mend that; the next run makes up for what was missed. More: {{ flow_run|ui_url }}"
)


async def put_automations(client: PrefectClient, settings: Settings, deployments: dict[str, UUID]) -> list[str]:
    """Create or update the automations of ALERT_URLS, and delete those that are not wanted any more; their names."""
    blocks = await _put_channels(client, settings)
    wanted = {a.name: a for a in _wanted(settings, deployments, blocks)} if blocks else {}
    known = {a.name: a.id for a in await client.read_automations() if _tag(settings) in a.tags}
    for name, automation in wanted.items():
        if name in known:
            await client.update_automation(known[name], automation)
        else:
            await client.create_automation(automation)
    for name in known.keys() - wanted.keys():
        await client.delete_automation(known[name])
    return list(wanted)


def _tag(settings: Settings) -> str:
    """What marks ours: several Tidings may share a Prefect, each with a pool of its own."""
    return f"tidings-pool:{settings.work_pool}"


def _wanted(settings: Settings, deployments: dict[str, UUID], blocks: list[UUID]) -> Iterator[AutomationCore]:
    pool, tags = settings.work_pool, ["tidings", _tag(settings)]
    sweep_after = max(SHORTEST_SWEEP, SWEEP_AFTER * settings.watch_seconds)
    yield AutomationCore(
        name=f"{pool}: watch from the worker",
        description="The web server has not said for a while that it watches, so a worker looks",
        tags=tags,
        trigger=_silence(settings, sweep_after),
        actions=[RunDeployment(source="selected", deployment_id=deployments["tidings-sweep"])],
    )
    tell_after = max(SHORTEST_TELL, TELL_AFTER * settings.watch_seconds)
    yield AutomationCore(
        name=f"{pool}: nobody watches",
        description="Neither the web server nor a worker says that it watches",
        tags=tags,
        trigger=_silence(settings, tell_after),
        actions=_tell(blocks, "Tidings: nobody watches", NOBODY.format(seconds=tell_after)),
    )
    yield AutomationCore(
        name=f"{pool}: looking after fails",
        description="Runs that no webhook and no mail depends on fail again and again",
        tags=tags,
        trigger=_failing([deployments[name] for name in LOOKING_AFTER]),
        actions=_tell(blocks, "Tidings: {{ deployment.name }} fails again and again", FAILING),
    )


def _silence(settings: Settings, seconds: float) -> EventTrigger:
    """Fires when the word that somebody watches has come, and does not come again within so long."""
    return EventTrigger(
        match={"prefect.resource.id": watched_resource(settings.work_pool)},
        after={WATCHED_EVENT},
        expect={WATCHED_EVENT},
        for_each={"prefect.resource.id"},
        posture=Posture.Proactive,
        threshold=1,
        within=timedelta(seconds=seconds),
    )


def _failing(deployment_ids: list[UUID]) -> EventTrigger:
    return EventTrigger(
        match={"prefect.resource.id": "prefect.flow-run.*"},
        match_related={
            "prefect.resource.id": [f"prefect.deployment.{each}" for each in deployment_ids],
            "prefect.resource.role": "deployment",
        },
        expect={"prefect.flow-run.Failed", "prefect.flow-run.Crashed", "prefect.flow-run.TimedOut"},
        for_each={"related:deployment:prefect.resource.id"},
        posture=Posture.Reactive,
        threshold=FAILURES,
        within=WITHIN,
    )


def _tell(blocks: list[UUID], subject: str, body: str) -> list[SendNotification]:
    return [SendNotification(block_document_id=block, subject=subject, body=body) for block in blocks]


async def _put_channels(client: PrefectClient, settings: Settings) -> list[UUID]:
    """A notification block for each address, none for those that are gone; their ids.

    Prefect's block for Slack gives Apprise any address that is not one of Slack's own as it is. Its blocks for other
    services build their addresses from parts.
    """
    given = addresses(settings.alert_urls.get_secret_value()) if settings.alert_urls else []
    name = re.sub(r"[^a-z0-9]+", "-", f"{settings.work_pool}-alerts".lower()).strip("-")
    ids = []
    for each in given:
        block = SlackWebhook(url=SecretStr(each.url), notify_type=Tone.FAILURE.value)
        ids.append(await block.asave(f"{name}-{each.number}", overwrite=True, client=client))
    await _delete_channels(client, name, len(given))
    return ids


async def _delete_channels(client: PrefectClient, name: str, beyond: int) -> None:
    number = beyond + 1
    while True:
        try:
            block = await client.read_block_document_by_name(f"{name}-{number}", "slack-webhook")
        except ObjectNotFound:
            return
        await client.delete_block_document(block.id)
        number += 1
