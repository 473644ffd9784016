"""What operators do: replay events, retry and cancel messages. Nothing is sent twice by it."""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

import pytest
from winter import HELLO, WINTER
from worlds import World, address, now

from tidings import operate
from tidings import replay as replaying
from tidings.errors import OutcomeUnknown
from tidings.ledger import inbox
from tidings.operate import cancel_messages, retry_messages
from tidings.replay import WAITS, Page, Wanted, replay


async def pages(world: World, *, dry_run: bool = False, **given: Any) -> list[Page]:
    wanted = Wanted(**given)
    return [p async for p in replay(world.ledger, world.runs, world.campaigns, wanted, dry_run=dry_run, now=now())]


async def run_replay(world: World, **given: Any) -> dict[UUID, str]:
    return {event_id: what for page in await pages(world, **given) for event_id, what in page.told.items()}


async def failed_event(world: World) -> UUID:
    """An event that failed for its copy, which is mended by now."""
    await world.edit_template(HELLO[1], body="")
    arrival = world.arrival()
    await world.accept(arrival)
    await world.enrol(arrival.id)
    await world.edit_template(HELLO[1], body="<p>Mended</p>")
    return arrival.id


async def test_a_failed_event__is_dispatched_anew(world: World) -> None:
    event_id = await failed_event(world)

    assert await run_replay(world, ids=[event_id]) == {event_id: "replayed"}

    row = await world.event()
    (run,) = world.runs.handlers
    assert (row.state, row.reason, row.flow_run_id, run.event_ids) == ("dispatched", None, run.id, (event_id,))
    assert (await world.enrol(event_id)).new == (event_id,)


async def test_all_failed_events__are_found(world: World) -> None:
    failed = await failed_event(world)
    await world.enrolled()

    assert await run_replay(world, failed=True) == {failed: "replayed"}


async def test_events_of_a_time__are_found(world: World) -> None:
    early, late = (world.arrival(at=now() - timedelta(hours=h)) for h in (5, 1))
    await world.accept(early)
    await world.accept(late)

    found = await run_replay(world, since=now() - timedelta(hours=2), until=now(), dry_run=True)

    assert found == {late.id: "would be replayed"}


async def test_a_dry_run__changes_nothing(world: World) -> None:
    event_id = await failed_event(world)
    before = await world.events()

    assert await run_replay(world, ids=[event_id], dry_run=True) == {event_id: "would be replayed"}

    assert await world.events() == before
    assert world.runs.calls == []


async def test_f15_a_handled_event__replayed_sends_nothing_again(world: World) -> None:
    await world.enrolled()
    await world.send()
    event_id = (await world.event()).id

    await run_replay(world, ids=[event_id])
    done = await world.enrol(event_id)
    await world.send()

    assert done.known == (event_id,)
    assert len(world.inbox()) == 1


async def test_an_ignored_or_unknown_event__is_told_as_such(world: World) -> None:
    ignored = world.arrival(consent=False)
    await world.accept(ignored)
    unknown = uuid4()

    found = await run_replay(world, ids=[ignored.id, unknown])

    assert found == {ignored.id: "starts nothing by rule", unknown: "not known"}
    assert (await world.event()).state == "ignored"


async def test_prefect_away__leaves_the_replay_to_the_keeper_and_says_so(world: World) -> None:
    event_id = await failed_event(world)
    world.runs.away = True

    assert await run_replay(world, ids=[event_id]) == {event_id: WAITS}

    row = await world.event()
    assert (row.state, row.flow_run_id) == ("accepted", None)
    assert row.dispatch_id is not None


async def test_prefect_away__is_asked_once_and_not_for_each_page(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(replaying, "PAGE", 1)
    for _ in range(3):
        await world.accept(world.arrival())
    asked = 0

    async def nobody(*_: Any) -> UUID:
        nonlocal asked
        asked += 1
        raise OutcomeUnknown("Prefect", "did not answer in time")

    monkeypatch.setattr(world.runs, "start_handler", nobody)
    found = await run_replay(world, until=now())

    assert (list(found.values()), asked) == ([WAITS] * 3, 1)


async def test_a_missing_deployment__keeps_back_its_own_events_only(world: World) -> None:
    lost, fine = world.arrival(), world.arrival("winter-meeting", starts=now() + timedelta(days=9))
    await world.accept(lost, fine)
    world.runs.missing = {"winter-hello-handler"}

    assert await run_replay(world, until=now()) == {lost.id: WAITS, fine.id: "replayed"}


async def test_many_events__are_replayed_from_the_oldest_on_and_what_remains_is_told(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(replaying, "PAGE", 2)
    at = now() - timedelta(hours=1)
    some = [world.arrival(at=at + timedelta(minutes=minute // 2)) for minute in range(5)]  # two at the same moment
    for each in (some[3], some[0], some[4], some[1], some[2]):
        await world.accept(each)
    unknown, late = uuid4(), world.arrival(at=now() + timedelta(minutes=1))
    await world.accept(late)

    found = await pages(world, ids=[some[4].id, unknown], since=at)

    in_order = [e.id for e in sorted(some[:4], key=lambda e: (e.received_at, e.id))]
    assert [list(page.told) for page in found] == [[unknown, some[4].id], in_order[:2], in_order[2:], []]
    assert [page.remaining for page in found] == [5, 3, 1, 0]
    assert {what for page in found for what in page.told.values()} == {"not known", "replayed"}


async def test_events_behind_another__are_those_that_came_after_it(world: World) -> None:
    at = now() - timedelta(hours=1)
    early, late = world.arrival(at=at), world.arrival(at=at + timedelta(minutes=1))
    await world.accept(early, late)

    assert await run_replay(world, until=now(), after=(at, early.id), dry_run=True) == {late.id: "would be replayed"}


# -- quarantine ----------------------------------------------------------------------------------------------


async def quarantined(world: World, raw: bytes, *, at: datetime | None = None) -> UUID:
    webhook = WINTER.webhook("winter-hello")
    async with world.ledger.transaction() as connection:
        await inbox.quarantine(
            connection, source=webhook.path, campaign="winter", deployment=webhook.deployment, raw=raw,
            reason="email: not an address", now=at or now(),
        )  # fmt: skip
    return UUID(str((await world.events())[0].id))


@pytest.mark.parametrize("raw", [b'{"email": 5}', b"\xff\xfe", b"a\x00b", b"", b'{"email": "\\u0000"}'])
async def test_a_body_in_quarantine__is_kept_whatever_its_bytes_and_told_as_still_invalid(
    world: World, raw: bytes
) -> None:
    event_id = await quarantined(world, raw)

    found = await run_replay(world, ids=[event_id])

    assert "still not valid" in found[event_id]
    assert (await world.event()).state == "quarantined"


async def test_a_body_in_quarantine__that_is_valid_by_now_becomes_an_event(world: World) -> None:
    email = address()
    event_id = await quarantined(world, f'{{"email": "{email}"}}'.encode())

    found = await run_replay(world, ids=[event_id])

    taken = next(e for e in await world.events() if e.id != event_id)
    assert found == {event_id: f"taken in as {taken.id}"}
    assert taken.state == "dispatched"
    assert next(e for e in await world.events() if e.id == event_id).state == "ignored"


@pytest.mark.parametrize("withdrawn", [False, True])
async def test_a_body_in_quarantine__consents_when_it_came_in_and_not_when_it_is_replayed(
    world: World, withdrawn: bool
) -> None:
    email, then = address(), now() - timedelta(days=3)
    event_id = await quarantined(world, json.dumps({"email": email, "consent": True}).encode(), at=then)
    if withdrawn:
        await world.accept(world.arrival(email=email, consent=False, at=then + timedelta(days=1)))

    await run_replay(world, ids=[event_id])
    (run,) = world.runs.handlers
    await world.enrol(*run.event_ids)
    await world.send()

    (told,) = await world.rows("SELECT consent, consent_at FROM contact")
    assert (told.consent, told.consent_at) == ((False, then + timedelta(days=1)) if withdrawn else (True, then))
    (enrolment,) = await world.rows("SELECT consent_at FROM enrolment")
    assert enrolment.consent_at == then
    assert world.mailed() == ([] if withdrawn else [email])


async def test_a_body_in_quarantine__is_kept_once_however_often_it_comes(world: World) -> None:
    for _ in range(3):
        await quarantined(world, b"[]")

    assert len(await world.events()) == 1


# -- messages ------------------------------------------------------------------------------------------------


async def with_failed_mail(world: World) -> str:
    (who,) = await world.enrolled()
    await world.edit_template(HELLO[0], body="<p>{{ nobody_knows }}</p>")
    await world.send()
    await world.edit_template(HELLO[0], body="<p>Mended</p>")
    return who


async def test_a_failed_message__is_rendered_anew_and_sent_once(world: World) -> None:
    who = await with_failed_mail(world)

    found = await retry_messages(world.ledger, email=who, now=now())
    await world.send()

    assert found == [(await world.message()).id]
    assert world.mailed() == [who]
    assert "Mended" in world.inbox()[0]["html"]
    assert await retry_messages(world.ledger, email=who, now=now()) == []


async def test_an_unknown_message__needs_a_persons_word(world: World) -> None:
    (who,) = await world.enrolled()
    world.box.fault("status", service="resend", path="/emails", status=409, code="invalid_idempotent_request")
    await world.send()

    assert await retry_messages(world.ledger, email=who, now=now()) == []
    assert await retry_messages(world.ledger, email=who, may_be_sent_twice=True, now=now()) != []
    await world.send()

    assert world.mailed() == [who]


async def test_many_messages__are_retried_page_by_page(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(operate, "PAGE", 2)
    (who,) = await world.enrolled()
    await cancel_messages(world.ledger, who, sequence=None, reason="x", dry_run=False, now=now())
    told: list[tuple[int, int]] = []

    def hear(done: Sequence[UUID], remaining: int) -> None:
        told.append((len(done), remaining))

    tried = await retry_messages(world.ledger, email=who, dry_run=True, now=now(), told=hear)
    found = await retry_messages(world.ledger, email=who, now=now(), told=hear)

    assert tried == found == [(await world.message(t)).id for t in HELLO]
    assert told == [(2, 1), (1, 0)] * 2
    assert {(await world.message(t)).state for t in HELLO} == {"scheduled"}


async def test_cancelling__stops_what_waits_and_nothing_else(world: World) -> None:
    (who,) = await world.enrolled()
    await world.send()

    found = await cancel_messages(
        world.ledger, who.upper(), sequence=None, reason="asked by phone", dry_run=False, now=now()
    )

    assert found is not None
    assert len(found) == 2
    assert [(await world.message(t)).state for t in HELLO] == ["sent", "cancelled", "cancelled"]
    assert (await world.message(HELLO[1])).reason == "asked by phone"


async def test_cancelling__another_sequence_or_nobody(world: World) -> None:
    (who,) = await world.enrolled()
    given: dict[str, Any] = {"reason": "x", "now": now()}

    assert await cancel_messages(world.ledger, who, sequence="meeting", dry_run=False, **given) == []
    assert await cancel_messages(world.ledger, "nobody@x.co", sequence=None, dry_run=False, **given) is None
    assert len(await cancel_messages(world.ledger, who, sequence=None, dry_run=True, **given) or []) == 3
    assert {(await world.message(t)).state for t in HELLO} == {"scheduled"}
