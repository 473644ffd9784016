"""From stored events to enrolments: every template is fetched and tried for this contact before anything is sent."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from pydantic import ValidationError

from tidings.campaign import Campaign, Campaigns, Payload, Webhook
from tidings.campaign import Sequence as MailSequence
from tidings.consent import evidence
from tidings.errors import CopyError
from tidings.ledger import Ledger, inbox, mails, permission
from tidings.ledger.mails import LastRound
from tidings.model import ASKING, Basis, Consent, Event, EventState, MessageState, Plan, PlannedMessage, Slot, Template
from tidings.ports import Copy, Projects, Runs
from tidings.render import check, check_asking, variables_of
from tidings.schedule import due_times, slot

log = logging.getLogger("tidings.enrol")

#: An event that is handled later than this after it came in starts its sequence anew, at the handling: after an
#: outage or a mended template, nobody gets three mails of three days at once.
STALE_AFTER = timedelta(hours=1)
#: The template variable that a contact's page in the customer projects database stands for.
PORTAL = "portal_url"
KNOWN = "the contact is in this sequence already"


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
    return await _store(ledger, campaigns, [e.id for e in events], plans, failed, now)


async def _store(
    ledger: Ledger,
    campaigns: Campaigns,
    event_ids: list[UUID],
    plans: list[Plan],
    failed: dict[UUID, str],
    now: datetime,
) -> Enrolled:
    async with ledger.transaction() as connection:
        ours = {e.id for e in await inbox.lock_events(connection, event_ids)}
        plans = [p for p in plans if p.event_id in ours]
        rounds = await mails.last_rounds(connection, plans)
        entering = [_entering(p, rounds.get((p.campaign, p.sequence, p.key))) for p in plans]
        new = await mails.enrol(connection, [p for p in entering if isinstance(p, Plan)], now)
        for name in {p.campaign for p in plans}:
            theirs = {p.contact_id for p in plans if p.campaign == name}
            await permission.leave(connection, campaigns[name], theirs, now)
        known = {p.event_id: KNOWN for p in plans if p.event_id not in new}
        known |= {p.event_id: why for p, why in zip(plans, entering, strict=True) if isinstance(why, str)}
        await inbox.settle_events(connection, list(new), EventState.HANDLED, now)
        for reason in set(known.values()):
            alike = [event_id for event_id, why in known.items() if why == reason]
            await inbox.settle_events(connection, alike, EventState.HANDLED, now, reason)
        for event_id, reason in failed.items():
            await inbox.settle_events(
                connection, [event_id] if event_id in ours else [], EventState.FAILED, now, reason
            )
    return Enrolled(tuple(new), tuple(known), failed)


def _entering(plan: Plan, last: LastRound | None) -> Plan | str:
    """The plan under a key of its own when its sequence may be entered again, or why it may not.

    Decided by when the event came in, so that a replay decides the same.
    """
    if last is None or plan.again_after is None:
        return plan
    if plan.event_id in last.event_ids or last.runs or plan.received_at <= last.ended_at:
        return KNOWN
    from_then = last.ended_at + plan.again_after
    if plan.received_at < from_then:
        return f"the contact has had this sequence, and may enter it again from {from_then:%Y-%m-%d %H:%M} UTC on"
    return replace(plan, key=f"{plan.key}#{last.rounds + 1}")


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
        (check_asking if name == sequence.confirmation else check)(templates[name], variables)
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
        received_at=event.received_at,
        testing_minute=event.testing_minute,
        messages=tuple(plan_messages(sequence, payload, event, now)),
        consent=_consent(payload, webhook, event),
        again_after=sequence.again_after,
    )


def _consent(payload: Payload, webhook: Webhook, event: Event) -> Consent:
    """What allows these mails. Where consent is implied, what the contact did stands in the place of its words."""
    basis = payload.basis()
    return evidence(
        basis,
        source=event.source,
        at=payload.consented_at(event.received_at),
        wording=payload.consent_wording() or (None if basis is Basis.EXPRESS else webhook.summary),
        address=event.email or "",
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
        elif sequence.confirmation:
            state, reason = MessageState.HELD, "waits for the contact's click in the mail that asks for it"
        at = due if due <= now else slot(due, event.testing_minute)
        planned.append(PlannedMessage(position, step.template, due, at, state, reason))
    if sequence.confirmation:
        planned.insert(0, PlannedMessage(ASKING, sequence.confirmation, now, now, MessageState.SCHEDULED))
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
