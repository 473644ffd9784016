"""From stored events to enrolments: every template is fetched and tried for this contact before anything is sent."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from pydantic import ValidationError

from tidings.campaign import Campaign, Campaigns, Payload
from tidings.campaign import Sequence as MailSequence
from tidings.errors import CopyError
from tidings.ledger import Ledger, inbox, mails
from tidings.model import Event, EventState, MessageState, Plan, PlannedMessage, Slot, Template
from tidings.ports import Copy, Projects, Runs
from tidings.render import check, variables_of
from tidings.schedule import due_times, slot

log = logging.getLogger("tidings.enrol")

#: An event that is handled later than this after it came in starts its sequence anew, at the handling: after an
#: outage or a mended template, nobody gets three mails of three days at once.
STALE_AFTER = timedelta(hours=1)
#: The template variable that a contact's page in the customer projects database stands for.
PORTAL = "portal_url"


@dataclass(frozen=True)
class Enrolled:
    """What a handler run did."""

    new: tuple[UUID, ...] = ()
    known: tuple[UUID, ...] = ()
    failed: Mapping[UUID, str] = field(default_factory=dict)

    def __add__(self, other: Enrolled) -> Enrolled:
        return Enrolled(self.new + other.new, self.known + other.known, {**self.failed, **other.failed})


async def enrol(
    ledger: Ledger,
    copy: Copy,
    campaigns: Campaigns,
    facts: Mapping[str, Any],
    event_ids: Sequence[UUID],
    now: datetime,
    projects: Projects | None = None,
) -> Enrolled:
    """Enrol the contacts of these events.

    An event whose copy cannot be sent is failed with the reason and can be replayed; the others go on.
    Raises what the ledger or Notion raise when they cannot be reached: then nothing has changed.
    """
    async with ledger.transaction() as connection:
        events = await inbox.lock_events(connection, event_ids)
    templates, broken = await _templates(copy, campaigns, events)
    plans: list[Plan] = []
    failed: dict[UUID, str] = {}
    for event in events:
        try:
            theirs = {**facts, **await _project(projects, campaigns[event.campaign], event, templates)}
            plans.append(_plan(campaigns[event.campaign], event, templates, broken, theirs, now))
        except (CopyError, ValidationError) as error:
            failed[event.id] = str(error)
    return await _store(ledger, [e.id for e in events], plans, failed, now)


async def _store(
    ledger: Ledger, event_ids: list[UUID], plans: list[Plan], failed: dict[UUID, str], now: datetime
) -> Enrolled:
    async with ledger.transaction() as connection:
        ours = {e.id for e in await inbox.lock_events(connection, event_ids)}
        plans = [p for p in plans if p.event_id in ours]
        new = await mails.enrol(connection, plans, now)
        known = [p.event_id for p in plans if p.event_id not in new]
        await inbox.settle_events(connection, list(new), EventState.HANDLED, now)
        await inbox.settle_events(connection, known, EventState.HANDLED, now, "the contact is in this sequence already")
        for event_id, reason in failed.items():
            await inbox.settle_events(
                connection, [event_id] if event_id in ours else [], EventState.FAILED, now, reason
            )
    return Enrolled(tuple(new), tuple(known), failed)


async def _project(
    projects: Projects | None, campaign: Campaign, event: Event, templates: Mapping[str, Template]
) -> Mapping[str, Any]:
    """The contact's own portal page, asked for only when a mail of the sequence has a place for it."""
    names = campaign.sequence(campaign.webhook(event.source).sequence).templates
    wants = any(PORTAL in variables_of(templates[name]) for name in names if name in templates)
    if projects is None or not wants or event.email is None:
        return {}
    address = await projects.portal_url(event.email)
    return {PORTAL: address} if address else {}


async def _templates(
    copy: Copy, campaigns: Campaigns, events: list[Event]
) -> tuple[dict[str, Template], dict[tuple[str, str], CopyError]]:
    """The templates of each sequence that is about to start; a sequence with a bad one is `broken` as a whole."""
    found: dict[str, Template] = {}
    broken: dict[tuple[str, str], CopyError] = {}
    for sequence in {(e.campaign, campaigns[e.campaign].webhook(e.source).sequence) for e in events}:
        names = campaigns[sequence[0]].sequence(sequence[1]).templates
        try:
            found |= await copy.templates(names)
        except CopyError as error:
            broken[sequence] = error
    return found, broken


def _plan(
    campaign: Campaign,
    event: Event,
    templates: Mapping[str, Template],
    broken: Mapping[tuple[str, str], CopyError],
    facts: Mapping[str, Any],
    now: datetime,
) -> Plan:
    webhook = campaign.webhook(event.source)
    sequence = campaign.sequence(webhook.sequence)
    payload = webhook.payload.model_validate_json(event.body)
    if (campaign.name, sequence.name) in broken:
        raise broken[campaign.name, sequence.name]
    variables = payload.variables(facts, now)
    for name in sequence.templates:
        check(templates[name], variables)
    if event.contact_id is None:
        raise ValueError(f"event {event.id} names no contact, so it starts nothing")
    return Plan(
        event_id=event.id,
        contact_id=event.contact_id,
        campaign=campaign.name,
        sequence=sequence.name,
        key=payload.enrolment_key(),
        segment=payload.segment(),
        variables={k: v for k, v in variables.items() if v is not None},
        anchor=payload.anchor(event.received_at),
        testing_minute=event.testing_minute,
        messages=tuple(plan_messages(sequence, payload, event, now)),
    )


def plan_messages(sequence: MailSequence, payload: Payload, event: Event, now: datetime) -> list[PlannedMessage]:
    """Each mail with its due time; those that are past, or were sent by someone else, are skipped with the reason."""
    started = event.received_at if now - event.received_at < STALE_AFTER else now
    dues = due_times(
        payload.anchor(started),
        [step.after for step in sequence.steps],
        testing_minute=event.testing_minute,
        started=started,
    )
    elsewhere = payload.sent_elsewhere()
    planned = []
    for position, (step, due) in enumerate(zip(sequence.steps, dues, strict=True), start=1):
        state, reason = MessageState.SCHEDULED, None
        if position in elsewhere:
            state, reason = (
                MessageState.SKIPPED,
                f"already sent by the website at {elsewhere[position].isoformat()}",
            )
        elif step.after < timedelta(0) and due <= now and event.testing_minute is None:
            state, reason = MessageState.SKIPPED, "its time had passed when the booking came in"
        at = due if due <= now else slot(due, event.testing_minute)
        planned.append(PlannedMessage(position, step.template, due, at, state, reason))
    return planned


async def schedule(
    ledger: Ledger,
    runs: Runs,
    event_ids: Sequence[UUID] | None,
    now: datetime,
    on_progress: Callable[[Slot], None],
) -> int:
    """Give every future mail its run in Prefect, one a (template, minute); returns how many runs were asked for."""
    async with ledger.reading() as connection:
        slots = await mails.unplanned_slots(connection, event_ids=event_ids, due_after=now)
    for each in slots:
        await schedule_slot(ledger, runs, each)
        on_progress(each)
    return len(slots)


async def schedule_slot(ledger: Ledger, runs: Runs, slot: Slot) -> UUID:
    """The run of a slot. A slot whose run has begun or ended meanwhile gets a further one for who came late."""
    key = f"send:{slot.template}:{slot.at.isoformat()}"
    async with ledger.reading() as connection:
        known = await mails.run_of_slot(connection, slot)
    run_id, waits = (known, True) if known else await runs.start_send(slot, at=slot.at, key=key)
    again = 0
    while not waits:
        again += 1
        run_id, waits = await runs.start_send(slot, at=slot.at, key=f"{key}:{again}")
    async with ledger.transaction() as connection:
        await mails.name_run(connection, slot, run_id)
    return run_id
