"""What a page is told of its post, at every step of the way: what is true, and nothing personal."""

from __future__ import annotations

from datetime import timedelta
from typing import Any
from uuid import UUID, uuid4

import pytest
from winter import HELLO
from worlds import World, now

from tidings.ledger import inbox
from tidings.model import TAKEN_IN, EventState, MessageState
from tidings.progress import Progress, Stage, progress_of


async def told(world: World, event_id: UUID) -> Progress:
    found = await progress_of(world.ledger, event_id, now())
    assert found is not None
    return found


async def enrolled(world: World, **body: Any) -> UUID:
    arrival = world.arrival(**body)
    await world.accept(arrival)
    await world.enrol(arrival.id)
    return arrival.id


async def test_from_the_post_to_the_delivery__each_step_is_told(world: World) -> None:
    arrival = world.arrival()
    await world.accept(arrival)
    assert (await told(world, arrival.id)).stage is Stage.RECEIVED

    (row,) = await world.events()
    async with world.ledger.transaction() as connection:
        await inbox.dispatched(connection, row.dispatch_id, uuid4(), now())
    assert (await told(world, arrival.id)).stage is Stage.WORKING

    await world.enrol(arrival.id)
    on_its_way = await told(world, arrival.id)
    assert (on_its_way.stage, on_its_way.ask_again(now())) == (Stage.WORKING, 2)

    await world.send()
    sent = await told(world, arrival.id)
    assert (sent.stage, sent.words) == (Stage.SENT, "The first email has been sent.")
    assert sent.at == (await world.message()).sent_at

    await world.run_sql("UPDATE message SET state = 'delivered' WHERE template = :t", t=HELLO[0])
    delivered = await told(world, arrival.id)
    assert (delivered.stage, delivered.final, delivered.ask_again(now())) == (Stage.DELIVERED, True, None)


async def test_a_template_that_is_missing__is_told_as_a_failure_without_its_name(world: World) -> None:
    await world.edit_template(HELLO[0], body=" ")

    failed = await told(world, await enrolled(world))

    assert (failed.stage, failed.final) == (Stage.FAILED, True)
    assert failed.words == "We have received this, but could not send the email."


@pytest.mark.parametrize(
    ("state", "stage", "words"),
    [
        (MessageState.SENDING, Stage.WORKING, "on its way"),
        (MessageState.COMPLAINED, Stage.DELIVERED, "delivered"),
        (MessageState.BOUNCED, Stage.FAILED, "could not be delivered to this address"),
        (MessageState.FAILED, Stage.FAILED, "could not send"),
        (MessageState.UNKNOWN, Stage.FAILED, "cannot tell whether"),
        (MessageState.HELD, Stage.WORKING, "on its way"),
    ],
)
async def test_each_state_of_the_first_mail__has_words(
    world: World, state: MessageState, stage: Stage, words: str
) -> None:
    event_id = await enrolled(world)
    await world.run_sql("UPDATE message SET state = :s, reason = 'secret' WHERE template = :t", s=state, t=HELLO[0])

    progress = await told(world, event_id)

    assert progress.stage is stage
    assert words in progress.words
    assert "secret" not in progress.words


async def test_a_mail_that_is_due_later__is_told_with_its_time(world: World) -> None:
    event_id = await enrolled(world)
    later = now() + timedelta(minutes=5)
    await world.run_sql("UPDATE message SET due_at = :at WHERE template = :t", at=later, t=HELLO[0])

    planned = await told(world, event_id)

    assert (planned.stage, planned.at) == (Stage.PLANNED, later)
    assert planned.ask_again(later - timedelta(seconds=200)) == 200
    assert planned.ask_again(later - timedelta(days=3)) == 3600


async def test_the_first_mail__is_the_first_that_we_send(world: World) -> None:
    """The website may have sent its first mail itself; then the second one is ours."""
    event_id = await enrolled(world)
    await world.run_sql("UPDATE message SET state = 'skipped' WHERE template = :t", t=HELLO[0])

    assert (await told(world, event_id)).stage is Stage.PLANNED


async def test_a_contact_who_is_known__is_told_nothing_of_the_past(world: World) -> None:
    """Who only knows an address learns nothing about its owner."""
    first = world.arrival()
    assert first.contact is not None
    email = first.contact.email
    await world.accept(first)
    await world.enrol(first.id)
    again = await enrolled(world, email=email, first_name="Other")
    await world.run_sql("UPDATE message SET state = 'skipped', reason = 'the contact unsubscribed'")

    stages = [await told(world, event_id) for event_id in (first.id, again)]

    assert {(p.stage, p.words) for p in stages} == {(Stage.NOTHING, "No new email will be sent because of this.")}


async def test_what_starts_nothing_by_rule__says_why(world: World) -> None:
    arrival = world.arrival(consent=False)
    assert arrival.ignored_because
    await world.accept(arrival)

    nothing = await told(world, arrival.id)

    assert nothing.stage is Stage.NOTHING
    assert nothing.words == f"No email will be sent because {arrival.ignored_because}."


@pytest.mark.parametrize("state", [EventState.BLOCKED, EventState.QUARANTINED])
async def test_what_is_set_aside__is_received_until_it_is_taken_in(world: World, state: EventState) -> None:
    async with world.ledger.transaction() as connection:
        aside = await inbox.quarantine(
            connection, source="winter-hello", campaign="winter", deployment="winter-hello-handler", raw=b"{}",
            reason="a reason", now=now(), state=state,
        )  # fmt: skip
    assert (await told(world, aside)).stage is Stage.RECEIVED

    event_id = await enrolled(world)
    reason = f"{TAKEN_IN}{event_id}"
    await world.run_sql("UPDATE event SET state = 'ignored', reason = :reason WHERE id = :id", reason=reason, id=aside)

    assert (await told(world, aside)).stage is Stage.WORKING


async def test_an_unknown_id__is_none(world: World) -> None:
    assert await progress_of(world.ledger, uuid4(), now()) is None
