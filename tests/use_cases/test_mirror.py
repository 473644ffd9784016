"""Notion brought up to date from the ledger: after the mails, never in their way, once a row."""

from __future__ import annotations

from datetime import timedelta

import pytest
from shown import Shown, show
from winter import HELLO
from worlds import World, now

from tidings.errors import Refused, TidingsError


@pytest.fixture
async def shown(world: World) -> Shown:
    return await show(world)


async def test_a_contact_its_enrolment_and_its_mails__are_shown(world: World, shown: Shown) -> None:
    (who,) = await world.enrolled(first_name="Ada", business_name="Ada & Co")
    await world.send()

    written = await shown.mirror.run(100)

    contact, enrolment = await shown.contact(), await shown.enrolment()
    (mail,) = await shown.rows("notion_email_analytics_db_id")
    row = await world.message()
    assert written == {"contacts": 1, "enrolments": 1, "messages": 1}
    assert (contact["EMAIL"], contact["bUSINESS nAME"]) == (who, "Ada & Co")
    assert (enrolment["eMAIL"], enrolment["cAMPAIGN"], enrolment["tEMPLATE tYPE"]) == (who, "winter", "hello")
    assert enrolment["eMAIL 1 sENT"][:16] == row.sent_at.isoformat()[:16]
    assert (enrolment["eMAIL 2 sENT"], enrolment["sEQUENCE cOMPLETED"]) == (None, False)
    assert (mail["tEMPLATE id"], mail["eMAIL nUMBER"], mail["sTATUS"]) == (HELLO[0], 1, "sent")
    assert mail["rESEND eMAIL id"] == row.provider_id


async def test_f10_properties_in_other_cases__are_found(world: World, shown: Shown) -> None:
    await world.enrolled()

    await shown.mirror.run(100)

    assert (await shown.contact())["EMAIL"] == (await world.rows("SELECT email FROM contact"))[0].email


async def test_what_has_not_changed__is_not_written_again(world: World, shown: Shown) -> None:
    await world.enrolled()
    await shown.mirror.run(100)

    assert await shown.mirror.run(100) == {"contacts": 0, "enrolments": 0, "messages": 0}


async def test_a_change__is_written_into_the_same_row(world: World, shown: Shown) -> None:
    await world.enrolled(ago=timedelta(minutes=50))
    await shown.mirror.run(100)
    before = await shown.enrolment()

    await world.run_sql("UPDATE message SET slot_at = now() WHERE state = 'scheduled'")
    for template in HELLO:
        await world.send(template=template)
    await shown.mirror.run(100)

    after = await shown.enrolment()
    assert after["page"] == before["page"]
    assert (before["sEQUENCE cOMPLETED"], after["sEQUENCE cOMPLETED"]) == (False, True)
    assert after["eMAIL 3 sENT"] is not None


async def test_a_lost_answer__makes_no_second_row(world: World, shown: Shown) -> None:
    await world.enrolled()
    world.box.fault("work_then_reset", service="notion", method="POST", path="/pages$")

    with pytest.raises(TidingsError):
        await shown.mirror.run(100)
    await shown.mirror.run(100)

    contact = (await world.rows("SELECT * FROM contact"))[0]
    assert (await shown.contact())["page"] == contact.notion_page_id


async def test_f13_notion_failing_after_the_send__causes_no_second_mail(world: World, shown: Shown) -> None:
    (who,) = await world.enrolled()
    await world.send()
    world.box.fault("status", service="notion", status=500, times=None)

    with pytest.raises(TidingsError):
        await shown.mirror.run(100)
    assert await world.send() == []

    assert world.mailed() == [who]
    assert (await world.message()).state == "sent"


async def test_after_an_outage__everything_is_caught_up(world: World, shown: Shown) -> None:
    world.box.fault("status", service="notion", path="/pages", status=503, times=3)
    who = await world.enrolled(5)
    await world.send()
    for _ in range(3):
        with pytest.raises(TidingsError):
            await shown.mirror.run(100)

    await shown.mirror.run(100)

    assert sorted(r["EMAIL"] for r in await shown.rows("notion_contacts_db_id")) == sorted(who)
    assert len(await shown.rows("notion_email_analytics_db_id")) == 5


async def test_a_change_while_a_row_is_written__is_written_next_time(world: World, shown: Shown) -> None:
    await world.enrolled()
    await world.run_sql("UPDATE contact SET updated_at = :t", t=now())
    await shown.mirror.run(100)

    await world.run_sql("UPDATE contact SET first_name = 'Changed', updated_at = now() + interval '1 second'")
    await shown.mirror.run(100)

    assert (await shown.contact())["nAME"] == "Changed"


async def test_the_oldest_change__is_written_first_and_the_rest_next_time(world: World, shown: Shown) -> None:
    await world.enrolled(3)

    assert (await shown.mirror.run(2))["contacts"] == 2
    assert (await shown.mirror.run(2))["contacts"] == 1


async def test_one_row_that_notion_refuses__keeps_none_of_the_others(world: World, shown: Shown) -> None:
    """A person has put the first contact's page into the trash, where it cannot be changed."""
    await world.enrolled(3)
    await shown.mirror.run(100)
    first = (await world.rows("SELECT notion_page_id AS page FROM contact ORDER BY updated_at LIMIT 1"))[0].page
    await world.notion._client.pages.update(page_id=first, in_trash=True)
    await world.run_sql("UPDATE contact SET first_name = 'Changed', updated_at = updated_at + interval '1 second'")

    with pytest.raises(Refused):
        await shown.mirror.run(100)

    assert [r["nAME"] for r in await shown.rows("notion_contacts_db_id")] == ["Changed", "Changed"]
