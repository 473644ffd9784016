"""The bodies of the five webhooks, and what each of them means."""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from typing import Annotated, Any

from pydantic import (
    AfterValidator,
    AwareDatetime,
    BeforeValidator,
    ConfigDict,
    EmailStr,
    Field,
    HttpUrl,
    StringConstraints,
    model_validator,
)

from tidings.campaign import Known, NotYet, Payload, blank_is_unknown
from tidings.model import Basis, ContactFacts, Fact, Milestone, MilestoneFact, MilestoneKind
from tidings.segment import segment

from .assessment import AssessmentFacts, assessment_variables

WAITS_FOR_SIGNATURE = "the mails wait for the signature"
WAITS_FOR_PAYMENT = "the mails wait for the payment"
HAVE_STARTED = "the onboarding mails have started already"
#: A payment and a signature that lie further apart belong to different purchases; and further payments of one that
#: has been welcomed, such as the second half, do not welcome it again within this time.
TOGETHER = timedelta(days=90)
#: Begins the keys of what flat bodies say of payments and signatures.
FLAT = "flat:"


def _one_line(value: str) -> str:
    if any(ord(c) < 32 or ord(c) == 127 for c in value):
        raise ValueError("must be one line of text without control characters")
    return value


def _in_our_time(value: datetime) -> datetime:
    """Neither calendars nor the ledger can work with the ends of the calendar, and no sender means them."""
    if not 1970 <= value.year <= 2200:
        raise ValueError("must lie between 1970 and 2200")
    return value


#: RFC 5321 allows 254 characters; addresses are compared without regard to case.
Email = Annotated[EmailStr, AfterValidator(str.lower), Field(max_length=254)]
Name = Annotated[
    Annotated[str, StringConstraints(strip_whitespace=True, max_length=200), AfterValidator(_one_line)] | None,
    BeforeValidator(blank_is_unknown),
]
#: What makes a link of a name. A mere dot does not: people are called St.John.
LINK = re.compile(r"://|www\.|@", re.IGNORECASE)
#: Part of a key, which must fit into an index.
BookingId = Annotated[
    Annotated[str, StringConstraints(strip_whitespace=True, max_length=500), AfterValidator(_one_line)] | None,
    BeforeValidator(blank_is_unknown),
]
Words = Annotated[
    Annotated[str, StringConstraints(strip_whitespace=True, max_length=5000)] | None,
    BeforeValidator(blank_is_unknown),
]
MaybeEmail = Annotated[Email | None, BeforeValidator(blank_is_unknown)]
Url = Annotated[HttpUrl | None, BeforeValidator(blank_is_unknown)]
Aware = Annotated[AwareDatetime, AfterValidator(_in_our_time)]
Moment = Annotated[Aware | None, BeforeValidator(blank_is_unknown)]
Day = Annotated[date | None, BeforeValidator(blank_is_unknown)]
#: Moments are tried first: midnight with an offset is a moment too, and need not be of the same day in UTC.
DayOrMoment = Annotated[
    Annotated[Aware | date, Field(union_mode="left_to_right")] | None, BeforeValidator(blank_is_unknown)
]
Count = Annotated[Annotated[int, Field(ge=0, le=8)] | None, BeforeValidator(blank_is_unknown)]
Percent = Annotated[Annotated[float, Field(ge=0, le=100)] | None, BeforeValidator(blank_is_unknown)]
Money = Annotated[
    Annotated[Decimal, Field(ge=0, max_digits=12, decimal_places=2)] | None,
    BeforeValidator(blank_is_unknown),
]


def first_word(name: str | None) -> str | None:
    """The given name of a full name: its first word. Nothing is guessed beyond that."""
    return name.split()[0] if name and name.split() else None


def spoken_date(moment: datetime | date | None) -> str | None:
    """A date the way one says it, such as "Tuesday 8 December 2026"."""
    return f"{moment:%A} {moment.day} {moment:%B %Y}" if moment else None


def spoken_time(moment: datetime | None, zone: str | None = None) -> str | None:
    """A time with its zone, such as "14:30 (America/Toronto)"; the sender's own offset without one."""
    if moment is None:
        return None
    if zone:
        return f"{moment:%H:%M} ({zone})"
    name = "UTC" if not moment.utcoffset() else f"UTC{moment:%z}"
    return f"{moment:%H:%M} {name}"


def day_key(day: date | datetime | None) -> str:
    """A day however it was said, for a key; a moment's is its day in UTC. Empty where none is known."""
    if isinstance(day, datetime):
        day = day.astimezone(UTC).date()
    return day.isoformat() if day else ""


def _day_as_said(day: date | datetime | None) -> str:
    """The same as keys had it in 0.1: each way to say it made another."""
    if isinstance(day, datetime) and day.time() == time():
        day = day.date()
    return day.isoformat() if day else ""


def _text(value: Any) -> str | None:
    return str(value) if value is not None else None


class Person(Payload):
    """The fields that every flat body has."""

    email: Email = Field(description="Whom the mails go to")
    first_name: Name = None
    business_name: Name = None

    def contact(self) -> ContactFacts | None:
        return ContactFacts(
            email=self.email,
            first_name=self.first_name,
            business_name=self.business_name,
            attributes={k: v for k, v in self.attributes().items() if v is not None},
        )

    def attributes(self) -> dict[str, Any]:
        return {}

    def variables(self, settings: Mapping[str, Any], now: datetime) -> dict[str, Any]:
        return {**settings, "first_name": self.first_name, "business_name": self.business_name}


class AssessmentData(Payload):
    """The assessment's results, nested or flat."""

    model_config = ConfigDict(extra="ignore", str_strip_whitespace=True)

    assessment_score: Percent = Field(None, description="0 to 100")
    red_systems: Count = Field(None, description="How many of the eight systems are red, 0 to 8")
    orange_systems: Count = None
    yellow_systems: Count = None
    green_systems: Count = None
    gps_score: Percent = None
    money_score: Percent = None
    weakest_system_1: Name = None
    weakest_system_2: Name = None
    strongest_system: Name = None
    revenue_leak_total: Money = Field(None, description="What the contact said it costs them a month")

    def contact(self) -> ContactFacts | None:
        return None

    def enrolment_key(self) -> str:
        raise NotImplementedError("assessment data is a part of a signup")


ASSESSMENT_FIELDS = tuple(AssessmentData.model_fields)


def _no_link(value: str | None) -> str | None:
    """Anybody may post the form, with anybody's address: what is greeted with must not be somebody's advertisement."""
    if value and LINK.search(value):
        raise ValueError("must be a name, without a link")
    return value


class Signup(Person):
    """The website's assessment form. Assessment results come flat or inside `assessment_data`."""

    first_name: Annotated[Name, AfterValidator(_no_link)] = None
    name: Annotated[Name, AfterValidator(_no_link)] = Field(
        None, description="Full name; its first word is used where first_name is not given"
    )
    revenue: Words = None
    challenge: Words = None
    consent: bool = Field(False, description="Whether the contact asked for the mails; without it none is sent")
    consent_text: Words = Field(None, description="The words beside the box that was ticked; kept as evidence")
    assessment_data: AssessmentData = Field(default_factory=AssessmentData)
    email_1_sent_at: Moment = Field(None, description="When the website has sent the first mail itself")

    @model_validator(mode="before")
    @classmethod
    def _flat_is_fine(cls, data: Any) -> Any:
        """Move flat assessment fields into assessment_data; a value given in both places is the nested one."""
        if not isinstance(data, dict):
            return data
        nested = data.get("assessment_data") or {}
        flat = {k: data[k] for k in (*ASSESSMENT_FIELDS, "business_name") if k in data}
        if not isinstance(nested, dict):
            return data
        return {
            "business_name": nested.get("business_name"),
            **data,
            "assessment_data": {**flat, **nested},
        }

    @property
    def given_name(self) -> str | None:
        return self.first_name or first_word(self.name)

    def contact(self) -> ContactFacts | None:
        return ContactFacts(
            email=self.email,
            first_name=self.given_name,
            business_name=self.business_name,
            consent=self.consent,
            attributes={
                k: v
                for k, v in {
                    "name": self.name,
                    "assessment_score": self.assessment_data.assessment_score,
                    "segment": self.segment(),
                    "phase": "Signup",
                    "revenue": self.revenue,
                    "challenge": self.challenge,
                }.items()
                if v is not None
            },
        )

    def enrolment_key(self) -> str:
        return self.email

    def ignored_because(self) -> str | None:
        return None if self.consent else "the contact gave no consent to be mailed"

    def basis(self) -> Basis:
        return Basis.EXPRESS

    def consent_wording(self) -> str | None:
        return self.consent_text

    def segment(self) -> str | None:
        red, orange = self.assessment_data.red_systems, self.assessment_data.orange_systems
        if red is None or (red == 0 and orange is None):
            return None  # a count that would decide it is not known, and is not taken for 0
        return segment(red, orange or 0)

    def variables(self, settings: Mapping[str, Any], now: datetime) -> dict[str, Any]:
        facts = AssessmentFacts.model_validate(self.assessment_data.model_dump())
        return {
            **super().variables(settings, now),
            "first_name": self.given_name,
            "revenue": self.revenue,
            "challenge": self.challenge,
            **assessment_variables(facts, self.segment()),
        }

    def sent_elsewhere(self) -> Mapping[int, datetime]:
        return {1: self.email_1_sent_at} if self.email_1_sent_at else {}


class NoShow(Person):
    """A missed call, in the flat form."""

    calendly_event_uri: BookingId = Field(None, description="The booking; makes a second no-show a new one")
    scheduled_time: Moment = Field(None, description="When the call was to be, with an offset")
    event_type: Name = None
    reschedule_url: Url = None

    def attributes(self) -> dict[str, Any]:
        return {"phase": "No-show", "booking_status": "No-show"}

    def enrolment_key(self) -> str:
        moment = self.scheduled_time.astimezone(UTC) if self.scheduled_time else None
        return f"{self.email}|{self.calendly_event_uri or (moment.isoformat() if moment else '')}"

    def former_key(self) -> str | None:
        said = self.scheduled_time if not self.calendly_event_uri else None
        return f"{self.email}|{said.isoformat()}" if said else None

    def says_which(self) -> bool:
        return bool(self.calendly_event_uri or self.scheduled_time)

    def variables(self, settings: Mapping[str, Any], now: datetime) -> dict[str, Any]:
        return {
            **super().variables(settings, now),
            "call_date": spoken_date(self.scheduled_time),
            "call_time": spoken_time(self.scheduled_time),
            "event_type": self.event_type,
            "reschedule_url": _text(self.reschedule_url) or settings.get("calendly_link"),
        }


class Maybe(Person):
    """A call that ended with a maybe, in the flat form."""

    call_date: DayOrMoment = Field(None, description="2026-12-08, or a date and time with an offset")
    call_outcome: Name = None
    call_notes: Words = None
    objections: list[Annotated[str, StringConstraints(max_length=1000)]] = Field(default_factory=list, max_length=50)
    follow_up_priority: Name = None

    def attributes(self) -> dict[str, Any]:
        return {"phase": "Post-call", "diagnostic_call_date": _text(self.call_date)}

    def enrolment_key(self) -> str:
        return f"{self.email}|{day_key(self.call_date)}"

    def former_key(self) -> str | None:
        return f"{self.email}|{_day_as_said(self.call_date)}"

    def says_which(self) -> bool:
        return self.call_date is not None

    def variables(self, settings: Mapping[str, Any], now: datetime) -> dict[str, Any]:
        return {**super().variables(settings, now), "call_date": spoken_date(self.call_date)}


class Onboarding(Person):
    """A customer who has paid, in the flat form."""

    payment_confirmed: bool = Field(description="Unpaid onboarding starts nothing")
    payment_amount: Money = None
    payment_date: DayOrMoment = None
    docusign_completed: bool | None = Field(
        None, description="false: the mails wait for the signature; left out: the sender does not know of one"
    )
    salon_address: Words = None
    observation_dates: list[date] = Field(default_factory=list, max_length=50)
    start_date: Day = None
    package_type: Name = None

    def attributes(self) -> dict[str, Any]:
        return {"phase": "Onboarding" if self.payment_confirmed else None}

    def enrolment_key(self) -> str:
        return f"{self.email}|{day_key(self.payment_date)}"

    def former_key(self) -> str | None:
        return f"{self.email}|{_day_as_said(self.payment_date)}"

    def ignored_because(self) -> str | None:
        return None if self.payment_confirmed else "the payment is not confirmed"

    def facts(self) -> tuple[Fact, ...]:
        key = self._milestone_key()
        said = {MilestoneKind.PAID: self.payment_confirmed, MilestoneKind.SIGNED: bool(self.docusign_completed)}
        return tuple(MilestoneFact(kind, key, self._paid_at(), self._told()) for kind, true in said.items() if true)

    def _milestone_key(self) -> str:
        return f"{FLAT}{self.enrolment_key()}"

    def _is_mine(self, milestone: Milestone) -> bool:
        return milestone.key in {self._milestone_key(), f"{FLAT}{self.former_key()}"}

    def _paid_at(self) -> datetime | None:
        if isinstance(self.payment_date, datetime) or self.payment_date is None:
            return self.payment_date
        return datetime.combine(self.payment_date, time(), UTC)

    def counts_milestones(self) -> bool:
        return True

    def joined(self, known: Known) -> Payload:
        """A body that says both is enough by itself, and so is one that knows nothing of signatures.

        Not after what the services have said themselves of the same purchase: their dates may be others.
        """
        if self._started_by_services(known):
            raise NotYet(HAVE_STARTED)
        signed = any(m.kind is MilestoneKind.SIGNED and m.used_at is None for m in known.milestones)
        if self.docusign_completed is False and not signed:
            raise NotYet(WAITS_FOR_SIGNATURE)
        return self

    def _started_by_services(self, known: Known) -> bool:
        paid = max((m.at for m in known.milestones if self._is_mine(m)), default=None)
        used = [m for m in known.milestones if m.used_at is not None and not m.key.startswith(FLAT)]
        return any(paid is None or paid - m.at <= TOGETHER for m in used)

    def basis(self) -> Basis:
        return Basis.PURCHASE

    def consented_at(self, received_at: datetime) -> datetime:
        """The payment's own date, where it is known and past: two years count from the purchase."""
        if isinstance(self.payment_date, datetime):
            paid = self.payment_date
        elif self.payment_date is not None:
            paid = datetime.combine(self.payment_date, time(), UTC)
        else:
            paid = received_at
        return min(paid, received_at)

    def variables(self, settings: Mapping[str, Any], now: datetime) -> dict[str, Any]:
        return {**super().variables(settings, now), **self._told()}

    def _told(self) -> dict[str, Any]:
        """The mails' words for what the body knows, kept with the payment for mails that start with the signature."""
        told = {
            "first_name": self.first_name,
            "business_name": self.business_name,
            "payment_amount": f"{self.payment_amount:,.2f}" if self.payment_amount is not None else None,
            "payment_date": spoken_date(self.payment_date),
            "salon_address": self.salon_address,
            "observation_dates": "; ".join(filter(None, map(spoken_date, sorted(self.observation_dates)))) or None,
            "start_date": spoken_date(self.start_date),
            "package_type": self.package_type,
        }
        return {name: value for name, value in told.items() if value is not None}
