"""Notion as a mirror of the ledger: right, after an outage too, and never with a row twice."""

from __future__ import annotations

from datetime import datetime

import pytest
from live_notion import ANALYTICS, CONTACTS, ENROLMENTS, NotionDesk, value
from live_parts import Live, address, until
from live_sequences import BUSINESS, FIRST_NAME, Posted, noshow

pytestmark = pytest.mark.stack

MIRROR = "tidings-notion-mirror"
ROWS = "^/v1/pages"


def moment(text: str) -> datetime:
    return datetime.fromisoformat(text)


async def test_a_finished_sequence__stands_in_notion(live: Live, desk: NotionDesk, five: dict[str, Posted]) -> None:
    posted = five["christmas-signup"]

    assert (await live.prefect.mirror())["state_type"] == "COMPLETED"

    [contact] = await desk.rows_of(CONTACTS, "email", posted.email)
    assert value(contact, "Name") == FIRST_NAME
    assert value(contact, "Business Name") == BUSINESS
    assert value(contact, "Assessment Score") == 47
    assert value(contact, "Segment") == "CRITICAL"
    assert value(contact, "Phase") == "Signup"

    [row] = await desk.rows_of(ENROLMENTS, "Email", posted.email)
    shown = {name: value(row, name) for name in ("First Name", "Business Name", "Campaign", "Template Type", "Segment")}
    assert shown == {
        "First Name": FIRST_NAME,
        "Business Name": BUSINESS,
        "Campaign": "christmas",
        "Template Type": "nurture",
        "Segment": "CRITICAL",
    }
    assert value(row, "Sequence Completed") is True
    for message in await live.ledger.messages(posted.email):
        written = moment(value(row, f"Email {message['position']} Sent"))
        assert abs((written - message["sent_at"]).total_seconds()) < 60  # Notion keeps minutes

    sends = await desk.rows_of(ANALYTICS, "Email", posted.email)
    assert sorted(value(s, "Template ID") for s in sends) == list(posted.expected.templates)
    assert sorted(value(s, "Email Number") for s in sends) == list(range(1, 8))
    assert {value(s, "Status") for s in sends} == {"delivered"}
    assert {value(s, "Resend Email ID") for s in sends} == {mail["id"] for mail in posted.mails}
    assert all(value(s, "Sent Date") for s in sends)
    assert {value(s, "Error Message") for s in sends} == {""}


async def test_an_unfinished_sequence__shows_what_was_sent_so_far(live: Live, desk: NotionDesk, real_time: str) -> None:
    email = address("unfinished")
    await live.accepted("christmas-signup", {"email": email, "consent": True}, web=real_time)
    await live.mails(email, 1)

    await live.prefect.mirror()

    [row] = await desk.rows_of(ENROLMENTS, "Email", email)
    assert value(row, "Email 1 Sent")
    assert value(row, "Email 2 Sent") is None
    assert value(row, "Sequence Completed") is False
    assert len(await desk.rows_of(ANALYTICS, "Email", email)) == 1


async def test_a_row_whose_answer_was_lost__is_not_made_twice(live: Live, desk: NotionDesk) -> None:
    email = address("lost")
    fault = await live.sandbox.fault("work_then_reset", service="notion", method="POST", path="^/v1/pages$", times=2)
    await live.accepted("calendly-noshow", noshow(email))
    await live.mails(email, 3)

    run = await live.prefect.mirror()
    await live.prefect.mirror()

    assert run["state_type"] == "COMPLETED"
    assert await live.sandbox.struck(fault) == 2
    assert len(await desk.rows_of(CONTACTS, "email", email)) == 1
    assert len(await desk.rows_of(ENROLMENTS, "Email", email)) == 1
    assert len(await desk.rows_of(ANALYTICS, "Email", email)) == 3


async def test_nobody_asked__and_notion_is_brought_up_to_date(live: Live, five: dict[str, Posted]) -> None:
    """The server starts the mirror when rows have changed, at most once a minute."""

    async def started() -> bool:
        runs = await live.prefect.runs_of_deployment(MIRROR)
        mine = [r for r in runs if (r["idempotency_key"] or "").startswith("mirror:")]
        return any(r["state_type"] == "COMPLETED" for r in mine)

    assert five
    await until("a mirror run that nobody started by hand", started)
