"""Taking in webhooks on a real ledger: stored once, answered the same for ever, nothing lost beside a bad row."""

from __future__ import annotations

import asyncio
import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import uuid4

import pytest
from fakes import FakeRuns
from winter import WINTER
from worlds import World, address, now

from tidings.accept import Intake, answer, digest
from tidings.accept import arrival as event_of
from tidings.errors import LedgerUnavailable
from tidings.ledger import Ledger, inbox
from tidings.model import Arrival, Receipt

WEBHOOK = WINTER.webhook("winter-hello")


def intake(world: World, runs: FakeRuns | None = None) -> Intake:
    return Intake(world.ledger, runs or world.runs, now=now)


async def count(world: World, table: str) -> int:
    return int((await world.rows(f"SELECT count(*) AS n FROM {table}"))[0].n)


def again(arrival: Arrival) -> Arrival:
    """The same event as another request brings it."""
    return replace(arrival, id=uuid4(), received_at=now())


# -- by one route --------------------------------------------------------------------------------------------


def on_two_routes(world: World) -> tuple[Arrival, Arrival]:
    hello, meeting = world.arrival("winter-hello"), world.arrival("winter-meeting", starts=now())
    return replace(hello, signed_id="one"), replace(meeting, signed_id="one")


async def test_a_signed_id_on_two_routes_in_two_processes__is_stored_by_the_first_alone(world: World) -> None:
    first, second = on_two_routes(world)

    async with world.ledger.transaction() as connection:
        (mine,) = await inbox.accept(connection, [first])
        beside = asyncio.create_task(world.accept(second))
        await asyncio.wait([beside], timeout=0.3)
        assert not beside.done()
    (theirs,) = await beside

    assert (mine.elsewhere, theirs.elsewhere) == (None, "winter-hello")
    assert [e.id for e in await world.events()] == [first.id]
    assert await count(world, "contact") == 1


async def test_a_signed_id_on_two_routes_in_one_group__is_stored_by_the_first_alone(world: World) -> None:
    first, second = on_two_routes(world)

    receipts = await world.accept(first, second, again(first))

    assert [r.elsewhere for r in receipts] == [None, "winter-hello", None]
    assert [e.id for e in await world.events()] == [first.id]


# -- once ----------------------------------------------------------------------------------------------------


async def test_f14_a_webhook__is_in_the_ledger_when_it_is_answered(world: World) -> None:
    arrival = world.arrival(first_name="Ada", business_name="Ada & Co")

    receipt = await intake(world).take(arrival)

    row = await world.event()
    assert (row.id, row.state, row.source, row.body) == (arrival.id, "accepted", "winter-hello", arrival.body)
    assert receipt == Receipt(arrival.id, True, False, None, None, row.dispatch_id)
    (contact,) = await world.rows("SELECT * FROM contact")
    assert (contact.email, contact.first_name, contact.business_name) == (
        json.loads(arrival.body)["email"],
        "Ada",
        "Ada & Co",
    )


def test_equal_bodies__are_one_event_whatever_the_order_of_their_fields() -> None:
    one = WEBHOOK.payload.model_validate_json('{"email":"a@b.co","first_name":"Ada","sent_at":"2026-12-01T10:00:00Z"}')
    two = WEBHOOK.payload.model_validate_json('{"sent_at":"2026-12-01T10:00:00Z","first_name":"Ada","email":"a@b.co"}')
    other = WEBHOOK.payload.model_validate_json(
        '{"email":"a@b.co","first_name":"Bob","sent_at":"2026-12-01T10:00:00Z"}'
    )

    assert digest(one) == digest(two)
    assert digest(one) != digest(other)


async def test_f15_a_repeat__is_told_as_such_and_changes_nothing(world: World) -> None:
    arrival = world.arrival(first_name="Ada")
    first = await intake(world).take(arrival)
    before = await world.rows("SELECT * FROM contact")

    second = await intake(world).take(again(arrival))

    assert second == replace(first, duplicate=True)
    assert await count(world, "event") == 1
    assert await world.rows("SELECT * FROM contact") == before


async def test_f15_parallel_repeats_on_several_connections__are_one_event_and_one_contact(world: World) -> None:
    arrival = world.arrival()
    servers = [intake(world) for _ in range(12)]

    receipts = await asyncio.gather(*[server.take(again(arrival)) for server in servers])

    assert await count(world, "event") == 1
    assert await count(world, "contact") == 1
    assert sum(not r.duplicate for r in receipts) == 1
    assert len({(r.event_id, r.dispatch_id) for r in receipts}) == 1


async def test_repeats_in_one_group__are_one_event(world: World) -> None:
    arrival = world.arrival()
    server = intake(world)

    receipts = await asyncio.gather(*[server.take(again(arrival)) for _ in range(5)])

    assert [r.duplicate for r in receipts] == [False, True, True, True, True]
    assert await count(world, "event") == 1


async def last_word(world: World) -> bool | None:
    (row,) = await world.rows("SELECT consent FROM contact")
    return bool(row.consent)


@pytest.mark.parametrize("first", [True, False])
async def test_consent_changed_and_changed_back__is_taken_at_its_last_word(world: World, first: bool) -> None:
    email = address()

    for consent in (first, not first, first, not first):
        receipt = await intake(world).take(world.arrival(email=email, consent=consent))
        assert not receipt.duplicate
        assert await last_word(world) is consent
        repeated = await intake(world).take(world.arrival(email=email, consent=consent))
        assert repeated == replace(receipt, duplicate=True)

    assert len({event.key for event in await world.events()}) == 4


async def test_consent_withdrawn_in_the_words_of_before__stops_the_mails(world: World) -> None:
    email = address()
    await world.accept(world.arrival(email=email, consent=False))
    await world.enrolled(email=email)

    await world.accept(world.arrival(email=email, consent=False))
    await world.send()

    assert world.mailed() == []
    assert (await world.message()).reason == "the contact has withdrawn its consent"


async def test_consent_renewed_in_many_processes__is_one_event(world: World) -> None:
    email = address()
    for consent in (True, False):
        await world.accept(world.arrival(email=email, consent=consent))

    receipts = await asyncio.gather(*[intake(world).take(world.arrival(email=email)) for _ in range(8)])

    assert sum(not r.duplicate for r in receipts) == 1
    assert len({r.event_id for r in receipts}) == 1
    assert await count(world, "event") == 3


async def test_an_equal_body_after_other_words__is_a_repeat_while_consent_stands(world: World) -> None:
    email = address()
    first = await intake(world).take(world.arrival(email=email, first_name="Ada"))
    await world.accept(world.arrival(email=email, first_name="Bo"))

    assert await intake(world).take(world.arrival(email=email, first_name="Ada")) == replace(first, duplicate=True)


@pytest.mark.parametrize(("hours", "events"), [(26, 1), (24 * 30, 2)])
async def test_an_equal_body__is_a_repeat_for_as_long_as_senders_repeat(world: World, hours: int, events: int) -> None:
    email = address()
    await world.accept(world.arrival(email=email, at=now() - timedelta(hours=hours)))

    for _ in range(2):
        await world.accept(world.arrival(email=email))

    assert await count(world, "event") == events


async def test_a_senders_own_id__is_one_event_for_ever(world: World) -> None:
    email = address()
    body: dict[str, Any] = {"email": email, "consent": True}
    own = [
        event_of(
            WINTER, WEBHOOK, WEBHOOK.payload.model_validate(body), body=json.dumps(body), key="webhook-id:1",
            now=now() - timedelta(days=days), testing_minute=None,
        )
        for days in (90, 0)
    ]  # fmt: skip
    await world.accept(own[0])
    await world.accept(world.arrival(email=email, consent=False))

    (receipt,) = await world.accept(own[1])

    assert receipt.duplicate
    assert await last_word(world) is False


async def test_contact_created__is_true_for_one_event_only(world: World) -> None:
    email = address()
    arrivals = [world.arrival(email=email, first_name=f"Ada{n}") for n in range(6)]

    receipts = await asyncio.gather(*[intake(world).take(a) for a in arrivals])
    later = await intake(world).take(world.arrival(email=email, first_name="Later"))

    assert sum(r.contact_created for r in receipts) == 1
    assert not later.contact_created
    assert await count(world, "contact") == 1
    assert await count(world, "event") == 7


async def test_contact_created__in_one_group_is_told_to_the_first(world: World) -> None:
    email = address()
    server = intake(world)

    receipts = await asyncio.gather(*[server.take(world.arrival(email=email, first_name=f"A{n}")) for n in range(3)])

    assert [r.contact_created for r in receipts] == [True, False, False]


async def test_the_same_key_from_two_sources__is_two_events(world: World) -> None:
    one = replace(world.arrival(), key="id:1")
    two = replace(world.arrival("winter-meeting", starts=now()), key="id:1")

    await world.accept(one, two)

    assert await count(world, "event") == 2


async def test_groups_that_share_contacts_in_other_orders__do_not_lock_each_other_out(world: World) -> None:
    emails = [address() for _ in range(20)]

    async def group(order: list[str], tag: str) -> None:
        for n in range(5):
            await world.accept(*[world.arrival(email=e, first_name=f"{tag}{n}") for e in order])

    await asyncio.wait_for(asyncio.gather(group(emails, "a"), group(emails[::-1], "b"), group(emails, "c")), 20)

    assert await count(world, "contact") == 20
    assert await count(world, "event") == 300


# -- what is known of a contact ------------------------------------------------------------------------------


async def test_an_unknown_value__never_overwrites_a_known_one(world: World) -> None:
    email = address()
    await world.accept(world.arrival(email=email, first_name="Ada", business_name="Ada & Co"))

    await world.accept(world.arrival(email=email, consent=None))

    (contact,) = await world.rows("SELECT * FROM contact")
    assert (contact.first_name, contact.business_name, contact.consent) == ("Ada", "Ada & Co", True)


async def test_an_unknown_value__never_overwrites_a_known_one_of_the_same_group(world: World) -> None:
    email = address()
    known = world.arrival(email=email, first_name="Ada", business_name="Ada & Co")
    unknown = world.arrival(email=email, consent=None, business_name="Ada Ltd")

    await world.accept(known, unknown)

    (contact,) = await world.rows("SELECT * FROM contact")
    assert (contact.first_name, contact.business_name, contact.consent) == ("Ada", "Ada Ltd", True)


async def test_without_consent__the_contact_is_stored_and_nothing_starts(world: World) -> None:
    receipt = await intake(world).take(world.arrival(consent=False))

    row = await world.event()
    (contact,) = await world.rows("SELECT * FROM contact")
    assert (row.state, row.dispatch_id, contact.consent) == ("ignored", None, False)
    assert receipt.ignored_because == row.reason == "the contact gave no consent to be mailed"


# -- a bad row, and a ledger that is away --------------------------------------------------------------------


async def test_one_poisonous_row__costs_the_others_nothing(world: World) -> None:
    server = intake(world)
    poison = replace(world.arrival(), body="a\x00b")
    good = [world.arrival() for _ in range(4)]

    results = await asyncio.gather(*[server.take(a) for a in (*good[:2], poison, *good[2:])], return_exceptions=True)

    assert [isinstance(r, Receipt) for r in results] == [True, True, False, True, True]
    assert {e.id for e in await world.events()} == {a.id for a in good}


async def test_a_ledger_that_is_away__is_said_so_to_everyone_who_waits(postgres: str) -> None:
    nowhere = Ledger("postgresql+asyncpg://postgres@127.0.0.1:1/tidings")
    server = Intake(nowhere, FakeRuns(), now=lambda: datetime.now(UTC))
    arrivals = [make_arrival() for _ in range(3)]

    results = await asyncio.gather(*[server.take(a) for a in arrivals], return_exceptions=True)

    assert [type(r) for r in results] == [LedgerUnavailable] * 3
    await nowhere.close()


def make_arrival() -> Arrival:
    payload = WEBHOOK.payload.model_validate({"email": "a@b.co", "consent": False})
    return Arrival(
        uuid4(),
        "winter-hello",
        str(uuid4()),
        "winter",
        "winter-hello-handler",
        "{}",
        payload.contact(),
        now(),
        "x",
        None,
    )


# -- dispatch ------------------------------------------------------------------------------------------------


async def take(server: Intake, arrival: Arrival) -> Any:
    """What the web route does: store, then hand on."""
    receipt = await server.take(arrival)
    if receipt.flow_run_id is None and receipt.dispatch_id is not None:
        return await server.dispatch(arrival.deployment, receipt.dispatch_id)
    return receipt.flow_run_id


async def test_a_dispatch__names_its_run_in_the_ledger(world: World) -> None:
    arrival = world.arrival()

    run_id = await take(intake(world), arrival)

    row = await world.event()
    (run,) = world.runs.handlers
    assert (row.state, row.flow_run_id) == ("dispatched", run_id)
    assert (run.id, run.deployment, run.event_ids) == (run_id, "winter-hello-handler", (arrival.id,))


async def test_a_repeat__has_the_same_run_and_starts_nothing(world: World) -> None:
    arrival = world.arrival()
    server = intake(world)
    first = await take(server, arrival)

    repeats = [await take(intake(world), again(arrival)) for _ in range(3)]

    assert {first, *repeats} == {first}
    assert len(world.runs.handlers) == 1


async def test_parallel_repeats__start_one_run(world: World) -> None:
    arrival = world.arrival()

    found = await asyncio.gather(*[take(intake(world), again(arrival)) for _ in range(8)])

    assert len(set(found)) == 1
    assert len(world.runs.handlers) == 1


async def test_a_deployment_that_is_missing__keeps_back_no_other(world: World) -> None:
    server = intake(world)
    world.runs.missing = {"winter-meeting-handler"}

    assert await take(server, world.arrival("winter-meeting", starts=now() + timedelta(days=2))) is None
    assert await take(server, world.arrival()) is not None

    assert [event.state for event in await world.events()] == ["accepted", "dispatched"]


async def test_a_dispatch_without_events__keeps_back_no_other(world: World) -> None:
    server = intake(world)

    assert await server.dispatch("winter-hello-handler", uuid4()) is None

    assert await take(server, world.arrival()) is not None


async def test_prefect_away__leaves_the_event_stored_and_the_repeat_dispatches_it(world: World) -> None:
    arrival = world.arrival()
    world.runs.away = True
    assert await take(intake(world), arrival) is None
    assert (await world.event()).state == "accepted"

    world.runs.away = False
    run_id = await take(intake(world), again(arrival))

    assert (await world.event()).flow_run_id == run_id
    assert len(world.runs.handlers) == 1


async def test_prefect_away__is_not_asked_again_for_every_webhook(world: World) -> None:
    world.runs.away = True
    server = intake(world)
    await take(server, world.arrival())
    world.runs.away = False

    assert await take(server, world.arrival()) is None

    assert world.runs.calls == []
    assert {e.state for e in await world.events()} == {"accepted"}


async def test_a_burst__is_stored_whole_and_each_event_has_one_run(world: World) -> None:
    server = intake(world)
    arrivals = [world.arrival() for _ in range(120)]

    found = await asyncio.gather(*[take(server, a) for a in arrivals])
    await server.drain()

    events = await world.events()
    assert all(found)
    assert {e.id: e.flow_run_id for e in events} == dict(zip([a.id for a in arrivals], found, strict=True))
    assert {e.state for e in events} == {"dispatched"}
    assert len(world.runs.handlers) < 20
    assert {e.flow_run_id for e in events} <= {r.id for r in world.runs.handlers}


# -- the answer ----------------------------------------------------------------------------------------------


def receipt(**given: Any) -> Receipt:
    values: dict[str, Any] = {
        "event_id": uuid4(), "contact_created": True, "duplicate": False, "ignored_because": None,
        "flow_run_id": None, "dispatch_id": uuid4(),
    }  # fmt: skip
    return Receipt(**{**values, **given})


STATUS = "https://t.tidings.test/webhook/status/1"


def test_the_answer__is_what_the_website_relies_on() -> None:
    one, run = receipt(), uuid4()

    assert answer(WEBHOOK, one, run, STATUS) == {
        "message": "Greeting processed successfully",
        "event_id": str(one.event_id),
        "flow_run_id": str(run),
        "contact_created": True,
        "status_url": STATUS,
    }


def test_the_answer__while_prefect_is_away_promises_no_more_than_it_can() -> None:
    said = answer(WEBHOOK, receipt(), None, STATUS)

    assert (said["flow_run_id"], "as soon as the scheduler is back" in said["message"]) == (None, True)


def test_the_answer__to_what_starts_nothing_says_why() -> None:
    said = answer(WEBHOOK, receipt(ignored_because="the payment is not confirmed"), None, STATUS)

    assert said["message"] == "Greeting stored; no email will be sent because the payment is not confirmed"


def test_the_answer__to_a_repeat_says_so() -> None:
    assert answer(WEBHOOK, receipt(duplicate=True), uuid4(), STATUS)["duplicate"] is True
    assert "duplicate" not in answer(WEBHOOK, receipt(), uuid4(), STATUS)


@pytest.mark.parametrize("created", [True, False])
def test_the_answer__says_whether_the_contact_is_new(created: bool) -> None:
    assert answer(WEBHOOK, receipt(contact_created=created), None, STATUS)["contact_created"] is created
