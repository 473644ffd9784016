"""Calendly, Cal.com, Stripe and DocuSign in their own words: the same mails in whatever order these come."""

from __future__ import annotations

import asyncio
import copy
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import permutations
from typing import Any
from uuid import UUID

import httpx
import pytest
from fakes import FakeSender
from inn import CAMPAIGNS, CHRISTMAS, NOW, Inn, StarterCopy
from sqlalchemy import text
from standing import standing
from worlds import IDENTITY, LINKS

from tidings.adapters.calcom import Calcom
from tidings.deliver import Delivery
from tidings.errors import RetryLater
from tidings.ledger import Ledger, inbox, mails
from tidings.model import CALLED_OFF, MOVED, TAKEN_BACK, Template
from tidings.operate import retry_messages

MEETING = datetime(2026, 12, 10, 15, tzinfo=UTC)
LATER = MEETING + timedelta(days=5)
ANA = "delivered+ana@resend.dev"


@pytest.fixture
def inn(ledger: Ledger) -> Inn:
    return Inn(ledger)


def prep(meeting: datetime) -> dict[str, datetime]:
    return {f"precall_prep_email_{n}": meeting - timedelta(hours=h) for n, h in enumerate((72, 24, 2), start=1)}


# -- the calendars' bodies -----------------------------------------------------------------------------------


def calcom(
    trigger: str, minute: int = 0, uid: str = "one", *, start: datetime = MEETING, **more: Any
) -> dict[str, Any]:
    return {
        "triggerEvent": trigger,
        "createdAt": (NOW + timedelta(minutes=minute)).isoformat(),
        "payload": {
            "uid": uid,
            "bookingId": 77,
            "title": "Diagnostic call",
            "startTime": start.isoformat(),
            "attendees": [{"email": ANA, "name": "Ana Roy", "timeZone": "America/Toronto"}],
            "metadata": {"videoCallUrl": "https://meet.example.net/a"},
            **more,
        },
    }


def calcom_absence(*who: str, minute: int = 60, no_show: bool = True, uid: str = "one") -> dict[str, Any]:
    return {
        "triggerEvent": "BOOKING_NO_SHOW_UPDATED",
        "createdAt": (NOW + timedelta(minutes=minute)).isoformat(),
        "payload": {
            "bookingUid": uid,
            "bookingId": 77,
            "attendees": [{"email": email, "noShow": no_show} for email in who],
            "message": "x_marked_as_no_show",
        },
    }


CALENDLY = dict(next(iter(CHRISTMAS.webhook("calendly-noshow").natives[0].examples.values())))
API = "https://api.calendly.com/scheduled_events"


def calendly(
    event: str, minute: int = 0, which: str = "one", *, start: datetime = MEETING, **more: Any
) -> dict[str, Any]:
    body = copy.deepcopy(CALENDLY)
    body |= {"event": event, "created_at": (NOW + timedelta(minutes=minute)).isoformat()}
    body["payload"] |= {"uri": f"{API}/{which}/invitees/{which}", "event": f"{API}/{which}", "email": ANA}
    body["payload"]["scheduled_event"] |= {"uri": f"{API}/{which}", "start_time": start.isoformat()}
    body["payload"] |= more
    return body


def invitee(which: str) -> str:
    return f"{API}/{which}/invitees/{which}"


CALENDLY_MOVE = [
    calendly("invitee.created", 0, "one"),
    calendly("invitee.canceled", 5, "one", rescheduled=True, new_invitee=invitee("two"), status="canceled"),
    calendly("invitee.created", 5, "two", start=LATER, old_invitee=invitee("one")),
]
CALCOM_MOVE = [
    calcom("BOOKING_CREATED", 0, "one"),
    calcom("BOOKING_RESCHEDULED", 5, "two", start=LATER, rescheduleUid="one"),
]
CALCOM_MOVED_IN_PLACE = [calcom("BOOKING_CREATED"), calcom("BOOKING_RESCHEDULED", 5, start=LATER, rescheduleUid="one")]
CALCOM_ASKED_TO_MOVE = [
    calcom("BOOKING_CREATED", 0, "one"),
    calcom("BOOKING_CANCELLED", 3, "one", requestReschedule=True),
    calcom("BOOKING_RESCHEDULED", 5, "two", start=LATER, rescheduleUid="one"),
]
CALCOM_ASKED_TO_MOVE_IN_PLACE = [
    calcom("BOOKING_CREATED"),
    calcom("BOOKING_CANCELLED", 3, requestReschedule=True),
    calcom("BOOKING_RESCHEDULED", 5, start=LATER, rescheduleUid="one"),
]
MOVED_TWICE = [
    calendly("invitee.created", 0, "zero"),
    calendly("invitee.created", 3, "one", old_invitee=invitee("zero")),
    *CALENDLY_MOVE[1:],
]

MOVES = {
    "calendly": ("calendly-noshow", CALENDLY_MOVE),
    "calcom": ("calcom-booking", CALCOM_MOVE),
    "calcom in place": ("calcom-booking", CALCOM_MOVED_IN_PLACE),
    "calcom asked to move": ("calcom-booking", CALCOM_ASKED_TO_MOVE),
    "calcom asked to move in place": ("calcom-booking", CALCOM_ASKED_TO_MOVE_IN_PLACE),
    "moved twice": ("calendly-noshow", MOVED_TWICE),
}
OFF = {
    "calendly": (
        "calendly-noshow",
        [calendly("invitee.created"), calendly("invitee.canceled", 5, rescheduled=False, status="canceled")],
    ),
    "calcom": ("calcom-booking", [calcom("BOOKING_CREATED"), calcom("BOOKING_CANCELLED", 5)]),
}


async def clear(inn: Inn) -> None:
    async with inn.ledger.transaction() as connection:
        for table in ("message", "enrolment", "booking", "milestone", "event", "contact"):
            await connection.execute(text(f"DELETE FROM {table}"))


@pytest.mark.parametrize("handled", ["as they come", "last first", "together"])
@pytest.mark.parametrize("which", list(MOVES))
async def test_a_call_that_is_moved__has_its_mails_at_the_new_time_in_every_order(
    inn: Inn, which: str, handled: str
) -> None:
    path, history = MOVES[which]
    for order in permutations(history):
        await clear(inn)
        for n, body in enumerate(order):
            ids = await inn.take(path, body, at=NOW + timedelta(seconds=n))
            if handled == "as they come":
                await inn.handle(ids)
        waiting = [r.id for r in await inn.rows("SELECT id FROM event WHERE state = 'accepted' ORDER BY received_at")]
        for ids in [waiting] if handled == "together" else [[one] for one in reversed(waiting)]:
            await inn.handle(ids)

        assert await inn.waiting() == prep(LATER), [b.get("event") or b["triggerEvent"] for b in order]


@pytest.mark.parametrize("late", [False, True])
@pytest.mark.parametrize("which", list(OFF))
async def test_a_call_that_is_cancelled__has_no_mails_in_any_order(inn: Inn, which: str, late: bool) -> None:
    path, history = OFF[which]
    for order in permutations(history):
        await clear(inn)
        taken = []
        for body in order:
            taken.append(await inn.take(path, body))
            if not late:
                await inn.handle(taken[-1])
        for ids in taken if late else []:
            await inn.handle(ids)

        assert await inn.waiting() == {}, [b.get("event") or b["triggerEvent"] for b in order]
        assert await inn.reasons() <= {CALLED_OFF}


async def test_a_cancellation_in_the_very_moment_of_enrolling__finds_the_mails(
    inn: Inn, monkeypatch: pytest.MonkeyPatch
) -> None:
    ids = await inn.take("calcom-booking", calcom("BOOKING_CREATED"))
    cancelling: list[asyncio.Task[Any]] = []
    store = mails.enrol

    async def slowly(*given: Any) -> Any:
        cancelling.append(asyncio.create_task(inn.take("calcom-booking", calcom("BOOKING_CANCELLED", 5))))
        await asyncio.sleep(0.3)
        return await store(*given)

    monkeypatch.setattr(mails, "enrol", slowly)
    await inn.handle(ids)
    await asyncio.gather(*cancelling)

    assert await inn.waiting() == {}
    assert await inn.reasons() == {CALLED_OFF}


async def test_a_moved_call__keeps_what_was_sent_and_gives_the_rest_a_new_run(inn: Inn) -> None:
    await inn.post("calcom-booking", CALCOM_MOVE[0])
    async with inn.ledger.transaction() as connection:
        await connection.execute(
            text("UPDATE message SET state = 'sent', sent_at = now() WHERE template = 'precall_prep_email_1'")
        )
    before = {s.slot.template: s.id for s in inn.runs.sends if s.slot}

    await inn.post("calcom-booking", CALCOM_MOVE[1])

    rows = await inn.rows("SELECT template, state, due_at, flow_run_id FROM message ORDER BY position")
    wanted = prep(LATER)
    assert [r.state for r in rows] == ["sent", "scheduled", "scheduled"]
    assert [r.due_at for r in rows[1:]] == [wanted[r.template] for r in rows[1:]]
    assert all(r.flow_run_id and r.flow_run_id != before[r.template] for r in rows[1:])
    runs = {s.id: s.at for s in inn.runs.sends}
    assert [runs[r.flow_run_id] for r in rows[1:]] == [r.due_at for r in rows[1:]]
    (enrolment,) = await inn.rows("SELECT anchor, variables FROM enrolment")
    assert enrolment.anchor == LATER
    assert enrolment.variables["call_date"] == "Tuesday 15 December 2026"


async def test_a_move_into_the_past_half__sends_only_what_is_still_ahead_and_a_move_back_revives_it(inn: Inn) -> None:
    await inn.post("calcom-booking", calcom("BOOKING_CREATED", start=NOW + timedelta(hours=30)))
    assert set(await inn.waiting()) == {"precall_prep_email_2", "precall_prep_email_3"}

    await inn.post("calcom-booking", calcom("BOOKING_RESCHEDULED", 1, "two", rescheduleUid="one"))

    assert await inn.waiting() == prep(MEETING)


async def test_what_a_person_had_cancelled__is_not_revived_by_a_move(inn: Inn) -> None:
    await inn.post("calcom-booking", CALCOM_MOVE[0])
    async with inn.ledger.transaction() as connection:
        await connection.execute(
            text("UPDATE message SET state = 'cancelled', reason = 'phoned' WHERE template = 'precall_prep_email_2'")
        )

    await inn.post("calcom-booking", CALCOM_MOVE[1])

    assert set(await inn.waiting()) == {"precall_prep_email_1", "precall_prep_email_3"}
    assert await inn.reasons() == {"phoned"}


async def test_another_call_of_the_same_contact__is_not_touched(inn: Inn) -> None:
    await inn.post("calcom-booking", calcom("BOOKING_CREATED", uid="other", start=LATER))
    await inn.post("calcom-booking", calcom("BOOKING_CREATED"))

    await inn.post("calcom-booking", calcom("BOOKING_CANCELLED", 5))

    assert await inn.waiting() == prep(LATER)


# -- no-shows ------------------------------------------------------------------------------------------------


async def variables(inn: Inn) -> dict[str, Any]:
    (row,) = await inn.rows("SELECT variables FROM enrolment WHERE sequence = 'noshow'")
    return dict(row.variables)


async def test_calendlys_no_show__starts_the_recovery(inn: Inn) -> None:
    await inn.post("calendly-noshow", calendly("invitee_no_show.created", 60, name="Ana Roy"))

    due = await inn.waiting()
    assert list(due) == [f"noshow_recovery_email_{n}" for n in (1, 2, 3)]
    assert due["noshow_recovery_email_1"] == NOW + timedelta(minutes=5)
    told = await variables(inn)
    assert told["first_name"] == "Ana"
    assert told["call_date"] == "Thursday 10 December 2026"
    assert told["call_time"] == "10:00 (America/Toronto)"
    assert told["reschedule_url"] == "https://calendly.com/reschedulings/EXAMPLE"


@pytest.mark.parametrize(
    ("path", "named"),
    [("calendly-noshow", {"calendly_event_uri": f"{API}/one"}), ("postcall-maybe", {"call_date": "2026-11-02"})],
)
async def test_a_flat_body_that_says_nothing_of_its_call__is_another_one_after_the_end_of_the_last(
    inn: Inn, path: str, named: dict[str, str]
) -> None:
    """It has no key of its own: while the mails of the last run it is taken for the same, and then for another."""
    now, day = datetime.now(UTC), timedelta(days=1)
    for body in ({}, named):
        await inn.post(path, {"email": ANA, **body}, at=now - 40 * day)
    during = await inn.post(path, {"email": ANA, "first_name": "Ana"}, at=now - 39 * day)
    await inn.send(now, delivery(inn))

    later = [await inn.post(path, {"email": ANA, **body}, at=now - 20 * day) for body in ({}, named)]
    again = await inn.post(path, {"email": ANA, "first_name": "Ana"}, at=now - 20 * day)

    assert (len(during.new), [len(each.new) for each in later], len(again.new)) == (0, [1, 0], 0)
    keys = [row.key for row in await inn.rows("SELECT key FROM enrolment ORDER BY key")]
    assert sorted(keys) == sorted([f"{ANA}|", f"{ANA}|#2", f"{ANA}|{next(iter(named.values()))}"])


async def test_the_flat_and_the_native_no_show__are_one(inn: Inn) -> None:
    await inn.post("calendly-noshow", calendly("invitee_no_show.created", 60))

    done = await inn.post("calendly-noshow", {"email": ANA, "calendly_event_uri": f"{API}/one"})

    assert (done.new, len(done.known)) == ((), 1)


async def test_calcoms_no_show__takes_name_and_time_from_the_booking_stored_before(inn: Inn) -> None:
    await inn.post("calcom-booking", calcom("BOOKING_CREATED"))

    await inn.post("calcom-booking", calcom_absence(ANA))

    told = await variables(inn)
    assert (told["first_name"], told["call_time"]) == ("Ana", "10:00 (America/Toronto)")
    assert told["event_type"] == "Diagnostic call"


def cal_api(status: int = 200, **data: Any) -> Calcom:
    def answer(request: httpx.Request) -> httpx.Response:
        assert request.headers["authorization"] == "Bearer cal_test"
        assert request.headers["cal-api-version"] == "2024-08-13"
        assert request.url.path == "/v2/bookings/one"
        return httpx.Response(status, json={"status": "success", "data": data})

    return Calcom("cal_test", "https://cal.test", httpx.MockTransport(answer))


FROM_API = {
    "uid": "one",
    "title": "Diagnostic call",
    "start": "2026-12-10T15:00:00.000Z",
    "attendees": [{"name": "Ana Roy", "email": ANA, "timeZone": "America/Toronto"}],
    "meetingUrl": "https://meet.example.net/a",
}


async def test_calcoms_no_show__asks_calcom_for_a_booking_that_was_never_told_of(inn: Inn) -> None:
    inn.calendar = cal_api(**FROM_API)

    await inn.post("calcom-booking", calcom_absence(ANA))

    told = await variables(inn)
    assert (told["first_name"], told["call_time"]) == ("Ana", "10:00 (America/Toronto)")


@pytest.mark.parametrize("calendar", [None, cal_api(404)])
async def test_a_booking_that_nobody_knows__leaves_name_and_time_to_the_copys_own_defaults(
    inn: Inn, calendar: Calcom | None
) -> None:
    inn.calendar = calendar

    await inn.post("calcom-booking", calcom_absence(ANA))

    assert (await variables(inn)).keys() == {"calendly_link", "portal_url", "reschedule_url"}


@pytest.mark.parametrize(("status", "data"), [(401, {}), (200, {"start": "soon"}), (200, {"attendees": 5})])
async def test_a_calendar_that_refuses__fails_the_event_and_says_so(
    inn: Inn, status: int, data: dict[str, Any]
) -> None:
    inn.calendar = cal_api(status, **data)

    done = await inn.post("calcom-booking", calcom_absence(ANA))

    assert "Cal.com" in next(iter(done.failed.values()))


@pytest.mark.parametrize("status", [429, 500, 503])
async def test_a_calendar_that_is_away__is_asked_again_later_and_nothing_has_changed(inn: Inn, status: int) -> None:
    inn.calendar = cal_api(status)
    ids = await inn.take("calcom-booking", calcom_absence(ANA))

    with pytest.raises(RetryLater):
        await inn.handle(ids)

    assert await inn.events() == [("accepted", None)]


async def test_several_who_did_not_come__are_each_written_to_and_who_came_is_not(inn: Inn) -> None:
    await inn.post("calcom-booking", calcom("BOOKING_CREATED"))
    body = calcom_absence(ANA, "delivered+bo@resend.dev", "delivered+cy@resend.dev")
    body["payload"]["attendees"][1]["noShow"] = False

    await inn.post("calcom-booking", body)

    rows = await inn.rows(
        "SELECT c.email FROM enrolment e JOIN contact c ON c.id = e.contact_id WHERE e.sequence = 'noshow'"
    )
    assert {row.email for row in rows} == {ANA, "delivered+cy@resend.dev"}


BACK = {
    "calendly": (
        "calendly-noshow",
        [calendly("invitee_no_show.created", 60), calendly("invitee_no_show.deleted", 70)],
    ),
    "calcom": ("calcom-booking", [calcom_absence(ANA), calcom_absence(ANA, minute=70, no_show=False)]),
}


@pytest.mark.parametrize("which", list(BACK))
async def test_a_no_show_that_is_taken_back__has_no_mails_in_any_order(inn: Inn, which: str) -> None:
    inn.calendar = cal_api(**FROM_API)
    path, history = BACK[which]
    for order in permutations(history):
        await clear(inn)
        for body in order:
            await inn.post(path, body)

        assert await inn.waiting() == {}
        assert await inn.reasons() <= {TAKEN_BACK}


async def test_who_has_booked_again__gets_no_recovery_when_the_no_show_is_told_of_late(inn: Inn) -> None:
    late = NOW + timedelta(hours=3)
    await inn.post("calcom-booking", calcom("BOOKING_CREATED", 120, "two", start=LATER), at=late)

    await inn.post("calcom-booking", calcom_absence(ANA, minute=60), at=late)

    assert await inn.waiting() == prep(LATER)
    assert await inn.reasons() == {"the contact has booked a call"}


# -- what changes while a mail is on its way -----------------------------------------------------------------


@dataclass
class Interrupted:
    """A wait in the midst of sending, in which something happens once."""

    happening: Callable[[], Awaitable[Any]] | None

    async def turn(self) -> None:
        happening, self.happening = self.happening, None
        if happening:
            await happening()

    async def learn(self, rate: float | None) -> None: ...

    async def rest(self, seconds: float) -> None: ...

    async def templates(self, names: Sequence[str]) -> dict[str, Template]:
        await self.turn()
        return await StarterCopy().templates(names)


def delivery(inn: Inn, **parts: Any) -> Delivery:
    copy = parts.pop("copy", StarterCopy())
    return Delivery(inn.ledger, CAMPAIGNS, copy, FakeSender(), LINKS, IDENTITY, lease=120.0, **parts)


ENDS = {
    "cancelled": (*OFF["calcom"][1], CALLED_OFF),
    "taken back": (*BACK["calcom"][1], TAKEN_BACK),
}


@pytest.mark.parametrize("which", list(ENDS))
async def test_a_mail_that_waits_for_resend__is_not_sent_when_its_call_has_ended(inn: Inn, which: str) -> None:
    first, then, reason = ENDS[which]
    sending = delivery(inn)
    await inn.post("calcom-booking", first)
    sending.sender.trouble = "away"
    await inn.send(LATER, sending)
    assert "sending" in {state for _, state, _ in await inn.mails()}

    await inn.post("calcom-booking", then)
    sending.sender.trouble = None
    await inn.send(LATER, sending)

    assert sending.sender.mails == []
    assert {state for _, state, _ in await inn.mails()} <= {"cancelled", "skipped"}
    assert await inn.reasons() == {reason}


async def test_a_retry_of_a_template__mails_nobody_whose_call_was_called_off(inn: Inn) -> None:
    for body in OFF["calcom"][1]:
        await inn.post("calcom-booking", body)

    assert await retry_messages(inn.ledger, template="precall_prep_email_2", now=NOW)
    done = await inn.send(LATER, delivery(inn))

    assert (done.sent, done.skipped) == (0, {CALLED_OFF: 1})


@pytest.mark.parametrize("moment", ["after the bodies were made", "before they were made", "while Resend is away"])
@pytest.mark.parametrize("which", ["calendly", "calcom", "calcom in place"])
@pytest.mark.parametrize("handled", [True, False])
async def test_a_mail_on_its_way__goes_at_the_new_time_and_with_it_when_its_call_is_moved(
    inn: Inn, which: str, moment: str, handled: bool
) -> None:
    path, (first, *rest) = MOVES[which]
    await inn.post(path, first)
    taken: list[UUID] = []

    async def moves() -> None:
        for body in rest:
            taken.extend(await inn.take(path, body))
        if handled:
            await inn.handle(taken)

    if moment == "while Resend is away":
        sending = delivery(inn)
        sending.sender.trouble = "away"
        await inn.send(MEETING - timedelta(hours=72), sending)
        await moves()
        sending.sender.trouble = None
    elif moment == "before they were made":
        sending = delivery(inn, copy=Interrupted(moves))
    else:
        sending = delivery(inn, turns=Interrupted(moves))
    done = await inn.send(MEETING - timedelta(hours=72), sending)
    assert (done.sent, sending.sender.mails) == (0, [])
    if not handled:
        assert await inn.reasons() == {MOVED}
        await inn.handle(taken)

    assert await inn.waiting() == prep(LATER)
    await inn.send(LATER, sending)
    assert sorted(m.tag("template") for m in sending.sender.mails) == list(prep(LATER))
    assert all("15 December" in m.payload["html"] for m in sending.sender.mails)


# -- payment and signature -----------------------------------------------------------------------------------

STRIPE, DOCUSIGN = (dict(next(iter(n.examples.values()))) for n in CHRISTMAS.webhook("onboarding-start").natives)


def stripe(kind: str = "checkout.session.completed", *, status: str = "paid", ident: str = "evt_1", **more: Any) -> Any:
    body = copy.deepcopy(STRIPE)
    body |= {"id": ident, "type": kind, "created": int(NOW.timestamp())}
    body["data"]["object"] |= {"payment_status": status, "customer_details": {"email": ANA, "name": "Ana Roy"}, **more}
    return body


def docusign(*signers: str, event: str = "envelope-completed", envelope: str = "ENV", days: int = 0) -> Any:
    body = copy.deepcopy(DOCUSIGN)
    at = (NOW + timedelta(days=days)).isoformat().replace("+00:00", ".4580747Z")
    body |= {"event": event, "generatedDateTime": at}
    body["data"]["envelopeId"] = envelope
    summary = body["data"]["envelopeSummary"]
    summary["completedDateTime"] = at
    summary["recipients"]["signers"] = [{"name": "Ana Roy", "email": email} for email in signers or (ANA,)]
    return body


WELCOME = [f"onboarding_phase1_email_{n}" for n in (1, 2, 3)]


@pytest.mark.parametrize("late", [False, True])
@pytest.mark.parametrize("order", [(0, 1), (1, 0)])
async def test_payment_and_signature__start_onboarding_once_in_either_order(
    inn: Inn, order: tuple[int, int], late: bool
) -> None:
    bodies = [stripe(), docusign()]
    taken = []
    for n in order:
        assert await inn.waiting() == {}
        taken.append(await inn.take("onboarding-start", bodies[n]))
        if not late:
            await inn.handle(taken[-1])
    if late:
        await inn.handle([i for ids in taken for i in ids])

    assert list(await inn.waiting()) == WELCOME
    (row,) = await inn.rows("SELECT variables, key, consent_basis, consent_at FROM enrolment")
    assert (row.consent_basis, row.consent_at) == ("purchase", NOW)
    assert row.variables["payment_amount"] == "2,000.00"
    assert row.variables["first_name"] == "Ana"
    assert row.key == f"{ANA}|2026-12-01"


async def test_one_alone__waits_and_says_for_what(inn: Inn) -> None:
    await inn.post("onboarding-start", stripe())
    await inn.post("onboarding-start", docusign("delivered+bo@resend.dev"))

    assert await inn.mails() == []
    assert sorted(await inn.events()) == [
        ("handled", "the mails wait for the payment"),
        ("handled", "the mails wait for the signature"),
    ]


async def test_a_checkout_that_is_paid_later__counts_when_it_is_paid(inn: Inn) -> None:
    await inn.post("onboarding-start", docusign())
    await inn.post("onboarding-start", stripe(status="unpaid"))
    assert await inn.mails() == []

    await inn.post("onboarding-start", stripe("checkout.session.async_payment_succeeded", ident="evt_2"))

    assert list(await inn.waiting()) == WELCOME
    assert ("ignored", "the payment is not confirmed (payment_status unpaid)") in await inn.events()


async def test_further_payments_of_the_same_purchase__welcome_nobody_twice(inn: Inn) -> None:
    await inn.post("onboarding-start", stripe())
    await inn.post("onboarding-start", docusign())

    again = stripe(ident="evt_2", id="cs_2")
    again["created"] += 40 * 86400
    done = await inn.post("onboarding-start", again)

    assert list(done.settled.values()) == ["the onboarding mails have started already"]
    assert len(await inn.mails()) == 3


async def test_a_payment_and_a_signature_of_different_purchases__are_not_taken_together(inn: Inn) -> None:
    await inn.post("onboarding-start", stripe())

    await inn.post("onboarding-start", docusign(days=120))

    assert await inn.mails() == []


async def test_the_next_purchase__is_welcomed_again(inn: Inn) -> None:
    await inn.post("onboarding-start", stripe())
    await inn.post("onboarding-start", docusign())
    later = stripe(ident="evt_2", id="cs_2")
    later["created"] += 400 * 86400
    await inn.post("onboarding-start", later)

    await inn.post("onboarding-start", docusign(envelope="ENV2", days=400))

    assert len(await inn.mails()) == 6


FLAT = {"email": ANA, "first_name": "Ana", "payment_confirmed": True, "payment_date": "2026-12-01"}


@pytest.mark.parametrize("signed", [{}, {"docusign_completed": True}])
async def test_the_flat_body__works_alone(inn: Inn, signed: dict[str, Any]) -> None:
    await inn.post("onboarding-start", {**FLAT, "payment_amount": 2000, **signed})

    assert list(await inn.waiting()) == WELCOME


async def test_the_flat_body_that_says_unsigned__waits_for_the_signature_and_keeps_its_words(inn: Inn) -> None:
    body = {**FLAT, "payment_amount": 2000, "docusign_completed": False, "start_date": "2027-01-11"}
    await inn.post("onboarding-start", body)
    assert await inn.mails() == []

    await inn.post("onboarding-start", docusign())

    assert list(await inn.waiting()) == WELCOME
    (row,) = await inn.rows("SELECT variables FROM enrolment")
    assert row.variables["start_date"] == "Monday 11 January 2027"


async def test_flat_and_native__are_one_onboarding(inn: Inn) -> None:
    await inn.post("onboarding-start", {**FLAT, "payment_amount": 2000, "docusign_completed": True})

    await inn.post("onboarding-start", stripe())
    await inn.post("onboarding-start", docusign())

    assert len(await inn.mails()) == 3


@pytest.mark.parametrize("together", [False, True])
@pytest.mark.parametrize("signed", [{}, {"docusign_completed": True}, {"docusign_completed": False}])
@pytest.mark.parametrize("date", ["2026-11-30", None, "2026-12-01T20:30:00-05:00", "2026-12-01"])
async def test_the_flat_body_after_the_services_own__starts_nothing_again(
    inn: Inn, date: str | None, signed: dict[str, Any], together: bool
) -> None:
    bodies = [stripe(), docusign(), {**FLAT, "payment_date": date, **signed}]
    if together:
        await inn.handle([i for body in bodies for i in await inn.take("onboarding-start", body)])
    else:
        for body in bodies:
            await inn.post("onboarding-start", body)

    assert len(await inn.mails()) == 3
    assert {state for state, _ in await inn.events()} == {"handled"}


@pytest.mark.parametrize("_", range(5))
async def test_the_flat_body_handled_at_the_same_time_as_the_services_own__starts_nothing_again(
    inn: Inn, _: int
) -> None:
    theirs = [i for body in (stripe(), docusign()) for i in await inn.take("onboarding-start", body)]
    flat = await inn.take("onboarding-start", {**FLAT, "payment_date": None})

    await asyncio.gather(inn.handle(theirs), inn.handle(flat))

    assert list(await inn.waiting()) == WELCOME
    assert len(await inn.mails()) == 3


async def test_the_crm_that_posts_again_when_the_signature_is_there__starts_nothing_again(inn: Inn) -> None:
    body = {**FLAT, "payment_date": None}
    await inn.post("onboarding-start", {**body, "docusign_completed": False})
    await inn.post("onboarding-start", docusign())

    done = await inn.post("onboarding-start", {**body, "docusign_completed": True})

    assert list(done.settled.values()) == ["the onboarding mails have started already"]
    assert len(await inn.mails()) == 3


async def test_the_next_purchase_in_a_flat_body__is_welcomed_again(inn: Inn) -> None:
    await inn.post("onboarding-start", stripe())
    await inn.post("onboarding-start", docusign())

    await inn.post("onboarding-start", {**FLAT, "payment_date": "2028-01-10"})

    assert len(await inn.mails()) == 6


async def test_the_next_purchase_that_was_taken_in_by_an_earlier_version__is_welcomed_too(inn: Inn) -> None:
    await inn.post("onboarding-start", stripe())
    await inn.post("onboarding-start", docusign())
    at = "2028-01-10T20:30:00-05:00"
    taken = await inn.take("onboarding-start", {**FLAT, "payment_date": at})
    async with inn.ledger.transaction() as connection:
        former = {"former": f"flat:{ANA}|{at}"}
        await connection.execute(text("UPDATE milestone SET key = :former WHERE key LIKE 'flat:%'"), former)

    await inn.handle(taken)

    assert len(await inn.mails()) == 6


async def test_everybody_who_signed_but_the_sender__has_signed(inn: Inn) -> None:
    await inn.post("onboarding-start", stripe())

    await inn.post("onboarding-start", docusign("delivered+bo@resend.dev", ANA, "delivered+host@resend.dev"))

    assert list(await inn.waiting()) == WELCOME
    rows = await inn.rows("SELECT count(*) AS n FROM milestone WHERE kind = 'signed'")
    assert rows[0].n == 2


# -- what means nothing --------------------------------------------------------------------------------------

NOTHING = [
    ("calcom-booking", {"triggerEvent": "PING", "createdAt": NOW.isoformat(), "payload": {"attendees": "odd"}}),
    ("calcom-booking", {"triggerEvent": "MEETING_ENDED", "id": 5, "startTime": "2026-12-01"}),
    ("calendly-noshow", {"event": "routing_form_submission.created", "created_at": NOW.isoformat(), "payload": [1]}),
    ("calendly-noshow", calendly("invitee_no_show.deleted")),
    ("onboarding-start", {"object": "event", "id": "evt_9", "type": "invoice.paid", "created": 1, "data": []}),
    ("onboarding-start", stripe("checkout.session.expired", status="unpaid")),
    ("onboarding-start", stripe(customer_details=None)),
    ("onboarding-start", docusign(event="envelope-voided")),
    ("onboarding-start", {"event": "recipient-sent", "generatedDateTime": NOW.isoformat(),
                          "data": {"envelopeId": "E"}}),
    ("onboarding-start", {"event": "envelope-completed", "generatedDateTime": NOW.isoformat(),
                          "data": {"envelopeId": "E"}}),
]  # fmt: skip


@pytest.mark.parametrize(("path", "body"), NOTHING)
async def test_what_means_nothing_here__is_stored_with_the_reason_and_starts_nothing(
    inn: Inn, path: str, body: dict[str, Any]
) -> None:
    await inn.post(path, body)

    ((state, reason),) = await inn.events()
    assert (state, bool(reason)) == ("ignored", True)
    assert await inn.mails() == []


async def test_what_means_nothing__is_counted_by_its_reason(inn: Inn) -> None:
    for n in range(3):
        await inn.take("calcom-booking", {"triggerEvent": "MEETING_ENDED", "n": n}, at=NOW + timedelta(minutes=n))
    await inn.take("calcom-booking", {"triggerEvent": "PING"})

    async with inn.ledger.reading() as connection:
        counted = await inbox.count_events(connection, since=NOW)

    assert [(r.events, r.state, r.why) for r in counted] == [
        (3, "ignored", "MEETING_ENDED starts no sequence"),
        (1, "ignored", "PING starts no sequence"),
    ]


async def test_the_ledger__tells_who_has_booked_and_paid(inn: Inn) -> None:
    await inn.post("calcom-booking", calcom("BOOKING_CREATED"))
    await inn.post("onboarding-start", stripe())

    ((contact_id,),) = await inn.rows("SELECT id FROM contact")
    async with inn.ledger.reading() as connection:
        one = (await standing(connection, [contact_id]))[contact_id]
    assert (one.booked_at, one.booked_for, one.paid_at) == (NOW, MEETING, NOW)
