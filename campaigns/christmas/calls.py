"""What Calendly and Cal.com say of calls, in their own bodies (apis.md 3.1 and 3.2)."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Annotated, Any, ClassVar, Literal
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from pydantic import Field, PrivateAttr, StringConstraints, model_validator

from tidings.campaign import Known, Payload
from tidings.model import CALLED_OFF, MOVED, TAKEN_BACK, Booking, BookingFact, BookingState, ContactFacts, Fact

from .payloads import (
    Aware,
    BookingId,
    Email,
    MaybeEmail,
    Moment,
    Name,
    Url,
    Words,
    first_word,
    spoken_date,
    spoken_time,
)

PRECALL, NO_SHOW = "precall", "noshow"
Turn = Literal["booked", "moved", "cancelled", "missed", "attended", "other"]
Kind = Annotated[str, StringConstraints(min_length=1, max_length=100)]


class Detail(Payload):
    """A part of a body; says nothing by itself."""

    def contact(self) -> ContactFacts | None:
        return None

    def enrolment_key(self) -> str:
        return ""


class Call(Payload):
    """A call that was booked, moved, cancelled or missed, whoever keeps the calendar."""

    whole: ClassVar[bool] = True
    _known: Booking | None = PrivateAttr(None)

    # -- what each calendar says in its own way ----------------------------------------------------------------

    def turn(self) -> Turn:
        """What has happened to the call."""
        raise NotImplementedError

    def kind(self) -> str:
        """The calendar's own word for that."""
        raise NotImplementedError

    def call_key(self) -> str | None:
        """The booking, with the calendar's name before its own id; None when the body does not say which."""
        raise NotImplementedError

    def call_before(self) -> str | None:
        """The booking whose place this one has taken."""
        raise NotImplementedError

    def said_at(self) -> datetime | None:
        raise NotImplementedError

    def starts_at(self) -> datetime | None:
        raise NotImplementedError

    def email(self) -> str | None:
        raise NotImplementedError

    def details(self) -> Mapping[str, str | None]:
        """first_name, zone, title, link and reschedule_url, as far as the body has them."""
        raise NotImplementedError

    # -- what it means, the same for all -----------------------------------------------------------------------

    def parts(self) -> tuple[Payload, ...]:
        return (self,)

    def contact(self) -> ContactFacts | None:
        email, turn = self.email(), self.turn()
        if email is None or turn == "other":
            return None
        starts = self.starts_at()
        attributes = {
            "booked": {"phase": "Booked", "booking_status": "Booked"},
            "cancelled": {"booking_status": "Cancelled"},
            "missed": {"phase": "No-show", "booking_status": "No-show"},
        }.get(turn, {})
        if turn == "booked" and starts:
            attributes["diagnostic_call_date"] = starts.isoformat()
        return ContactFacts(email=email, first_name=self.details().get("first_name"), attributes=attributes)

    def ignored_because(self) -> str | None:
        if self.turn() in {"booked", "missed"} and self.email() is not None:
            return None
        if self.turn() == "other":
            return f"{self.kind()} starts no sequence"
        reasons: dict[str, str] = {"moved": MOVED, "cancelled": CALLED_OFF, "attended": TAKEN_BACK}
        return reasons.get(self.turn(), f"{self.kind()} names no contact")

    def starts_sequence(self) -> str | None:
        return {"booked": PRECALL, "missed": NO_SHOW}.get(self.turn())

    def booking(self) -> str | None:
        key = self.call_key()
        return self._absence(key) if self.turn() == "missed" and key else key

    def _absence(self, key: str) -> str:
        """A no-show is said, and taken back, of one person at one call."""
        return f"noshow:{key}|{self.email()}"

    def follows(self) -> str | None:
        return self.call_before() if self.turn() == "booked" else None

    def looks_up(self) -> str | None:
        return self.call_key() if self.turn() == "missed" else None

    def joined(self, known: Known) -> Payload:
        told = self.model_copy()
        told._known = known.booking
        return told

    def facts(self) -> tuple[Fact, ...]:
        key, turn, at = self.call_key(), self.turn(), self.said_at()
        if key is None or self.email() is None:
            return ()
        if turn == "missed":
            return (BookingFact(self._absence(key), BookingState.MISSED, at),)
        if turn == "attended":
            return (BookingFact(self._absence(key), BookingState.ATTENDED, at, ends={NO_SHOW: TAKEN_BACK}),)
        if turn == "cancelled":
            return (BookingFact(key, BookingState.CANCELLED, at, ends={PRECALL: CALLED_OFF}),)
        if turn == "moved":
            return (_moved(key, at),)
        if turn != "booked":
            return ()
        details = {name: value for name, value in self.details().items() if value}
        booked = BookingFact(key, BookingState.BOOKED, at, self.starts_at(), details)
        before = self.call_before()
        return (booked, _moved(before, at)) if before else (booked,)

    def enrolment_key(self) -> str:
        return f"{self.email()}|{self._call_id()}"

    def _call_id(self) -> str:
        """As the flat body names it, so that both are one enrolment."""
        return (self.call_key() or "").partition(":")[2]

    def anchor(self, received_at: datetime) -> datetime:
        return (self.starts_at() or received_at) if self.turn() == "booked" else received_at

    def variables(self, settings: Mapping[str, Any], now: datetime) -> dict[str, Any]:
        known = self._known
        told = {**(known.details if known else {}), **{k: v for k, v in self.details().items() if v}}
        local, zone = _local(self.starts_at() or (known.starts_at if known else None), told.get("zone"))
        return {
            **settings,
            "first_name": told.get("first_name") or first_word(told.get("name")),
            "call_date": spoken_date(local),
            "call_time": spoken_time(local, zone),
            "event_type" if self.turn() == "missed" else "call_title": told.get("title"),
            "meeting_link": told.get("link"),
            "reschedule_url": told.get("reschedule_url") or settings.get("calendly_link"),
        }


def _moved(key: str, at: datetime | None) -> BookingFact:
    return BookingFact(key, BookingState.MOVED, at, ends={PRECALL: MOVED})


def _only_if_known(data: Any, name: str, known: Mapping[str, Turn]) -> Any:
    """A body without its payload, when it is of a kind that means nothing here: that may have any shape."""
    if not isinstance(data, dict) or data.get(name) in list(known):
        return data
    return {**data, "payload": {}}


def _https(link: Any) -> str | None:
    return link if isinstance(link, str) and link.startswith("https://") else None


def _local(moment: datetime | None, zone: str | None) -> tuple[datetime | None, str | None]:
    """The moment in the attendee's zone; in UTC when the calendar named none that exists."""
    if moment is None:
        return None, None
    try:
        return (moment.astimezone(ZoneInfo(zone)), zone) if zone else (moment.astimezone(UTC), None)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        return moment.astimezone(UTC), None


class CalcomAttendee(Detail):
    """Cal.com's attendee."""

    email: Email
    name: Name = None
    firstName: Name = None  # noqa: N815  (Cal.com's spelling)
    timeZone: Name = None  # noqa: N815
    noShow: bool | None = None  # noqa: N815


class CalcomBooking(Detail):
    """The part of Cal.com's booking that is used here."""

    uid: Name = None
    bookingUid: Name = None  # noqa: N815
    title: Words = None
    startTime: Moment = None  # noqa: N815
    attendees: list[CalcomAttendee] = Field(default_factory=list, max_length=200)
    metadata: dict[str, Any] | None = None
    rescheduleUid: Name = None  # noqa: N815
    rescheduledToUid: Name = None  # noqa: N815


#: Cal.com's triggers that mean something here. Of the others nothing is read: their payloads have other shapes.
CALCOM_TURNS: Mapping[str, Turn] = {
    "BOOKING_CREATED": "booked",
    "BOOKING_RESCHEDULED": "booked",
    "BOOKING_CANCELLED": "cancelled",
    "BOOKING_NO_SHOW_UPDATED": "missed",
}


class CalcomEvent(Call):
    """Cal.com's own body. A no-show names neither the person nor the time: the booking stored before has them."""

    triggerEvent: Kind = Field(description="Cal.com's trigger, such as BOOKING_CREATED")  # noqa: N815
    createdAt: Moment = None  # noqa: N815
    payload: CalcomBooking = Field(default_factory=CalcomBooking)

    @model_validator(mode="before")
    @classmethod
    def _read_what_is_known(cls, data: Any) -> Any:
        return _only_if_known(data, "triggerEvent", CALCOM_TURNS)

    @model_validator(mode="after")
    def _complete(self) -> CalcomEvent:
        has = {
            "payload.uid": self.payload.uid or self.payload.bookingUid,
            "payload.startTime": self.payload.startTime,
            "payload.attendees": self.payload.attendees,
        }
        needed = {
            "BOOKING_CREATED": tuple(has),
            "BOOKING_RESCHEDULED": tuple(has),
            "BOOKING_NO_SHOW_UPDATED": ("payload.uid", "payload.attendees"),
        }.get(self.triggerEvent, ())
        missing = [name for name in needed if not has[name]]
        if missing:
            raise ValueError(f"{self.triggerEvent} needs {', '.join(missing)}")
        return self

    @classmethod
    def recognises(cls, body: Any) -> bool:
        return isinstance(body, dict) and "triggerEvent" in body

    def parts(self) -> tuple[Payload, ...]:
        """A no-show says of each attendee whether they came."""
        if self.triggerEvent != "BOOKING_NO_SHOW_UPDATED":
            return (self,)
        ones = [self.payload.model_copy(update={"attendees": [one]}) for one in self.payload.attendees]
        return tuple(self.model_copy(update={"payload": one}) for one in ones)

    @property
    def _attendee(self) -> CalcomAttendee | None:
        return next(iter(self.payload.attendees), None)

    def turn(self) -> Turn:
        turn = CALCOM_TURNS.get(self.triggerEvent, "other")
        if turn == "cancelled" and self.payload.rescheduledToUid:
            return "moved"
        if turn == "missed" and self._attendee and not self._attendee.noShow:
            return "attended"
        return turn

    def kind(self) -> str:
        return self.triggerEvent

    def call_key(self) -> str | None:
        uid = self.payload.uid or self.payload.bookingUid
        return f"calcom:{uid}" if uid else None

    def call_before(self) -> str | None:
        before = self.payload.rescheduleUid
        key = f"calcom:{before}" if before else None
        return key if key != self.call_key() else None

    def said_at(self) -> datetime | None:
        return self.createdAt

    def starts_at(self) -> datetime | None:
        return self.payload.startTime

    def email(self) -> str | None:
        return self._attendee.email if self._attendee else None

    def details(self) -> Mapping[str, str | None]:
        one = self._attendee
        return {
            "first_name": (one.firstName or first_word(one.name)) if one else None,
            "zone": one.timeZone if one else None,
            "title": self.payload.title,
            "link": _https((self.payload.metadata or {}).get("videoCallUrl")),
        }

    def event_key(self) -> str | None:
        booking = self.payload.uid or self.payload.bookingUid
        when = self.createdAt.isoformat() if self.createdAt else ""
        who = f"|{self.email()}" if self.triggerEvent == "BOOKING_NO_SHOW_UPDATED" else ""
        return f"{self.triggerEvent}|{booking}|{when}{who}" if booking else None


class CalendlyPlace(Detail):
    """Where a Calendly call is held."""

    join_url: Words = None


class CalendlyCall(Detail):
    """Calendly's scheduled event."""

    uri: BookingId = None
    name: Words = None
    start_time: Moment = None
    location: CalendlyPlace | None = None


class CalendlyNoShow(Detail):
    """Calendly's mark that an invitee did not come."""

    uri: BookingId = None


class CalendlyInvitee(Detail):
    """Calendly's invitee."""

    uri: BookingId = None
    event: BookingId = None
    email: MaybeEmail = None
    name: Name = None
    first_name: Name = None
    timezone: Name = None
    rescheduled: bool = False
    old_invitee: BookingId = None
    reschedule_url: Url = None
    no_show: CalendlyNoShow | None = None
    scheduled_event: CalendlyCall | None = None


CALENDLY_TURNS: Mapping[str, Turn] = {
    "invitee.created": "booked",
    "invitee.canceled": "cancelled",
    "invitee_no_show.created": "missed",
    "invitee_no_show.deleted": "attended",
}
#: What becomes of an invitee once in its life: a call that is moved or booked again has another one.
ONCE = ("invitee.created", "invitee.canceled")


class CalendlyEvent(Call):
    """Calendly's own body. A call that is moved arrives as a cancellation and a new booking, in either order."""

    event: Kind = Field(description="Calendly's event, such as invitee_no_show.created")
    created_at: Aware
    payload: CalendlyInvitee

    @model_validator(mode="before")
    @classmethod
    def _read_what_is_known(cls, data: Any) -> Any:
        return _only_if_known(data, "event", CALENDLY_TURNS)

    @model_validator(mode="after")
    def _complete(self) -> CalendlyEvent:
        if self.event not in CALENDLY_TURNS:
            return self
        has = {"payload.uri": self.payload.uri, "payload.email": self.payload.email}
        if self.event == "invitee.created":
            has["payload.scheduled_event.start_time"] = _text(self.starts_at())
        missing = [name for name, value in has.items() if not value]
        if missing:
            raise ValueError(f"{self.event} needs {', '.join(missing)}")
        return self

    @classmethod
    def recognises(cls, body: Any) -> bool:
        return isinstance(body, dict) and "event" in body and "payload" in body

    def turn(self) -> Turn:
        turn = CALENDLY_TURNS.get(self.event, "other")
        return "moved" if turn == "cancelled" and self.payload.rescheduled else turn

    def kind(self) -> str:
        return self.event

    def call_key(self) -> str | None:
        return f"calendly:{self.payload.uri}" if self.payload.uri else None

    def call_before(self) -> str | None:
        return f"calendly:{self.payload.old_invitee}" if self.payload.old_invitee else None

    def said_at(self) -> datetime | None:
        return self.created_at

    def starts_at(self) -> datetime | None:
        return self.payload.scheduled_event.start_time if self.payload.scheduled_event else None

    def email(self) -> str | None:
        return self.payload.email

    def details(self) -> Mapping[str, str | None]:
        call = self.payload.scheduled_event or CalendlyCall()
        return {
            "first_name": self.payload.first_name or first_word(self.payload.name),
            "zone": self.payload.timezone,
            "title": call.name,
            "link": _https(call.location.join_url if call.location else None),
            "reschedule_url": _text(self.payload.reschedule_url),
        }

    def _call_id(self) -> str:
        """The flat body names the event, not the invitee."""
        call = self.payload.scheduled_event
        return (call.uri if call else None) or self.payload.event or self.payload.uri or ""

    def event_key(self) -> str | None:
        """By what it is about where that happens once: a webhook's own time is not to be found in Calendly's lists."""
        if self.event in ONCE:
            return f"{self.event}|{self.payload.uri}"
        if self.turn() == "missed" and self.payload.no_show and self.payload.no_show.uri:
            return f"{self.event}|{self.payload.no_show.uri}"
        return f"{self.event}|{self.payload.uri}|{self.created_at.isoformat()}" if self.payload.uri else None


def _text(value: Any) -> str | None:
    return str(value) if value is not None else None
