"""Webhooks as they come in: stored once, answered the same for ever."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

from sqlalchemy import ColumnElement, case, func, literal, select, text, tuple_, update
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncConnection

from tidings.ledger import facts, limits
from tidings.ledger.tables import contact, dispatch, event
from tidings.model import TAKEN_IN, Arrival, ContactFacts, Event, EventState, Over, Receipt

# One statement for many webhooks and their contacts, so that storing them costs one round trip. Contacts are locked in
# the order of their addresses, events in that of their keys: two groups that share some cannot wait in a circle.
_STORE = text("""
WITH people AS (
    INSERT INTO contact AS c (id, email, first_name, business_name, consent, consent_at, attributes, created_at,
                              updated_at)
    SELECT * FROM unnest(CAST(:person_ids AS uuid[]), CAST(:person_emails AS text[]), CAST(:first_names AS text[]),
                         CAST(:business_names AS text[]), CAST(:consents AS boolean[]),
                         CAST(:consent_times AS timestamptz[]), CAST(:attributes AS jsonb[]),
                         CAST(:times AS timestamptz[]), CAST(:times AS timestamptz[]))
    ON CONFLICT (email) DO UPDATE SET
        first_name = coalesce(excluded.first_name, c.first_name),
        business_name = coalesce(excluded.business_name, c.business_name),
        consent = CASE WHEN excluded.consent_at < c.consent_at THEN c.consent
                       ELSE coalesce(excluded.consent, c.consent) END,
        consent_at = greatest(excluded.consent_at, c.consent_at),
        attributes = c.attributes || excluded.attributes,
        updated_at = greatest(excluded.updated_at, c.updated_at + interval '1 microsecond')
    RETURNING id, email, (xmax = 0) AS created
)
INSERT INTO event (id, source, key, campaign, deployment, body, contact_id, contact_created, received_at,
                   testing_minute, state, reason, dispatch_id, flow_run_id, dispatched_at, origin, signed_id)
SELECT a.id, a.source, a.key, a.campaign, a.deployment, a.body, p.id, coalesce(p.created AND a.first, false),
       a.received_at, a.testing_minute, a.state, a.reason, a.dispatch_id, a.flow_run_id, a.dispatched_at, a.origin,
       a.signed_id
FROM unnest(CAST(:ids AS uuid[]), CAST(:sources AS text[]), CAST(:keys AS text[]), CAST(:campaigns AS text[]),
            CAST(:deployments AS text[]), CAST(:bodys AS text[]), CAST(:emails AS text[]), CAST(:firsts AS boolean[]),
            CAST(:received_ats AS timestamptz[]), CAST(:testing_minutes AS float8[]), CAST(:states AS text[]),
            CAST(:reasons AS text[]), CAST(:dispatch_ids AS uuid[]), CAST(:flow_run_ids AS uuid[]),
            CAST(:dispatched_ats AS timestamptz[]), CAST(:origins AS text[]), CAST(:signed_ids AS text[]))
     AS a (id, source, key, campaign, deployment, body, email, first, received_at, testing_minute, state, reason,
           dispatch_id, flow_run_id, dispatched_at, origin, signed_id)
LEFT JOIN people p ON p.email = a.email
ORDER BY a.source COLLATE "C", a.key COLLATE "C"
ON CONFLICT (source, key) DO NOTHING
RETURNING id, contact_id, contact_created
""")

_KNOWN = text("""
SELECT e.source, e.key, e.id, e.contact_created, e.reason, e.state, e.flow_run_id, e.dispatch_id
FROM event e JOIN unnest(CAST(:sources AS text[]), CAST(:keys AS text[])) AS wanted (source, key)
  ON e.source = wanted.source AND e.key = wanted.key
""")

# Of bodies that are on record under a digest: the last event of each, how many there are, and the contact's last word.
_LATEST = text("""
SELECT e.source, e.key AS digest, latest.*, c.consent, c.consent_at
FROM unnest(CAST(:ids AS uuid[])) AS wanted (id)
JOIN event e ON e.id = wanted.id
JOIN contact c ON c.id = e.contact_id
CROSS JOIN LATERAL (
    SELECT f.id, f.contact_created, f.reason, f.state, f.flow_run_id, f.dispatch_id, f.received_at,
           count(*) OVER () AS rounds
    FROM event f
    WHERE f.contact_id = e.contact_id AND f.source = e.source AND (f.key = e.key OR starts_with(f.key, e.key || '#'))
    ORDER BY length(f.key) DESC, f.key DESC LIMIT 1
) latest
""")

# Held until the commit. In the order of the keys, so that two groups that share some cannot wait in a circle.
_HOLD_IDS = text("""
SELECT pg_advisory_xact_lock(held.key) FROM (
    SELECT DISTINCT hashtextextended(id, 0) AS key FROM unnest(CAST(:ids AS text[])) AS s (id) ORDER BY key
) held
""")

_SIGNED = text("SELECT signed_id, source FROM event WHERE signed_id = ANY(CAST(:ids AS text[]))")

#: For so long an equal body is taken for the sender's repeat. Senders repeat for a day.
REPEATED_FOR = timedelta(days=2)


@dataclass(frozen=True, slots=True)
class Gathered:
    """The gathering that new events of a deployment go into: its run, when known, and when that starts.

    Without a dispatch id they wait until Prefect is back, and are then dispatched together.
    """

    dispatch_id: UUID | None
    flow_run_id: UUID | None
    starts_at: datetime


async def accept(
    connection: AsyncConnection, arrivals: Sequence[Arrival], gathered: Mapping[str, Gathered] | None = None
) -> list[Receipt]:
    """Store webhooks that are new, and say for each what is on record.

    Events of one deployment in this call share a dispatch id, so one handler run takes them together: that of
    `gathered`, by deployment, or a new one. A repeat changes nothing, not even the contact; an equal body that comes
    too late for one, or after the contact has changed its word on consent, is a new event. What is over one of its
    quotas, or has a signed id that came in by another route, is not stored either, and its receipt says so.
    """
    gathered = gathered or {}
    known = await _known(connection, arrivals)
    arrivals, known = await _said_anew(connection, arrivals, known)
    fresh = _first_of_each(a for a in arrivals if (a.source, a.key) not in known)
    elsewhere = await _signed_elsewhere(connection, fresh)
    known |= {(a.source, a.key): _refused(a, elsewhere=elsewhere[a.id]) for a in fresh if a.id in elsewhere}
    fresh = [a for a in fresh if a.id not in elsewhere]
    over = await limits.take(connection, [(a.quotas, a.received_at) for a in fresh])
    known |= {(a.source, a.key): _refused(a, over=o) for a, o in zip(fresh, over, strict=True) if o}
    fresh = [a for a, o in zip(fresh, over, strict=True) if o is None]
    if fresh:
        stored, contacts = await _store(connection, fresh, gathered)
        told = [(a, contacts[a.id]) for a in fresh if a.facts and a.id in contacts]
        if told:
            await facts.record(connection, told)
        if len(stored) < len(fresh):  # another process stored one of them between our look and our insert
            known |= await _known(connection, arrivals)
    else:
        stored = {}
    return [stored[a.id] if a.id in stored else _repeat(a, fresh, stored, known) for a in arrivals]


def _first_of_each(arrivals: Any) -> list[Arrival]:
    unique: dict[tuple[str, str], Arrival] = {}
    for arrival in arrivals:
        unique.setdefault((arrival.source, arrival.key), arrival)
    return list(unique.values())


def _refused(arrival: Arrival, *, over: Over | None = None, elsewhere: str | None = None) -> Receipt:
    return Receipt(arrival.id, False, False, None, None, None, over, elsewhere)


async def _signed_elsewhere(connection: AsyncConnection, fresh: Sequence[Arrival]) -> dict[UUID, str]:
    """Of these, those whose signed id has come in by another route before, with that; asked for such ids only."""
    ids = sorted({a.signed_id for a in fresh if a.signed_id})
    if not ids:
        return {}
    await connection.execute(_HOLD_IDS, {"ids": ids})
    first = {row.signed_id: row.source for row in await connection.execute(_SIGNED, {"ids": ids})}
    found = {}
    for arrival in fresh:
        if arrival.signed_id and (source := first.setdefault(arrival.signed_id, arrival.source)) != arrival.source:
            found[arrival.id] = source
    return found


def _repeat(
    arrival: Arrival, fresh: list[Arrival], stored: dict[UUID, Receipt], known: dict[tuple[str, str], Receipt]
) -> Receipt:
    """The receipt of a webhook that is on record already, or that came twice in this very group."""
    if (arrival.source, arrival.key) in known:
        return known[arrival.source, arrival.key]
    first = next(a for a in fresh if (a.source, a.key) == (arrival.source, arrival.key))
    original = stored[first.id]
    return Receipt(
        original.event_id, original.contact_created, True, original.ignored_because, original.flow_run_id,
        original.dispatch_id,
    )  # fmt: skip


async def _known(connection: AsyncConnection, arrivals: Sequence[Arrival]) -> dict[tuple[str, str], Receipt]:
    rows = await connection.execute(
        _KNOWN, {"sources": [a.source for a in arrivals], "keys": [a.key for a in arrivals]}
    )
    return {(row.source, row.key): _on_record(row) for row in rows}


async def on_record(connection: AsyncConnection, arrivals: Sequence[Arrival]) -> set[UUID]:
    """Of these webhooks, those that are stored under their keys already; by their ids here."""
    known = await _known(connection, arrivals)
    return {a.id for a in arrivals if (a.source, a.key) in known}


def _on_record(row: Any) -> Receipt:
    return Receipt(
        event_id=row.id,
        contact_created=row.contact_created,
        duplicate=True,
        ignored_because=row.reason if row.state == EventState.IGNORED else None,
        flow_run_id=row.flow_run_id,
        dispatch_id=row.dispatch_id,
    )


async def _said_anew(
    connection: AsyncConnection, arrivals: Sequence[Arrival], known: dict[tuple[str, str], Receipt]
) -> tuple[list[Arrival], dict[tuple[str, str], Receipt]]:
    """Tell who says the same again from a sender's repeat: the former get keys of their own, the next of their digest.

    Asks PostgreSQL only for equal bodies without a sender's id, so nothing more for new webhooks.
    """
    equal = {known[a.source, a.key].event_id for a in arrivals if a.repeatable and (a.source, a.key) in known}
    if not equal:
        return list(arrivals), known
    rows = await connection.execute(_LATEST, {"ids": sorted(equal)})
    latest = {(row.source, row.digest): row for row in rows}
    told = []
    for arrival in arrivals:
        last = latest.get((arrival.source, arrival.key)) if arrival.repeatable else None
        anew = last is not None and _is_new(arrival, last)
        told.append(replace(arrival, key=f"{arrival.key}#{last.rounds + 1}") if last and anew else arrival)
    return told, known | {key: _on_record(row) for key, row in latest.items()}


def _is_new(arrival: Arrival, last: Any) -> bool:
    """Whether an equal body is a new event: it is too late for a repeat, or takes back what was said since."""
    if arrival.received_at - last.received_at > REPEATED_FOR:
        return True
    consent = arrival.contact.consent if arrival.contact else None
    return consent is not None and consent != last.consent and arrival.received_at > last.consent_at


async def _store(
    connection: AsyncConnection, fresh: list[Arrival], gathered: Mapping[str, Gathered]
) -> tuple[dict[UUID, Receipt], dict[UUID, UUID]]:
    """Of these, the receipts of those that are new by the ledger's word, and whom those are about, if anybody."""
    rows = _rows(fresh, gathered)
    columns = {f"{name}s": [row[name] for row in rows] for name in rows[0]}
    stored = {row.id: row for row in await connection.execute(_STORE, {**_people(fresh), **columns})}
    receipts = {
        row["id"]: Receipt(
            event_id=row["id"],
            contact_created=stored[row["id"]].contact_created,
            duplicate=False,
            ignored_because=row["reason"],
            flow_run_id=row["flow_run_id"],
            dispatch_id=row["dispatch_id"],
        )
        for row in rows
        if row["id"] in stored
    }
    return receipts, {event_id: row.contact_id for event_id, row in stored.items() if row.contact_id}


def _people(fresh: list[Arrival]) -> dict[str, list[Any]]:
    """Whom these are about, each once, as columns."""
    known: dict[str, Any] = {}
    for arrival in fresh:
        if arrival.contact:
            before, _, said_at = known.get(arrival.contact.email, (None, None, None))
            if arrival.contact.consent is not None:
                said_at = arrival.received_at
            known[arrival.contact.email] = (_merged(before, arrival.contact), arrival.received_at, said_at)
    ordered = [known[email] for email in sorted(known)]
    return {
        "person_ids": [uuid4() for _ in ordered],
        "person_emails": [c.email for c, _, _ in ordered],
        "first_names": [c.first_name for c, _, _ in ordered],
        "business_names": [c.business_name for c, _, _ in ordered],
        "consents": [c.consent for c, _, _ in ordered],
        "consent_times": [said_at for _, _, said_at in ordered],
        "attributes": [json.dumps(dict(c.attributes)) for c, _, _ in ordered],
        "times": [at for _, at, _ in ordered],
    }


def _merged(before: ContactFacts | None, later: ContactFacts) -> ContactFacts:
    """Two webhooks of one contact in one group, as if they had come after each other."""
    if before is None:
        return later
    return ContactFacts(
        email=later.email,
        first_name=later.first_name or before.first_name,
        business_name=later.business_name or before.business_name,
        consent=before.consent if later.consent is None else later.consent,
        attributes={**before.attributes, **later.attributes},
    )


def _rows(fresh: list[Arrival], gathered: Mapping[str, Gathered]) -> list[dict[str, Any]]:
    """These as rows. Of several events that make a contact in one group, the first is told so."""
    own: dict[str, UUID] = {}
    told: set[str] = set()
    rows = []
    for arrival in fresh:
        email = arrival.contact.email if arrival.contact else None
        joined = gathered.get(arrival.deployment)
        dispatch_id = joined.dispatch_id if joined else own.setdefault(arrival.deployment, uuid4())
        rows.append(_row(arrival, email, email not in told, dispatch_id, joined))
        if email:
            told.add(email)
    return rows


def _row(
    arrival: Arrival, email: str | None, first: bool, dispatch_id: UUID | None, joined: Gathered | None
) -> dict[str, Any]:
    starts = arrival.ignored_because is None
    run_id = joined.flow_run_id if joined and starts else None
    begun = EventState.DISPATCHED if run_id else EventState.ACCEPTED
    return {
        "id": arrival.id,
        "source": arrival.source,
        "key": arrival.key,
        "campaign": arrival.campaign,
        "deployment": arrival.deployment,
        "body": arrival.body,
        "email": email,
        "first": first,
        "received_at": arrival.received_at,
        "testing_minute": arrival.testing_minute,
        "state": (begun if starts else EventState.IGNORED).value,
        "reason": arrival.ignored_because,
        "dispatch_id": dispatch_id if starts else None,
        "flow_run_id": run_id,
        "dispatched_at": joined.starts_at if joined and run_id else None,
        "origin": arrival.origin,
        "signed_id": arrival.signed_id,
    }


async def quarantine(
    connection: AsyncConnection,
    *,
    source: str,
    campaign: str,
    deployment: str,
    raw: bytes,
    reason: str,
    now: datetime,
    state: EventState = EventState.QUARANTINED,
    signed_id: str | None = None,
) -> UUID:
    """Keep a body that starts nothing, once however often it is sent; returns its event's id.

    Bytes that are no text are kept escaped.
    """
    if signed_id:
        await connection.execute(_HOLD_IDS, {"ids": [signed_id]})
    body = raw.decode("utf-8", "backslashreplace").replace("\x00", "\\x00")
    kept_as = "quarantine" if state is EventState.QUARANTINED else state.value
    key = f"{kept_as}:{hashlib.sha256(raw).hexdigest()}"
    rows = await connection.execute(
        insert(event)
        .values(
            id=uuid4(),
            source=source,
            key=key,
            campaign=campaign,
            deployment=deployment,
            body=body,
            contact_created=False,
            received_at=now,
            state=state,
            reason=reason,
            signed_id=signed_id,
        )
        .on_conflict_do_nothing(index_elements=["source", "key"])
        .returning(event.c.id)
    )
    stored: UUID | None = rows.scalar_one_or_none()
    if stored is None:
        rows = await connection.execute(select(event.c.id).where(event.c.source == source, event.c.key == key))
        stored = rows.scalar_one()
    return stored


async def dispatch_group(connection: AsyncConnection, dispatch_id: UUID) -> tuple[str, list[UUID]]:
    """The deployment and the events of one dispatch, always in the same order: a repeated call is the same call."""
    rows = (
        await connection.execute(
            select(event.c.deployment, event.c.id).where(event.c.dispatch_id == dispatch_id).order_by(event.c.id)
        )
    ).all()
    return (rows[0].deployment if rows else ""), [row.id for row in rows]


async def events_of_dispatch(connection: AsyncConnection, dispatch_id: UUID) -> list[UUID]:
    """The events of a dispatch that still wait for their handler."""
    rows = await connection.execute(
        select(event.c.id)
        .where(event.c.dispatch_id == dispatch_id)
        .where(event.c.state.in_([EventState.ACCEPTED, EventState.DISPATCHED]))
        .order_by(event.c.received_at)
    )
    return list(rows.scalars().all())


async def dispatched(connection: AsyncConnection, dispatch_id: UUID, flow_run_id: UUID, now: datetime) -> None:
    """Note which Prefect run has the events of a dispatch."""
    # A quick run may have handled them before its id has come back: then only the id is noted.
    waiting = event.c.state == EventState.ACCEPTED
    await connection.execute(
        update(event)
        .where(event.c.dispatch_id == dispatch_id)
        .values(
            state=case((waiting, EventState.DISPATCHED.value), else_=event.c.state),
            flow_run_id=flow_run_id,
            dispatched_at=now,
        )
    )
    await connection.execute(text("SELECT pg_notify('tidings_run', '')"))  # wakes the worker (tidings.worker.Wake)


async def group_waiting(connection: AsyncConnection, *, limit: int) -> list[tuple[str, UUID]]:
    """Give events that came while Prefect was away a dispatch, those of one deployment together.

    Returns these: deployment and dispatch id.
    """
    waiting = (
        select(event.c.id, event.c.deployment)
        .where(event.c.state == EventState.ACCEPTED, event.c.dispatch_id.is_(None))
        .order_by(event.c.received_at)
        .limit(limit)
        .with_for_update(skip_locked=True)
    )
    groups: dict[str, list[UUID]] = {}
    for row in await connection.execute(waiting):
        groups.setdefault(row.deployment, []).append(row.id)
    made = [(deployment, uuid4()) for deployment in groups]
    for deployment, dispatch_id in made:
        await connection.execute(
            update(event).where(event.c.id.in_(groups[deployment])).values(dispatch_id=dispatch_id)
        )
        await connection.execute(insert(dispatch).values(id=dispatch_id, deployment=deployment, created_at=func.now()))
    return made


async def undispatched(
    connection: AsyncConnection, *, older_than: datetime, limit: int = 500
) -> list[tuple[str, UUID]]:
    """Dispatches that Prefect has not confirmed, oldest first, and so many of one deployment at most.

    Returns deployment and dispatch id: what one deployment cannot take does not hide what others can.
    """
    since = func.min(event.c.received_at)
    place = func.row_number().over(partition_by=event.c.deployment, order_by=since)
    waiting = (
        select(event.c.deployment, event.c.dispatch_id, since.label("since"), place.label("place"))
        .where(event.c.state == EventState.ACCEPTED, event.c.received_at <= older_than)
        .where(event.c.dispatch_id.is_not(None))
        .group_by(event.c.deployment, event.c.dispatch_id)
        .subquery()
    )
    rows = await connection.execute(select(waiting).where(waiting.c.place <= limit).order_by(waiting.c.since))
    return [(row.deployment, row.dispatch_id) for row in rows]


async def unhandled(
    connection: AsyncConnection, *, dispatched_before: datetime, limit: int = 500
) -> list[tuple[UUID, UUID]]:
    """(event, Prefect run) pairs whose run should have handled them by now."""
    rows = await connection.execute(
        select(event.c.id, event.c.flow_run_id)
        .where(event.c.state == EventState.DISPATCHED)
        # Twice as long with every attempt, so that an outage of hours is asked about ever more seldom.
        .where(
            event.c.dispatched_at
            <= literal(dispatched_before, event.c.dispatched_at.type)
            - func.make_interval(0, 0, 0, 0, 0, 0, func.least(3600.0, 10.0 * func.power(2, event.c.attempts)) - 10.0)
        )
        .order_by(event.c.dispatched_at)
        .limit(limit)
    )
    return [(row.id, row.flow_run_id) for row in rows]


async def lock_unhandled(connection: AsyncConnection, pairs: Sequence[tuple[UUID, UUID]]) -> list[tuple[UUID, UUID]]:
    """Of these (event, Prefect run) pairs, those that are still so and in nobody's hands; locked."""
    rows = await connection.execute(
        select(event.c.id, event.c.flow_run_id)
        .where(event.c.id.in_([event_id for event_id, _ in pairs]), event.c.state == EventState.DISPATCHED)
        .order_by(event.c.id)
        .with_for_update(skip_locked=True)
    )
    return [pair for row in rows if (pair := (row.id, row.flow_run_id)) in set(pairs)]


async def requeue(connection: AsyncConnection, event_ids: Sequence[UUID]) -> dict[str, UUID]:
    """Make events wait for a new handler run, those of one deployment together; returns the dispatch of each."""
    rows = await connection.execute(select(event.c.deployment).where(event.c.id.in_(event_ids)).distinct())
    dispatches = {deployment: uuid4() for deployment in rows.scalars().all()}
    for deployment, dispatch_id in dispatches.items():
        await connection.execute(
            update(event)
            .where(event.c.id.in_(event_ids), event.c.deployment == deployment)
            .values(
                state=EventState.ACCEPTED,
                reason=None,
                dispatch_id=dispatch_id,
                flow_run_id=None,
                handled_at=None,
                attempts=event.c.attempts + 1,
            )
        )
    return dispatches


async def worn_out(connection: AsyncConnection, event_ids: Sequence[UUID], attempts: int) -> list[UUID]:
    """Of these events, those that were tried this often."""
    rows = await connection.execute(select(event.c.id).where(event.c.id.in_(event_ids), event.c.attempts >= attempts))
    return list(rows.scalars().all())


async def lock_events(connection: AsyncConnection, event_ids: Sequence[UUID]) -> list[Event]:
    """The events that still wait for their handler, locked so that a parallel run finds them handled."""
    rows = await connection.execute(
        select(event, contact.c.email)
        .join(contact, contact.c.id == event.c.contact_id)
        .where(event.c.id.in_(event_ids))
        .where(event.c.state.in_([EventState.ACCEPTED, EventState.DISPATCHED]))
        .order_by(event.c.id)
        .with_for_update(of=event)
    )
    return [
        Event(
            id=row.id,
            source=row.source,
            campaign=row.campaign,
            body=row.body,
            contact_id=row.contact_id,
            email=row.email,
            received_at=row.received_at,
            testing_minute=row.testing_minute,
            state=EventState(row.state),
        )
        for row in rows
    ]


async def settle_events(
    connection: AsyncConnection,
    event_ids: Sequence[UUID],
    state: EventState,
    now: datetime,
    reason: str | None = None,
) -> None:
    """Note what became of events."""
    if event_ids:
        await connection.execute(
            update(event)
            .where(event.c.id.in_(event_ids))
            .values(state=state, reason=reason, handled_at=now if state is EventState.HANDLED else None)
        )


async def list_events(
    connection: AsyncConnection,
    *,
    state: str | None = None,
    source: str | None = None,
    since: datetime | None = None,
    until: datetime | None = None,
    limit: int = 50,
) -> list[Any]:
    """Events for people to look at, newest first."""
    query = select(event, contact.c.email).outerjoin(contact, contact.c.id == event.c.contact_id)
    query = query.where(*_fitting(state, since, until), *([event.c.source == source] if source else []))
    return list((await connection.execute(query.order_by(event.c.received_at.desc()).limit(limit))).all())


def _fitting(state: str | None, since: datetime | None, until: datetime | None) -> list[ColumnElement[bool]]:
    wanted = (
        event.c.state == state if state else None,
        event.c.received_at >= since if since else None,
        event.c.received_at < until if until else None,
    )
    return [each for each in wanted if each is not None]


async def page_of_events(
    connection: AsyncConnection,
    *,
    state: str | None = None,
    since: datetime | None = None,
    until: datetime | None = None,
    after: tuple[datetime, UUID] | None = None,
    limit: int,
) -> tuple[list[Any], int]:
    """Events oldest first, behind `after`: a time and an id; and how many fit in all, these included."""
    wanted = _fitting(state, since, until)
    if after:
        wanted.append(tuple_(event.c.received_at, event.c.id) > after)
    count = (await connection.execute(select(func.count()).select_from(event).where(*wanted))).scalar_one()
    query = select(event).where(*wanted).order_by(event.c.received_at, event.c.id).limit(limit)
    return list((await connection.execute(query)).all()), count


async def find_events(connection: AsyncConnection, ids: Sequence[UUID]) -> list[Any]:
    """Events by id, whatever their state."""
    rows = await connection.execute(select(event).where(event.c.id.in_(ids)))
    return list(rows.all())


async def count_events(connection: AsyncConnection, *, since: datetime, without: Sequence[str] = ()) -> list[Any]:
    """How many events came in, but for these campaigns: source, state, why (of those that start nothing), events."""
    by_rule = event.c.state == EventState.IGNORED
    taken_in = event.c.reason.startswith(TAKEN_IN)  # of which each names another event
    why = case((taken_in, "taken in anew"), (by_rule, event.c.reason), else_=None).label("why")
    rows = await connection.execute(
        select(event.c.source, event.c.state, why, func.count().label("events"))
        .where(event.c.received_at >= since, event.c.campaign.not_in(without))
        .group_by(event.c.source, event.c.state, why)
        .order_by(event.c.source, event.c.state, func.count().desc())
    )
    return list(rows.all())


_EVER_HANDLED = text("""
SELECT s.source FROM unnest(CAST(:sources AS text[])) AS s (source)
WHERE EXISTS (SELECT FROM event e WHERE e.source = s.source AND e.state = 'handled')
""")


async def ever_handled(connection: AsyncConnection, sources: Sequence[str]) -> set[str]:
    """Of these webhooks, those of which an event has ever become an enrolment."""
    return set((await connection.execute(_EVER_HANDLED, {"sources": list(sources)})).scalars())
