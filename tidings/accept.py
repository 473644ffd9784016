"""Take in a webhook: stored before it is answered, then handed to Prefect."""

from __future__ import annotations

import asyncio
import hashlib
import json
import logging
import time
from collections import Counter
from collections.abc import Mapping
from datetime import datetime
from typing import Any
from uuid import UUID, uuid4

from tidings.campaign import Campaign, Payload, Webhook
from tidings.errors import LedgerUnavailable, OutcomeUnknown, RetryLater, ServiceError, TidingsError
from tidings.gather import Gatherings
from tidings.grouping import Grouped
from tidings.ledger import Ledger, dispatches, inbox
from tidings.model import Arrival, Quota, Receipt
from tidings.ports import Runs

log = logging.getLogger("tidings.accept")

#: Webhooks that are stored by one commit at most.
GROUP_LIMIT = 200
#: So many are stored while the group before them still is.
BESIDE = 32
#: For this long after Prefect did not answer, webhooks are answered 202 without asking it.
AWAY_SECONDS = 2.0


def arrivals(campaign: Campaign, webhook: Webhook, payload: Payload, *, key: str | None, **given: Any) -> list[Arrival]:
    """A validated body as events: mostly one, and one a person where it is about several."""
    parts = payload.parts()
    if len(parts) == 1:
        return [arrival(campaign, webhook, parts[0], key=key, **given)]
    keys = [f"{key}|{n}" if key else None for n in range(len(parts))]
    return [arrival(campaign, webhook, part, key=own, **given) for part, own in zip(parts, keys, strict=True)]


def arrival(
    campaign: Campaign,
    webhook: Webhook,
    payload: Payload,
    *,
    body: str,
    key: str | None,
    now: datetime,
    testing_minute: float | None,
    quotas: tuple[Quota, ...] = (),
    origin: str | None = None,
    signed_id: str | None = None,
) -> Arrival:
    """A validated body as an event. `key` is the sender's own event id, when it sent one in a header.

    `quotas` are what a sender that nobody knows is counted against; `signed_id` is Arrival's. `origin` is the service
    whose list it was found in, when its sender has not posted it.
    """
    theirs = key or payload.event_key()
    return Arrival(
        id=uuid4(),
        source=webhook.path,
        key=theirs or (_digest(json.loads(body)) if payload.whole else digest(payload)),
        campaign=campaign.name,
        deployment=campaign.starting(elsewhere).deployment
        if (elsewhere := payload.starts_sequence())
        else webhook.deployment,
        body=body,
        contact=payload.contact(),
        received_at=now,
        ignored_because=payload.ignored_because(),
        testing_minute=testing_minute,
        facts=payload.facts(),
        quotas=quotas,
        repeatable=theirs is None and not payload.whole,
        origin=origin,
        signed_id=signed_id,
    )


def digest(payload: Payload) -> str:
    """Equal bodies have the same digest, whatever the order of their fields."""
    return _hash(payload.model_dump_json())  # in the order of the model's fields


def _digest(said: Any) -> str:
    return _hash(json.dumps(said, sort_keys=True, separators=(",", ":")))


def _hash(canonical: str) -> str:
    return "sha256:" + hashlib.sha256(canonical.encode()).hexdigest()


class Intake:
    """Stores webhooks in groups (one commit for all that came while the last was under way) and dispatches them."""

    def __init__(self, ledger: Ledger, runs: Runs, *, now: Any) -> None:
        self._ledger = ledger
        self._runs = runs
        self._now = now
        self._gatherings = Gatherings(ledger, runs, now=now)
        self._grouped = Grouped(self._accept, limit=GROUP_LIMIT, beside=BESIDE)
        self._dispatches: dict[UUID, asyncio.Task[UUID | None]] = {}
        self._in_flight: Counter[str] = Counter()
        self._away_until = 0.0

    async def take(self, arrival: Arrival) -> Receipt:
        """Store it; returns what is on record. Raises LedgerUnavailable when it could not be stored."""
        return await self._grouped.take(arrival)

    async def _accept(self, arrivals: list[Arrival]) -> list[Receipt]:
        starting = Counter(a.deployment for a in arrivals if a.ignored_because is None)
        gathered = {}
        for deployment, count in starting.items():
            if self._away:
                gathered[deployment] = inbox.Gathered(None, None, self._now())
            else:
                joined = await self._gatherings.join(deployment, count, self._in_flight[deployment])
                if joined is not None:
                    self._wait_for(joined.id, joined.opening)
                    gathered[deployment] = inbox.Gathered(joined.id, joined.run_id, joined.starts_at)
        async with self._ledger.transaction() as connection:
            receipts = await inbox.accept(connection, arrivals, gathered)
            for deployment in starting.keys() - gathered.keys():
                own = {r.dispatch_id for a, r in zip(arrivals, receipts, strict=True) if a.deployment == deployment}
                for dispatch_id in own & {r.dispatch_id for r in receipts if not r.duplicate}:
                    if dispatch_id is not None:
                        await dispatches.add(connection, dispatch_id, deployment, None)
        return receipts

    @property
    def _away(self) -> bool:
        return time.monotonic() < self._away_until

    async def dispatch(self, deployment: str, dispatch_id: UUID) -> UUID | None:
        """Hand a dispatch to Prefect, once however many ask; None when it was not taken (the keeper makes up for it).

        While Prefect is known to be away nobody waits for it: the webhook is stored, which is what counts.
        """
        task = self._dispatches.get(dispatch_id)
        if task is None:
            if self._away:
                return None
            task = asyncio.create_task(self._dispatch(deployment, dispatch_id))
            self._wait_for(dispatch_id, task)
        return await asyncio.shield(task)

    def _wait_for(self, dispatch_id: UUID, task: asyncio.Task[UUID | None]) -> None:
        """Whoever asks for this dispatch from now on waits for this very call to Prefect."""
        if dispatch_id not in self._dispatches and not task.done():
            self._dispatches[dispatch_id] = task
            task.add_done_callback(lambda _: self._dispatches.pop(dispatch_id, None))

    async def _dispatch(self, deployment: str, dispatch_id: UUID) -> UUID | None:
        self._in_flight[deployment] += 1
        try:
            return await dispatch(self._ledger, self._runs, dispatch_id, self._now())
        except (LedgerUnavailable, ServiceError) as error:
            deferred(dispatch_id, error)
            if says_away(error):
                self._away_until = time.monotonic() + AWAY_SECONDS
            return None  # the event is stored, which is what the answer says; the keeper dispatches it
        finally:
            self._in_flight[deployment] -= 1

    async def drain(self) -> None:
        """Wait until what was taken is stored and handed on."""
        await self._grouped.drain()
        await asyncio.gather(*self._dispatches.values(), return_exceptions=True)
        await self._gatherings.drain()


async def dispatch(ledger: Ledger, runs: Runs, dispatch_id: UUID, now: datetime) -> UUID | None:
    """Start the handler run of a dispatch. The dispatch id is the run's idempotency key: a repeat is harmless.

    None when its events have meanwhile been given another dispatch, by an operator or the keeper. Raises
    LedgerUnavailable, and ServiceError when Prefect did not take it.
    """
    async with ledger.reading() as connection:
        deployment, event_ids = await inbox.dispatch_group(connection, dispatch_id)
    if not event_ids:
        return None
    run_id = await runs.start_handler(deployment, event_ids, dispatch_id)
    async with ledger.transaction() as connection:
        await inbox.dispatched(connection, dispatch_id, run_id, now)
    return run_id


def says_away(error: TidingsError) -> bool:
    """Whether the rest would fare the same: a refusal concerns one deployment, all else concerns Prefect."""
    return isinstance(error, (RetryLater, OutcomeUnknown))


def deferred(dispatch_id: UUID, error: TidingsError) -> None:
    """Say that a dispatch waits, and why."""
    level = logging.WARNING if isinstance(error, (RetryLater, LedgerUnavailable)) else logging.ERROR
    log.log(level, "dispatch.deferred", extra={"dispatch_id": str(dispatch_id), "error": str(error)})


def answer(webhook: Webhook, receipt: Receipt, flow_run_id: UUID | None, status_url: str) -> Mapping[str, Any]:
    """What the sender is told: what really happened, and where it is told what happens next."""
    if receipt.ignored_because:
        message = f"{webhook.noun} stored; no email will be sent because {receipt.ignored_because}"
    elif flow_run_id:
        message = f"{webhook.noun} processed successfully"
    else:
        message = f"{webhook.noun} stored; it will be processed as soon as the scheduler is back"
    return {
        "message": message,
        "event_id": str(receipt.event_id),
        "flow_run_id": str(flow_run_id) if flow_run_id else None,
        "contact_created": receipt.contact_created,
        "status_url": status_url,
        **({"duplicate": True} if receipt.duplicate else {}),
    }
