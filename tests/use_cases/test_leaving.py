"""Who may not be mailed any more between a call to Resend without an answer and its repeat (F18, decision 0019)."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from datetime import timedelta

import pytest
from town import BOOKED, PAID, Town, now
from worlds import address

from tidings.ledger import Ledger
from tidings.ledger.permission import WITHDRAWN
from tidings.operate import retry_messages

MINUTE, HOUR = timedelta(minutes=1), timedelta(hours=1)
LEFT = "asked us to stop"


@pytest.fixture
def town(ledger: Ledger) -> Town:
    return Town(ledger)


@pytest.fixture
def who() -> str:
    return address()


async def unanswered(town: Town, trouble: str, *emails: str) -> None:
    """One call to Resend about the first mails of these people, without an answer; then Resend works again."""
    for email in emails:
        await town.enter("lure", email)
    town.sender.trouble = trouble
    await town.send()
    town.sender.trouble = None


async def leaves(town: Town, who: str) -> None:
    await town.suppress(who)


async def books(town: Town, who: str) -> None:
    await town.take("call", who, key="a", in_hours=200)


async def pays(town: Town, who: str) -> None:
    await town.take("welcome", who, key="p")


async def takes_consent_back(town: Town, who: str) -> None:
    await town.take("lure", who, consent=False)


@pytest.mark.parametrize("hours", [0.5, 22])
@pytest.mark.parametrize(
    ("turns", "why"), [(leaves, LEFT), (books, BOOKED), (pays, PAID), (takes_consent_back, WITHDRAWN)]
)
async def test_f18_who_leaves_while_resend_is_broken__is_not_mailed_when_it_works_again_and_the_others_are(
    town: Town, who: str, turns: Callable[[Town, str], Awaitable[None]], why: str, hours: float
) -> None:
    stays = address()
    await unanswered(town, "broken", who, stays)

    await turns(town, who)
    await town.pass_time(hours * HOUR)
    await town.send()
    await town.pass_time(5 * MINUTE)
    await town.send()

    assert (town.got(who), town.got(stays)) == ([], ["lure_1"])
    assert (await town.story(who))["lure_1"] == why
    assert await town.rows("SELECT id FROM claim WHERE settled_at IS NULL") == []


async def test_f18_who_leaves_while_resend_stays_broken__is_not_mailed_although_it_is_asked_again_and_again(
    town: Town, who: str
) -> None:
    stays = address()
    await unanswered(town, "broken", who, stays)
    await town.suppress(who)

    town.sender.trouble = "broken"
    for _ in range(6):
        await town.pass_time(4 * MINUTE)
        await town.send()
    town.sender.trouble = None
    for _ in range(2):
        await town.pass_time(5 * MINUTE)
        await town.send()

    assert (town.got(who), town.got(stays)) == ([], ["lure_1"])


async def test_who_left_after_the_mail_did__is_settled_from_resends_list_and_nobody_is_mailed_twice(
    town: Town, who: str
) -> None:
    stays = address()
    await unanswered(town, "lost", who, stays)

    await town.suppress(who)
    await town.send()
    await town.pass_time(11 * MINUTE)
    await town.send()

    assert (town.got(who), town.got(stays)) == (["lure_1"], ["lure_1"])
    assert {m.state for email in (who, stays) for m in await town.messages(email) if m.template == "lure_1"} == {"sent"}


async def test_a_list_that_is_younger_than_its_lag__is_not_believed(town: Town, who: str) -> None:
    await unanswered(town, "lost", who)
    await town.suppress(who)

    await town.pass_time(4 * MINUTE)  # Resend's list does not have it yet
    done = await town.send()

    assert (done.count, (await town.messages(who))[0].state) == (0, "sending")


async def test_the_last_call_counts__as_each_may_have_been_the_one_that_sent(town: Town, who: str) -> None:
    await unanswered(town, "broken", who)
    await town.pass_time(HOUR)
    town.sender.trouble = "lost"
    await town.send()
    town.sender.trouble = None

    await town.suppress(who)
    await town.pass_time(4 * MINUTE)
    await town.send()
    assert (await town.messages(who))[0].state == "sending"
    await town.pass_time(7 * MINUTE)
    await town.send()

    assert (town.got(who), (await town.messages(who))[0].state) == (["lure_1"], "sent")


async def test_a_list_that_says_one_thing_of_one_mail_and_another_of_another__decides_nothing(
    town: Town, who: str
) -> None:
    stays = address()
    await unanswered(town, "lost", who, stays)
    town.sender.mails = [mail for mail in town.sender.mails if mail.to == stays]

    await town.suppress(who)
    await town.pass_time(11 * MINUTE)
    await town.send()

    (mine, *_), (theirs, *_) = await town.messages(who), await town.messages(stays)
    assert (mine.state, theirs.state) == ("unknown", "sent")
    assert LEFT in mine.reason


@pytest.mark.parametrize("trouble", ["broken", "lost"])
async def test_with_a_key_that_may_only_send__who_left_is_not_mailed_and_the_rest_waits_for_a_person(
    town: Town, who: str, trouble: str
) -> None:
    stays = address()
    town.sender.list_lag = None
    await unanswered(town, trouble, who, stays)
    before = len(town.sender.mails)

    await town.suppress(who)
    await town.pass_time(11 * MINUTE)
    await town.send()

    (mine, *_), (theirs, *_) = await town.messages(who), await town.messages(stays)
    assert (mine.state, theirs.state) == ("unknown", "unknown")
    assert LEFT in mine.reason
    assert LEFT not in theirs.reason
    assert len(town.sender.mails) == before
    for email in (who, stays):
        await retry_messages(town.ledger, email=email, may_be_sent_twice=True, now=now())
    await town.send()
    assert [mail.to for mail in town.sender.mails[before:]] == [stays]


async def test_who_leaves_after_resend_has_reported_the_mail__keeps_nobody_waiting(town: Town, who: str) -> None:
    stays = address()
    await unanswered(town, "lost", who, stays)
    (mail,) = [mail for mail in town.sender.mails if mail.to == who]

    await town.report(mail, "complained")
    await town.send()

    assert (town.got(who), town.got(stays)) == (["lure_1"], ["lure_1"])
    assert (await town.story(stays))["lure_1"] == "sent"


async def test_a_list_that_is_too_long_to_be_read_to_its_end__lets_nobody_be_mailed_again(
    town: Town, who: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    stays = address()
    monkeypatch.setattr("tidings.deliver.LISTED_MOST", 0)
    await unanswered(town, "broken", who, stays)

    await town.suppress(who)
    await town.pass_time(11 * MINUTE)
    await town.send()

    assert {(await town.messages(email))[0].state for email in (who, stays)} == {"unknown"}
