"""A canary goes through the whole chain: a signed webhook in at the public address, Prefect, the template, Resend, and
the report of its delivery back. Where it is lost, something is broken that people's mails would be lost in too.
"""

from __future__ import annotations

import json
import logging
from dataclasses import dataclass
from datetime import datetime, timedelta
from uuid import UUID, uuid4

from standardwebhooks import Webhook

from tidings.alerts import Finding
from tidings.errors import ServiceError
from tidings.instance import LEDGER_ID
from tidings.ledger import Ledger, canaries
from tidings.ledger.canaries import Journey
from tidings.ledger.memory import Memory
from tidings.ports import Deadman, Door
from tidings.settings import Settings

log = logging.getLogger("tidings.canary")

PATH = "/webhook/canary"
KIND = "canary"
#: A canary that takes longer than this is lost. It takes a few seconds where all is well.
BACK_WITHIN = timedelta(minutes=3)
#: How much later than planned one may start before that is told: runs wait for a worker, deployments take time.
LATEST_GRACE = timedelta(hours=1)
#: Its rows are deleted after this time.
KEPT = timedelta(days=7)
#: Where one can see more.
MORE = "See `tidings doctor` for what is wrong, and `tidings canary` to send another"


@dataclass(frozen=True, slots=True)
class Station:
    """A place on the way, and when the canary came through; None: it has not."""

    name: str
    at: datetime | None


def stations(journey: Journey) -> tuple[Station, ...]:
    """All places in order."""
    return (
        Station("webhook accepted", journey.accepted_at),
        Station("handled by Prefect", journey.handled_at),
        Station("sent by Resend", journey.sent_at),
        Station("delivered", journey.delivered_at),
        Station("back", journey.returned_at),
    )


async def send(ledger: Ledger, door: Door, settings: Settings, deadman: Deadman | None, now: datetime) -> UUID:
    """Send a canary in at the public address. When it is not let in, its row says why, and the deadman is told."""
    canary_id = uuid4()
    async with ledger.transaction() as connection:
        await canaries.start(connection, canary_id, now)
    problem, event_id = await _post(door, settings, canary_id, now)
    async with ledger.transaction() as connection:
        if event_id is not None:
            await canaries.accepted(connection, canary_id, event_id)
    if problem is not None:
        await _give_up(ledger, deadman, canary_id, problem)
    log.info("canary.sent", extra={"canary": str(canary_id), "event_id": str(event_id or ""), "problem": problem or ""})
    return canary_id


async def _post(door: Door, settings: Settings, canary_id: UUID, now: datetime) -> tuple[str | None, UUID | None]:
    """What went wrong, or the event that it became."""
    body = json.dumps({"canary_id": str(canary_id)})
    try:
        status, said = await door.post(PATH, body, signed(settings, canary_id, body, now))
    except ServiceError as error:
        return f"its webhook could not be posted to {settings.public_url}: {error.detail}", None
    event_id = said.get("event_id")
    if status not in {200, 202} or not isinstance(event_id, str):
        return f"its webhook was answered {status} at {settings.public_url}: {said.get('detail', 'no JSON')}"[
            :500
        ], None
    return None, UUID(event_id)


def signed(settings: Settings, canary_id: UUID, body: str, now: datetime) -> dict[str, str]:
    """The headers of a Standard Webhook, signed with a key that nobody has to set."""
    sender_id = canaries.sender_id(canary_id)
    return {
        "webhook-id": sender_id,
        "webhook-timestamp": str(int(now.timestamp())),
        "webhook-signature": Webhook(settings.canary_secret).sign(sender_id, now, body),
    }


async def look_after(ledger: Ledger, deadman: Deadman | None, now: datetime) -> None:
    """Note which canaries are back and which are lost, tell the deadman, and forget old ones. Harmless to repeat."""
    async with ledger.transaction() as connection:
        back = await canaries.welcome(connection, now)
        waiting = await canaries.under_way(connection)
        await canaries.forget(connection, now - KEPT)
    for canary_id in back:
        log.info("canary.back", extra={"canary": str(canary_id)})
    if back and deadman:
        await deadman.well()
    for each in waiting:
        if now - each.started_at > BACK_WITHIN:
            await _give_up(ledger, deadman, each.id, where_lost(each))


async def _give_up(ledger: Ledger, deadman: Deadman | None, canary_id: UUID, problem: str) -> None:
    async with ledger.transaction() as connection:
        new = await canaries.give_up(connection, canary_id, problem)
    if not new:
        return
    log.error("canary.lost", extra={"canary": str(canary_id), "problem": problem})
    if deadman:
        await deadman.failed(problem)


def where_lost(journey: Journey) -> str:
    """The station after the last that it passed, and why as far as the ledger knows."""
    if journey.problem:
        return journey.problem
    if journey.accepted_at is None:
        return "its webhook was never answered"
    if journey.handled_at is None and journey.message_state is None:
        return _not_handled(journey)
    if journey.sent_at is None:
        because = f", because {journey.message_reason}" if journey.message_reason else ""
        return f"its mail is {journey.message_state or 'not planned'} and was not sent{because}"
    if journey.message_state == "sent":
        return "Resend has taken its mail and reported no delivery: is the webhook at Resend registered and enabled?"
    return f"its mail is {journey.message_state}: {journey.message_reason or 'no reason is known'}"


def _not_handled(journey: Journey) -> str:
    if journey.event_reason:
        return f"its handler run failed: {journey.event_reason}"
    if journey.flow_run_id is None:
        return "its webhook is stored, and Prefect has no run of it: Prefect is away, or the deployment is missing"
    return f"its handler run {journey.flow_run_id} has not done it: is a worker polling, and what does the run say?"


async def canary_findings(ledger: Ledger, settings: Settings, now: datetime) -> list[Finding]:
    """What is wrong with canaries now: the last one is lost, or the next one is overdue. Empty: nothing is."""
    if not settings.canary_hours:
        return []
    async with ledger.reading() as connection:
        last = await canaries.latest(connection)
    lost = last is not None and last.returned_at is None
    if last and lost and (last.problem or now - last.started_at > BACK_WITHIN):
        return [_lost(last)]
    since = last.started_at if last else await Memory(ledger).since(LEDGER_ID)
    interval = timedelta(hours=settings.canary_hours)
    grace = min(LATEST_GRACE, interval / 2)
    # The first one is sent at deployment, and does not wait for its hour.
    return [_overdue(since, last)] if since and now - since > (interval if last else timedelta(0)) + grace else []


def _lost(last: Journey) -> Finding:
    when = f"{last.started_at:%Y-%m-%d %H:%M:%S} UTC"
    return Finding(
        KIND,
        "A canary did not come back: webhooks may not become mails",
        f"The canary of {when} was lost: {where_lost(last)}. {MORE}.",
    )


def _overdue(since: datetime, last: Journey | None) -> Finding:
    what = "The last one was sent" if last else "None was ever sent, although this server is up since"
    return Finding(
        KIND,
        "No canary was sent although it is time",
        f"{what} {since:%Y-%m-%d %H:%M} UTC. Prefect, the deployment tidings-canary or the worker does not do its "
        f"work: run `tidings deploy` and look at that deployment's runs. {MORE}.",
    )
