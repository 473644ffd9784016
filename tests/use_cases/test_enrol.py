"""From events to enrolments: every template is tried before anything is sent, and what fails can be replayed."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import pytest
from winter import HELLO, MEETING
from worlds import World, add_template, address, replay_named

from tidings.adapters.notion import BODY, PropertyMissing
from tidings.enrol import schedule
from tidings.errors import OutcomeUnknown, RetryLater

AT = datetime(2026, 12, 1, 15, 0, 30, tzinfo=UTC)


async def stored(world: World, path: str = "winter-hello", **body: Any) -> UUID:
    arrival = world.arrival(path, **body)
    await world.accept(arrival)
    return arrival.id


async def page_of(world: World, name: str) -> str:
    rows = await world.notion.query("NOTION_TEMPLATES_DB_ID", world.templates_id)
    return next(str(r["id"]) for r in rows if r["properties"]["Template Name"]["title"][0]["plain_text"] == name)


async def trash(world: World, name: str) -> None:
    await world.notion._client.pages.update(page_id=await page_of(world, name), in_trash=True)


async def rename(world: World, name: str, new: str) -> None:
    title = {"Template Name": {"title": [{"type": "text", "text": {"content": new}}]}}
    await world.notion.update_row(await page_of(world, name), title)


async def replayed(world: World, event_id: UUID) -> None:
    """What an operator does, and the handler run after it."""
    await replay_named(world.ledger, world.runs, world.campaigns, event_id)
    await world.enrol(event_id)


async def test_an_event__becomes_an_enrolment_with_all_its_messages(world: World) -> None:
    event_id = await stored(world, at=AT, first_name="Ada")

    done = await world.enrol(event_id, at=AT)

    (enrolment,) = await world.rows("SELECT * FROM enrolment")
    messages = await world.rows("SELECT * FROM message ORDER BY position")
    assert done.new == (event_id,)
    assert (await world.event()).state == "handled"
    assert (enrolment.event_id, enrolment.anchor, enrolment.variables) == (event_id, AT, {"first_name": "Ada"})
    assert [(m.template, m.due_at - AT, m.state) for m in messages] == [
        (HELLO[0], timedelta(0), "scheduled"),
        (HELLO[1], timedelta(hours=1), "scheduled"),
        (HELLO[2], timedelta(days=1), "scheduled"),
    ]
    assert [m.slot_at for m in messages[1:]] == [m.due_at + timedelta(seconds=30) for m in messages[1:]]


async def test_f15_an_event_handled_twice__is_enrolled_once(world: World) -> None:
    event_id = await stored(world)
    await world.enrol(event_id)

    again = await world.enrol(event_id)

    assert (again.new, again.known, again.failed) == ((), (), {})
    assert len(await world.messages()) == 1


async def test_f15_parallel_runs_of_one_event__enrol_once(world: World) -> None:
    event_id = await stored(world)

    done = await asyncio.gather(*[world.enrol(event_id) for _ in range(6)])

    assert sum(len(d.new) for d in done) == 1
    assert len(await world.rows("SELECT id FROM enrolment")) == 1
    assert len(await world.messages()) == 1


async def test_a_second_event_of_the_same_business_key__starts_nothing_and_says_so(world: World) -> None:
    email = address()
    first, second = await stored(world, email=email), await stored(world, email=email, first_name="Ada")
    await world.enrol(first)

    done = await world.enrol(second)

    row = next(e for e in await world.events() if e.id == second)
    assert done.known == (second,)
    assert (row.state, row.reason) == ("handled", "the contact is in this sequence already")
    assert len(await world.messages()) == 1


async def test_two_events_of_one_key_in_one_run__enrol_once(world: World) -> None:
    email = address()
    first, second = await stored(world, email=email), await stored(world, email=email, first_name="Ada")

    done = await world.enrol(first, second)

    assert (len(done.new), len(done.known)) == (1, 1)
    assert {e.state for e in await world.events()} == {"handled"}


async def test_an_ignored_event__is_never_enrolled(world: World) -> None:
    event_id = await stored(world, consent=False)

    assert await world.enrol(event_id) == await world.enrol()
    assert await world.messages() == []


# -- F2, F3, F11: one bad template, and nothing is sent ------------------------------------------------------


@pytest.mark.parametrize("name", HELLO)
async def test_f2_an_empty_template__fails_the_event_before_any_mail_and_can_be_replayed(
    world: World, name: str
) -> None:
    await world.edit_template(name, body="")
    event_id = await stored(world)

    done = await world.enrol(event_id)
    await world.send()

    row = await world.event()
    assert list(done.failed) == [event_id]
    assert row.state == "failed"
    assert f"Template '{name}' has an empty 'Email Body HTML'" in row.reason
    assert "NOTION_TEMPLATES_DB_ID" in row.reason
    assert "replay" in row.reason
    assert await world.rows("SELECT id FROM message") == []
    assert world.calls() == []

    await world.edit_template(name, body="<p>Hello again</p>")
    await replayed(world, event_id)
    await world.send()

    assert (await world.event()).state == "handled"
    assert len(world.inbox()) == 1
    assert len(await world.rows("SELECT id FROM message")) == 3


async def test_f2_an_empty_subject__fails_the_event_too(world: World) -> None:
    await world.edit_template(HELLO[2], subject=" ")
    event_id = await stored(world)

    await world.enrol(event_id)

    assert f"Template '{HELLO[2]}' has an empty 'Subject Line'" in (await world.event()).reason


@pytest.mark.parametrize("there", [f"{HELLO[1]}: Your second mail", HELLO[1].upper(), f" {HELLO[1]} x", HELLO[1][:-1]])
async def test_f3_a_name_that_is_only_alike__is_missing(world: World, there: str) -> None:
    await rename(world, HELLO[1], there)
    event_id = await stored(world)

    await world.enrol(event_id)
    await world.send()

    row = await world.event()
    assert row.state == "failed"
    assert f"Template '{HELLO[1]}' is missing in the templates database (NOTION_TEMPLATES_DB_ID)" in row.reason
    assert world.calls() == []


async def test_f3_a_name_that_begins_alike__does_not_stand_in_the_way_of_the_right_one(world: World) -> None:
    await add_template(world.notion, world.templates_id, f"{HELLO[0]}: Your first mail", "No", "<p>No</p>")
    (_,) = await world.enrolled()

    await world.send()

    assert world.inbox()[0]["subject"].startswith(f"{HELLO[0]} for")


async def test_a_missing_template__names_the_cure_and_the_replay_sends_the_sequence(world: World) -> None:
    await trash(world, HELLO[2])
    event_id = await stored(world)
    await world.enrol(event_id)
    assert "tidings templates push" in (await world.event()).reason

    await add_template(world.notion, world.templates_id, HELLO[2], "Third", "<p>Third</p>")
    await replayed(world, event_id)
    await world.send()

    assert len(world.inbox()) == 1
    assert (await world.event()).state == "handled"


async def test_a_template_that_exists_twice__fails_the_event(world: World) -> None:
    await add_template(world.notion, world.templates_id, HELLO[1], "Other", "<p>Other</p>")
    event_id = await stored(world)

    await world.enrol(event_id)

    assert f"Template '{HELLO[1]}' exists 2 times" in (await world.event()).reason


async def test_f11_a_variable_nobody_knows_on_day_nine__fails_the_event_before_the_first_mail(world: World) -> None:
    await world.edit_template(HELLO[2], body="<p>Your score is {{ Score1 }}</p>")
    event_id = await stored(world)

    await world.enrol(event_id)
    await world.send()

    reason = (await world.event()).reason
    assert HELLO[2] in reason
    assert "'Score1' is undefined" in reason
    assert "default" in reason
    assert world.calls() == []


async def test_f11_a_variable_unknown_for_one_contact__fails_only_that_one(world: World) -> None:
    await world.edit_template(HELLO[1], body="<p>{{ business_name }}</p>")
    known, unknown = await stored(world, business_name="Ada & Co"), await stored(world)

    done = await world.enrol(known, unknown)

    assert done.new == (known,)
    assert list(done.failed) == [unknown]


async def test_another_sequences_bad_template__does_not_matter(world: World) -> None:
    await world.edit_template(MEETING[0], body="")

    event_id = await stored(world)

    assert (await world.enrol(event_id)).new == (event_id,)


async def test_f10_a_missing_property__is_told_and_the_event_waits(world: World) -> None:
    source = await world.notion.source_id("NOTION_TEMPLATES_DB_ID", world.templates_id)
    await world.notion._client.data_sources.update(data_source_id=source, properties={BODY: {"name": "Words"}})
    event_id = await stored(world)

    with pytest.raises(PropertyMissing, match="NOTION_TEMPLATES_DB_ID has no property 'Email Body HTML'"):
        await world.enrol(event_id)

    assert (await world.event()).state == "accepted"
    assert world.calls() == []


@pytest.mark.parametrize(
    ("fault", "kind"), [({"kind": "status", "status": 429}, RetryLater), ({"kind": "reset"}, OutcomeUnknown)]
)
async def test_notion_away__changes_nothing_and_the_next_attempt_enrols(
    world: World, fault: dict[str, Any], kind: type[Exception]
) -> None:
    event_id = await stored(world)
    world.box.fault(service="notion", **fault)

    with pytest.raises(kind):
        await world.enrol(event_id)
    assert (await world.event()).state == "accepted"

    assert (await world.enrol(event_id)).new == (event_id,)


# -- when ----------------------------------------------------------------------------------------------------


async def plan(world: World, path: str, *, late: timedelta = timedelta(0), **body: Any) -> dict[str, Any]:
    arrival = world.arrival(path, at=AT, **body)
    await world.accept(arrival)
    await world.enrol(arrival.id, at=AT + late)
    return {m.template: m for m in await world.rows("SELECT * FROM message")}


async def test_mails_before_a_meeting__are_only_those_still_ahead(world: World) -> None:
    found = await plan(world, "winter-meeting", starts=AT + timedelta(hours=20))

    assert (found[MEETING[0]].state, found[MEETING[1]].state) == ("skipped", "scheduled")
    assert found[MEETING[0]].reason == "its time had passed when the booking came in"
    assert found[MEETING[1]].due_at == AT + timedelta(hours=19)


async def test_mails_before_a_meeting__that_has_begun_are_none(world: World) -> None:
    found = await plan(world, "winter-meeting", starts=AT - timedelta(minutes=1))

    assert {m.state for m in found.values()} == {"skipped"}


async def test_a_mail_that_the_website_has_sent__is_skipped_with_the_reason(world: World) -> None:
    found = await plan(world, "winter-hello", sent_at=AT - timedelta(minutes=1))

    assert [found[t].state for t in HELLO] == ["skipped", "scheduled", "scheduled"]
    assert found[HELLO[0]].reason == "already sent by the website at 2026-12-01T14:59:30+00:00"


async def test_an_event_handled_a_little_late__keeps_its_times(world: World) -> None:
    found = await plan(world, "winter-hello", late=timedelta(minutes=59))

    assert [found[t].due_at - AT for t in HELLO] == [timedelta(0), timedelta(hours=1), timedelta(days=1)]


async def test_an_event_handled_days_late__starts_anew_and_sends_not_all_at_once(world: World) -> None:
    late = timedelta(days=3)

    found = await plan(world, "winter-hello", late=late)

    assert [found[t].due_at - AT for t in HELLO] == [late, late + timedelta(hours=1), late + timedelta(days=1)]


async def test_testing_mode__is_that_of_the_moment_the_event_came_in(world: World) -> None:
    arrival = world.arrival(at=AT)
    object.__setattr__(arrival, "testing_minute", 8.0)
    await world.accept(arrival)

    await world.enrol(arrival.id, at=AT)

    found = {m.template: m for m in await world.rows("SELECT * FROM message")}
    assert [found[t].due_at - AT for t in HELLO] == [timedelta(seconds=s) for s in (0, 8, 16)]
    assert all(timedelta(0) <= m.slot_at - m.due_at < timedelta(seconds=2) for m in found.values())


# -- one run a slot ------------------------------------------------------------------------------------------


async def scheduled(world: World, *event_ids: UUID, at: datetime) -> int:
    return await schedule(world.ledger, world.runs, event_ids or None, at, lambda slot: None)


async def test_future_mails__get_one_run_a_template_and_minute(world: World) -> None:
    arrivals = [world.arrival(at=AT) for _ in range(5)]
    await world.accept(*arrivals)
    await world.enrol(*[a.id for a in arrivals], at=AT)

    assert await scheduled(world, *[a.id for a in arrivals], at=AT) == 2

    runs = {r.slot.template: r for r in world.runs.sends if r.slot}
    assert sorted(runs) == [HELLO[1], HELLO[2]]
    assert runs[HELLO[1]].key == f"send:{HELLO[1]}:2026-12-01T16:01:00+00:00"
    assert runs[HELLO[1]].at == datetime(2026, 12, 1, 16, 1, tzinfo=UTC)
    assert {m.flow_run_id for m in await world.messages(HELLO[1])} == {runs[HELLO[1]].id}
    assert {m.flow_run_id for m in await world.messages(HELLO[0])} == {None}  # the handler sends it itself


async def test_later_mails_of_the_same_minute__join_the_run(world: World) -> None:
    for _ in range(2):
        arrival = world.arrival(at=AT)
        await world.accept(arrival)
        await world.enrol(arrival.id, at=AT)
        await scheduled(world, arrival.id, at=AT)

    assert len(world.runs.sends) == 2
    assert {m.flow_run_id is None for m in await world.messages(HELLO[2])} == {False}


async def test_a_slot_whose_run_has_ended__gets_a_further_one(world: World) -> None:
    arrival = world.arrival(at=AT)
    await world.accept(arrival)
    await world.enrol(arrival.id, at=AT)
    await scheduled(world, at=AT)
    for run in world.runs.sends:
        world.runs.end(run.id, "completed")
    await world.run_sql("UPDATE message SET flow_run_id = NULL")

    await scheduled(world, at=AT)

    waiting = {r.id for r in world.runs.sends if r.ended is None}
    assert {m.flow_run_id for t in HELLO[1:] for m in await world.messages(t)} == waiting


async def test_prefect_away__leaves_the_mails_to_be_scheduled_later(world: World) -> None:
    arrival = world.arrival(at=AT)
    await world.accept(arrival)
    await world.enrol(arrival.id, at=AT)
    world.runs.away = True

    with pytest.raises(RetryLater):
        await scheduled(world, at=AT)
    world.runs.away = False

    assert await scheduled(world, at=AT) == 2
