"""Compares the four sides: what senders got a 2xx for, the ledger, the inbox, Prefect. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

#: States in which the ledger says that the mail has gone out.
OUT = frozenset({"sent", "delivered"})
WAITING = frozenset({"scheduled", "sending"})

Mail = tuple[str, str]  # recipient, template


@dataclass(frozen=True)
class Asked:
    """A webhook as its sender knows it."""

    email: str
    templates: tuple[str, ...]
    #: The ids that 2xx answers named; none when it was never accepted.
    event_ids: frozenset[str]
    #: It was handed to the server at least once, whatever the answer.
    tried: bool = True

    @property
    def accepted(self) -> bool:
        return bool(self.event_ids)


@dataclass(frozen=True)
class Message:
    """A mail as the ledger has it."""

    id: str
    email: str
    template: str
    state: str
    reason: str | None
    provider_id: str | None
    payload: str | None


@dataclass(frozen=True)
class Arrived:
    """A mail as the sandbox's inbox has it: what a contact has got."""

    id: str
    email: str
    template: str
    message_id: str
    #: The request to Resend, as canonical JSON.
    payload: str


@dataclass(frozen=True)
class Run:
    """A run in Prefect that has not ended."""

    name: str
    state: str
    future: bool


@dataclass(frozen=True)
class Sides:
    """Everything that is compared."""

    asked: Sequence[Asked]
    events: Mapping[str, str]
    enrolments: int
    messages: Sequence[Message]
    inbox: Sequence[Arrived]
    runs: Sequence[Run]


@dataclass(frozen=True)
class Verdict:
    """Counts for the table, and every finding in words. Right when there is no finding."""

    accepted: int
    enrolled: int
    due: int
    delivered: int
    duplicates: int
    lost: int
    unknown: int
    findings: tuple[str, ...] = field(default=())

    @property
    def right(self) -> bool:
        return not self.findings


def judge(sides: Sides) -> Verdict:
    due = Counter(mail for a in sides.asked if a.accepted for mail in _mails(a))
    possible = Counter(mail for a in sides.asked if a.tried for mail in _mails(a))
    got = Counter((m.email, m.template) for m in sides.inbox)
    lost = due - got
    twice = {mail: count for mail, count in got.items() if count > 1}
    return Verdict(
        accepted=len({e for a in sides.asked for e in a.event_ids}),
        enrolled=sides.enrolments,
        due=due.total(),
        delivered=len(got),
        duplicates=sum(twice.values()) - len(twice),
        lost=lost.total(),
        unknown=sum(m.state == "unknown" for m in sides.messages),
        findings=(
            *_events(sides),
            *_lost(sides, list(lost)),
            *(f"doubled: {template} to {email} arrived {count} times" for (email, template), count in twice.items()),
            *_unasked(list(got), set(possible)),
            *_ledger(sides),
            *_prefect(sides),
        ),
    )


def _unasked(got: list[Mail], possible: set[Mail]) -> Iterator[str]:
    for email, template in got:
        if (email, template) not in possible:
            yield f"unasked: {template} to {email} came of no webhook"


def _mails(asked: Asked) -> Iterator[Mail]:
    return ((asked.email, template) for template in asked.templates)


def _events(sides: Sides) -> Iterator[str]:
    for asked in sides.asked:
        for event_id in sorted(asked.event_ids - sides.events.keys()):
            yield f"lost event: {event_id} of {asked.email} was answered 2xx and is not in the ledger"
        if len(asked.event_ids) > 1:
            yield f"doubled event: one webhook of {asked.email} is {len(asked.event_ids)} events"
        for event_id in sorted(asked.event_ids & sides.events.keys()):
            if sides.events[event_id] not in {"handled", "ignored"}:
                yield f"unfinished event: {event_id} of {asked.email} is {sides.events[event_id]}"


def _lost(sides: Sides, lost: list[Mail]) -> Iterator[str]:
    known: dict[Mail, list[Message]] = {}
    for message in sides.messages:
        known.setdefault((message.email, message.template), []).append(message)
    for mail in lost:
        said = ", ".join(_word(m) for m in known.get(mail, [])) or "nothing"
        yield f"lost: {mail[1]} to {mail[0]} did not arrive; the ledger says {said}"


def _word(message: Message) -> str:
    return message.state + (f" ({message.reason})" if message.reason else "")


def _ledger(sides: Sides) -> Iterator[str]:
    """Whether the ledger and the inbox tell the same story of each mail."""
    messages = {m.id: m for m in sides.messages}
    arrived = {m.message_id: m for m in sides.inbox}
    for mail in sides.inbox:
        message = messages.get(mail.message_id)
        if message is None:
            yield f"disagreed: {mail.template} to {mail.email} arrived, and the ledger has no such message"
        elif message.state not in OUT:
            yield f"disagreed: {mail.template} to {mail.email} arrived, and the ledger says {_word(message)}"
        elif message.payload != mail.payload:
            yield f"disagreed: {mail.template} to {mail.email} arrived with another content than the ledger stored"
    for message in sides.messages:
        if message.state in OUT and message.id not in arrived:
            yield f"disagreed: {message.template} to {message.email} is {message.state}, and nothing arrived"
        if message.state in WAITING:
            yield f"unfinished mail: {message.template} to {message.email} is {message.state}"
        if message.state == "unknown":
            yield f"unknown: {message.template} to {message.email}: {message.reason}"


def _prefect(sides: Sides) -> Iterator[str]:
    for run in sides.runs:
        if not run.future:
            yield f"unfinished run: {run.name} is {run.state} in Prefect"
