"""What never arrived is taken in once, from the services' own lists; and what did arrive stays what it is."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Any, cast

import pytest
from inn import CAMPAIGNS, Inn
from sandbox_process import Sandbox

from tidings.accept import Intake
from tidings.adapters.calcom import Calcom
from tidings.adapters.calendly import Calendly
from tidings.adapters.stripe import Stripe
from tidings.alerts import note
from tidings.errors import RetryLater
from tidings.gaps import KIND, SET_UP, Checked, Gaps, Scope, Source, Wanted, mend_subscriptions
from tidings.ledger import Ledger
from tidings.ledger.memory import Memory

NOW = datetime.now(UTC).replace(microsecond=0)
AHEAD, PAST = NOW + timedelta(days=5), NOW - timedelta(hours=3)
ANA = "delivered+ana@resend.dev"
PATHS = {"calendly": "calendly-noshow", "calcom": "calcom-booking", "stripe": "onboarding-start"}
#: Nobody listens there: what the sandbox posts is kept, as the body that the webhook would have had.
NOWHERE = "http://127.0.0.1:9/webhook"
KEYS = {"calendly_webhook_url": NOWHERE, "calcom_webhook_url": NOWHERE, "stripe_webhook_url": NOWHERE}


@dataclass
class Town:
    """The services, and the inbox that should know all that happens there."""

    inn: Inn
    box: Sandbox
    sources: dict[str, Source]

    async def reconcile(self, service: str, *, at: datetime = NOW, **scope: Any) -> Checked:
        intake = Intake(self.inn.ledger, self.inn.runs, now=lambda: at)
        gaps = Gaps(self.inn.ledger, intake, CAMPAIGNS, None)
        try:
            return await gaps.close(self.sources[service], Scope(at, **scope))
        finally:
            await intake.drain()

    async def handle(self) -> None:
        """What the handler runs do with all that waits."""
        rows = await self.inn.rows("SELECT id FROM event WHERE state IN ('accepted', 'dispatched')")
        await self.inn.handle([row.id for row in rows], at=NOW)

    def book(self, service: str = "calendly", *, start: datetime = AHEAD, email: str = ANA, **more: Any) -> str:
        if start < NOW:  # nobody books a call that is over
            more = {"created": start - timedelta(days=2), **more}
        times = {name: value.isoformat() for name, value in more.items() if isinstance(value, datetime)}
        made = self.box.post(f"{service}/bookings", email=email, start=start.isoformat(), **{**more, **times})
        return str(made["uri" if service == "calendly" else "uid"])

    def posted(self, service: str) -> list[dict[str, Any]]:
        """The bodies of this service's webhooks, in the order in which things happened."""
        rows = self.box.get("webhooks")["data"]
        bodies = [json.loads(row["body"]) for row in reversed(rows)]
        looks = {"calendly": "created_by", "calcom": "triggerEvent", "stripe": "livemode"}[service]
        return [body for body in bodies if looks in body]

    async def arrive(self, service: str) -> list[bool]:
        """Every webhook of a service comes in, late as it may be; whether each was a repeat."""
        found = []
        for body in self.posted(service):
            found += [r.duplicate for r in await self.inn.receive(PATHS[service], body, at=NOW)]
        return found

    async def events(self) -> list[tuple[str, str | None]]:
        rows = await self.inn.rows("SELECT key, origin FROM event ORDER BY received_at, key")
        return [(row.key.partition("|")[0], row.origin) for row in rows]

    async def everything(self) -> list[Any]:
        """All that mails and decisions follow from."""
        tables = ("SELECT template, state, due_at FROM message ORDER BY 1, 3",
                  "SELECT sequence, key FROM enrolment ORDER BY 1",
                  "SELECT kind, key FROM milestone")  # fmt: skip
        return [[tuple(row) for row in await self.inn.rows(table)] for table in tables]


@pytest.fixture
async def town(ledger: Ledger, box: Sandbox) -> AsyncIterator[Town]:
    """A ledger that is a month old, and services whose webhooks reach nobody."""
    box.set(**KEYS)
    await Memory(ledger).remember(SET_UP, (NOW - timedelta(days=30)).isoformat())
    calendly = Calendly("token", f"{box.url}/calendly")
    calcom, stripe = Calcom("cal_test", f"{box.url}/calcom"), Stripe("rk_test", f"{box.url}/stripe")
    yield Town(Inn(ledger, calendar=calcom), box, {"calendly": calendly, "calcom": calcom, "stripe": stripe})
    await calendly.close()


def missed(town: Town, service: str) -> None:
    town.box.post(f"{service}/no-shows", of=town.book(service, start=PAST))


def moved(town: Town, service: str) -> None:
    town.book(service, start=AHEAD + timedelta(days=2), before=town.book(service))


def called_off(town: Town, service: str) -> None:
    town.box.post(f"{service}/cancellations", of=town.book(service))


def paid(town: Town, service: str) -> None:
    town.box.post("stripe/checkouts", email=ANA)


def paid_late(town: Town, service: str) -> None:
    event = town.box.post("stripe/checkouts", email=ANA, paid=False)
    town.box.post("stripe/payments", of=event["data"]["object"]["id"])


def booked(town: Town, service: str) -> None:
    town.book(service)


HISTORIES = [(s, h) for s in ("calendly", "calcom") for h in (booked, moved, called_off, missed)]
HISTORIES += [("stripe", paid), ("stripe", paid_late)]
EVERY = pytest.mark.parametrize(("service", "history"), HISTORIES, ids=[f"{s} {h.__name__}" for s, h in HISTORIES])


@EVERY
async def test_what_arrived__is_not_taken_in(town: Town, service: str, history: Any) -> None:
    history(town, service)
    await town.arrive(service)
    before = await town.events()

    checked = await town.reconcile(service, at=NOW + timedelta(minutes=1))

    assert checked.taken == 0
    assert checked.findings == ()
    assert await town.events() == before


@EVERY
async def test_what_never_arrived__comes_to_the_same_as_if_it_had(town: Town, service: str, history: Any) -> None:
    history(town, service)
    await town.reconcile(service)
    await town.handle()
    found = await town.everything()
    assert {origin for _, origin in await town.events()} == {service}

    async with town.inn.ledger.transaction() as connection:
        for table in ("message", "enrolment", "booking", "milestone", "event", "contact"):
            await connection.exec_driver_sql(f"DELETE FROM {table}")
    await town.arrive(service)
    await town.handle()

    assert found == await town.everything()


@EVERY
async def test_a_second_look__takes_nothing_in_again(town: Town, service: str, history: Any) -> None:
    history(town, service)
    first = await town.reconcile(service)
    await town.handle()
    before = await town.everything(), await town.events()

    second = await town.reconcile(service, at=NOW + timedelta(hours=1))
    await town.handle()

    assert (first.taken > 0, second.taken) == (True, 0)
    assert (await town.everything(), await town.events()) == before


@EVERY
async def test_a_webhook_that_comes_after_all__changes_nothing(town: Town, service: str, history: Any) -> None:
    history(town, service)
    await town.reconcile(service)
    await town.handle()
    before = await town.everything()

    repeats = await town.arrive(service)
    await town.handle()

    assert await town.everything() == before
    if service != "calcom":  # whose list has no times that its webhooks have: there the booking itself is recognised
        assert repeats == REPEATS[history]


#: Which of its webhooks say what the list has said. Of a call that is off it no longer says that it was booked, and a
#: checkout that is not paid is none of our business.
REPEATS = {
    booked: [True],
    moved: [False, True, True],
    called_off: [False, True],
    missed: [True, True],
    paid: [True],
    paid_late: [False, True],
}


async def test_a_no_show_that_never_arrived__gets_its_three_mails(town: Town) -> None:
    missed(town, "calendly")

    checked = await town.reconcile("calendly")
    await town.handle()

    assert sorted(await town.inn.waiting()) == [f"noshow_recovery_email_{n}" for n in (1, 2, 3)]
    assert min((await town.inn.waiting()).values()) == NOW + timedelta(minutes=5)
    assert checked.notes == ("2 taken in for calendly-noshow",)
    assert [f.title for f in checked.findings] == [
        "2 events have never arrived from Calendly and were found in its list"
    ]
    assert ANA not in repr(checked)


async def test_it_is_handed_to_prefect_at_once(town: Town) -> None:
    missed(town, "calendly")

    await town.reconcile("calendly")

    assert {run.deployment for run in town.inn.runs.handlers} == {
        "christmas-noshow-recovery-handler", "christmas-precall-handler",
    }  # fmt: skip


async def test_a_booking_whose_cancellation_alone_arrived__sends_nothing(town: Town) -> None:
    """Out of order: the call is off when its booking is found."""
    called_off(town, "calendly")
    await town.inn.take(PATHS["calendly"], town.posted("calendly")[-1], at=NOW)

    checked = await town.reconcile("calendly", at=NOW + timedelta(minutes=1))
    await town.handle()

    assert (checked.taken, await town.inn.mails()) == (0, [])


async def test_a_cancellation_that_never_arrived__stops_the_mails(town: Town) -> None:
    for service in ("calendly", "calcom"):
        of = town.book(service, email=f"delivered+{service}@resend.dev", created=NOW - timedelta(hours=1))
        await town.arrive(service)
        await town.handle()
        town.box.post(f"{service}/cancellations", of=of)

        await town.reconcile(service, at=NOW + timedelta(minutes=1))

    assert await town.inn.waiting() == {}
    assert await town.inn.reasons() == {"the call was cancelled"}


async def test_a_no_show_that_was_taken_back_without_a_word__stops_the_mails(town: Town) -> None:
    for service in ("calendly", "calcom"):
        of = town.book(service, start=PAST, email=f"delivered+{service}@resend.dev")
        town.box.post(f"{service}/no-shows", of=of)
        await town.arrive(service)
        await town.handle()
        assert len(await town.inn.waiting()) == 3
        town.box.post(f"{service}/no-shows", of=of, absent=False, webhook=False)

        await town.reconcile(service, at=datetime.now(UTC) + timedelta(minutes=1))

        assert await town.inn.waiting() == {}
    assert await town.inn.reasons() >= {"the no-show was taken back"}


async def test_a_list_that_is_behind_what_a_webhook_has_told__is_no_news(town: Town) -> None:
    town.book("calcom", created=NOW - timedelta(hours=1))
    (booking,) = town.posted("calcom")
    cancelled = {**booking, "triggerEvent": "BOOKING_CANCELLED", "createdAt": NOW.isoformat()}
    await town.inn.take(PATHS["calcom"], cancelled, at=NOW)

    assert (await town.reconcile("calcom", at=NOW + timedelta(minutes=1))).taken == 0


async def test_a_booking_that_was_touched_since__is_no_news_while_it_says_the_same(town: Town) -> None:
    of = town.book("calcom", created=NOW - timedelta(hours=1))
    (booking,) = town.posted("calcom")
    off = (NOW - timedelta(minutes=30)).isoformat()
    await town.inn.take(PATHS["calcom"], {**booking, "triggerEvent": "BOOKING_CANCELLED", "createdAt": off}, at=NOW)
    town.box.post("calcom/cancellations", of=of, webhook=False)

    assert (await town.reconcile("calcom", at=NOW + timedelta(minutes=1))).taken == 0


async def test_a_payment_that_another_sender_handed_on__is_no_news(town: Town) -> None:
    """Under an id of that sender's own, so that the event's key is another."""
    paid(town, "stripe")
    (body,) = town.posted("stripe")
    await town.inn.receive(PATHS["stripe"], body, at=NOW, key="webhook-id:msg_1")

    assert (await town.reconcile("stripe", at=NOW + timedelta(minutes=1))).taken == 0


# -- what is old ---------------------------------------------------------------------------------------------


async def test_an_old_no_show__sends_nothing_out_of_the_blue(town: Town) -> None:
    """Marked four days ago: the last of the three mails would have been due two days ago."""
    of = town.book(start=NOW - timedelta(days=5), created=NOW - timedelta(days=20))
    town.box.post("calendly/no-shows", of=of, at=(NOW - timedelta(days=4)).isoformat())
    town.book("calcom", start=NOW - timedelta(days=4), created=NOW - timedelta(days=20))

    assert (await town.reconcile("calendly")).taken == (await town.reconcile("calcom")).taken == 0
    assert await town.events() == []


async def test_an_old_payment__starts_nothing(town: Town) -> None:
    town.box.post("stripe/checkouts", email=ANA, created=(NOW - timedelta(days=8)).isoformat())

    assert (await town.reconcile("stripe")).taken == 0


async def test_a_booking_of_long_ago_for_a_call_ahead__is_taken_in(town: Town) -> None:
    town.book(created=NOW - timedelta(days=20))

    assert (await town.reconcile("calendly")).taken == 1


async def test_nothing_from_before_the_ledger_was_set_up__is_taken_in(town: Town) -> None:
    """The first run: calls ahead that were booked before, and yesterday's no-show, were somebody else's business."""
    await Memory(town.inn.ledger).forget(SET_UP)
    town.book(created=NOW - timedelta(days=2))
    town.box.post("calendly/no-shows", of=town.book(start=PAST, created=NOW - timedelta(days=2)), at=PAST.isoformat())
    town.box.post("stripe/checkouts", email=ANA, created=(NOW - timedelta(hours=1)).isoformat())

    first = [(await town.reconcile(service)).taken for service in ("calendly", "stripe")]
    town.book(email="delivered+later@resend.dev", created=NOW + timedelta(minutes=1))
    later = await town.reconcile("calendly", at=NOW + timedelta(hours=1))

    assert (first, later.taken) == ([0, 0], 1)


async def test_a_ledger_that_was_at_work_before__counts_from_its_first_event(town: Town) -> None:
    await Memory(town.inn.ledger).forget(SET_UP)
    await town.inn.take("postcall-maybe", {"email": "delivered+first@resend.dev"}, at=NOW - timedelta(days=2))
    town.book(created=NOW - timedelta(days=1))

    assert (await town.reconcile("calendly")).taken == 1


async def test_an_operators_since__looks_further_back(town: Town) -> None:
    of = town.book(start=NOW - timedelta(days=9), created=NOW - timedelta(days=40))
    town.box.post("calendly/no-shows", of=of, at=(NOW - timedelta(days=8)).isoformat())

    checked = await town.reconcile("calendly", since=NOW - timedelta(days=10))

    assert (checked.taken, await town.events()) == (1, [("invitee_no_show.created", "calendly")])


async def test_a_dry_run__changes_nothing(town: Town) -> None:
    await Memory(town.inn.ledger).forget(SET_UP)
    await town.inn.take("postcall-maybe", {"email": "delivered+first@resend.dev"}, at=NOW - timedelta(days=3))
    missed(town, "calendly")
    before = await town.events()

    checked = await town.reconcile("calendly", dry_run=True)

    assert checked.notes == ("2 would be taken in for calendly-noshow",)
    assert (await town.events(), await Memory(town.inn.ledger).recall(SET_UP)) == (before, None)
    assert town.inn.runs.by_key == {}


async def test_a_service_that_is_away__takes_nothing_in_and_says_so(town: Town) -> None:
    missed(town, "calendly")
    town.box.fault("status", service="calendly", path="/invitees$", status=503)

    with pytest.raises(RetryLater, match="Calendly"):
        await town.reconcile("calendly")
    assert await town.events() == []

    assert (await town.reconcile("calendly")).taken == 2


async def test_what_cannot_be_understood__is_told_and_keeps_none_of_the_rest(town: Town) -> None:
    town.book(email="not an address")
    town.book()

    checked = await town.reconcile("calendly")

    assert checked.taken == 1
    unreadable = next(f for f in checked.findings if f.subject == "calendly/unreadable")
    assert unreadable.lasting
    assert "not an address" not in repr(checked)


# -- Calendly's subscriptions (F22) --------------------------------------------------------------------------

HOOK = "https://t.tidings.test/webhook/calendly-noshow"
EVENTS = ("invitee.created", "invitee.canceled", "invitee_no_show.created", "invitee_no_show.deleted")
WANTED = Wanted({HOOK: EVENTS}, "the key")


@pytest.fixture
def calendly(town: Town) -> Calendly:
    return cast(Calendly, town.sources["calendly"])


@pytest.fixture
def hooks(town: Town) -> Iterator[Any]:
    """What Calendly has for our address: state, key and events of each subscription."""

    def found() -> list[tuple[str, str, int]]:
        rows = town.box.get("subscriptions", service="calendly")["data"]
        return [(r["status"], r["secret"], len(r["events"])) for r in rows if r["url"] == HOOK]

    yield found


async def test_a_subscription_that_is_missing__is_made(calendly: Calendly, hooks: Any) -> None:
    checked = await mend_subscriptions(calendly, WANTED, Scope(NOW))

    assert (checked.remade, hooks()) == (1, [("active", "the key", 4)])
    assert [(f.title, f.lasting) for f in checked.findings] == [
        ("Calendly's webhook subscription was missing; it was made anew", False)
    ]


async def test_f22_a_subscription_that_was_switched_off__is_made_anew(
    calendly: Calendly, hooks: Any, town: Town
) -> None:
    await mend_subscriptions(calendly, WANTED, Scope(NOW))
    town.box.post("calendly/disable", url=HOOK)

    checked = await mend_subscriptions(calendly, WANTED, Scope(NOW))

    assert (checked.remade, hooks()) == (1, [("active", "the key", 4)])
    assert "was switched off" in checked.findings[0].title


async def test_a_subscription_that_works__is_left_alone(calendly: Calendly, hooks: Any) -> None:
    await calendly.subscribe(HOOK, EVENTS, "another key")

    checked = await mend_subscriptions(calendly, WANTED, Scope(NOW))

    assert (checked.remade, checked.findings, hooks()) == (0, (), [("active", "another key", 4)])


async def test_a_subscription_that_lacks_events__is_told_of_and_left(calendly: Calendly, hooks: Any) -> None:
    await calendly.subscribe(HOOK, EVENTS[:3], "the key")

    checked = await mend_subscriptions(calendly, WANTED, Scope(NOW))

    assert hooks() == [("active", "the key", 3)]
    assert "It lacks invitee_no_show.deleted" in checked.findings[0].body
    assert checked.findings[0].lasting


@pytest.mark.parametrize(
    ("wanted", "cure"),
    [
        (replace(WANTED, signing_key=None), "Set CALENDLY_SIGNING_KEYS"),
        (replace(WANTED, reachable=False), "Set PUBLIC_URL"),
    ],
)
async def test_a_subscription_that_could_not_work__is_not_made(
    calendly: Calendly, hooks: Any, wanted: Wanted, cure: str
) -> None:
    checked = await mend_subscriptions(calendly, wanted, Scope(NOW))

    assert (checked.remade, hooks()) == (0, [])
    assert checked.findings[0].body.startswith(cure)
    assert checked.findings[0].lasting


async def test_a_dry_run__makes_no_subscription(calendly: Calendly, hooks: Any) -> None:
    checked = await mend_subscriptions(calendly, WANTED, Scope(NOW, dry_run=True))

    assert (checked.notes, hooks()) == ((f"{HOOK} was missing, and would be made anew",), [])


async def test_findings_of_what_nobody_could_look_at__stay_open(town: Town, calendly: Calendly) -> None:
    checked = await mend_subscriptions(calendly, replace(WANTED, signing_key=None), Scope(NOW))
    ledger = town.inn.ledger
    open_alerts = "SELECT key FROM alert WHERE recovered_at IS NULL"
    await note(ledger, checked.findings, {KIND}, NOW)

    await note(ledger, [], {KIND}, NOW, unknown=[f"{KIND}:calendly-subscription/"])
    assert len(await town.inn.rows(open_alerts)) == 1

    await note(ledger, [], {KIND}, NOW, unknown=[f"{KIND}:calendly/"])
    assert await town.inn.rows(open_alerts) == []
