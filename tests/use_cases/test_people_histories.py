"""Random histories of people against the real ledger: nobody is mailed who may not be, and nothing is missing (F18).

Hypothesis makes the histories: signups, bookings, moves, payments, bounces, complaints, unsubscribes, clicks, clock
steps, replays, a sender in trouble, and what happens while mails are on their way to it. A model in plain Python says
beside it who may be mailed. TIDINGS_HISTORIES sets how many histories are tried; their rules, calls and mails are
printed at the end (pytest -s).
"""

from __future__ import annotations

import asyncio
import copy
import os
import threading
from collections import Counter
from collections.abc import Callable, Coroutine, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, ClassVar
from uuid import UUID

import pytest
from fakes import REFUSED, FakeMail, FakeRuns
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule, run_state_machine_as_test
from sqlalchemy import text
from town import ANONYMOUS, BOOKED, CAMPAIGNS, PAID, TOWN, Meanwhile, Town, now
from worlds import TABLES, address, replay_named

from tidings import deliver
from tidings.confirm import ANSWERED
from tidings.deliver import Delivery, Sent
from tidings.errors import MessageRefused
from tidings.ledger import Ledger, inbox, mails, outcomes, people, permission
from tidings.ledger.inbox import REPEATED_FOR
from tidings.ledger.mails import UNREAD, Claim
from tidings.ledger.permission import WITHDRAWN
from tidings.model import ASKED_FOR, CALLED_OFF, MOVED, TIME_PASSED, MessageState
from tidings.settings import asyncpg_url

HISTORIES = int(os.environ.get("TIDINGS_HISTORIES", "20"))
STEPS = 40
HOUR, DAY = timedelta(hours=1), timedelta(days=1)
PEOPLE = st.integers(0, 2)
#: Which of several, counted round: what is drawn must not depend on how many there are.
PICK = st.integers(0, 999)
#: Added to each step of the clock, so that nothing comes due in the very minute that a test looks.
ASIDE = timedelta(minutes=2)
RANK = {s.name: s.priority for s in TOWN.sequences}
#: Implied consent in days: surely still good, surely run out (months differ in length).
GOOD = {"inquiry": (181, 185), "purchase": (729, 732)}
UNANSWERED = "without an answer"
REPORTS = ["delivered", "soft", "soft", "soft", "bounced", "complained", "opened"]
#: What can happen while mails that are made already wait for their turn at the sender.
MEANWHILE = ["leaves", "pays", "books", "takes consent back", "calls off", "moves", "handlers run"]
#: Reasons that the model knows no exact moment of.
LENIENT = ("has run out", "goes first", CALLED_OFF, TIME_PASSED, ANSWERED, UNREAD, MOVED, REFUSED, UNANSWERED)
BASIS = {"club": "express", "lure": "express", "welcome": "purchase"}


@dataclass
class Stop:
    """A suppression as the model has it."""

    why: str
    source: str
    sequence: str | None
    until: timedelta | None
    lifted: bool = False

    @property
    def in_ledger(self) -> tuple[str, str | None, bool]:
        return (self.source, self.sequence, self.until is None)


@dataclass
class Happened:
    """A webhook as the model has it."""

    path: str
    email: str
    at: timedelta
    key: str
    sender_id: str
    consent: bool | None = None

    @property
    def business(self) -> str:
        """The key that its enrolment has."""
        return self.email if self.key == self.email else f"{self.email}|{self.key}"


@dataclass
class Person:
    """What the model knows of somebody."""

    email: str
    stops: list[Stop] = field(default_factory=list)
    #: Every reason to stop that there ever was, also those that changed nothing.
    heard: list[tuple[str, str | None]] = field(default_factory=list)
    said: list[tuple[timedelta, bool]] = field(default_factory=list)
    bookings: dict[str, timedelta] = field(default_factory=dict)
    #: By booking, when its call was first booked: one that moves takes its mails along, and what they rest on.
    began: dict[str, timedelta] = field(default_factory=dict)
    #: Every booking that ever was, also those called off: what was skipped for them stays skipped.
    booked: list[timedelta] = field(default_factory=list)
    called_off: set[str] = field(default_factory=set)
    moved: set[str] = field(default_factory=set)
    paid: timedelta | None = None
    soft: list[timedelta] = field(default_factory=list)
    confirmed: set[UUID] = field(default_factory=set)


class Histories(RuleBasedStateMachine):
    """One history: a town of three people."""

    ledger: ClassVar[Ledger]
    loop: ClassVar[asyncio.AbstractEventLoop]
    counts: ClassVar[Counter[str]] = Counter()

    # -- the stage -----------------------------------------------------------------------------------------------

    @initialize()
    def begin(self) -> None:
        self.town = Town(self.ledger)
        self.runs = FakeRuns()
        self.people = [Person(address()) for _ in range(3)]
        self.by_email = {p.email: p for p in self.people}
        self.clock = timedelta()
        self.tick = 0
        self.events: dict[UUID, Happened] = {}
        self.unhandled: list[UUID] = []
        self.checked_mails = 0
        #: Whom each mail went to, as the model knew them in that moment.
        self.recipients: list[Person] = []
        self.town.sender.on_mail = lambda mail: self.recipients.append(copy.deepcopy(self.by_email[mail.to]))
        self.turns = self.town.delivery.turns = Meanwhile()
        #: The last event of each body that came without an id.
        self.silent: dict[tuple[str, str, bool | None], UUID] = {}
        self.turned_bad: set[str] = set()
        self.unanswered = False
        self.checked: set[UUID] = set()
        self.delivered: set[str] = set()
        self.bounced: set[UUID] = set()
        self.counts["histories"] += 1
        self._do(self._empty())

    async def _empty(self) -> None:
        async with self.ledger.transaction() as connection:
            for table in TABLES:
                await connection.exec_driver_sql(f"DELETE FROM {table}")

    def _do(self, work: Coroutine[Any, Any, Any]) -> Any:
        self.counts["calls of use cases"] += 1
        return asyncio.run_coroutine_threadsafe(work, self.loop).result(60)

    def _now(self) -> timedelta:
        """The model's clock; what happens later is later, be it by a microsecond."""
        self.tick += 1
        return self.clock + timedelta(microseconds=self.tick)

    # -- what can happen -----------------------------------------------------------------------------------------

    def _take(self, who: int, path: str, key: str = "", **body: Any) -> None:
        person, sender_id = self.people[who], f"evt-{len(self.events)}-{self.tick}"
        at = self._now()
        event = self._do(self.town.take(path, person.email, event=sender_id, key=key, **body))
        self._took(event, Happened(path, person.email, at, key or person.email, sender_id, body.get("consent")))

    def _took(self, event: UUID, happened: Happened) -> None:
        """What a new event makes of somebody."""
        person, path, at = self.by_email[happened.email], happened.path, happened.at
        self.events[event] = happened
        if happened.consent is not False and path != "off":
            self.unhandled.append(event)
        if happened.consent is not None:
            person.said.append((at, happened.consent))
        if path in ("call", "moved"):
            person.bookings[happened.key] = person.began[happened.key] = at
            person.booked.append(at)
        if path == "welcome" and person.paid is None:
            person.paid = at

    @rule(
        who=PEOPLE,
        what=st.sampled_from([("lure", True), ("lure", True), ("lure", False), ("missed", None), ("welcome", None)]),
        again_after=st.sampled_from([None, HOUR, 3 * DAY]),
    )
    def says_without_an_id(self, who: int, what: tuple[str, bool | None], again_after: timedelta | None) -> None:
        """A body that its sender gives no id; with `again_after` the very same comes again so much later."""
        self._say(who, *what)
        if again_after is not None:
            self.time_passes(again_after)
            self._say(who, *what)

    def _say(self, who: int, path: str, consent: bool | None) -> None:
        person, at = self.people[who], self._now()
        body = {} if consent is None else {"consent": consent}
        event = self._do(self.town.take(path, person.email, event=ANONYMOUS, key=f"same-{who}", **body))
        said = (path, person.email, consent)
        before = self.events[self.silent[said]] if said in self.silent else None
        late = before is not None and at - before.at > REPEATED_FOR
        otherwise = consent is not None and bool(person.said) and person.said[-1][1] != consent
        if before is not None and not late and not otherwise:
            assert event == self.silent[said], f"the same {path} was taken for another one"
            return
        assert event not in self.events, f"another {path} was taken for the same"
        self.silent[said] = event
        key = person.email if path == "lure" else f"same-{who}"
        self._took(event, Happened(path, person.email, at, key, ANONYMOUS, consent))

    @rule(who=PEOPLE, last=st.booleans())
    def says_both_at_once(self, who: int, last: bool) -> None:
        """Two webhooks of one contact that one commit stores: the later word counts."""
        email, told = self.people[who].email, []
        for consent in (not last, last):
            sender_id = f"evt-{len(self.events)}-{self.tick}"
            told.append(Happened("lure", email, self._now(), email, sender_id, consent))
        both = [self.town.arrival("lure", email, event=h.sender_id, consent=h.consent) for h in told]
        for event, happened in zip(self._do(self.town.take_together(*both)), told, strict=True):
            self._took(event, happened)

    @rule(
        who=PEOPLE, path=st.sampled_from(["club", "lure", "lure"]), consent=st.sampled_from([True, True, True, False])
    )
    def signs_up(self, who: int, path: str, consent: bool) -> None:
        self._take(who, path, consent=consent)

    @rule(who=PEOPLE, path=st.sampled_from(["missed", "maybe"]), n=st.integers(1, 3))
    def misses_or_hesitates(self, who: int, path: str, n: int) -> None:
        self._take(who, path, key=f"{path}-{n}")

    @rule(who=PEOPLE, hours=st.sampled_from([0.5, 12, 30, 200]))
    def books(self, who: int, hours: float) -> None:
        self._take(who, "call", key=f"b{who}-{len(self.events)}", in_hours=hours)

    @precondition(lambda self: any(p.bookings for p in self.people))
    @rule(pick=PICK, hours=st.sampled_from([0.5, 30, 200]), handled=st.booleans())
    def moves(self, pick: int, hours: float, handled: bool) -> None:
        if self.unhandled and handled:
            self.handlers_run()
        booked = [(n, k) for n, p in enumerate(self.people) for k in p.bookings]
        if not booked:
            return
        self._move(*booked[pick % len(booked)], hours)
        if handled:
            self.handlers_run()

    def _move(self, who: int, key: str, hours: float) -> None:
        person, new = self.people[who], f"b{who}-{len(self.events)}"
        self._take(who, "moved", key=new, old=key, in_hours=hours)
        person.began[new] = person.began[key]
        del person.bookings[key]
        person.moved.add(key)

    @rule(who=PEOPLE, hours=st.sampled_from([0.5, 12]))
    def is_missed_and_books_again(self, who: int, hours: float) -> None:
        self.misses_or_hesitates(who, "missed", len(self.events))
        self.handlers_run()
        self.books(who, hours)

    @precondition(lambda self: any(p.bookings for p in self.people))
    @rule(pick=PICK)
    def calls_off(self, pick: int) -> None:
        booked = [(n, k) for n, p in enumerate(self.people) for k in p.bookings]
        if not booked:
            return
        who, key = booked[pick % len(booked)]
        self._take(who, "off", key=key)
        del self.people[who].bookings[key]
        self.people[who].called_off.add(key)

    @rule(who=PEOPLE)
    def pays(self, who: int) -> None:
        self._take(who, "welcome", key=f"p{who}")

    @precondition(lambda self: self.events)
    @rule(pick=PICK)
    def a_sender_repeats(self, pick: int) -> None:
        event = list(self.events)[pick % len(self.events)]
        known = self.events[event]
        if known.sender_id == ANONYMOUS:
            return
        body = {"in_hours": 5, "old": "x"} if known.path in ("call", "moved") else {}
        assert self._do(self.town.take(known.path, known.email, event=known.sender_id, key=known.key, **body)) == event

    @precondition(lambda self: self.events)
    @rule(pick=PICK)
    def an_operator_replays(self, pick: int) -> None:
        event = list(self.events)[pick % len(self.events)]
        done = self._do(replay_named(self.ledger, self.runs, CAMPAIGNS, event))
        if done[event] == "replayed" and event not in self.unhandled:
            self.unhandled.append(event)

    @precondition(lambda self: self.unhandled)
    @rule()
    def handlers_run(self) -> None:
        waiting, self.unhandled = self.unhandled, []
        for event in waiting:
            happened = self.events[event]
            running = self._running(happened)
            done = self._do(self.town.handle(event))
            assert not done.failed
            assert not (done.new and running), f"{happened.path} was entered again while it runs"
        rows = self._do(self.town.rows("SELECT v.id, v.state, v.reason, e.id AS enrolment FROM event v "
                                       "LEFT JOIN enrolment e ON e.event_id = v.id WHERE v.id = ANY(:ids)",
                                       ids=waiting))  # fmt: skip
        for row in rows:
            assert row.state == "handled", f"{row.state}: {row.reason}"
            assert row.enrolment is not None or row.reason, "an event started nothing, and nothing says why"
        self._check_rounds()
        self._check_moves(waiting)

    def _check_moves(self, handled: Sequence[UUID]) -> None:
        """Where a call has moved to a time that still stands, its mails are planned for that, and none says "moved"."""
        for happened in [self.events[event] for event in handled]:
            if happened.path != "moved" or happened.key not in self.by_email[happened.email].bookings:
                continue
            rows = self._do(self.town.rows(
                "SELECT m.position, m.state, m.reason, e.anchor - m.due_at AS before FROM enrolment e "
                "JOIN message m ON m.enrolment_id = e.id WHERE e.booking = :booking ORDER BY m.position",
                booking=f"town:{happened.key}",
            ))  # fmt: skip
            assert [row.position for row in rows] == [1, 2], "a call has moved, and no mails are about it"
            assert MOVED not in [row.reason for row in rows], "a mail was stopped for a move that has been followed"
            waiting = [row.before for row in rows if row.state == "scheduled"]
            # Handled later than this, the town counts its hours from then: a real calendar's body has the very moment.
            fresh = self.clock - happened.at < HOUR
            assert not fresh or set(waiting) <= {DAY, HOUR}, f"a mail about a moved call is due {waiting} before it"

    def _running(self, happened: Happened) -> bool:
        """Whether mails of this sequence and business key still wait."""
        return bool(self._do(self.town.rows(
            "SELECT 1 FROM message m JOIN enrolment e ON e.id = m.enrolment_id WHERE e.sequence = :sequence "
            "AND (m.state IN ('scheduled', 'sending') OR m.state = 'held' AND m.created_at > now() - "
            "CAST(:asked AS interval)) AND ("
            "e.key = :key OR e.key LIKE :key || '#%')",
            sequence=happened.path, key=happened.business, asked=ASKED_FOR,
        )))  # fmt: skip

    @rule(step=st.sampled_from([HOUR, 6 * HOUR, DAY, DAY, 3 * DAY, 40 * DAY, 190 * DAY]))
    def time_passes(self, step: timedelta) -> None:
        self.clock += step + ASIDE
        self._do(self.town.pass_time(step + ASIDE))

    @rule(days=st.integers(1, 8))
    def days_go_by(self, days: int) -> None:
        """The ordinary course: handlers run, and each day what is due is sent."""
        if self.unhandled:
            self.handlers_run()
        for _ in range(days):
            self.mails_are_sent(1)
            self.time_passes(DAY)

    @rule(trouble=st.sampled_from([None, None, "away", "lost", "broken", "locked"]), strict=st.booleans())
    def the_sender_changes(self, trouble: str | None, strict: bool) -> None:
        self.town.sender.trouble, self.town.sender.strict = trouble, strict

    @rule(who=PEOPLE)
    def an_address_turns_bad_or_good(self, who: int) -> None:
        self.town.sender.bad ^= {self.people[who].email}
        self.turned_bad |= self.town.sender.bad

    @rule(workers=st.sampled_from([1, 1, 2]))
    def mails_are_sent(self, workers: int) -> None:
        self._check()
        self.unanswered |= self.town.sender.trouble in ("lost", "broken")
        asked = now()
        self._do(self._send(workers))
        self._check(asked)

    def _newcomer(self, path: str = "lure", key: str = "", **body: Any) -> int:
        """Somebody of whom nothing is known yet, whose first mail is due now and can be sent."""
        self.people.append(Person(address()))
        self.by_email[self.people[-1].email] = self.people[-1]
        who = len(self.people) - 1
        self._take(who, path, key=key, **body)
        self.handlers_run()
        self.town.sender.trouble = None
        return who

    @rule(what=st.sampled_from(MEANWHILE), pick=PICK, workers=st.sampled_from([1, 1, 2]))
    def something_happens_while_mails_wait_for_their_turn(self, what: str, pick: int, workers: int) -> None:
        who = self._newcomer(consent=True)
        acts: dict[str, Callable[[], Any]] = {
            "leaves": lambda: self.leaves(who, None),
            "pays": lambda: self.pays(who),
            "books": lambda: self.books(who, 200),
            "takes consent back": lambda: self.signs_up(who, "lure", False),
            "calls off": lambda: self.calls_off(pick),
            "moves": lambda: self.moves(pick, 200, False),
            "handlers run": lambda: self.handlers_run(),
        }
        self.turns.act = acts[what]
        self.mails_are_sent(workers)
        self.turns.act = None

    @rule(
        outage=st.sampled_from([("lost", timedelta()), ("broken", HOUR), ("broken", 20 * HOUR), ("lost", 20 * HOUR)]),
        what=st.sampled_from(["leaves", "pays", "takes consent back"]),
    )
    def somebody_turns_away_while_an_answer_is_missing(self, outage: tuple[str, timedelta], what: str) -> None:
        trouble, wait = outage
        who = self._newcomer(consent=True)
        self.town.sender.trouble = trouble
        self.mails_are_sent(1)
        self.town.sender.trouble = None
        acts = {"leaves": lambda: self.leaves(who, None), "pays": lambda: self.pays(who)}
        acts.get(what, lambda: self.signs_up(who, "lure", False))()
        self.time_passes(wait)
        self.mails_are_sent(1)

    @rule(outage=st.sampled_from([("away", 30 * HOUR), ("locked", HOUR), ("broken", 20 * HOUR)]))
    def the_sender_does_nothing_for_a_while(self, outage: tuple[str, timedelta]) -> None:
        """Broken for no longer than a key is good: after that only a person can say."""
        trouble, wait = outage
        who = self._newcomer(consent=True)
        self.town.sender.trouble = trouble
        self.mails_are_sent(1)
        self.time_passes(wait)
        self.mails_are_sent(1)
        self.town.sender.trouble = None
        for _ in range(2):  # where somebody of its claim may not be mailed any more, it gets a new one first
            self.time_passes(HOUR)
            self.mails_are_sent(1)
        self._check_got(who, "lure_1")

    @rule(strict=st.booleans())
    def an_address_is_refused_beside_a_good_one(self, strict: bool) -> None:
        bad, good = self._newcomer(consent=True), self._newcomer(consent=True)
        self.town.sender.strict = strict
        self.town.sender.bad |= {self.people[bad].email}
        self.turned_bad |= self.town.sender.bad
        self.mails_are_sent(1)
        self._check_got(good, "lure_1")

    def _check_got(self, who: int, template: str) -> None:
        got = self.town.got(self.people[who].email)
        assert template in got, f"{template} did not reach somebody who nothing stood against"

    @rule()
    def misses_a_call_right_after_signing_up(self) -> None:
        who = self._newcomer(consent=True)
        self._take(who, "missed", key="m")
        self.handlers_run()
        self.mails_are_sent(1)

    @rule(hours=st.sampled_from([30, 200]))
    def books_and_moves(self, hours: float) -> None:
        who = self._newcomer("call", key=f"n{len(self.people)}", in_hours=150)
        (key,) = self.people[who].bookings
        self._move(who, key, hours)
        self.handlers_run()

    @rule(who=PEOPLE, first=st.booleans())
    def says_the_same_as_before_the_opposite(self, who: int, first: bool) -> None:
        for consent in (first, not first, first):
            self._say(who, "lure", consent)
        self.time_passes(HOUR)

    @rule(step=st.sampled_from([31 * DAY, 40 * DAY]))
    def is_asked_twice_and_answers_both(self, step: timedelta) -> None:
        who = self._newcomer("club", consent=True)
        self.mails_are_sent(1)
        self.time_passes(step)
        self.signs_up(who, "club", True)
        self.handlers_run()
        self.mails_are_sent(1)
        asked = [m for m in self.town.sender.mails if m.to == self.people[who].email]
        if len(asked) == 2:  # the sender may not have let the second one go
            self.people[who].confirmed |= {UUID(mail.tag("message")) for mail in asked}
            self._do(self._together(*[self.town.confirm(mail) for mail in asked]))
            self._check_one_answer(asked)
            self.mails_are_sent(1)

    def _check_one_answer(self, asked: Sequence[FakeMail]) -> None:
        rows = self._do(self.town.rows(
            "SELECT count(DISTINCT o.enrolment_id) AS rounds FROM message m JOIN message o USING (enrolment_id) "
            "WHERE m.id = ANY(:ids) AND o.state = 'scheduled'", ids=[UUID(mail.tag("message")) for mail in asked]
        ))  # fmt: skip
        assert rows[0].rounds == 1, f"{rows[0].rounds} rounds begin after one contact's clicks"

    @rule()
    def half_a_year_goes_by_after_a_call(self) -> None:
        self._newcomer("maybe", key="m")
        self.mails_are_sent(1)
        self.time_passes(201 * DAY)
        self.mails_are_sent(1)

    @rule(kind=st.sampled_from(["complained", "bounced", "soft"]))
    def resend_reports_before_it_answers(self, kind: str) -> None:
        """Without our tags, so that nothing can be made of it until the answer says whose it is."""
        self._newcomer(consent=True)
        first = len(self.town.sender.mails)

        async def report() -> None:
            self.town.sender.before_answer = None
            if len(self.town.sender.mails) > first:
                mails = sorted(self.town.sender.mails[first:], key=self._place)
                for _ in range(3 if kind == "soft" else 1):
                    await asyncio.to_thread(self._report, mails[0], kind, 1, tagged=False)

        self.town.sender.before_answer = report
        self.mails_are_sent(1)
        self.town.sender.before_answer = None

    async def _send(self, workers: int) -> None:
        await asyncio.gather(*[self.town.send() for _ in range(workers)])

    @precondition(lambda self: self.town.sender.mails)
    @rule(pick=PICK, kind=st.sampled_from(REPORTS), times=st.integers(1, 2))
    def resend_reports(self, pick: int, kind: str, times: int) -> None:
        self._report(self._mail(pick), kind, times)

    @precondition(lambda self: self.town.sender.mails)
    @rule(pick=PICK)
    def a_mailbox_stays_full(self, pick: int) -> None:
        for _ in range(3):
            self._report(self._mail(pick), "soft", 1)

    def _mail(self, pick: int, template: str = "") -> FakeMail:
        """One of the mails that have left; the same for the same history, in whatever order a batch had them."""
        mails = [m for m in self.town.sender.mails if template in ("", m.tag("template"))]
        mails.sort(key=self._place)
        return mails[pick % len(mails)]

    def _place(self, mail: FakeMail) -> tuple[list[bool], str]:
        return ([mail.to == person.email for person in self.people], mail.tag("template"))

    def _report(self, mail: FakeMail, kind: str, times: int, *, tagged: bool = True) -> None:
        if kind == "soft" and tagged and self._unsettled(mail):
            return
        at = self._now()
        for _ in range(times):
            self._do(self.town.report(mail, "bounced" if kind == "soft" else kind, svix_id=f"msg-{self.tick}",
                                      bounce="Transient" if kind == "soft" else "Permanent",
                                      tagged=tagged))  # fmt: skip
        self._judge(self.by_email[mail.to], mail, kind, at)

    def _unsettled(self, mail: FakeMail) -> bool:
        """Its answer is missing still: soft bounces are counted when that is there, so the model leaves them out."""
        given = self._do(self.town.rows("SELECT provider_id FROM message WHERE id = :id", id=UUID(mail.tag("message"))))
        return given[0].provider_id is None

    @precondition(lambda self: self.town.sender.mails)
    @rule(pick=PICK)
    def several_processes_hear_of_a_full_mailbox_at_once(self, pick: int) -> None:
        mail = self._mail(pick)
        person = self.by_email[mail.to]
        if self._unsettled(mail) or person.soft or any(stop.until and self._active(stop) for stop in person.stops):
            return  # of these it is not known which of the three is the one too many
        at, moment = self._now(), now()
        svix_ids = [f"msg-{self.tick}-{n}" for n in range(3)]
        self._do(self._together(*[
            self.town.report(mail, "bounced", svix_id=svix_id, bounce="Transient", now=moment) for svix_id in svix_ids
        ]))  # fmt: skip
        for _ in svix_ids:
            self._judge(person, mail, "soft", at)

    async def _together(self, *work: Coroutine[Any, Any, Any]) -> None:
        await asyncio.gather(*work)

    def _judge(self, person: Person, mail: FakeMail, kind: str, at: timedelta) -> None:
        if kind == "delivered" and mail.id not in self.delivered:
            self.delivered.add(mail.id)
            person.soft = []
        if kind == "bounced":
            self.bounced.add(UUID(mail.tag("message")))
        if kind in ("bounced", "complained"):
            why = "bounced for good" if kind == "bounced" else "called a mail spam"
            self._stop(person, why, "resend", None, None)
        if kind == "soft":
            person.soft = [each for each in person.soft if at - each < 30 * DAY] + [at]
            if len(person.soft) >= 3 and self._stop(person, "bounced 3 times", "resend", None, at + 7 * DAY):
                person.soft = []

    @rule(who=PEOPLE, sequence=st.sampled_from([None, None, "lure", "maybe", "welcome"]))
    def leaves(self, who: int, sequence: str | None) -> None:
        self._stop(self.people[who], "asked us to stop", "test", sequence, None)
        email = self.people[who].email  # who presses the button twice is heard by two processes
        self._do(self._together(*[self.town.suppress(email, sequence=sequence) for _ in range(2)]))

    @rule(who=PEOPLE, sequence=st.sampled_from([None, "lure", "maybe", "welcome"]))
    def is_let_in_again(self, who: int, sequence: str | None) -> None:
        person = self.people[who]
        for stop in person.stops:
            if self._active(stop) and stop.sequence == sequence:
                stop.lifted = True
        self._do(self.town.lift(person.email, sequence=sequence))

    @precondition(lambda self: any(m.tag("template") == "club_ask" for m in self.town.sender.mails))
    @rule(pick=PICK)
    def clicks(self, pick: int) -> None:
        mail = self._mail(pick, "club_ask")
        assert self._do(self.town.confirm(mail))
        self.by_email[mail.to].confirmed.add(UUID(mail.tag("message")))

    # -- who may be mailed, in the model's words -----------------------------------------------------------------

    def _active(self, stop: Stop) -> bool:
        return not stop.lifted and (stop.until is None or stop.until > self.clock)

    def _stop(self, person: Person, why: str, source: str, sequence: str | None, until: timedelta | None) -> bool:
        person.heard.append((why, sequence))
        for stop in person.stops:
            longer = stop.until is None or (until is not None and stop.until >= until)
            if self._active(stop) and (stop.source, stop.sequence) == (source, sequence) and longer:
                return False
        person.stops.append(Stop(why, source, sequence, until))
        return True

    def _may_not(self, person: Person, sequence: str, entered: timedelta) -> Iterator[str]:
        """Every lasting reason why a mail of a sequence that was entered then may not go to somebody now."""
        basis = BASIS.get(sequence, "inquiry")
        for stop in person.stops:
            if self._active(stop) and stop.sequence in (None, sequence):
                yield stop.why
        if basis != "purchase" and person.said and not person.said[-1][1] and person.said[-1][0] >= entered:
            yield WITHDRAWN
        if basis in GOOD and self.clock - entered > GOOD[basis][1] * DAY:
            yield "has run out"
        if sequence == "lure" and person.bookings:
            yield BOOKED
        if sequence == "missed" and any(at > entered for at in person.bookings.values()):
            yield BOOKED
        if sequence in ("lure", "missed", "maybe", "call") and person.paid is not None:
            yield PAID

    def _could_say(self, person: Person, row: Any, entered: timedelta) -> bool:
        """Whether the reason that the ledger gives for not sending has ever been true."""
        why, sequence = row.reason, row.sequence
        basis = BASIS.get(sequence, "inquiry")
        if any(heard in why and of in (None, sequence) for heard, of in person.heard):
            return True
        if why == WITHDRAWN:
            return basis != "purchase" and any(not yes and at >= entered for at, yes in person.said)
        if "has run out" in why:
            return basis in GOOD and self.clock - entered > GOOD[basis][0] * DAY
        if why == BOOKED:
            return any(sequence == "lure" or at > entered for at in person.booked) and sequence in ("lure", "missed")
        if why == PAID:
            return person.paid is not None and sequence in ("lure", "missed", "maybe", "call")
        if why == CALLED_OFF:
            return self.events[row.event_id].key in person.called_off
        if why == MOVED:
            return self.events[row.event_id].key in person.moved | person.called_off
        if REFUSED in why:
            return person.email in self.turned_bad
        if UNANSWERED in why:
            return self.unanswered
        if why == TIME_PASSED:
            return sequence == "call"
        if why == ANSWERED:
            return sequence == "club" and bool(person.confirmed)
        if why == UNREAD:
            return row.question in self.bounced
        if "goes first" in why:
            return any(RANK[each] > RANK[sequence] and f'"{each.title()}"' in why for each in row.sequences)
        return False

    # -- what must hold ------------------------------------------------------------------------------------------

    def _check(self, sent: datetime | None = None) -> None:
        """Whether all is as it must be; `sent`: when sending began just now, so that what was due then and was not sent
        has its reason. What falls due meanwhile may wait: a slow machine takes seconds to send."""
        rows = {row.id: row for row in self._do(self.town.rows(
            "SELECT m.id, m.state, m.reason, m.sequence, m.template, m.slot_at <= :at AS due, e.event_id, "
            "EXISTS (SELECT 1 FROM claim l WHERE l.id = m.claim_id AND l.lease_until > :at "
            "AND l.first_sent_at IS NOT NULL) AS rests, "
            "e.id AS enrolment, c.email, (SELECT q.id FROM message q WHERE q.enrolment_id = e.id AND q.position = 0) "
            "AS question, (SELECT array_agg(o.sequence) FROM enrolment o WHERE o.contact_id = c.id) "
            "AS sequences FROM message m JOIN enrolment e ON e.id = m.enrolment_id "
            "JOIN contact c ON c.id = e.contact_id", at=sent or now()
        ))}  # fmt: skip
        self._check_sent(rows)
        self._check_rest(rows, sent is not None)
        self._check_stops()

    def _check_stops(self) -> None:
        """The ledger's suppressions are the model's, and no more."""
        rows = self._do(self.town.rows(
            "SELECT c.email, s.source, s.sequence, s.until IS NULL AS for_good FROM suppression s "
            "JOIN contact c ON c.id = s.contact_id WHERE s.lifted_at IS NULL AND (s.until IS NULL OR s.until > now())"
        ))  # fmt: skip
        kept = Counter((row.email, row.source, row.sequence, row.for_good) for row in rows)
        meant = Counter((p.email, *stop.in_ledger) for p in self.people for stop in p.stops if self._active(stop))
        assert kept == meant, f"stopped in the ledger: {kept}; in truth: {meant}"

    def _check_sent(self, rows: dict[UUID, Any]) -> None:
        for n, mail in list(enumerate(self.town.sender.mails))[self.checked_mails :]:
            row, person = rows[UUID(mail.tag("message"))], self.recipients[n]
            happened = self.events[row.event_id]
            why_not = list(self._may_not(person, row.sequence, happened.at))
            if row.sequence == "call" and happened.key in person.called_off:
                why_not.append(CALLED_OFF)
            if row.sequence == "call" and happened.key in person.moved:
                why_not.append(MOVED)
            assert not why_not, f"{row.template} was sent although {why_not}"
            assert (row.email, row.template) == (mail.to, mail.tag("template"))
            if row.sequence == "club" and row.template != "club_ask":
                asked = [r.id for r in rows.values() if r.enrolment == row.enrolment and r.template == "club_ask"]
                assert person.confirmed & set(asked), f"{row.template} was sent before the click"
            for other in rows.values():
                if (
                    other.email == row.email
                    and other.state == "scheduled"
                    and RANK[other.sequence] > RANK[row.sequence]
                ):
                    raise AssertionError(f"{row.template} was sent although {other.template} still waits")
            self.counts["mails"] += 1
        self.checked_mails = len(self.town.sender.mails)
        twice = [m for m, n in Counter(mail.tag("message") for mail in self.town.sender.mails).items() if n > 1]
        assert not twice, f"sent twice: {[rows[UUID(m)].template for m in twice]}"

    def _check_rest(self, rows: dict[UUID, Any], now: bool) -> None:
        left = {UUID(mail.tag("message")) for mail in self.town.sender.mails}
        for row in rows.values():
            if row.state in ("sent", "delivered", "bounced", "complained"):
                assert row.id in left, f"{row.template} is {row.state}, and was never sent"
            elif row.id in left:
                lost = self.town.sender.trouble or row.rests or not now or row.state == "unknown"
                assert row.state in ("sending", "unknown") and lost, f"{row.template} was sent, says {row.state}"
            elif row.state in ("scheduled", "sending"):
                waits = self.town.sender.trouble or not row.due or row.rests or not now
                assert waits, f"{row.template} is due and was neither sent nor refused"
            else:
                assert row.reason, f"{row.template} is {row.state}, and nothing says why"
                if row.state != "held" and row.id not in self.checked:
                    self.checked.add(row.id)
                    self.counts["not sent: " + row.reason.split(":")[0]] += 1
                    happened = self.events[row.event_id]
                    person = self.by_email[row.email]
                    entered = person.began.get(happened.key, happened.at)
                    said = self._could_say(person, row, entered)
                    assert said, f"{row.template} was not sent because {row.reason!r}, which was never so"
                    if now and not any(lenient in row.reason for lenient in LENIENT):
                        said = any(why in row.reason for why in self._may_not(person, row.sequence, entered))
                        assert said, f"{row.template} was not sent because {row.reason!r}, which is not so any more"

    def _check_rounds(self) -> None:
        """The same business key enters a sequence again only where that may be, and long enough after the last time."""
        rows = self._do(self.town.rows("SELECT e.sequence, e.event_id, c.email, e.key FROM enrolment e "
                                       "JOIN contact c ON c.id = e.contact_id"))  # fmt: skip
        rounds: dict[tuple[str, str], list[timedelta]] = {}
        for row in rows:
            happened = self.events[row.event_id]
            rounds.setdefault((row.sequence, f"{row.email}{happened.key}"), []).append(happened.at)
        for (sequence, _), times in rounds.items():
            again = TOWN.sequence(sequence).again_after
            assert len(times) == 1 or again is not None, f"{sequence} was entered {len(times)} times"
            for first, second in zip(sorted(times), sorted(times)[1:], strict=False):
                assert again is None or second - first > again, f"{sequence} was entered again too early"

    def teardown(self) -> None:
        """Everything recovers: then everything has been sent, or says why not."""
        if not hasattr(self, "town"):
            return
        self.town.sender.trouble = None
        self.town.sender.bad = set()
        self.unhandled = list(self.unhandled)
        if self.unhandled:
            self.handlers_run()
        for step in (timedelta(), DAY, 3 * DAY, 10 * DAY, 200 * DAY):
            self.clock += step
            self._do(self.town.pass_time(step))
            self.mails_are_sent(1)
        waiting = self._do(self.town.rows("SELECT template FROM message WHERE state IN ('scheduled', 'sending')"))
        assert waiting == []


@pytest.fixture
def loop() -> Iterator[asyncio.AbstractEventLoop]:
    """A loop of its own, in a thread: Hypothesis calls rules one after the other, without one."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    yield loop
    loop.call_soon_threadsafe(loop.stop)
    thread.join()
    loop.close()


@contextmanager
def connected(postgres: str, loop: asyncio.AbstractEventLoop) -> Iterator[Ledger]:
    ledger = Ledger(asyncpg_url(postgres))
    yield ledger
    asyncio.run_coroutine_threadsafe(ledger.close(), loop).result(10)


def play(postgres: str, loop: asyncio.AbstractEventLoop, **given: Any) -> None:
    """Try so many histories; raises what the wrong one says."""
    Histories.loop, Histories.counts = loop, Counter()
    with connected(postgres, loop) as ledger:
        Histories.ledger = ledger
        run_state_machine_as_test(  # type: ignore[no-untyped-call]
            Histories,
            settings=settings(
                stateful_step_count=STEPS, deadline=None, suppress_health_check=list(HealthCheck), **given
            ),
        )


def test_f18_no_history__mails_anybody_who_may_not_be_mailed(postgres: str, loop: asyncio.AbstractEventLoop) -> None:
    play(postgres, loop, max_examples=HISTORIES, print_blob=True)

    print("\n" + "\n".join(f"{count:7} {what}" for what, count in sorted(Histories.counts.items())))
    assert Histories.counts["mails"] > HISTORIES


# -- the histories themselves --------------------------------------------------------------------------------


async def _nothing(*_: Any, **__: Any) -> None: ...


async def _nobody(*_: Any, **__: Any) -> dict[UUID, str]:
    return {}


async def _all_stay(self: Delivery, connection: Any, claim: Claim) -> tuple[Claim, Sent]:
    return claim, Sent()


async def _fail_all(self: Delivery, claim: Claim, error: MessageRefused, run_id: UUID | None) -> Sent:
    return await self._settle_all(claim, MessageState.FAILED, str(error))


def _without(statement: Any, *parts: str) -> Any:
    """A statement in which these conditions never hold."""
    words = str(statement)
    for part in parts:
        assert part in words
        words = words.replace(part, f"false AND {part}")
    return text(words)


#: Each a guard that is taken out: where it is, and what stands in its place. The histories must see that it is missing.
MUTANTS: dict[str, tuple[Any, str, Any]] = {
    "no last look before the call": (Delivery, "_last_look", _all_stay),
    "a repeat asks for nobody": (Delivery, "_left", _nobody),
    "Resend's list is believed at once": (deliver, "LISTED_AFTER", timedelta(0)),
    "a refused batch is not split": (Delivery, "_refused", _fail_all),
    "what our key was refused for is not put back": (mails, "put_back", _nothing),
    "a call without work counts as handed over": (mails, "nothing_was_done", _nothing),
    "early reports are forgotten": (outcomes, "catch_up", _nothing),
    "reports suppress nobody": (outcomes, "judge", _nothing),
    "mails do not move with their call": (mails, "move", _nothing),
    "an equal body is a repeat for ever": (inbox, "REPEATED_FOR", timedelta(days=10_000)),
    "an equal body is never a repeat": (inbox, "REPEATED_FOR", -timedelta(days=1)),
    "an equal body never takes back what was said": (
        inbox,
        "_is_new",
        lambda a, last: a.received_at - last.received_at > REPEATED_FOR,
    ),
    "contacts are not locked": (people, "lock_contact", _nothing),
    "both questions are answered": (mails, "withdraw_other_questions", _nobody),
    "withdrawn consent is not asked for": (permission, "_STOPPED", _without(permission._STOPPED, "c.consent IS FALSE")),
    "implied consent never runs out": (
        permission,
        "_STOPPED",
        _without(permission._STOPPED, "w.consent_expires_at <= now()"),
    ),
    "the higher sequence does not go first": (
        permission,
        "_STOPPED",
        _without(permission._STOPPED, "o.contact_id = w.contact_id AND o.campaign"),
    ),
    "suppressions are not asked for": (
        permission,
        "_STOPPED",
        _without(permission._STOPPED, "s.contact_id = w.contact_id"),
    ),
    "exits are not asked for": (permission, "_STOPPED", _without(permission._STOPPED, "r.sequence = w.sequence")),
}


@pytest.mark.slow
@pytest.mark.skipif("TIDINGS_MUTANTS" not in os.environ, reason="TIDINGS_MUTANTS=1 tries the histories themselves")
@pytest.mark.parametrize("mutant", list(MUTANTS))
def test_the_histories__see_that_a_guard_is_missing(
    mutant: str, postgres: str, loop: asyncio.AbstractEventLoop, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(*MUTANTS[mutant])

    with pytest.raises(Exception) as said:  # what it breaks may be a check of the model, or the code itself
        play(postgres, loop, max_examples=3 * HISTORIES, phases=[Phase.generate], derandomize=True, database=None)

    print(f"\n{mutant}: {Histories.counts['histories']} histories: {str(said.value).splitlines()[0]}")
