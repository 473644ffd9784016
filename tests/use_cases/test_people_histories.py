"""Random histories of people against the real ledger: nobody is mailed who may not be, and nothing is missing (F18).

Hypothesis makes the histories: signups, bookings, payments, bounces, complaints, unsubscribes, clicks, clock steps,
replays and a sender in trouble. A model in plain Python says beside it who may be mailed. TIDINGS_HISTORIES sets how
many histories are tried; their rules, calls and mails are printed at the end (pytest -s).
"""

from __future__ import annotations

import asyncio
import os
import threading
from collections import Counter
from collections.abc import Coroutine, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any, ClassVar
from uuid import UUID

import pytest
from fakes import FakeMail, FakeRuns
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule, run_state_machine_as_test
from town import BOOKED, CAMPAIGNS, PAID, TOWN, Town
from worlds import TABLES, address

from tidings.confirm import ANSWERED
from tidings.ledger import Ledger
from tidings.ledger.mails import UNREAD
from tidings.ledger.permission import WITHDRAWN
from tidings.model import ASKED_FOR, CALLED_OFF, TIME_PASSED
from tidings.replay import replay
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
REPORTS = ["delivered", "soft", "soft", "soft", "bounced", "complained", "opened"]
#: Reasons that the model knows no exact moment of.
LENIENT = ("has run out", "goes first", CALLED_OFF, TIME_PASSED, ANSWERED, UNREAD)
BASIS = {"club": "express", "lure": "express", "welcome": "purchase"}


@dataclass
class Stop:
    """A suppression as the model has it."""

    why: str
    source: str
    sequence: str | None
    until: timedelta | None
    lifted: bool = False


@dataclass
class Happened:
    """A webhook as the model has it."""

    path: str
    email: str
    at: timedelta
    key: str
    sender_id: str

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
    #: Every booking that ever was, also those called off: what was skipped for them stays skipped.
    booked: list[timedelta] = field(default_factory=list)
    called_off: set[str] = field(default_factory=set)
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
        self.events[event] = Happened(path, person.email, at, key or person.email, sender_id)
        if body.get("consent") is not False and path != "off":
            self.unhandled.append(event)
        if path in ("club", "lure"):
            person.said.append((at, body.get("consent", True)))
        if path == "call":
            person.bookings[key] = at
            person.booked.append(at)
        if path == "welcome" and person.paid is None:
            person.paid = at

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

    @rule(who=PEOPLE, hours=st.sampled_from([0.5, 12]))
    def is_missed_and_books_again(self, who: int, hours: float) -> None:
        self.misses_or_hesitates(who, "missed", len(self.events))
        self.handlers_run()
        self.books(who, hours)

    @precondition(lambda self: any(p.bookings for p in self.people))
    @rule(pick=PICK)
    def calls_off(self, pick: int) -> None:
        booked = [(n, k) for n, p in enumerate(self.people) for k in p.bookings]
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
        body = {"in_hours": 5} if known.path == "call" else {}
        assert self._do(self.town.take(known.path, known.email, event=known.sender_id, key=known.key, **body)) == event

    @precondition(lambda self: self.events)
    @rule(pick=PICK)
    def an_operator_replays(self, pick: int) -> None:
        event = list(self.events)[pick % len(self.events)]
        done = self._do(replay(self.ledger, self.runs, CAMPAIGNS, ids=[event]))
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

    @rule(trouble=st.sampled_from([None, None, "away", "lost"]))
    def the_sender_changes(self, trouble: str | None) -> None:
        self.town.sender.trouble = trouble

    @rule(workers=st.sampled_from([1, 1, 2]))
    def mails_are_sent(self, workers: int) -> None:
        self._check(now=False)
        self._do(self._send(workers))
        self._check()

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
        order = {p.email: n for n, p in enumerate(self.people)}
        mails = [m for m in self.town.sender.mails if template in ("", m.tag("template"))]
        mails.sort(key=lambda mail: (order[mail.to], mail.tag("template")))
        return mails[pick % len(mails)]

    def _report(self, mail: FakeMail, kind: str, times: int) -> None:
        at = self._now()
        for _ in range(times):
            self._do(self.town.report(mail, "bounced" if kind == "soft" else kind, svix_id=f"msg-{self.tick}",
                                      bounce="Transient" if kind == "soft" else "Permanent"))  # fmt: skip
        self._judge(self.by_email[mail.to], mail, kind, at)

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
        self._do(self.town.suppress(self.people[who].email, sequence=sequence))

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

    def _check(self, *, now: bool = True) -> None:
        """Whether all is as it must be; `now`: right after sending, so that what was not sent has its reason now."""
        rows = {row.id: row for row in self._do(self.town.rows(
            "SELECT m.id, m.state, m.reason, m.sequence, m.template, m.slot_at <= now() AS due, e.event_id, "
            "e.id AS enrolment, c.email, (SELECT q.id FROM message q WHERE q.enrolment_id = e.id AND q.position = 0) "
            "AS question, (SELECT array_agg(o.sequence) FROM enrolment o WHERE o.contact_id = c.id) "
            "AS sequences FROM message m JOIN enrolment e ON e.id = m.enrolment_id "
            "JOIN contact c ON c.id = e.contact_id"
        ))}  # fmt: skip
        self._check_sent(rows)
        self._check_rest(rows, now)

    def _check_sent(self, rows: dict[UUID, Any]) -> None:
        for mail in self.town.sender.mails[self.checked_mails :]:
            row, person = rows[UUID(mail.tag("message"))], self.by_email[mail.to]
            happened = self.events[row.event_id]
            why_not = list(self._may_not(person, row.sequence, happened.at))
            if happened.path == "call" and happened.key in person.called_off:
                why_not.append(CALLED_OFF)
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
                lost = self.town.sender.trouble or not now
                assert row.state == "sending" and lost, f"{row.template} was sent, says {row.state}"
            elif row.state in ("scheduled", "sending"):
                waits = self.town.sender.trouble or not row.due or not now
                assert waits, f"{row.template} is due and was neither sent nor refused"
            else:
                assert row.reason, f"{row.template} is {row.state}, and nothing says why"
                if row.state != "held" and row.id not in self.checked:
                    self.checked.add(row.id)
                    self.counts["not sent: " + row.reason.split(":")[0]] += 1
                    happened = self.events[row.event_id]
                    person = self.by_email[row.email]
                    said = self._could_say(person, row, happened.at)
                    assert said, f"{row.template} was not sent because {row.reason!r}, which was never so"
                    if now and not any(lenient in row.reason for lenient in LENIENT):
                        said = any(why in row.reason for why in self._may_not(person, row.sequence, happened.at))
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


def test_f18_no_history__mails_anybody_who_may_not_be_mailed(postgres: str, loop: asyncio.AbstractEventLoop) -> None:
    Histories.loop, Histories.counts = loop, Counter()
    with connected(postgres, loop) as ledger:
        Histories.ledger = ledger
        run_state_machine_as_test(  # type: ignore[no-untyped-call]
            Histories,
            settings=settings(
                max_examples=HISTORIES,
                stateful_step_count=STEPS,
                deadline=None,
                suppress_health_check=list(HealthCheck),
                print_blob=True,
            ),
        )
    print("\n" + "\n".join(f"{count:7} {what}" for what, count in sorted(Histories.counts.items())))
    assert Histories.counts["mails"] > HISTORIES
