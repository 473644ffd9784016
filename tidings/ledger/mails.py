"""Enrolments, their messages, and the claims under which messages are sent."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

from sqlalchemy import bindparam, func, insert, literal, or_, select, text, tuple_, update
from sqlalchemy.dialects.postgresql import insert as pg_insert
from sqlalchemy.ext.asyncio import AsyncConnection

from tidings.ledger.tables import claim, contact, enrolment, message
from tidings.model import ASKING, MOVABLE, OUTCOME_RANK, UNCONFIRMED, MessageState, Plan, Report, Slot


@dataclass(frozen=True, slots=True)
class ClaimedMessage:
    """A message under a claim, with what is needed to render and send it."""

    id: UUID
    enrolment_id: UUID
    template: str
    campaign: str
    sequence: str
    position: int
    email: str
    first_name: str | None
    variables: Mapping[str, Any]
    due_at: datetime
    payload: str | None
    #: Resend's id, where a report told it before the answer did.
    provider_id: str | None


@dataclass(frozen=True, slots=True)
class Claim:
    """Messages that one run holds under a lease, and the key that Resend knows them by."""

    id: UUID
    messages: tuple[ClaimedMessage, ...]
    #: When Resend may first have seen the key; None when it was never called.
    first_sent_at: datetime | None

    @property
    def key(self) -> str:
        return f"tidings/{self.id}"


@dataclass(frozen=True, slots=True)
class LastRound:
    """How a business key stands to a sequence that it has been in."""

    rounds: int
    event_ids: list[UUID]
    #: Some mail of it still waits for its time.
    runs: bool
    #: Since when the mails of its latest round wait for the contact's click; None: none do.
    asked_at: datetime | None
    #: When its last mail was due, or when it was left.
    ended_at: datetime


# A round beyond the first has the key with its number after it: "ada@example.org#2".
_LAST_ROUNDS = text("""
SELECT w.campaign, w.sequence, w.key, count(DISTINCT e.id) AS rounds, array_agg(DISTINCT e.event_id) AS event_ids,
       bool_or(m.state IN ('scheduled', 'sending')) AS runs,
       max(m.created_at) FILTER (WHERE m.state = 'held') AS asked_at, max(least(m.due_at, m.updated_at)) AS ended_at
FROM unnest(CAST(:contacts AS uuid[]), CAST(:campaigns AS text[]), CAST(:sequences AS text[]), CAST(:keys AS text[]))
     AS w (contact_id, campaign, sequence, key)
JOIN enrolment e ON e.contact_id = w.contact_id AND e.campaign = w.campaign AND e.sequence = w.sequence
     AND (e.key = w.key OR regexp_replace(e.key, '#[0-9]+$', '') = w.key)
JOIN message m ON m.enrolment_id = e.id
GROUP BY w.campaign, w.sequence, w.key
""")

RowOrNone = Any


async def lock_messages(connection: AsyncConnection, *which: Any) -> list[UUID]:
    """Lock the messages that fit, in the order of their ids and before their enrolments; returns their ids.

    Whoever changes several messages that others may change too locks them so: then nobody waits in a circle.
    """
    rows = await connection.execute(select(message.c.id).where(*which).order_by(message.c.id).with_for_update())
    return list(rows.scalars().all())


def from_now(seconds: float) -> Any:
    """A moment from now by the database's clock: workers' own clocks may differ."""
    return func.now() + func.make_interval(0, 0, 0, 0, 0, 0, seconds)


async def enrol(connection: AsyncConnection, plans: Sequence[Plan], now: datetime) -> dict[UUID, UUID]:
    """Store enrolments with all their messages; returns those that were not there before, by the event of each."""
    if not plans:
        return {}
    rows = await connection.execute(
        pg_insert(enrolment)
        .on_conflict_do_nothing(index_elements=["campaign", "sequence", "key"])
        .returning(enrolment.c.id, enrolment.c.event_id),
        [
            {
                "id": uuid4(),
                "contact_id": plan.contact_id,
                "event_id": plan.event_id,
                "campaign": plan.campaign,
                "sequence": plan.sequence,
                "key": plan.key,
                "booking": plan.booking,
                "segment": plan.segment,
                "variables": dict(plan.variables),
                "anchor": plan.anchor,
                "testing_minute": plan.testing_minute,
                **_evidence(plan),
                "created_at": now,
                "updated_at": now,
            }
            for plan in plans
        ],
    )
    ids = {row.event_id: row.id for row in rows}
    messages = [
        {
            "id": uuid4(),
            "enrolment_id": ids[plan.event_id],
            "campaign": plan.campaign,
            "sequence": plan.sequence,
            "position": planned.position,
            "template": planned.template,
            "due_at": planned.due_at,
            "slot_at": planned.slot_at,
            "state": planned.state,
            "reason": planned.reason,
            "created_at": now,
            "updated_at": now,
        }
        for plan in plans
        if plan.event_id in ids
        for planned in plan.messages
    ]
    if messages:
        await connection.execute(insert(message), messages)
    return ids


async def enrolled_before(connection: AsyncConnection, plans: Sequence[Plan]) -> set[UUID]:
    """Events of plans that are enrolled under the key that an earlier version gave them."""
    former = {(p.campaign, p.sequence, p.former_key): p.event_id for p in plans if p.former_key is not None}
    if not former:
        return set()
    columns = (enrolment.c.campaign, enrolment.c.sequence, enrolment.c.key)
    rows = await connection.execute(select(*columns).where(tuple_(*columns).in_(list(former))))
    there = {tuple(row) for row in rows}
    return {p.event_id for p in plans if (p.campaign, p.sequence, p.former_key) in there}


def _evidence(plan: Plan) -> dict[str, Any]:
    names = ("basis", "source", "at", "wording", "address", "expires_at")
    return {f"consent_{name}": getattr(plan.consent, name, None) for name in names}


async def last_rounds(connection: AsyncConnection, plans: Sequence[Plan]) -> dict[tuple[str, str, str], LastRound]:
    """For sequences that may be entered again: how often each business key has been in, and when that ended."""
    wanted = {(p.contact_id, p.campaign, p.sequence, p.key) for p in plans if p.again_after is not None}
    if not wanted:
        return {}
    names = ("contacts", "campaigns", "sequences", "keys")
    rows = await connection.execute(_LAST_ROUNDS, dict(zip(names, map(list, zip(*wanted, strict=True)), strict=True)))
    return {
        (row.campaign, row.sequence, row.key): LastRound(
            row.rounds, row.event_ids, row.runs, row.asked_at, row.ended_at
        )
        for row in rows
    }


async def release(
    connection: AsyncConnection, enrolment_id: UUID, times: Mapping[int, tuple[datetime, datetime]], now: datetime
) -> None:
    """Let an enrolment's held mails wait for their time: (due, slot) by position."""
    await lock_messages(connection, message.c.enrolment_id == enrolment_id)
    await connection.execute(
        update(message)
        .where(message.c.enrolment_id == enrolment_id, message.c.position == bindparam("m_position"))
        .where(message.c.state == MessageState.HELD)
        .values(
            state=MessageState.SCHEDULED,
            reason=None,
            due_at=bindparam("m_due"),
            slot_at=bindparam("m_slot"),
            updated_at=now,
        ),
        [{"m_position": n, "m_due": due, "m_slot": slot} for n, (due, slot) in times.items()],
    )


# Rounds of a business key: as in _LAST_ROUNDS.
_WITHDRAW_OTHERS = text("""
WITH locked AS (
    SELECT m.id FROM enrolment e
    JOIN enrolment o ON o.contact_id = e.contact_id AND o.campaign = e.campaign AND o.sequence = e.sequence
         AND o.id <> e.id AND o.confirmed_at IS NULL
         AND regexp_replace(o.key, '#[0-9]+$', '') = regexp_replace(e.key, '#[0-9]+$', '')
    JOIN message m ON m.enrolment_id = o.id
    WHERE e.id = :enrolment AND m.state IN ('scheduled', 'held') ORDER BY m.id FOR UPDATE OF m
)
UPDATE message m SET state = 'skipped', reason = :reason, updated_at = :now
FROM locked WHERE m.id = locked.id RETURNING m.enrolment_id
""")


async def withdraw_other_questions(
    connection: AsyncConnection, enrolment_id: UUID, reason: str, now: datetime
) -> set[UUID]:
    """Skip what waits of other rounds that were never confirmed; returns their enrolments, to be touched."""
    values = {"enrolment": enrolment_id, "reason": reason, "now": now}
    return set((await connection.execute(_WITHDRAW_OTHERS, values)).scalars().all())


UNREAD = "the mail that asks for the contact's click did not arrive"

# A question that did not reach the contact cannot be answered; UNKNOWN may have reached it.
_END_HELD = text("""
WITH locked AS (
    SELECT h.id, coalesce(a.reason, :unread) AS reason FROM message a JOIN message h ON h.enrolment_id = a.enrolment_id
    WHERE a.id = ANY(CAST(:ids AS uuid[])) AND a.position = :asking
      AND a.state IN ('failed', 'skipped', 'cancelled', 'bounced') AND h.state = 'held'
    ORDER BY h.id FOR UPDATE OF h
)
UPDATE message m SET state = 'skipped', reason = locked.reason, updated_at = now()
FROM locked WHERE m.id = locked.id
""")


async def _end_held(connection: AsyncConnection, ids: Sequence[UUID]) -> None:
    """Where one of these mails asked for a click and ended unread, skip what waits for that, for the same reason."""
    await connection.execute(_END_HELD, {"ids": list(ids), "asking": ASKING, "unread": UNREAD})


# What ended together with its question has the same reason.
_HOLD_AGAIN = text("""
WITH locked AS (
    SELECT h.id FROM message a JOIN message h ON h.enrolment_id = a.enrolment_id
    JOIN enrolment e ON e.id = a.enrolment_id
    WHERE a.id = ANY(CAST(:ids AS uuid[])) AND a.position = :asking AND h.position <> :asking
      AND e.confirmed_at IS NULL AND h.state IN ('skipped', 'cancelled') AND h.reason = coalesce(a.reason, :unread)
    ORDER BY h.id FOR UPDATE OF h
)
UPDATE message m SET state = 'held', reason = :reason, updated_at = :now FROM locked WHERE m.id = locked.id
""")


async def enrolment_about(connection: AsyncConnection, plan: Plan) -> Any:
    """The contact's enrolment in the plan's sequence for the plan's booking, else for the one before it, or None."""
    rows = await connection.execute(
        select(enrolment.c.id, enrolment.c.booking, enrolment.c.anchor)
        .where(enrolment.c.campaign == plan.campaign, enrolment.c.sequence == plan.sequence)
        .where(enrolment.c.contact_id == plan.contact_id, enrolment.c.booking.in_([plan.booking, plan.follows]))
        .order_by((enrolment.c.booking == plan.booking).desc())
        .limit(1)
    )
    return rows.one_or_none()


async def move(connection: AsyncConnection, moves: Mapping[UUID, Plan], now: datetime) -> None:
    """Give enrolments another plan: what has not been sent gets its new time, and a new run.

    Mails that were stopped for another reason than the old time stay stopped. Claimed ones that Resend has never
    seen are taken out of their claim.
    """
    ordered = sorted(moves.items())
    untold = await _lock_untold(connection, list(moves)) if moves else []
    await lock_messages(connection, message.c.enrolment_id.in_(list(moves)))
    for enrolment_id, plan in ordered:
        await _move_messages(connection, enrolment_id, plan, untold, now)
    for enrolment_id, plan in ordered:
        await _move_enrolment(connection, enrolment_id, plan, now)


async def _lock_untold(connection: AsyncConnection, enrolment_ids: Sequence[UUID]) -> list[UUID]:
    """Claims with mails of these enrolments whose key Resend does not know; it is not told of them meanwhile.

    Locked before any message, as who hands a claim over locks them.
    """
    theirs = select(message.c.claim_id).where(
        message.c.enrolment_id.in_(enrolment_ids), message.c.state == MessageState.SENDING
    )
    rows = await connection.execute(
        select(claim.c.id)
        .where(claim.c.id.in_(theirs), claim.c.settled_at.is_(None), claim.c.first_sent_at.is_(None))
        .order_by(claim.c.id)
        .with_for_update()
    )
    return list(rows.scalars().all())


async def _move_messages(
    connection: AsyncConnection, enrolment_id: UUID, plan: Plan, untold: Sequence[UUID], now: datetime
) -> None:
    waiting = or_(
        message.c.state == MessageState.SCHEDULED,
        (message.c.state == MessageState.SENDING) & message.c.claim_id.in_(untold),
        message.c.state.in_([MessageState.CANCELLED, MessageState.SKIPPED]) & message.c.reason.in_(MOVABLE),
    )
    for planned in plan.messages:
        await connection.execute(
            update(message)
            .where(message.c.enrolment_id == enrolment_id, message.c.position == planned.position, waiting)
            .values(
                due_at=planned.due_at,
                slot_at=planned.slot_at,
                state=planned.state,
                reason=planned.reason,
                flow_run_id=None,
                claim_id=None,
                payload=None,
                updated_at=now,
            )
        )


async def _move_enrolment(connection: AsyncConnection, enrolment_id: UUID, plan: Plan, now: datetime) -> None:
    await connection.execute(
        update(enrolment)
        .where(enrolment.c.id == enrolment_id)
        .values(
            event_id=plan.event_id,
            key=plan.key,
            booking=plan.booking,
            anchor=plan.anchor,
            variables=dict(plan.variables),
            testing_minute=plan.testing_minute,
            updated_at=now,
        )
    )


async def unplanned_slots(
    connection: AsyncConnection, *, event_ids: Sequence[UUID] | None, due_after: datetime, limit: int = 2000
) -> list[Slot]:
    """Slots with scheduled messages that no Prefect run has been named for yet."""
    query = (
        select(message.c.campaign, message.c.sequence, message.c.template, message.c.slot_at)
        .where(message.c.state == MessageState.SCHEDULED, message.c.flow_run_id.is_(None))
        .where(message.c.slot_at > due_after)
        .distinct()
        .order_by(message.c.slot_at, message.c.template)
        .limit(limit)
    )
    if event_ids is not None:
        query = query.join(enrolment, enrolment.c.id == message.c.enrolment_id).where(
            enrolment.c.event_id.in_(event_ids)
        )
    rows = await connection.execute(query)
    return [Slot(row.campaign, row.sequence, row.template, row.slot_at) for row in rows]


async def run_of_slot(connection: AsyncConnection, slot: Slot) -> UUID | None:
    """The Prefect run that already stands for this slot, if any message knows it."""
    rows = await connection.execute(
        select(message.c.flow_run_id)
        .where(
            message.c.campaign == slot.campaign,
            message.c.template == slot.template,
            message.c.slot_at == slot.at,
            message.c.state == MessageState.SCHEDULED,
            message.c.flow_run_id.is_not(None),
        )
        .limit(1)
    )
    return rows.scalar_one_or_none()


async def name_run(connection: AsyncConnection, slot: Slot, flow_run_id: UUID) -> int:
    """Tie a slot's unplanned messages to the Prefect run that will send them."""
    rows = await connection.execute(
        update(message)
        .where(
            message.c.campaign == slot.campaign,
            message.c.template == slot.template,
            message.c.slot_at == slot.at,
            message.c.state == MessageState.SCHEDULED,
            message.c.flow_run_id.is_(None),
        )
        .values(flow_run_id=flow_run_id)
        .returning(message.c.id)
    )
    return len(rows.all())


async def cancel_run(connection: AsyncConnection, flow_run_id: UUID, reason: str, now: datetime) -> int:
    """Cancel the mails of a Prefect run that a person cancelled; returns how many."""
    ids = await lock_messages(
        connection, message.c.flow_run_id == flow_run_id, message.c.state == MessageState.SCHEDULED
    )
    rows = await connection.execute(
        update(message)
        .where(message.c.id.in_(ids))
        .values(state=MessageState.CANCELLED, reason=reason, updated_at=now)
        .returning(message.c.id, message.c.enrolment_id)
    )
    ended = rows.all()
    await _end_held(connection, [row.id for row in ended])
    enrolments = {row.enrolment_id for row in ended}
    await touch_enrolments(connection, enrolments, now)
    return len(enrolments)


async def touch_enrolments(connection: AsyncConnection, ids: set[UUID], now: datetime) -> None:
    """Mark enrolments as changed, so that Notion is brought up to date."""
    if ids:
        await connection.execute(update(enrolment).where(enrolment.c.id.in_(in_order(ids))).values(updated_at=now))


def in_order(ids: Any) -> Any:
    """Enrolments by id or query, locked in the order of their ids.

    Everybody locks messages before enrolments and several enrolments in this order: so nobody waits in a circle.
    """
    return select(enrolment.c.id).where(enrolment.c.id.in_(ids)).order_by(enrolment.c.id).with_for_update()


# The lease's clock is the database's: workers' own clocks may differ.
_TAKE_OVER = text("""
UPDATE claim SET lease_until = now() + make_interval(secs => :lease), flow_run_id = :run, attempts = attempts + 1
WHERE id = (
    SELECT c.id FROM claim c
    WHERE c.settled_at IS NULL AND c.lease_until < now() AND c.campaign = :campaign
      AND EXISTS (SELECT 1 FROM message m WHERE m.claim_id = c.id AND m.state = 'sending')
    ORDER BY c.lease_until LIMIT 1 FOR UPDATE SKIP LOCKED)
RETURNING id, first_sent_at
""")


async def take_over(
    connection: AsyncConnection, *, campaign: str, lease: float, flow_run_id: UUID | None
) -> Claim | None:
    """The claim of a run that died: same messages, same stored bodies, same key at Resend."""
    row = (
        await connection.execute(_TAKE_OVER, {"lease": lease, "run": flow_run_id, "campaign": campaign})
    ).one_or_none()
    if row is None:
        return None
    return Claim(
        row.id, await _claimed(connection, row.id, handed_over=row.first_sent_at is not None), row.first_sent_at
    )


async def claim_due(
    connection: AsyncConnection,
    *,
    campaign: str,
    template: str | None,
    slot_until: datetime,
    event_ids: Sequence[UUID] | None,
    lease: float,
    flow_run_id: UUID | None,
    limit: int,
) -> Claim | None:
    """Take up to `limit` due messages that nobody holds. Two runs never take the same one."""
    wanted = (
        select(message.c.id)
        .where(message.c.campaign == campaign, message.c.state == MessageState.SCHEDULED)
        .where(message.c.slot_at <= slot_until)
        .order_by(message.c.slot_at, message.c.id)
        .limit(limit)
        .with_for_update(skip_locked=True, of=message)
    )
    if template is not None:
        wanted = wanted.where(message.c.template == template)
    if event_ids is not None:
        wanted = wanted.join(enrolment, enrolment.c.id == message.c.enrolment_id).where(
            enrolment.c.event_id.in_(event_ids)
        )
    ids = [row.id for row in await connection.execute(wanted)]
    if not ids:
        return None
    claim_id = uuid4()
    await connection.execute(
        insert(claim).values(
            id=claim_id,
            campaign=campaign,
            created_at=func.now(),
            lease_until=from_now(lease),
            flow_run_id=flow_run_id,
            attempts=1,
        )
    )
    await connection.execute(
        update(message)
        .where(message.c.id.in_(ids))
        .values(state=MessageState.SENDING, claim_id=claim_id, updated_at=func.now())
    )
    return Claim(claim_id, await _claimed(connection, claim_id), None)


async def count_due(connection: AsyncConnection, *, campaign: str, template: str, slot_until: datetime) -> int:
    """How many mails of a template are due by then and held by nobody."""
    rows = await connection.execute(
        select(func.count())
        .select_from(message)
        .where(message.c.campaign == campaign, message.c.template == template)
        .where(message.c.state == MessageState.SCHEDULED, message.c.slot_at <= slot_until)
    )
    return int(rows.scalar_one())


async def _claimed(
    connection: AsyncConnection, claim_id: UUID, *, handed_over: bool = False
) -> tuple[ClaimedMessage, ...]:
    """The messages of a claim. Once it was handed over, also those that Resend has reported on since: a repeat
    must have the very content that its key stands for."""
    waiting = message.c.state == MessageState.SENDING
    wanted = or_(waiting, message.c.provider_id.is_not(None)) if handed_over else waiting
    rows = await connection.execute(
        select(message, contact.c.email, contact.c.first_name, enrolment.c.variables)
        .join(enrolment, enrolment.c.id == message.c.enrolment_id)
        .join(contact, contact.c.id == enrolment.c.contact_id)
        .where(message.c.claim_id == claim_id, wanted)
        .order_by(message.c.id)
    )
    return tuple(
        ClaimedMessage(
            id=row.id,
            enrolment_id=row.enrolment_id,
            template=row.template,
            campaign=row.campaign,
            sequence=row.sequence,
            position=row.position,
            email=row.email,
            first_name=row.first_name,
            variables=row.variables,
            due_at=row.due_at,
            payload=row.payload,
            provider_id=row.provider_id,
        )
        for row in rows
    )


async def store_payloads(connection: AsyncConnection, claim_id: UUID, payloads: Mapping[UUID, str]) -> None:
    """Store what Resend will be given, before it is given. Never overwrites: the first rendering counts.

    Nothing for messages that are not under this claim any more: they are rendered anew.
    """
    await connection.execute(
        update(message)
        .where(message.c.id == bindparam("m_id"), message.c.payload.is_(None), message.c.claim_id == claim_id)
        .values(payload=bindparam("m_payload")),
        [{"m_id": key, "m_payload": value} for key, value in payloads.items()],
    )


async def renew(connection: AsyncConnection, claim_id: UUID, lease: float, run_id: UUID | None) -> RowOrNone:
    """Keep a claim: its row, or None when it is no longer ours. `first_sent_at` None: Resend was never called."""
    before = (
        await connection.execute(
            select(claim.c.id, claim.c.first_sent_at, claim.c.last_sent_at)
            .where(claim.c.id == claim_id, claim.c.settled_at.is_(None))
            .where(claim.c.flow_run_id.is_not_distinct_from(run_id))
            .with_for_update()
        )
    ).one_or_none()
    if before is not None:
        await connection.execute(update(claim).where(claim.c.id == claim_id).values(lease_until=from_now(lease)))
    return before


async def note_call(connection: AsyncConnection, claim_id: UUID) -> None:
    """Resend may know the claim's key from now on: nobody can be taken out of it any more."""
    await connection.execute(
        update(claim)
        .where(claim.c.id == claim_id)
        .values(first_sent_at=func.coalesce(claim.c.first_sent_at, func.now()), last_sent_at=func.now())
    )


async def nothing_was_done(connection: AsyncConnection, claim_id: UUID) -> None:
    """Resend's only answer to this key was a refusal, so it does not count as handed over."""
    await connection.execute(update(claim).where(claim.c.id == claim_id).values(first_sent_at=None, last_sent_at=None))


async def postpone(connection: AsyncConnection, claim_id: UUID, seconds: float) -> None:
    """Leave a claim, with its bodies and its key, to whoever comes after this long."""
    await connection.execute(
        update(claim).where(claim.c.id == claim_id, claim.c.settled_at.is_(None)).values(lease_until=from_now(seconds))
    )


async def settle_sent(connection: AsyncConnection, claim_id: UUID, provider_ids: Mapping[UUID, str]) -> None:
    """Resend has taken these messages. A delivery report that came first is not lowered."""
    if not provider_ids:
        return
    # Reports of Resend's lock a message and then its enrolment; so all messages are locked before any enrolment is.
    await lock_messages(connection, message.c.claim_id == claim_id)
    await connection.execute(
        update(message)
        .where(message.c.id == bindparam("m_id"), message.c.claim_id == claim_id)
        .where(message.c.state == MessageState.SENDING)
        .values(
            state=MessageState.SENT,
            provider_id=bindparam("m_provider"),
            sent_at=func.now(),
            updated_at=func.now(),
            reason=None,
        ),
        [{"m_id": key, "m_provider": value} for key, value in provider_ids.items()],
    )
    await _touch_claimed(connection, claim_id)


async def settle_messages(
    connection: AsyncConnection, claim_id: UUID, ids: Sequence[UUID], state: MessageState, reason: str | None
) -> None:
    """Put messages of a claim into another state, with the reason for people; not those taken out of it meanwhile."""
    if not ids:
        return
    await connection.execute(
        update(message)
        .where(message.c.id.in_(ids), message.c.state == MessageState.SENDING, message.c.claim_id == claim_id)
        .values(state=state, reason=reason, updated_at=func.now())
    )
    await _end_held(connection, ids)
    rows = await connection.execute(select(message.c.enrolment_id).where(message.c.id.in_(ids)))
    touched = {row.enrolment_id for row in rows}
    await connection.execute(
        update(enrolment).where(enrolment.c.id.in_(in_order(touched))).values(updated_at=func.now())
    )


async def put_back(connection: AsyncConnection, ids: Sequence[UUID], reason: str) -> None:
    """Messages that Resend has not taken wait again: in a minute or two, rendered anew, with a new claim and key."""
    await connection.execute(
        update(message)
        .where(message.c.id.in_(ids), message.c.state == MessageState.SENDING)
        .values(
            state=MessageState.SCHEDULED,
            reason=reason,
            payload=None,
            claim_id=None,
            flow_run_id=None,
            # On the minute, so that all that were refused share a run.
            slot_at=func.date_trunc("minute", func.now()) + timedelta(minutes=2),
            updated_at=func.now(),
        )
    )


async def close_claim(connection: AsyncConnection, claim_id: UUID) -> None:
    """Nothing of this claim is open any more."""
    await connection.execute(update(claim).where(claim.c.id == claim_id).values(settled_at=func.now()))


async def split(
    connection: AsyncConnection, claim_id: UUID, ids: Sequence[UUID], lease: float, flow_run_id: UUID | None
) -> list[Claim]:
    """Give each message a claim and key of its own; safe only after Resend refused the whole of the old one."""
    claims = []
    for message_id in ids:
        new = uuid4()
        await connection.execute(
            insert(claim).from_select(
                ["id", "campaign", "created_at", "lease_until", "flow_run_id", "attempts"],
                select(
                    literal(new, claim.c.id.type),
                    claim.c.campaign,
                    func.now(),
                    from_now(lease),
                    literal(flow_run_id, claim.c.id.type),
                    literal(1),
                ).where(claim.c.id == claim_id),
            )
        )
        await connection.execute(update(message).where(message.c.id == message_id).values(claim_id=new))
        claims.append(Claim(new, await _claimed(connection, new), None))
    await close_claim(connection, claim_id)
    return claims


async def _touch_claimed(connection: AsyncConnection, claim_id: UUID) -> None:
    theirs = select(message.c.enrolment_id).where(message.c.claim_id == claim_id)
    await connection.execute(
        update(enrolment).where(enrolment.c.id.in_(in_order(theirs))).values(updated_at=func.now())
    )


async def known_ids(connection: AsyncConnection, provider_ids: Sequence[str]) -> set[str]:
    """Of these ids of Resend's, those that a message of ours has."""
    rows = await connection.execute(select(message.c.provider_id).where(message.c.provider_id.in_(provider_ids)))
    return set(rows.scalars().all())


async def sent_between(connection: AsyncConnection, since: datetime, until: datetime) -> dict[str, UUID]:
    """The mails that the sender has taken in this time, by its ids."""
    rows = await connection.execute(
        select(message.c.provider_id, message.c.id)
        .where(message.c.provider_id.is_not(None), message.c.sent_at >= since, message.c.sent_at < until)
        .order_by(message.c.sent_at)
    )
    return {row.provider_id: row.id for row in rows}


async def states(connection: AsyncConnection, ids: Sequence[UUID]) -> dict[UUID, MessageState]:
    """The states of messages, those that are known."""
    rows = await connection.execute(select(message.c.id, message.c.state).where(message.c.id.in_(ids)))
    return {row.id: MessageState(row.state) for row in rows}


async def recipients(connection: AsyncConnection, reports: Sequence[Report]) -> list[UUID]:
    """Whom the mails of these reports went to: known by Resend's id, or else by our own."""
    rows = await connection.execute(
        select(enrolment.c.contact_id)
        .join(message, message.c.enrolment_id == enrolment.c.id)
        .where(_reported(reports))
        .distinct()
        .order_by(enrolment.c.contact_id)
    )
    return list(rows.scalars().all())


def _reported(reports: Sequence[Report]) -> Any:
    return or_(
        message.c.provider_id.in_([r.provider_id for r in reports]),
        message.c.id.in_([r.message_id for r in reports if r.message_id is not None]),
    )


# In the order of its locks: first all messages, then all enrolments.
_RAISE = text("""
UPDATE message m SET
    state = n.state, reason = n.reason, provider_id = n.provider_id, updated_at = now(),
    sent_at = coalesce(m.sent_at, CASE WHEN n.learned THEN now() END), outcome_at = coalesce(n.at, m.outcome_at)
FROM unnest(CAST(:ids AS uuid[]), CAST(:states AS text[]), CAST(:reasons AS text[]), CAST(:providers AS text[]),
            CAST(:times AS timestamptz[]), CAST(:learned AS boolean[]))
     AS n (id, state, reason, provider_id, at, learned)
WHERE m.id = n.id
""")


async def apply_reports(connection: AsyncConnection, reports: Sequence[Report]) -> None:
    """Raise messages to what was reported of them; a late or lower report changes nothing.

    A message whose answer from Resend we have not got (yet) is known by our own id in its tags: so it was sent.
    """
    telling = [r for r in reports if r.provider_id is not None and r.state is not None]
    if not telling:
        return
    rows = await connection.execute(
        select(message.c.id, message.c.state, message.c.enrolment_id, message.c.provider_id, message.c.reason)
        .where(_reported(telling))
        .order_by(message.c.id)
        .with_for_update()
    )
    raised = [change for row in rows if (change := _raised(row, telling)) is not None]
    if not raised:
        return
    names = ("ids", "states", "reasons", "providers", "times", "learned")
    columns = zip(*((c.id, c.state, c.reason, c.provider_id, c.at, c.learned) for c in raised), strict=True)
    await connection.execute(_RAISE, dict(zip(names, map(list, columns), strict=True)))
    await _end_held(connection, [c.id for c in raised])
    touched = in_order({c.enrolment_id for c in raised})
    await connection.execute(update(enrolment).where(enrolment.c.id.in_(touched)).values(updated_at=func.now()))


@dataclass(frozen=True, slots=True)
class _Raised:
    id: UUID
    enrolment_id: UUID
    state: MessageState
    reason: str | None
    provider_id: str
    at: datetime | None
    learned: bool


def _raised(row: Any, reports: Sequence[Report]) -> _Raised | None:
    """What reports make of a message, None when nothing."""
    state, reason, provider_id, at = MessageState(row.state), row.reason, row.provider_id, None
    theirs = [r for r in reports if r.message_id == row.id]
    learned = provider_id is None and bool(theirs) and state in {MessageState.SENDING, MessageState.UNKNOWN}
    if learned:
        state, reason, provider_id = MessageState.SENT, None, theirs[0].provider_id
    if provider_id is None or state is MessageState.SENDING:
        return None
    for report in reports:
        if report.provider_id != provider_id or report.state is None:
            continue
        if OUTCOME_RANK[report.state] > OUTCOME_RANK.get(state, 0):
            state, reason, at = report.state, report.reason, report.at
    if not learned and at is None:
        return None
    return _Raised(row.id, row.enrolment_id, state, reason, provider_id, at, learned)


async def orphans(connection: AsyncConnection, *, due_before: datetime) -> list[Slot]:
    """Overdue mails that no run stands for, as one slot a template that covers them all."""
    rows = await connection.execute(
        select(message.c.campaign, message.c.sequence, message.c.template, func.max(message.c.slot_at).label("slot_at"))
        .where(message.c.state == MessageState.SCHEDULED, message.c.flow_run_id.is_(None))
        .where(message.c.slot_at < due_before)
        .group_by(message.c.campaign, message.c.sequence, message.c.template)
    )
    return [Slot(row.campaign, row.sequence, row.template, row.slot_at) for row in rows]


async def name_late_run(connection: AsyncConnection, slot: Slot, flow_run_id: UUID) -> None:
    """Tie orphans to the run that is to send them, so that no further one is started while it waits for a worker."""
    await connection.execute(
        update(message)
        .where(
            message.c.campaign == slot.campaign,
            message.c.template == slot.template,
            message.c.slot_at <= slot.at,
            message.c.state == MessageState.SCHEDULED,
            message.c.flow_run_id.is_(None),
        )
        .values(flow_run_id=flow_run_id)
    )


async def abandoned(connection: AsyncConnection) -> list[str]:
    """Campaigns that have a claim whose lease ran out with messages still in it."""
    rows = await connection.execute(
        select(claim.c.campaign)
        .where(claim.c.settled_at.is_(None), claim.c.lease_until < func.now())
        .where(
            select(message.c.id)
            .where(message.c.claim_id == claim.c.id, message.c.state == MessageState.SENDING)
            .exists()
        )
        .distinct()
    )
    return [row.campaign for row in rows]


async def runs_waiting(connection: AsyncConnection, *, limit: int = 5000) -> list[UUID]:
    """Prefect runs that scheduled messages count on, soonest first."""
    rows = await connection.execute(
        select(message.c.flow_run_id, func.min(message.c.slot_at))
        .where(message.c.state == MessageState.SCHEDULED, message.c.flow_run_id.is_not(None))
        .group_by(message.c.flow_run_id)
        .order_by(func.min(message.c.slot_at))
        .limit(limit)
    )
    return [row.flow_run_id for row in rows]


async def still_counting_on(connection: AsyncConnection, run_ids: Sequence[UUID]) -> list[UUID]:
    """Of these Prefect runs, those that scheduled messages count on."""
    rows = await connection.execute(
        select(message.c.flow_run_id)
        .where(message.c.flow_run_id.in_(run_ids), message.c.state == MessageState.SCHEDULED)
        .distinct()
    )
    return list(rows.scalars().all())


async def unname_run(connection: AsyncConnection, flow_run_id: UUID) -> int:
    """Forget a run that will not send any more, so that the messages get another."""
    rows = await connection.execute(
        update(message)
        .where(message.c.flow_run_id == flow_run_id, message.c.state == MessageState.SCHEDULED)
        .values(flow_run_id=None)
        .returning(message.c.id)
    )
    return len(rows.all())


async def find(
    connection: AsyncConnection,
    *,
    states: Sequence[MessageState],
    ids: Sequence[UUID] = (),
    email: str | None = None,
    template: str | None = None,
    sequence: str | None = None,
    unconfirmed: bool = True,
) -> list[UUID]:
    """Messages in these states that fit all that is given; without `unconfirmed` none before the contact's click."""
    query = (
        select(message.c.id)
        .join(enrolment, enrolment.c.id == message.c.enrolment_id)
        .join(contact, contact.c.id == enrolment.c.contact_id)
        .where(message.c.state.in_(states))
        .order_by(message.c.due_at)
    )
    if ids:
        query = query.where(message.c.id.in_(ids))
    if email is not None:
        query = query.where(contact.c.email == email.strip().lower())
    if template is not None:
        query = query.where(message.c.template == template)
    if sequence is not None:
        query = query.where(message.c.sequence == sequence)
    if not unconfirmed:
        asking = message.alias()
        asks = select(asking.c.id).where(asking.c.enrolment_id == message.c.enrolment_id, asking.c.position == ASKING)
        query = query.where(or_(message.c.position == ASKING, enrolment.c.confirmed_at.is_not(None), ~asks.exists()))
    return list((await connection.execute(query)).scalars().all())


async def schedule_anew(connection: AsyncConnection, ids: Sequence[UUID], now: datetime) -> None:
    """Let messages be rendered and sent again, at once: with a new claim, so under a new key.

    What had ended with the mail that asks for a click waits for that click again.
    """
    await connection.execute(
        _HOLD_AGAIN, {"ids": list(ids), "asking": ASKING, "reason": UNCONFIRMED, "unread": UNREAD, "now": now}
    )
    await _change(
        connection,
        ids,
        {
            "state": MessageState.SCHEDULED,
            "reason": None,
            "payload": None,
            "claim_id": None,
            "flow_run_id": None,
            "slot_at": now,
        },
        now,
    )


async def cancel(connection: AsyncConnection, ids: Sequence[UUID], reason: str, now: datetime) -> None:
    """Cancel messages that still wait."""
    await _change(connection, ids, {"state": MessageState.CANCELLED, "reason": reason}, now)


async def _change(connection: AsyncConnection, ids: Sequence[UUID], values: dict[str, Any], now: datetime) -> None:
    await lock_messages(connection, message.c.id.in_(ids))
    rows = await connection.execute(
        update(message).where(message.c.id.in_(ids)).values(**values, updated_at=now).returning(message.c.enrolment_id)
    )
    await touch_enrolments(connection, set(rows.scalars().all()), now)


async def story(connection: AsyncConnection, email: str) -> list[Any]:
    """Every message of a contact with its enrolment, in the order in which they are due."""
    rows = await connection.execute(
        select(
            message,
            enrolment.c.segment,
            enrolment.c.key.label("enrolment_key"),
            enrolment.c.created_at.label("enrolled_at"),
        )
        .join(enrolment, enrolment.c.id == message.c.enrolment_id)
        .join(contact, contact.c.id == enrolment.c.contact_id)
        .where(contact.c.email == email.lower())
        .order_by(message.c.due_at)
    )
    return list(rows.all())


def to_json(payload: Mapping[str, Any]) -> str:
    """The stored form of a payload; reading it back gives the same keys in the same order."""
    return json.dumps(payload, ensure_ascii=False, separators=(",", ":"))
