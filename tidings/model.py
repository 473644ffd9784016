"""The words of Tidings as frozen data: contacts, events, enrolments, messages and their states."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any
from uuid import UUID


class Scheme(StrEnum):
    """How a sender shows who it is."""

    BEARER = "bearer"
    STANDARD = "standard-webhooks"
    CALENDLY = "calendly"
    CALCOM = "calcom"
    STRIPE = "stripe"
    DOCUSIGN = "docusign"


class EventState(StrEnum):
    #: Stored and answered; Prefect does not know of it yet.
    ACCEPTED = "accepted"
    #: A handler run exists in Prefect.
    DISPATCHED = "dispatched"
    #: Enrolled, or found to be enrolled already.
    HANDLED = "handled"
    #: Stored, and starts nothing by rule (no consent, unpaid, an event that means nothing to us).
    IGNORED = "ignored"
    #: From an authenticated sender, and not valid; kept as it came, to be replayed when the code understands it.
    QUARANTINED = "quarantined"
    #: From the public form, and taken for a bot's; kept as it came, and handled only when an operator names it.
    BLOCKED = "blocked"
    #: Cannot be handled until a person mends something; `reason` says what. Replay it then.
    FAILED = "failed"


#: The reason of an event that an operator has made another of, with whose id it goes on.
TAKEN_IN = "taken in as "


class MessageState(StrEnum):
    #: Waits for the contact's click in the mail that asks for it (double opt-in); has no due time of its own yet.
    HELD = "held"
    #: Waits for its due time.
    SCHEDULED = "scheduled"
    #: Claimed by a run; its body is stored or about to be.
    SENDING = "sending"
    #: Resend has taken it and gave it an id.
    SENT = "sent"
    #: The recipient's server has taken it.
    DELIVERED = "delivered"
    #: The recipient's server refused it for good.
    BOUNCED = "bounced"
    #: The recipient called it spam.
    COMPLAINED = "complained"
    #: It will not go out: it cannot be rendered, or Resend refuses it. `reason` says why.
    FAILED = "failed"
    #: Not sent by rule; `reason` says which.
    SKIPPED = "skipped"
    #: A person cancelled it, or the call or no-show that it is about was called off, moved or taken back.
    CANCELLED = "cancelled"
    #: Handed to Resend more than its key's 24 hours ago without an answer: never sent again by itself.
    UNKNOWN = "unknown"


#: The position of the mail that asks the contact to confirm, before the first of its sequence.
ASKING = 0

#: Why the mails after it wait, and for how long a question without an answer keeps another from being asked.
UNCONFIRMED = "waits for the contact's click in the mail that asks for it"
ASKED_FOR = timedelta(days=30)

#: States from which a message never moves by itself.
FINAL_STATES = frozenset(MessageState) - {
    MessageState.HELD,
    MessageState.SCHEDULED,
    MessageState.SENDING,
    MessageState.SENT,
}


class Severity(StrEnum):
    """How bad a report is for further mails to the same address."""

    #: The address does not exist, or refuses us for good: suppressed at once.
    HARD = "hard"
    #: The contact called a mail spam: suppressed at once.
    COMPLAINT = "complaint"
    #: A mailbox that is full, a server that is away: counted, and suppressed for a time when they add up.
    SOFT = "soft"


#: Provider outcomes in rising order: a late or repeated event never lowers a message's state.
OUTCOME_RANK = {
    MessageState.SENT: 1,
    MessageState.DELIVERED: 2,
    MessageState.FAILED: 3,
    MessageState.BOUNCED: 3,
    MessageState.COMPLAINED: 4,
}


class BookingState(StrEnum):
    """What was last said of a booking, or of a contact's no-show at one."""

    BOOKED = "booked"
    CANCELLED = "cancelled"
    #: Another booking has taken its place; it never becomes anything else.
    MOVED = "moved"
    MISSED = "missed"
    #: A no-show that was taken back.
    ATTENDED = "attended"


#: Why a mail about a booking is not sent. When the booking moves, these mails, and no others that were stopped, get
#: another time.
MOVED = "the call was moved to another time"
CALLED_OFF = "the call was cancelled"
TAKEN_BACK = "the no-show was taken back"
TIME_PASSED = "its time had passed when the booking came in"
MOVABLE = (MOVED, CALLED_OFF, TIME_PASSED)
#: What of a booking ends a sequence about it, or keeps it from starting.
OVER = {BookingState.CANCELLED: CALLED_OFF, BookingState.MOVED: MOVED, BookingState.ATTENDED: TAKEN_BACK}


class MilestoneKind(StrEnum):
    """What a customer does once on the way in."""

    PAID = "paid"
    SIGNED = "signed"


@dataclass(frozen=True, slots=True)
class BookingFact:
    """What one webhook says of one booking. `ends` names sequences about it that end with that, and why."""

    key: str
    state: BookingState
    #: By the sender's clock; None: when the webhook came in. What was said earlier never overrules what was said later.
    said_at: datetime | None
    starts_at: datetime | None = None
    details: Mapping[str, Any] = field(default_factory=dict)
    ends: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class MilestoneFact:
    """That a contact has paid or signed, once however often it is said. None for `at`: when the webhook came in."""

    kind: MilestoneKind
    key: str
    at: datetime | None
    details: Mapping[str, Any] = field(default_factory=dict)


Fact = BookingFact | MilestoneFact


@dataclass(frozen=True, slots=True)
class Booking:
    """A booking, or a contact's no-show at one, as the ledger knows it."""

    key: str
    state: BookingState
    said_at: datetime
    starts_at: datetime | None
    details: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Milestone:
    """A payment or a signature as the ledger knows it."""

    kind: MilestoneKind
    key: str
    at: datetime
    details: Mapping[str, Any]
    #: When an enrolment was made with it; None: not yet.
    used_at: datetime | None


class Turn(StrEnum):
    """What ends sequences: the way that the contact was asked to go, taken."""

    #: A booking that still stands: neither cancelled nor moved to another.
    BOOKED = "booked"
    PAID = "paid"


class Basis(StrEnum):
    """What allows mails to a contact, as Canada's anti-spam law (CASL) tells them apart."""

    #: The contact said yes, and was told to what. Holds until it is withdrawn.
    EXPRESS = "express"
    #: The contact has bought something: implied for two years.
    PURCHASE = "purchase"
    #: The contact has asked or booked something: implied for six months.
    INQUIRY = "inquiry"


@dataclass(frozen=True, slots=True)
class Consent:
    """The evidence that an enrolment may be mailed."""

    basis: Basis
    #: Where it came in: the webhook's path.
    source: str
    at: datetime
    #: What the contact was told, or has done; None when the sender did not say.
    wording: str | None
    #: The address that it is for.
    address: str
    #: When implied consent runs out; None: not by itself.
    expires_at: datetime | None


#: The attribute of contacts that are no people: Notion does not show them, and no figure counts them.
INTERNAL = "internal"


@dataclass(frozen=True, slots=True)
class ContactFacts:
    """What one webhook says about a person. Unknown values are None and never overwrite known ones."""

    email: str
    first_name: str | None = None
    business_name: str | None = None
    consent: bool | None = None
    attributes: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Quota:
    """How many new events one sender may bring within a while (tidings.ledger.limits.WINDOW)."""

    #: What it counts by: "client address" or "email".
    kind: str
    #: A keyed digest of the address: whoever reads the table learns nobody's.
    bucket: int
    limit: int


@dataclass(frozen=True, slots=True)
class Over:
    """A quota that is used up, and until when."""

    quota: Quota
    until: datetime


@dataclass(frozen=True, slots=True)
class Arrival:
    """A validated webhook, ready to be stored."""

    id: UUID
    source: str
    key: str
    campaign: str
    deployment: str
    body: str
    contact: ContactFacts | None
    received_at: datetime
    #: Why it starts nothing, or None when it does.
    ignored_because: str | None
    #: Length of a "minute" in seconds while TESTING_MODE is on, else None.
    testing_minute: float | None
    #: What it says of bookings, payments and signatures.
    facts: tuple[Fact, ...] = ()
    #: What it is counted against; empty for senders that are known.
    quotas: tuple[Quota, ...] = ()
    #: Whether a contact may say the very same again: its key is a digest, and nothing in it is the sender's own time.
    repeatable: bool = False
    #: The service whose own list it was found in; None: its sender posted it.
    origin: str | None = None
    #: A digest of the id that it was signed with, where no route is signed: it comes in by one alone.
    signed_id: str | None = None


@dataclass(frozen=True, slots=True)
class Found:
    """What a service's own list shows, as the body of the webhook that should have told of it."""

    body: Mapping[str, Any]
    #: When it happened, by the service's clock.
    at: datetime
    #: When the meeting begins that it is about; None: it is about none.
    starts_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class Subscription:
    """A webhook subscription at a service."""

    uri: str
    url: str
    #: False: the service has switched it off.
    active: bool
    #: What it tells of, by the service's own names.
    events: frozenset[str]


@dataclass(frozen=True, slots=True)
class Receipt:
    """What became of a webhook: the answer's content."""

    event_id: UUID
    contact_created: bool
    duplicate: bool
    ignored_because: str | None
    flow_run_id: UUID | None
    dispatch_id: UUID | None
    #: Set when it was not stored, because its sender has to wait.
    over: Over | None = None
    #: Set when it was not stored, because its signed id has come in by this other route before.
    elsewhere: str | None = None


@dataclass(frozen=True, slots=True)
class Event:
    """A stored webhook as the handler reads it."""

    id: UUID
    source: str
    campaign: str
    body: str
    contact_id: UUID | None
    email: str | None
    received_at: datetime
    testing_minute: float | None
    state: EventState


@dataclass(frozen=True, slots=True)
class PlannedMessage:
    """One mail of an enrolment, before it is stored."""

    position: int
    template: str
    due_at: datetime
    slot_at: datetime
    state: MessageState
    reason: str | None = None


@dataclass(frozen=True, slots=True)
class Plan:
    """An enrolment about to be stored with all its messages."""

    event_id: UUID
    contact_id: UUID
    campaign: str
    sequence: str
    key: str
    segment: str | None
    variables: Mapping[str, Any]
    anchor: datetime
    received_at: datetime
    testing_minute: float | None
    messages: tuple[PlannedMessage, ...]
    #: The booking that it is about, when it ends or moves with that; the one whose place that has taken; and when
    #: this was said.
    booking: str | None = None
    follows: str | None = None
    said_at: datetime | None = None
    #: It takes the contact's payments and signatures together, and uses them up.
    counts_milestones: bool = False
    consent: Consent | None = None
    #: How long after its end the sequence may be entered again under the same key; None: never.
    again_after: timedelta | None = None
    #: Another key under which the same enrolment may be stored already, since an earlier version.
    former_key: str | None = None


@dataclass(frozen=True, slots=True)
class Slot:
    """All mails of one template that are due in the same minute: one run in Prefect."""

    campaign: str
    sequence: str
    template: str
    at: datetime


@dataclass(frozen=True, slots=True)
class Allowance:
    """How many mails a service lets the account send in a day or a month, and how many of them are used."""

    #: "daily" or "monthly".
    period: str
    used: int
    limit: int


@dataclass(frozen=True, slots=True)
class Stuck:
    """A Prefect run that does not get on."""

    id: UUID
    deployment: str
    #: When it came into its present state, or should have begun.
    since: datetime
    #: It waits for a worker; else one has it.
    waits: bool


@dataclass(frozen=True, slots=True)
class UnderWay:
    """A Prefect run that a worker has taken."""

    id: UUID
    #: When it came into its present state.
    since: datetime
    #: Its process has not begun yet.
    pending: bool


@dataclass(frozen=True, slots=True)
class Template:
    """Copy as it stands in Notion now."""

    name: str
    subject: str
    body: str
    page_id: str
    edited_at: str


@dataclass(frozen=True, slots=True)
class Mail:
    """A rendered mail: subject, HTML part and text part."""

    subject: str
    html: str
    text: str


@dataclass(frozen=True, slots=True)
class Listed:
    """The sender's own list of mails: id, from and created_at of each, newest first."""

    mails: tuple[Mapping[str, Any], ...]
    #: From when on it has every mail.
    since: datetime


@dataclass(frozen=True, slots=True)
class Report:
    """One webhook of the sender's, understood."""

    #: The delivery's own id, the same in every repeat.
    id: str
    type: str
    provider_id: str | None
    #: What it makes of the message; None when it changes nothing.
    state: MessageState | None
    at: datetime
    reason: str | None
    #: Our message's id, when our tags came back.
    message_id: UUID | None = None
    #: What it says about the address; None when nothing.
    severity: Severity | None = None
