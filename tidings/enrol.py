"""From stored events to enrolments: every template is fetched and tried for this contact before anything is sent."""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncConnection

from tidings.alerts import hot_lead
from tidings.campaign import ALWAYS, Campaign, Campaigns, Payload
from tidings.campaign import Sequence as MailSequence
from tidings.consent import evidence
from tidings.errors import CopyError
from tidings.joining import follow_bookings, not_started, understand
from tidings.ledger import Ledger, inbox, mails, permission
from tidings.ledger import alerts as ledger_alerts
from tidings.ledger import facts as ledger_facts
from tidings.ledger.mails import LastRound
from tidings.logs import tell
from tidings.model import (
    ASKED_FOR,
    ASKING,
    TIME_PASSED,
    UNCONFIRMED,
    Basis,
    BookingFact,
    Consent,
    Event,
    EventState,
    MessageState,
    Plan,
    PlannedMessage,
    Slot,
    Template,
)
from tidings.ports import Calendar, Copy, Projects, Runs
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
    """What a handler run did. `settled` are events that were right and start nothing (more), each with the reason."""

    new: tuple[UUID, ...] = ()
    known: tuple[UUID, ...] = ()
    failed: Mapping[UUID, str] = field(default_factory=dict)
    settled: Mapping[UUID, str] = field(default_factory=dict)

    def __add__(self, other: Enrolled) -> Enrolled:
        return Enrolled(
            self.new + other.new,
            self.known + other.known,
            {**self.failed, **other.failed},
            {**self.settled, **other.settled},
        )


async def enrol(
    ledger: Ledger,
    copy: Copy,
    campaigns: Campaigns,
    facts: Mapping[str, Any],
    event_ids: Sequence[UUID],
    now: datetime,
    projects: Projects | None = None,
    calendar: Calendar | None = None,
) -> Enrolled:
    """Enrol the contacts of these events.

    An event whose copy cannot be sent is failed with the reason and can be replayed; the others go on.
    Raises what the ledger, Notion or the calendar raise when they cannot be reached: then nothing has changed.
    """
    async with ledger.transaction() as connection:
        events = await inbox.lock_events(connection, event_ids)
    payloads, failed, settled = await understand(ledger, calendar, campaigns, events)
    events = [event for event in events if event.id in payloads]
    starting = {e.id: _starting(campaigns[e.campaign], e, payloads[e.id]) for e in events}
    templates, broken = await _templates(copy, {(e.campaign, starting[e.id]) for e in events})
    plans: list[Plan] = []
    for event in events:
        campaign, sequence, payload = campaigns[event.campaign], starting[event.id], payloads[event.id]
        try:
            theirs = {**facts, **await _project(projects, sequence, event, templates)}
            if (event.campaign, sequence) in broken:
                raise broken[event.campaign, sequence]
            plans.append(_plan(campaign, sequence, payload, event, templates, theirs, now))
        except CopyError as error:
            failed[event.id] = str(error)
    return await _store(ledger, campaigns, list(event_ids), plans, failed, settled, now)


def _starting(campaign: Campaign, event: Event, payload: Payload) -> MailSequence:
    return campaign.started_by(campaign.webhook(event.source), payload)


async def _store(
    ledger: Ledger,
    campaigns: Campaigns,
    event_ids: list[UUID],
    plans: list[Plan],
    failed: Mapping[UUID, str],
    settled: Mapping[UUID, str],
    now: datetime,
) -> Enrolled:
    async with ledger.transaction() as connection:
        events = await inbox.lock_events(connection, event_ids)
        ours = {e.id for e in events}
        plans = [p for p in plans if p.event_id in ours]
        lacking, started = await not_started(connection, campaigns, events, plans, now)
        starting, followed = await follow_bookings(connection, lacking, now)
        rounds = await mails.last_rounds(connection, starting)
        entering = [_entering(p, rounds.get((p.campaign, p.sequence, p.key))) for p in starting]
        before = await mails.enrolled_before(connection, starting)
        fresh = [p for p in entering if isinstance(p, Plan) and p.event_id not in before]
        new = await mails.enrol(connection, fresh, now)
        await _tell_of_hot(connection, campaigns, [p for p in plans if p.event_id in new], events, now)
        for name in {p.campaign for p in plans}:
            theirs = {p.contact_id for p in plans if p.campaign == name}
            await permission.leave(connection, campaigns[name], theirs, now)
        await ledger_facts.use_milestones(connection, [p.contact_id for p in starting if p.counts_milestones], now)
        known = {p.event_id: KNOWN for p in starting if p.event_id not in new}
        known |= {p.event_id: why for p, why in zip(starting, entering, strict=True) if isinstance(why, str)}
        settled = {i: reason for i, reason in {**settled, **started, **followed}.items() if i in ours}
        await inbox.settle_events(connection, list(new), EventState.HANDLED, now)
        for reason in {*known.values(), *settled.values()}:
            alike = [event_id for event_id, why in {**known, **settled}.items() if why == reason]
            await inbox.settle_events(connection, alike, EventState.HANDLED, now, reason)
        for event_id, reason in failed.items():
            await inbox.settle_events(
                connection, [event_id] if event_id in ours else [], EventState.FAILED, now, reason
            )
    _tell(events, new, {**known, **settled}, failed)
    return Enrolled(tuple(new), tuple(known), failed, settled)


def _tell(
    events: Sequence[Event], new: Mapping[UUID, UUID], settled: Mapping[UUID, str], failed: Mapping[UUID, str]
) -> None:
    """What became of each event, for who looks for it in the log."""
    about = {e.id: {"event_id": str(e.id), "source": e.source, "campaign": e.campaign} for e in events}
    tell(log, "event.enrolled", [{**about[i], "enrolment_id": str(enrolment)} for i, enrolment in new.items()])
    tell(log, "event.settled", [{**about[i], "reason": why} for i, why in settled.items()])
    told = [{**about[i], "reason": why} for i, why in failed.items() if i in about]
    tell(log, "event.failed", told, logging.ERROR)


async def _tell_of_hot(
    connection: AsyncConnection, campaigns: Campaigns, plans: Sequence[Plan], events: Sequence[Event], now: datetime
) -> None:
    """Note new contacts that the team wants to know of at once, in the transaction that enrols them."""
    sources = {event.id: event.source for event in events}
    hot = [(p, p.segment) for p in plans if p.segment and p.segment in campaigns[p.campaign].hot_segments]
    found = [hot_lead(plan.event_id, sources[plan.event_id], segment) for plan, segment in hot]
    rows = [{"key": each.key, "title": each.title, "body": each.body} for each in found]
    await ledger_alerts.happened(connection, "hot-lead", rows, now)


def _entering(plan: Plan, last: LastRound | None) -> Plan | str:
    """The plan under a key of its own when its sequence may be entered again, or why it may not.

    Decided by when the event came in, so that a replay decides the same.
    """
    if last is None or plan.again_after is None:
        return plan
    asked = last.asked_at is not None and plan.received_at < last.asked_at + ASKED_FOR
    if plan.event_id in last.event_ids or last.runs or asked or plan.received_at <= last.ended_at:
        return KNOWN
    from_then = last.ended_at + plan.again_after
    if plan.received_at < from_then:
        return f"the contact has had this sequence, and may enter it again from {from_then:%Y-%m-%d %H:%M} UTC on"
    return replace(plan, key=f"{plan.key}#{last.rounds + 1}")


async def _project(
    projects: Projects | None, sequence: MailSequence, event: Event, templates: Mapping[str, Template]
) -> Mapping[str, Any]:
    """The contact's own portal page, asked for only when a mail of the sequence has a place for it."""
    wants = any(PORTAL in variables_of(templates[name]) for name in sequence.templates if name in templates)
    if projects is None or not wants or event.email is None:
        return {}
    address = await projects.portal_url(event.email)
    return {PORTAL: address} if address else {}


async def _templates(
    copy: Copy, sequences: Collection[tuple[str, MailSequence]]
) -> tuple[dict[str, Template], dict[tuple[str, MailSequence], CopyError]]:
    """The templates of each sequence that is about to start; a sequence with a bad one is `broken` as a whole."""
    found: dict[str, Template] = {}
    broken: dict[tuple[str, MailSequence], CopyError] = {}
    for campaign, sequence in sequences:
        try:
            found |= await copy.templates(sequence.templates)
        except CopyError as error:
            broken[campaign, sequence] = error
    return found, broken


def _plan(
    campaign: Campaign,
    sequence: MailSequence,
    payload: Payload,
    event: Event,
    templates: Mapping[str, Template],
    facts: Mapping[str, Any],
    now: datetime,
) -> Plan:
    variables = payload.variables(facts, now)
    for name in sequence.templates:
        (check_asking if name == sequence.confirmation else check)(templates[name], variables)
    if event.contact_id is None:
        raise ValueError(f"event {event.id} names no contact, so it starts nothing")
    about = payload.booking()
    said = [f.said_at for f in payload.facts() if isinstance(f, BookingFact) and f.key == about]
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
        consent=_consent(payload, sequence, event),
        again_after=_again_after(sequence, payload),
        former_key=_former_key(payload),
        booking=about,
        follows=payload.follows(),
        said_at=next(iter(said), None) or event.received_at,
        counts_milestones=payload.counts_milestones(),
    )


def _again_after(sequence: MailSequence, payload: Payload) -> timedelta | None:
    """How long after its end the sequence may be entered again under the same key; None: never."""
    return sequence.again_after if payload.says_which() or sequence.again_after is not None else ALWAYS


def _former_key(payload: Payload) -> str | None:
    """Its former key where that was another."""
    former = payload.former_key()
    return former if former != payload.enrolment_key() else None


def _consent(payload: Payload, sequence: MailSequence, event: Event) -> Consent:
    """What allows these mails. Where consent is implied, what it follows from stands in the place of words."""
    basis = payload.basis()
    return evidence(
        basis,
        source=event.source,
        at=payload.consented_at(event.received_at),
        wording=payload.consent_wording() or (None if basis is Basis.EXPRESS else f"implied by {sequence.title!r}"),
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
            state, reason = MessageState.SKIPPED, TIME_PASSED
        elif sequence.confirmation:
            state, reason = MessageState.HELD, UNCONFIRMED
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
