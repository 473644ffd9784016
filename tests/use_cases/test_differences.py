"""The ledger against Resend's list and Notion's rows: what differs is told, and Notion's part is written again."""

from __future__ import annotations

from datetime import timedelta
from typing import Any
from uuid import uuid4

import pytest
from shown import Shown, show
from worlds import IDENTITY, World, now

from tidings.differences import NotionRows, SentMails
from tidings.errors import OutcomeUnknown
from tidings.gaps import Checked, Scope
from tidings.ledger.memory import Memory
from tidings.pace import Pace

LATER = timedelta(minutes=45)


async def sent(world: World, **scope: Any) -> Checked:
    turns = Pace(world.ledger, Memory(world.ledger), rate=1000)
    return await SentMails(world.ledger, world.resend, turns, IDENTITY.sender).compare(Scope(now() + LATER, **scope))


# -- Resend --------------------------------------------------------------------------------------------------


async def test_mails_that_both_have__are_no_difference(world: World) -> None:
    await world.enrolled(5)
    await world.send()

    checked = await sent(world)

    assert (checked.notes, checked.findings, checked.differences) == (("5 compared",), (), 0)


async def test_f5_a_mail_that_resend_does_not_have__is_told_and_not_sent_again(world: World) -> None:
    await world.enrolled(3)
    await world.send()
    gone = str(uuid4())
    await world.run_sql(
        "UPDATE message SET provider_id = :p WHERE id = (SELECT id FROM message WHERE provider_id IS NOT NULL LIMIT 1)",
        p=gone,
    )

    checked = await sent(world)

    finding = next(f for f in checked.findings if f.subject == "resend/missing")
    assert finding.title == "Resend's list lacks 1 of the mails that the ledger has as sent"
    assert gone in finding.body
    assert finding.lasting
    assert await world.send() == []
    assert len(world.inbox()) == 3


async def test_a_mail_that_the_ledger_does_not_know_as_sent__is_told(world: World) -> None:
    """As when the ledger was put back to an older copy."""
    await world.enrolled(2)
    await world.send()
    lost = (await world.messages())[0].id
    await world.run_sql(
        "UPDATE message SET provider_id = NULL, sent_at = NULL, state = 'unknown' WHERE id = :i", i=lost
    )

    checked = await sent(world)

    (finding,) = checked.findings
    assert (finding.subject, checked.differences) == ("resend/unknown", 1)
    assert f"{lost} (unknown)" in finding.body


async def test_mails_of_somebody_else_in_the_same_account__are_none_of_our_business(world: World) -> None:
    await world.resend.send([{"from": IDENTITY.sender, "to": ["delivered@resend.dev"], "subject": "Shop",
                              "html": "<p>Shop</p>"}], "a shop's")  # fmt: skip

    assert (await sent(world)).findings == ()


async def test_a_mail_of_this_very_moment__is_not_missed_yet(world: World) -> None:
    await world.enrolled()
    await world.send()
    await world.run_sql("UPDATE message SET provider_id = :p WHERE provider_id IS NOT NULL", p=str(uuid4()))
    turns = Pace(world.ledger, Memory(world.ledger), rate=1000)

    checked = await SentMails(world.ledger, world.resend, turns, IDENTITY.sender).compare(Scope(now()))

    assert checked.findings == ()


async def test_more_than_a_page__is_compared_to_its_end(world: World) -> None:
    await world.enrolled(130)
    await world.send()

    assert (await sent(world)).notes == ("130 compared",)


async def test_a_key_that_may_only_send__is_said_to_be_one(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("resend.api_key", "re_restricted_1")

    checked = await sent(world)

    assert (checked.notes, checked.findings) == (("cannot be compared: RESEND_API_KEY may only send",), ())


async def test_resend_being_away__is_an_error_worth_another_try(world: World) -> None:
    world.box.fault("status", service="resend", path="/emails$", status=500)

    with pytest.raises(OutcomeUnknown):
        await sent(world)


# -- Notion --------------------------------------------------------------------------------------------------


@pytest.fixture
async def shown(world: World) -> Shown:
    return await show(world)


async def rows(shown: Shown, **scope: Any) -> Checked:
    world = shown.world
    return await NotionRows(world.ledger, world.notion, shown.databases).compare(Scope(now() + LATER, **scope))


async def mirrored(shown: Shown, count: int = 1) -> None:
    await shown.world.enrolled(count)
    await shown.world.send()
    await shown.mirror.run(500)


async def trash(shown: Shown, field: str) -> None:
    for row in await shown.rows(field):
        await shown.world.notion._client.pages.update(page_id=row["page"], in_trash=True)


async def test_rows_that_stand_in_notion__are_no_difference(shown: Shown) -> None:
    await mirrored(shown, 3)

    checked = await rows(shown)

    assert checked.notes == ("contacts: 3 compared", "enrolments: 3 compared", "messages: 3 compared")
    assert (checked.findings, await shown.mirror.run(100)) == ((), {"contacts": 0, "enrolments": 0, "messages": 0})


async def test_a_row_that_was_deleted__comes_back_once(shown: Shown) -> None:
    await mirrored(shown)
    before = await shown.contact()
    await trash(shown, "notion_contacts_db_id")

    first = await rows(shown)
    await shown.mirror.run(100)
    after = await shown.contact()
    await trash(shown, "notion_contacts_db_id")
    second = await rows(shown)
    await shown.mirror.run(100)

    assert (first.differences, first.notes[0]) == (1, "contacts: 1 compared, 1 missing are written again")
    assert (after["EMAIL"], after["page"] != before["page"]) == (before["EMAIL"], True)
    assert (second.differences, await shown.rows("notion_contacts_db_id")) == (0, [])
    assert "left out" in second.notes[0]


async def test_what_only_we_can_know__is_put_right_where_it_was_changed(shown: Shown) -> None:
    await mirrored(shown)
    (mail,) = await shown.rows("notion_email_analytics_db_id")
    enrolment = await shown.enrolment()
    await shown.world.notion.update_row(mail["page"], {"sTATUS": {"select": {"name": "failed"}}})
    await shown.world.notion.update_row(enrolment["page"], {"eMAIL 1 sENT": {"date": None}})

    checked = await rows(shown)
    await shown.mirror.run(100)

    assert checked.differences == 2
    assert await shown.rows("notion_email_analytics_db_id") == [mail]
    assert await shown.enrolment() == enrolment


async def test_what_people_write__is_left_to_them(shown: Shown) -> None:
    await mirrored(shown)
    page = (await shown.contact())["page"]
    await shown.world.notion.update_row(page, {"pHASE": {"select": {"name": "Friend"}}})

    assert (await rows(shown)).differences == 0
    assert (await shown.contact())["pHASE"] == "Friend"


async def test_many_rows__are_asked_about_by_the_hundred_at_notions_pace(shown: Shown) -> None:
    await mirrored(shown, 130)
    last = shown.world.box.get("requests", service="notion", limit=100_000)["data"][-1]["seq"]
    paces = []
    pace = shown.world.notion.pace

    async def counted() -> None:
        paces.append(1)
        await pace()

    shown.world.notion.pace = counted  # type: ignore[method-assign]
    try:
        checked = await rows(shown)
    finally:
        del shown.world.notion.pace  # type: ignore[attr-defined]

    asked = shown.world.box.get("requests", service="notion", after=last)["data"]
    assert checked.differences == 0
    assert len([r for r in asked if r["path"].endswith("/query")]) == len(paces) == 6


async def test_a_dry_run__writes_nothing_again(shown: Shown) -> None:
    await mirrored(shown)
    await trash(shown, "notion_contacts_db_id")

    checked = await rows(shown, dry_run=True)

    assert checked.notes[0] == "contacts: 1 compared, 1 missing would be written again"
    assert await shown.mirror.run(100) == {"contacts": 0, "enrolments": 0, "messages": 0}
    assert (await rows(shown)).differences == 1
