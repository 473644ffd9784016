"""What Resend reports, whatever the order and however often."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from itertools import permutations
from typing import Any
from uuid import UUID, uuid4

import pytest
from worlds import World

from tidings.errors import OutcomeUnknown
from tidings.model import MessageState, Report
from tidings.outcome import Reports, take_reports

AT = datetime(2026, 12, 1, 15, tzinfo=UTC)
STATES = {
    "email.sent": MessageState.SENT,
    "email.delivered": MessageState.DELIVERED,
    "email.bounced": MessageState.BOUNCED,
    "email.complained": MessageState.COMPLAINED,
    "email.opened": None,
}


def report(kind: str, provider_id: str | None, **given: Any) -> Report:
    values = {"id": f"msg_{uuid4().hex}", "state": STATES[kind], "at": AT, "reason": None}
    return Report(type=kind, provider_id=provider_id, **{**values, **given})


async def take(world: World, *reports: Report) -> list[bool]:
    return [new for r in reports for new in await take_reports(world.ledger, [(r, '{"as": "sent"}')], AT)]


async def sent(world: World) -> str:
    await world.enrolled()
    await world.send()
    return str((await world.message()).provider_id)


async def test_a_report__settles_the_message_with_its_time_and_reason(world: World) -> None:
    mail = await sent(world)

    await take(world, report("email.bounced", mail, reason="Resend: Permanent, General"))

    row = await world.message()
    assert (row.state, row.reason, row.outcome_at) == ("bounced", "Resend: Permanent, General", AT)


async def test_a_repeat__is_stored_once_and_changes_nothing(world: World) -> None:
    mail = await sent(world)
    delivered = report("email.delivered", mail)
    assert await take(world, delivered) == [True]
    before = await world.message()

    assert await take(world, delivered) == [False]

    assert await world.message() == before
    assert len(await world.rows("SELECT svix_id FROM outcome")) == 1


@pytest.mark.parametrize("order", list(permutations(["email.sent", "email.delivered", "email.complained"])))
async def test_any_order__ends_in_the_same_state(world: World, order: tuple[str, ...]) -> None:
    mail = await sent(world)

    await take(world, *[report(kind, mail) for kind in order])

    assert (await world.message()).state == "complained"


@pytest.mark.parametrize(
    ("order", "state"),
    [
        (("email.delivered", "email.sent"), "delivered"),
        (("email.delivered", "email.bounced"), "bounced"),
        (("email.bounced", "email.delivered"), "bounced"),
        (("email.bounced", "email.sent"), "bounced"),
        (("email.delivered", "email.opened"), "delivered"),
    ],
)
async def test_a_late_report__never_lowers_a_state(world: World, order: tuple[str, ...], state: str) -> None:
    mail = await sent(world)

    await take(world, *[report(kind, mail) for kind in order])

    assert (await world.message()).state == state


async def test_a_transient_bounce__is_kept_and_changes_nothing(world: World) -> None:
    mail = await sent(world)

    await take(world, report("email.bounced", mail, state=None, reason="Resend: Transient, MailboxFull"))

    (kept,) = await world.rows("SELECT * FROM outcome")
    assert (await world.message()).state == "sent"
    assert (kept.state, kept.reason) == (None, "Resend: Transient, MailboxFull")


async def test_a_report_before_our_own_settling__counts_once_we_know_the_id(world: World) -> None:
    await world.enrolled()
    world.box.fault("work_then_reset", service="resend", path="/emails")
    with pytest.raises(OutcomeUnknown):
        await world.send()
    (mail,) = world.inbox()

    await take(world, report("email.delivered", mail["id"]))
    assert (await world.message()).state == "sending"
    await world.send()

    row = await world.message()
    assert (row.state, row.outcome_at, row.provider_id) == ("delivered", AT, mail["id"])


async def test_a_report_that_names_our_message__settles_it_although_the_answer_was_lost(world: World) -> None:
    await world.enrolled(2)
    world.box.fault("work_then_reset", service="resend", path="/emails")
    with pytest.raises(OutcomeUnknown):
        await world.send()
    mails = {tag["value"]: m["id"] for m in world.inbox() for tag in m["tags"] if tag["name"] == "message"}
    row = (await world.messages())[0]

    await take(world, report("email.delivered", mails[str(row.id)], message_id=row.id))
    assert (await world.messages())[0].state == "delivered"
    await world.send()

    assert [m.state for m in await world.messages()] == ["delivered", "sent"]
    assert len(world.inbox()) == 2


async def test_a_report_on_an_unknown_message__makes_it_known(world: World) -> None:
    await world.enrolled()
    world.box.fault("status", service="resend", path="/emails", status=409, code="invalid_idempotent_request")
    await world.send()
    row = await world.message()
    assert row.state == "unknown"

    await take(world, report("email.delivered", "re_id_1", message_id=row.id))

    row = await world.message()
    assert (row.state, row.provider_id, row.reason) == ("delivered", "re_id_1", None)


@pytest.mark.parametrize("message_id", [None, uuid4()])
async def test_a_report_on_somebody_elses_mail__is_kept_and_changes_nothing(
    world: World, message_id: UUID | None
) -> None:
    await sent(world)

    assert await take(world, report("email.bounced", str(uuid4()), message_id=message_id)) == [True]

    assert (await world.message()).state == "sent"


async def test_a_report_without_an_id__is_kept(world: World) -> None:
    assert await take(world, report("email.opened", None)) == [True]


async def test_a_report__never_touches_a_message_of_the_same_tag_that_was_sent_before(world: World) -> None:
    mail = await sent(world)
    row = await world.message()

    await take(world, report("email.bounced", "other", message_id=row.id, at=AT + timedelta(hours=1)))

    assert (await world.message()).provider_id == mail
    assert (await world.message()).state == "sent"


async def test_reports_that_come_together__are_told_apart(world: World) -> None:
    """A group of many is as good as one after the other: repeats within it, several of one mail, mails of others."""
    mail = await sent(world)
    delivered, opened = report("email.delivered", mail), report("email.sent", mail)
    severe = report("email.bounced", mail, reason="Permanent", at=AT + timedelta(seconds=1))
    others = [report("email.delivered", f"re_{n}") for n in range(5)]
    group = [(each, "{}") for each in (severe, delivered, *others, delivered, opened)]

    new = await take_reports(world.ledger, group, AT)

    assert new == [True, True, *[True] * 5, False, True]
    message = await world.message()
    assert (message.state, message.reason) == ("bounced", "Permanent")
    assert await take_reports(world.ledger, group, AT) == [False] * 9


async def test_many_reports_at_once__are_each_answered(world: World) -> None:
    mail = await sent(world)
    reports = Reports(world.ledger, now=lambda: AT)
    given = [report("email.delivered", f"re_{n}") for n in range(250)] + [report("email.delivered", mail)]

    answers = await asyncio.gather(*(reports.take(each, "{}") for each in given))
    again = await reports.take(given[0], "{}")

    assert answers == [True] * 251
    assert again is False
    assert (await world.message()).state == "delivered"
