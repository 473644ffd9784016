"""Making up for what a crash or an outage left undone, step by step, with Prefect's fake."""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import replace
from datetime import datetime, timedelta
from types import SimpleNamespace
from typing import Any
from uuid import UUID, uuid4

import pytest
from winter import HELLO, WINTER
from worlds import World, now, replay_named

from tidings import reconcile as steps
from tidings.accept import dispatch
from tidings.campaign import Campaign, Campaigns
from tidings.deliver import Selection
from tidings.enrol import schedule
from tidings.errors import OutcomeUnknown, Refused, RetryLater, TidingsError
from tidings.ledger import inbox, liveness
from tidings.model import UnderWay
from tidings.web import keeper

NOTHING = dict.fromkeys(["dispatched", "handled again", "cancelled", "scheduled", "late", "taken over", "mirrors"], 0)
HOUR = timedelta(hours=1)
AUTUMN = Campaign(name="autumn", title="Autumn", sequences=(), webhooks=())


async def reconcile(world: World, at: datetime | None = None, **given: Any) -> dict[str, int]:
    """What had to be done; Notion's mirror apart, which changes with everything."""
    done = await steps.reconcile(world.ledger, world.runs, world.campaigns, at or now(), **given)
    return {what: count for what, count in done.items() if count and what != "mirrors"}


async def stored(world: World, *, ago: timedelta = timedelta(0), count: int = 1) -> list[UUID]:
    """Events that were stored by a server that died before it dispatched them."""
    ids = []
    for _ in range(count):
        arrival = world.arrival(at=now() - ago)
        await world.accept(arrival)
        ids.append(arrival.id)
    return ids


async def dispatched(world: World, at: datetime) -> UUID:
    """An event with a handler run; returns the run."""
    (event_id,) = await stored(world, ago=now() - at)
    event = next(e for e in await world.events() if e.id == event_id)
    run_id = await dispatch(world.ledger, world.runs, event.dispatch_id, at)
    assert run_id is not None
    return run_id


async def planned(world: World, *, schedule_them: bool = True) -> datetime:
    """A contact whose second mail is due in an hour and the third in a day; returns when it was enrolled."""
    at = now()
    arrival = world.arrival(at=at)
    await world.accept(arrival)
    await world.enrol(arrival.id, at=at)
    await world.send()
    if schedule_them:
        await schedule(world.ledger, world.runs, [arrival.id], at, lambda slot: None)
    return at


async def test_nothing_undone__does_nothing(world: World) -> None:
    assert await steps.reconcile(world.ledger, world.runs, world.campaigns, now()) == NOTHING
    assert world.runs.calls == []


# -- events --------------------------------------------------------------------------------------------------


async def test_an_event_that_prefect_does_not_know_of__is_dispatched(world: World) -> None:
    ids = await stored(world, ago=timedelta(seconds=6), count=3)

    assert await reconcile(world) == {"dispatched": 3}

    assert sorted(e for run in world.runs.handlers for e in run.event_ids) == sorted(ids)
    assert {e.state for e in await world.events()} == {"dispatched"}
    assert await reconcile(world) == {}


async def test_an_event_that_just_came_in__is_left_to_its_server(world: World) -> None:
    await stored(world, ago=timedelta(seconds=1))

    assert await reconcile(world) == {}


async def test_a_dispatch_whose_answer_was_lost__is_repeated_under_its_key(world: World) -> None:
    (event_id,) = await stored(world, ago=timedelta(seconds=10))
    row = await world.event()
    first = await world.runs.start_handler(row.deployment, [event_id], row.dispatch_id)

    await reconcile(world)

    assert (await world.event()).flow_run_id == first
    assert len(world.runs.handlers) == 1


async def test_prefect_away__is_asked_once_and_the_events_wait(world: World, caplog: pytest.LogCaptureFixture) -> None:
    await stored(world, ago=timedelta(minutes=1), count=3)
    await world.run_sql("UPDATE event SET dispatch_id = NULL WHERE id = (SELECT min(id::text)::uuid FROM event)")
    world.runs.away = True

    assert await steps.dispatch_waiting(world.ledger, world.runs, now()) == 0

    assert {e.state for e in await world.events()} == {"accepted"}
    assert len([r for r in caplog.records if r.message == "dispatch.deferred"]) == 1
    assert [e.dispatch_id for e in await world.events()].count(None) == 1  # not grouped before there is a Prefect


async def test_a_deployment_that_is_missing__keeps_back_no_other(world: World) -> None:
    missing = [(await stored_meeting(world)) for _ in range(2)]
    (waiting, gathered) = await stored(world, ago=timedelta(seconds=30), count=2)
    await world.run_sql("UPDATE event SET dispatch_id = NULL WHERE id = :id", id=gathered)
    world.runs.missing = {"winter-meeting-handler"}

    assert await reconcile(world) == {"dispatched": 2}

    states = {event.id: event.state for event in await world.events()}
    assert states == dict.fromkeys(missing, "accepted") | dict.fromkeys([waiting, gathered], "dispatched")
    world.runs.missing = set()
    assert await reconcile(world) == {"dispatched": 2}


async def test_many_events_of_a_missing_deployment__leave_room_for_others(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    for _ in range(4):
        await stored_meeting(world)
    await stored(world, ago=timedelta(seconds=30))
    async with world.ledger.reading() as connection:
        found = await inbox.undispatched(connection, older_than=now(), limit=2)
    assert [deployment for deployment, _ in found] == ["winter-meeting-handler"] * 2 + ["winter-hello-handler"]

    world.runs.missing = {"winter-meeting-handler"}
    assert await steps.dispatch_waiting(world.ledger, world.runs, now()) == 1
    assert len([r for r in caplog.records if r.message == "dispatch.deferred"]) == 1


async def stored_meeting(world: World) -> UUID:
    """An older event of another deployment."""
    arrival = world.arrival("winter-meeting", at=now() - timedelta(minutes=2), starts=now() + 48 * HOUR)
    await world.accept(arrival)
    return arrival.id


@pytest.mark.parametrize("how", ["failed", "crashed", "completed", "gone"])
async def test_an_event_whose_run_ended_without_handling_it__gets_another(world: World, how: str) -> None:
    run_id = await dispatched(world, now() - timedelta(seconds=30))
    if how == "gone":
        world.runs.forget(run_id)
    else:
        world.runs.end(run_id, how)

    assert await reconcile(world) == {"handled again": 1}
    assert await reconcile(world) == {"dispatched": 1}

    row = await world.event()
    assert (row.state, row.attempts) == ("dispatched", 1)
    assert row.flow_run_id != run_id


async def test_an_event_whose_run_still_works__is_left_to_it(world: World) -> None:
    run_id = await dispatched(world, now() - timedelta(minutes=30))

    assert await reconcile(world) == {}

    assert (await world.event()).flow_run_id == run_id


async def test_an_event_whose_run_a_person_cancelled__is_failed_and_says_so(world: World) -> None:
    run_id = await dispatched(world, now() - timedelta(minutes=1))
    world.runs.end(run_id, "cancelled")

    assert await reconcile(world) == {}

    row = await world.event()
    assert (row.state, row.reason) == ("failed", "cancelled in Prefect's dashboard")


@pytest.mark.parametrize("how", ["completed", "cancelled", "failed"])
async def test_an_event_that_is_handled_between_the_two_looks__stays_handled(
    world: World, monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    run_id = await dispatched(world, now() - timedelta(minutes=1))
    before = await world.event()

    async def ends_while_asked(_: Any) -> dict[UUID, str]:
        await world.enrol(before.id)
        return {run_id: how}

    monkeypatch.setattr(world.runs, "ended", ends_while_asked)

    assert await steps.handle_again(world.ledger, world.runs, now()) == 0

    row = await world.event()
    assert (row.state, row.reason, row.attempts, row.flow_run_id) == ("handled", None, 0, run_id)


@pytest.mark.parametrize("how", ["completed", "cancelled"])
async def test_an_event_that_is_replayed_between_the_two_looks__keeps_its_new_run(
    world: World, monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    run_id = await dispatched(world, now() - timedelta(minutes=1))
    before = await world.event()

    async def replayed_while_asked(_: Any) -> dict[UUID, str]:
        await replay_named(world.ledger, world.runs, world.campaigns, before.id)
        return {run_id: how}

    monkeypatch.setattr(world.runs, "ended", replayed_while_asked)

    assert await steps.handle_again(world.ledger, world.runs, now()) == 0

    row = await world.event()
    assert (row.state, row.attempts) == ("dispatched", 1)
    assert row.flow_run_id not in {None, run_id}


async def test_further_attempts__are_looked_into_ever_later(world: World) -> None:
    run_id = await dispatched(world, now() - timedelta(minutes=2))
    world.runs.end(run_id, "failed")
    await world.run_sql("UPDATE event SET attempts = 5")

    assert await reconcile(world) == {}  # after 5 attempts: 20 s and 310 s more
    assert await reconcile(world, now() + timedelta(minutes=5)) == {"handled again": 1}


async def test_an_event_that_fails_again_and_again__is_given_to_a_person(world: World) -> None:
    run_id = await dispatched(world, now() - 2 * HOUR)
    world.runs.end(run_id, "failed")
    await world.run_sql("UPDATE event SET attempts = 12")

    assert await reconcile(world) == {}

    row = await world.event()
    assert row.state == "failed"
    assert "ended 12 times" in row.reason
    assert "replay" in row.reason


async def test_a_dispatch_that_is_known_by_another_id_now__is_no_error(world: World) -> None:
    """An operator replays an event between the keeper's look and its dispatch."""
    (event_id,) = await stored(world, ago=timedelta(minutes=1))
    old = (await world.event()).dispatch_id
    async with world.ledger.transaction() as connection:
        await inbox.requeue(connection, [event_id])

    assert await dispatch(world.ledger, world.runs, old, now()) is None

    assert world.runs.handlers == []


# -- mails ---------------------------------------------------------------------------------------------------


async def test_future_mails_without_a_run__get_theirs(world: World) -> None:
    await planned(world, schedule_them=False)

    assert await reconcile(world) == {"scheduled": 2}

    assert sorted(r.slot.template for r in world.runs.sends if r.slot) == [HELLO[1], HELLO[2]]
    assert await reconcile(world) == {}


async def test_a_run_that_a_person_cancelled__cancels_its_mails_and_no_others(world: World) -> None:
    at = await planned(world)
    run = next(r for r in world.runs.sends if r.slot and r.slot.template == HELLO[1])
    world.runs.end(run.id, "cancelled")

    assert await reconcile(world, at) == {"cancelled": 1}

    row = await world.message(HELLO[1])
    assert (row.state, row.reason) == ("cancelled", "cancelled in Prefect's dashboard")
    assert (await world.message(HELLO[2])).state == "scheduled"
    await world.send(template=HELLO[1])
    assert len(world.inbox()) == 1


@pytest.mark.parametrize("how", ["failed", "crashed", "completed"])
async def test_a_run_that_ended_otherwise__gives_its_mails_back_and_they_get_another(world: World, how: str) -> None:
    at = await planned(world)
    run = next(r for r in world.runs.sends if r.slot and r.slot.template == HELLO[1])
    world.runs.end(run.id, how)

    await reconcile(world, at)

    row = await world.message(HELLO[1])
    assert row.state == "scheduled"
    assert row.flow_run_id not in {None, run.id}


async def test_a_run_that_was_deleted__is_found_by_the_thorough_look(world: World) -> None:
    at = await planned(world)
    run = next(r for r in world.runs.sends if r.slot and r.slot.template == HELLO[2])
    world.runs.forget(run.id)

    assert await reconcile(world, at) == {}
    assert await reconcile(world, at, thorough=True) == {"scheduled": 1}

    assert (await world.message(HELLO[2])).flow_run_id not in {None, run.id}


async def test_an_overdue_mail_without_a_run__gets_one_at_once(world: World) -> None:
    at = await planned(world, schedule_them=False)
    late = at + HOUR + timedelta(minutes=2)

    assert await reconcile(world, late) == {"late": 1, "scheduled": 1}

    (run,) = [r for r in world.runs.sends if r.slot and r.slot.template == HELLO[1]]
    assert run.at == late
    assert (await world.message(HELLO[1])).flow_run_id == run.id
    assert await reconcile(world, late) == {}


async def test_an_overdue_mail_whose_run_waits_for_a_worker__is_left_to_it(world: World) -> None:
    at = await planned(world)

    assert await reconcile(world, at + 2 * HOUR) == {}


async def left_behind(world: World) -> str:
    """A mail whose run has died with it in its hands; returns its address."""
    (who,) = await world.enrolled()
    world.box.fault("work_then_reset", service="resend", path="/emails", times=1)
    with pytest.raises(OutcomeUnknown):
        await world.send()
    return who


async def test_a_dead_runs_claim__gets_a_run_that_sends_it_under_the_same_key(world: World) -> None:
    who = await left_behind(world)

    done = await reconcile(world)
    await world.send(template="whatever is left behind")

    assert done["taken over"] == 1
    assert world.runs.of("winter-send-email")
    assert world.mailed() == [who]
    assert (await world.message()).state == "sent"
    assert "taken over" not in await reconcile(world)


async def test_a_living_claim__is_not_taken_over(world: World) -> None:
    await world.enrolled()
    delivery = world.delivery()

    await delivery.next_claim(Selection("winter", now() + timedelta(seconds=1)), uuid4())

    assert "taken over" not in await reconcile(world)


async def test_changed_rows__have_notion_brought_up_to_date(world: World) -> None:
    await planned(world)

    done = await steps.reconcile(world.ledger, world.runs, world.campaigns, now())

    assert done["mirrors"] == 1
    assert len(world.runs.of("tidings-notion-mirror")) == 1


async def test_prefect_away__is_said_and_nothing_is_lost(world: World) -> None:
    await planned(world, schedule_them=False)
    world.runs.away = True

    with pytest.raises(RetryLater):
        await reconcile(world)
    world.runs.away = False

    assert await reconcile(world) == {"scheduled": 2}


# -- one fault keeps back nothing else -----------------------------------------------------------------------


async def another_campaigns(world: World, name: str) -> None:
    """Mails of a further campaign, soon, late and in a dead claim; all come before those of the winter campaign."""
    for template, minutes in ((HELLO[0], -90), (HELLO[1], -30), (HELLO[2], 10)):
        await world.run_sql(
            "UPDATE message SET campaign = :name, slot_at = now() + :minutes * interval '1 minute' WHERE template = :t",
            name=name, minutes=minutes, t=template,
        )  # fmt: skip
    await world.run_sql("UPDATE claim SET campaign = :name", name=name)


@pytest.mark.parametrize("fault", ["its folder is gone", "its deployment is missing"])
async def test_a_campaign_that_cannot_send__keeps_back_no_other(
    world: World, fault: str, caplog: pytest.LogCaptureFixture
) -> None:
    await left_behind(world)
    await another_campaigns(world, "autumn")
    await left_behind(world)
    at = now()
    await world.run_sql("UPDATE message SET slot_at = :at WHERE template = :t AND campaign = 'winter'",
                        at=at - timedelta(minutes=5), t=HELLO[1])  # fmt: skip
    world.runs.missing = {"autumn-send-email"}
    if fault == "its deployment is missing":
        world = replace(world, campaigns=Campaigns([WINTER, AUTUMN]))

    with pytest.raises(TidingsError, match="autumn"):
        await reconcile(world, at)

    ours = {run.slot.template for run in world.runs.sends if run.slot and run.slot.campaign == "winter"}
    assert ours == {HELLO[1], HELLO[2]}
    assert [run.deployment for run in world.runs.by_key.values() if run.key.startswith("left:")] == [
        "winter-send-email"
    ]
    assert world.runs.of("tidings-notion-mirror")
    said = {r.__dict__["step"]: r.__dict__["error"] for r in caplog.records if r.message == "reconcile.failed"}
    assert set(said) == {"scheduled", "late", "taken over"}
    assert all("autumn" in error for error in said.values())


async def test_a_step_that_fails__keeps_back_no_other(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    await planned(world, schedule_them=False)
    await stored(world, ago=timedelta(minutes=1))

    async def too_slow(*_: Any) -> Any:
        raise OutcomeUnknown("Prefect", "flow runs: no answer within 5 s")

    monkeypatch.setattr(world.runs, "ended_lately", too_slow)

    with pytest.raises(OutcomeUnknown, match="flow runs"):
        await reconcile(world)

    assert len(world.runs.sends) == 2
    assert world.runs.of("tidings-notion-mirror")


@pytest.mark.parametrize("away", [False, True])
async def test_the_keeper__begins_anew_for_what_may_pass_and_goes_on_beside_what_waits_for_a_person(
    world: World, away: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    await planned(world, schedule_them=False)
    await another_campaigns(world, "autumn")
    at = now()
    await world.run_sql(
        "INSERT INTO form_tally VALUES (:past, 'winter-hello', 'x', 1)", past=at.date() - timedelta(days=1000)
    )
    world.runs.away = away
    parts: Any = SimpleNamespace(ledger=world.ledger, runs=world.runs, campaigns=world.campaigns, settings=None)
    monkeypatch.setattr(keeper, "deadman_of", lambda _: None)

    with pytest.raises(RetryLater) if away else nullcontext():
        await keeper._whole_round(parts, lambda: at)

    assert await world.rows("SELECT * FROM form_tally") == []  # the rest of the round is done


@pytest.mark.usefixtures("no_second_look")
async def test_a_dead_run_that_cannot_be_buried__keeps_back_no_other(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    gone, dead = sorted([uuid4(), uuid4()], key=lambda run_id: hash(run_id))
    world.runs.taken = [UnderWay(run_id, now() - HOUR, False) for run_id in (gone, dead)]
    bury = world.runs.bury

    async def one_is_deleted(run_id: UUID) -> None:
        if run_id == gone:
            raise Refused("Prefect", f"flow run {run_id} does not exist", status=404)
        await bury(run_id)

    monkeypatch.setattr(world.runs, "bury", one_is_deleted)

    assert await steps.bury_dead(world.ledger, world.runs, now()) == 1
    assert world.runs.buried == [dead]


# -- runs that died in silence -------------------------------------------------------------------------------


@pytest.fixture
def no_second_look(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(steps, "SECOND_LOOK_SECONDS", 0.0)


@pytest.mark.usefixtures("no_second_look")
@pytest.mark.parametrize(
    ("ago", "pending", "dead"), [(16, False, True), (14, False, False), (30, True, False), (46, True, True)]
)
async def test_a_run_without_a_living_process__is_buried_after_its_time(
    world: World, ago: float, pending: bool, dead: bool
) -> None:
    at, run_id = now(), uuid4()
    world.runs.taken = [UnderWay(run_id, at - timedelta(seconds=ago), pending)]

    assert await steps.bury_dead(world.ledger, world.runs, at) == int(dead)

    assert world.runs.buried == [run_id][: int(dead)]


@pytest.mark.usefixtures("no_second_look")
async def test_a_run_that_lives__is_never_buried(world: World) -> None:
    at, run_id = now(), uuid4()
    world.runs.taken = [UnderWay(run_id, at - HOUR, False)]

    async with liveness.alive(world.ledger, run_id):
        while not await living(world, run_id):
            pass
        assert await steps.bury_dead(world.ledger, world.runs, at) == 0

    assert world.runs.buried == []


async def living(world: World, run_id: UUID) -> bool:
    async with world.ledger.reading() as connection:
        return run_id in await liveness.living(connection, [run_id])
