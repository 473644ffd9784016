"""A campaign with every rule about people, and a town for it: the real ledger and use cases, and time that steps."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

from fakes import FakeCopy, FakeMail, FakeSender
from pydantic import AwareDatetime, EmailStr
from sqlalchemy import text
from worlds import IDENTITY, LINKS

from tidings.accept import arrival
from tidings.campaign import ALWAYS, Campaign, Campaigns, Exit, Payload, Sequence, Step, Webhook
from tidings.confirm import confirm
from tidings.deliver import Delivery, Selection, Sent, send_next
from tidings.enrol import Enrolled, enrol
from tidings.errors import OutcomeUnknown, Refused, RetryLater
from tidings.ledger import Ledger, inbox, people
from tidings.ledger.tables import metadata
from tidings.model import (
    CALLED_OFF,
    MOVED,
    Arrival,
    Basis,
    BookingFact,
    BookingState,
    ContactFacts,
    Fact,
    MessageState,
    MilestoneFact,
    MilestoneKind,
    Report,
    Severity,
    Turn,
)
from tidings.outcome import take_reports

#: In the place of a sender's id: it sends none, and equal bodies are told apart by what was said meanwhile.
ANONYMOUS = "no id"
BOOKED = "the contact has booked"
PAID = "the contact has paid"


class Body(Payload):
    """What every webhook of the town says: whom it is about, and which booking or payment."""

    email: EmailStr
    key: str = ""

    def contact(self) -> ContactFacts | None:
        return ContactFacts(self.email)

    def enrolment_key(self) -> str:
        return f"{self.email}|{self.key}"

    def event_key(self) -> str | None:
        return None


class Signup(Body):
    consent: bool = True
    wording: str | None = None

    def contact(self) -> ContactFacts | None:
        return ContactFacts(self.email, consent=self.consent)

    def enrolment_key(self) -> str:
        return self.email

    def ignored_because(self) -> str | None:
        return None if self.consent else "no consent"

    def basis(self) -> Basis:
        return Basis.EXPRESS

    def consent_wording(self) -> str | None:
        return self.wording


class Call(Body):
    #: Counted from when the webhook came in, so that it keeps its place when time passes.
    in_hours: float
    #: The same as a moment, by which the calendar itself knows it.
    starts: AwareDatetime | None = None

    def facts(self) -> tuple[Fact, ...]:
        return (BookingFact(f"town:{self.key}", BookingState.BOOKED, None, self.starts),)

    def booking(self) -> str | None:
        return f"town:{self.key}"

    def anchor(self, received_at: datetime) -> datetime:
        return received_at + timedelta(hours=self.in_hours)


class MovedCall(Call):
    """A call that has taken the place of another one, as both calendars tell it."""

    old: str

    def facts(self) -> tuple[Fact, ...]:
        moved = BookingFact(f"town:{self.old}", BookingState.MOVED, None, ends={"call": MOVED})
        return (*super().facts(), moved)

    def follows(self) -> str | None:
        return f"town:{self.old}"


class CallOff(Body):
    def facts(self) -> tuple[Fact, ...]:
        return (BookingFact(f"town:{self.key}", BookingState.CANCELLED, None, ends={"call": CALLED_OFF}),)

    def ignored_because(self) -> str | None:
        return CALLED_OFF


class Payment(Body):
    def facts(self) -> tuple[Fact, ...]:
        return (MilestoneFact(MilestoneKind.PAID, f"town:{self.key}", None),)

    def basis(self) -> Basis:
        return Basis.PURCHASE


def _steps(name: str, *hours: float) -> tuple[Step, ...]:
    return tuple(Step(f"{name}_{n}", timedelta(hours=h)) for n, h in enumerate(hours, 1))


def _webhook(name: str, payload: type[Payload], sequence: str | None = None) -> Webhook:
    return Webhook(name, f"{name}-handler", name, sequence or name, payload, {}, f"Somebody did {name}")


_PAID = Exit(Turn.PAID, PAID, ever=True)
TOWN = Campaign(
    name="town",
    title="Town",
    sequences=(
        Sequence("club", "Club", _steps("club", 0, 24), priority=5, confirmation="club_ask", again_after=ALWAYS),
        Sequence(
            "lure", "Lure", _steps("lure", 0, 24, 72), priority=10, again_after=timedelta(days=30),
            exits=(Exit(Turn.BOOKED, BOOKED, ever=True), _PAID),
        ),
        Sequence("missed", "Missed", _steps("missed", 0.1, 24), priority=20, exits=(Exit(Turn.BOOKED, BOOKED), _PAID)),
        Sequence("maybe", "Maybe", _steps("maybe", 1, 72, 24 * 200), priority=30, exits=(_PAID,)),
        Sequence("call", "Call", _steps("call", -24, -1), priority=40, exits=(_PAID,)),
        Sequence("welcome", "Welcome", _steps("welcome", 1, 24), priority=50),
    ),
    webhooks=(
        _webhook("club", Signup), _webhook("lure", Signup), _webhook("missed", Body), _webhook("maybe", Body),
        _webhook("call", Call), _webhook("welcome", Payment), _webhook("off", CallOff, "call"),
        _webhook("moved", MovedCall, "call"),
    ),
)  # fmt: skip
CAMPAIGNS = Campaigns([TOWN])
SEVERITY = {"Permanent": Severity.HARD, "Transient": Severity.SOFT}


def now() -> datetime:
    return datetime.now(UTC)


class Town:
    """The use cases, called as runs and web servers call them. Time passes by making all that has happened older."""

    def __init__(self, ledger: Ledger) -> None:
        self.ledger = ledger
        self.sender = FakeSender()
        self.copy = FakeCopy({"club_ask": "<a href='{{ confirm_url }}'>Yes</a>"})
        self.delivery = Delivery(ledger, CAMPAIGNS, self.copy, self.sender, LINKS, IDENTITY, lease=120.0)

    # -- what happens --------------------------------------------------------------------------------------------

    async def take(self, path: str, email: str, *, event: str | None = None, **body: Any) -> UUID:
        """A webhook comes in; `event` is the sender's own id of it, for repeats. ANONYMOUS: it has none."""
        (event_id,) = await self.take_together(self.arrival(path, email, event=event, **body))
        return event_id

    def arrival(self, path: str, email: str, *, event: str | None = None, **body: Any) -> Arrival:
        webhook, at = TOWN.webhook(path), now()
        given = {"email": email, **body}
        if "in_hours" in body:
            given["starts"] = at + timedelta(hours=body["in_hours"])
        payload = webhook.payload.model_validate(given)
        raw = json.dumps(given, default=str)
        key = None if event == ANONYMOUS else event or str(uuid4())
        return arrival(TOWN, webhook, payload, body=raw, key=key, now=at, testing_minute=None)

    async def take_together(self, *arrivals: Arrival) -> list[UUID]:
        """Webhooks that one commit stores."""
        async with self.ledger.transaction() as connection:
            return [receipt.event_id for receipt in await inbox.accept(connection, arrivals)]

    async def handle(self, event_id: UUID) -> Enrolled:
        """The handler run of an event, up to its first mails."""
        return await enrol(self.ledger, self.copy, CAMPAIGNS, {}, [event_id], now())

    async def enter(self, path: str, email: str, **body: Any) -> UUID:
        """A webhook, handled at once."""
        event_id = await self.take(path, email, **body)
        await self.handle(event_id)
        return event_id

    async def send(self) -> Sent:
        """All that is due, as far as the sender lets it go."""
        total, run = Sent(), uuid4()
        while True:
            try:
                done = await send_next(self.delivery, Selection("town", now()), run)
            except (RetryLater, OutcomeUnknown, Refused):
                return total
            if done is None:
                return total
            total.add(done)

    async def report(
        self, mail: FakeMail, kind: str, *, svix_id: str | None = None, tagged: bool = True, **given: Any
    ) -> bool:
        """Resend reports on a mail; without our tags it is known by Resend's id alone."""
        states = {"delivered": MessageState.DELIVERED, "bounced": MessageState.BOUNCED,
                  "complained": MessageState.COMPLAINED, "sent": MessageState.SENT,
                  "failed": MessageState.FAILED}  # fmt: skip
        bounce = given.pop("bounce", "Permanent")
        severity = SEVERITY[bounce] if kind == "bounced" else Severity.COMPLAINT if kind == "complained" else None
        report = Report(
            id=svix_id or f"msg_{uuid4().hex}",
            type=f"email.{kind}",
            provider_id=mail.id,
            state=None if severity is Severity.SOFT else states.get(kind),
            at=given.pop("at", now()),
            reason=None,
            message_id=UUID(mail.tag("message")) if tagged else None,
            severity=severity,
        )
        return (await take_reports(self.ledger, [(report, "{}")], given.pop("now", None) or now()))[0]

    async def confirm(self, mail: FakeMail) -> bool:
        """The contact clicks in the mail that asks."""
        token = re.search(r"/confirm/([^'\"]+)", str(mail.payload["html"]))
        enrolment = LINKS.read_confirmation(token[1]) if token else None
        return enrolment is not None and await confirm(self.ledger, CAMPAIGNS, enrolment, now())

    async def suppress(self, email: str, *, sequence: str | None = None, reason: str = "asked us to stop") -> None:
        async with self.ledger.transaction() as connection:
            who = await people.known_contact(connection, email, now())
            await people.suppress(connection, who, reason=reason, source="test", now=now(), sequence=sequence)

    async def lift(self, email: str, *, sequence: str | None = None) -> int:
        async with self.ledger.transaction() as connection:
            who = await people.known_contact(connection, email, now())
            return await people.lift(connection, who, reason="a mistake", now=now(), sequence=sequence)

    async def pass_time(self, by: timedelta) -> None:
        """The clock steps on: every moment that was written down is this much longer ago."""
        async with self.ledger.transaction() as connection:
            for table in metadata.sorted_tables:
                moments = [c.name for c in table.columns if str(c.type) == "DATETIME"]
                if moments:
                    shifts = ", ".join(f"{name} = {name} - CAST(:by AS interval)" for name in moments)
                    await connection.execute(text(f"UPDATE {table.name} SET {shifts}"), {"by": by})
        self.sender.age(by)

    # -- what came of it -----------------------------------------------------------------------------------------

    async def rows(self, query: str, **values: Any) -> list[Any]:
        async with self.ledger.reading() as connection:
            return list((await connection.execute(text(query), values)).all())

    async def messages(self, email: str) -> list[Any]:
        return await self.rows(
            "SELECT m.*, e.key FROM message m JOIN enrolment e ON e.id = m.enrolment_id "
            "JOIN contact c ON c.id = e.contact_id WHERE c.email = :email ORDER BY m.due_at, m.position",
            email=email,
        )

    async def story(self, email: str) -> dict[str, str]:
        """Each template with its state, or the reason that it was not sent for. Of several rounds the last counts."""
        return {m.template: m.reason if m.state in ("skipped", "held") else m.state for m in await self.messages(email)}

    def got(self, email: str) -> list[str]:
        """The templates that have reached somebody, in order."""
        return [mail.tag("template") for mail in self.sender.mails if mail.to == email]


class Meanwhile:
    """Turns at the sender that are waited for: `act` happens once, while the mails of a claim are made already."""

    def __init__(self) -> None:
        self.act: Callable[[], None] | None = None
        self._lock = asyncio.Lock()

    async def turn(self) -> None:
        async with self._lock:  # nobody's turn comes before it has happened
            act, self.act = self.act, None
            if act:
                await asyncio.to_thread(act)

    async def learn(self, rate: float | None) -> None: ...

    async def rest(self, seconds: float) -> None: ...
