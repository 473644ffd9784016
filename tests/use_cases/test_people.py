"""Who may be mailed, and why somebody is not: exits, priority, consent, suppression, re-entry (F18)."""

from __future__ import annotations

from datetime import timedelta
from typing import Any
from uuid import uuid4

import pytest
from fakes import FakeMail
from town import BOOKED, PAID, Town, now
from worlds import address

from tidings.ledger import Ledger, mails
from tidings.operate import cancel_messages, retry_messages

DAY = timedelta(days=1)


@pytest.fixture
def town(ledger: Ledger) -> Town:
    return Town(ledger)


@pytest.fixture
def who() -> str:
    return address()


async def days(town: Town, count: int) -> None:
    """So many days, with somebody who sends what is due three times a day."""
    for _ in range(3 * count):
        await town.pass_time(DAY / 3)
        await town.send()


# -- exits -------------------------------------------------------------------------------------------------------


async def test_f18_who_books__leaves_the_lure_at_once_and_the_ledger_says_why(town: Town, who: str) -> None:
    await town.enter("lure", who)
    await town.send()

    await town.enter("call", who, key="a", in_hours=72)

    story = await town.story(who)
    assert (story["lure_1"], story["lure_2"], story["lure_3"]) == ("sent", BOOKED, BOOKED)
    await days(town, 4)
    assert town.got(who) == ["lure_1", "call_1", "call_2"]


@pytest.mark.parametrize("path", ["club", "lure", "missed", "maybe", "call"])
async def test_f18_who_pays__leaves_everything_but_the_welcome(town: Town, who: str, path: str) -> None:
    await town.enter(path, who, **({"in_hours": 72} if path == "call" else {}))
    before = town.got(who)

    await town.enter("welcome", who, key="p")
    await days(town, 5)

    later = town.got(who)[len(before) :]
    assert [t for t in later if not t.startswith("club")] == ["welcome_1", "welcome_2"]
    left = {reason for template, reason in (await town.story(who)).items() if template.startswith(path)}
    assert path == "club" or left == {PAID}


async def test_f18_a_booking_that_is_not_handled_yet__stops_the_last_chance_all_the_same(town: Town, who: str) -> None:
    await town.enter("lure", who)
    await town.take("call", who, key="a", in_hours=72)

    done = await town.send()

    assert (done.sent, done.skipped) == (0, {BOOKED: 1})
    assert town.got(who) == []


async def test_f18_a_buyer__never_gets_a_last_chance_afterwards(town: Town, who: str) -> None:
    await town.enter("welcome", who, key="p")
    await days(town, 3)

    await town.enter("lure", who)
    await town.enter("missed", who, key="a")
    await days(town, 5)

    assert town.got(who) == ["welcome_1", "welcome_2"]
    assert {r for t, r in (await town.story(who)).items() if not t.startswith("welcome")} == {PAID}


async def test_who_missed_the_call_that_it_had_booked__is_invited_again(town: Town, who: str) -> None:
    await town.enter("call", who, key="a", in_hours=48)
    await days(town, 3)

    await town.enter("missed", who, key="a")
    await days(town, 2)

    assert town.got(who) == ["call_1", "call_2", "missed_1", "missed_2"]


async def test_who_books_again_after_a_missed_call__is_not_asked_to_any_more(town: Town, who: str) -> None:
    await town.enter("call", who, key="a", in_hours=48)
    await days(town, 3)
    await town.enter("missed", who, key="a")

    await town.enter("call", who, key="b", in_hours=120)
    await days(town, 2)

    assert town.got(who) == ["call_1", "call_2"]
    assert (await town.story(who))["missed_1"] == BOOKED


# -- priority ----------------------------------------------------------------------------------------------------


async def test_the_higher_sequence__goes_first_and_the_lower_one_goes_on_after_it(town: Town, who: str) -> None:
    await town.enter("lure", who)
    await town.send()
    await town.enter("missed", who, key="a")
    await days(town, 4)
    assert town.got(who) == ["lure_1", "missed_1", "missed_2", "lure_3"]
    assert (await town.story(who))["lure_2"] == 'the sequence "Missed" goes first'


async def test_another_contacts_sequence__stands_in_nobodys_way(town: Town, who: str) -> None:
    await town.enter("lure", who)
    await town.enter("welcome", address(), key="p")

    await town.send()

    assert town.got(who) == ["lure_1"]


# -- consent -----------------------------------------------------------------------------------------------------


async def test_consent__is_kept_as_evidence_with_the_enrolment(town: Town, who: str) -> None:
    await town.enter("lure", who, wording="Yes, send me tips")
    await town.enter("maybe", who, key="m")
    await town.enter("welcome", who, key="p")

    rows = {
        r.sequence: r
        for r in await town.rows("SELECT e.*, v.received_at FROM enrolment e, event v WHERE v.id = e.event_id")
    }

    lure, maybe, welcome = rows["lure"], rows["maybe"], rows["welcome"]
    assert [r.consent_basis for r in (lure, maybe, welcome)] == ["express", "inquiry", "purchase"]
    assert [r.consent_source for r in (lure, maybe, welcome)] == ["lure", "maybe", "welcome"]
    assert [r.consent_wording for r in (lure, maybe)] == ["Yes, send me tips", "implied by 'Maybe'"]
    assert {r.consent_address for r in rows.values()} == {who}
    assert lure.consent_expires_at is None
    assert 181 <= (maybe.consent_expires_at - maybe.consent_at).days <= 184
    assert 730 <= (welcome.consent_expires_at - welcome.consent_at).days <= 731
    assert all(r.consent_at == r.received_at for r in rows.values())


async def test_express_consent_whose_words_nobody_sent__has_none(town: Town, who: str) -> None:
    await town.enter("lure", who)

    (row,) = await town.rows("SELECT consent_wording FROM enrolment")
    assert row.consent_wording is None


async def test_implied_consent__runs_out_and_the_mails_stop_by_themselves(town: Town, who: str) -> None:
    await town.enter("maybe", who, key="m")
    await days(town, 4)
    await town.pass_time(190 * DAY)

    await days(town, 10)

    assert town.got(who) == ["maybe_1", "maybe_2"]
    assert (await town.story(who))["maybe_3"] == "consent implied by inquiry has run out"


async def test_f18_consent_that_is_taken_back__stops_what_rests_on_it(town: Town, who: str) -> None:
    await town.enter("lure", who)
    await town.enter("maybe", who, key="m")
    await town.enter("welcome", who, key="p")
    await town.take("lure", who, consent=False)

    await days(town, 4)

    assert town.got(who) == ["welcome_1", "welcome_2"]
    assert (await town.story(who))["lure_1"] == PAID  # said at once, and it stays


async def test_f18_no_consent__stores_the_contact_and_sends_nothing(town: Town, who: str) -> None:
    event = await town.take("lure", who, consent=False)
    await town.handle(event)

    await days(town, 4)

    assert town.sender.mails == []
    assert await town.rows("SELECT consent FROM contact") == [(False,)]


async def test_a_booking_after_consent_was_taken_back__may_be_prepared(town: Town, who: str) -> None:
    await town.take("lure", who, consent=False)
    await town.enter("call", who, key="a", in_hours=48)

    await days(town, 3)

    assert town.got(who) == ["call_1", "call_2"]


async def test_two_webhooks_at_once__keep_the_time_of_what_was_said_on_consent(town: Town, who: str) -> None:
    await town.take("lure", who, consent=True)
    (before,) = await town.rows("SELECT consent_at FROM contact")
    await town.take("maybe", who, key="m")

    assert await town.rows("SELECT consent, consent_at FROM contact") == [(True, before.consent_at)]


# -- suppression -------------------------------------------------------------------------------------------------


async def first_mail(town: Town, who: str) -> FakeMail:
    await town.enter("lure", who)
    await town.send()
    return town.sender.mails[-1]


@pytest.mark.parametrize(("kind", "said"), [("bounced", "bounced for good"), ("complained", "called a mail spam")])
async def test_f18_a_hard_report__suppresses_at_once_and_says_so(town: Town, who: str, kind: str, said: str) -> None:
    mail = await first_mail(town, who)

    assert await town.report(mail, kind, svix_id="one")
    assert not await town.report(mail, kind, svix_id="one")
    await town.enter("maybe", who, key="m")
    await days(town, 4)

    assert town.got(who) == ["lure_1"]
    (row,) = await town.rows("SELECT * FROM suppression")
    assert said in row.reason
    assert (row.source, row.until, row.lifted_at) == ("resend", None, None)
    assert said in (await town.story(who))["lure_2"]


async def test_f18_a_report_that_outran_our_own_settling__suppresses_all_the_same(town: Town, who: str) -> None:
    await town.enter("lure", who)
    town.sender.trouble = "lost"
    await town.send()
    (mail,) = town.sender.mails
    town.sender.trouble = None

    await town.report(mail, "complained")
    await days(town, 4)

    assert town.got(who) == ["lure_1"]
    assert (await town.story(who))["lure_1"] == "complained"


async def test_soft_bounces__suppress_for_a_time_when_three_come_in_a_row(town: Town, who: str) -> None:
    mail = await first_mail(town, who)
    for _ in range(2):
        await town.report(mail, "bounced", bounce="Transient")
    assert await town.rows("SELECT * FROM suppression") == []

    await town.report(mail, "bounced", bounce="Transient")

    (row,) = await town.rows("SELECT * FROM suppression")
    assert (row.until - row.created_at).days == 7
    await town.enter("maybe", who, key="m")
    await days(town, 4)
    assert town.got(who) == ["lure_1"]
    assert "bounced 3 times in a row" in (await town.story(who))["lure_2"]
    await days(town, 4)
    await town.enter("maybe", who, key="again")
    await days(town, 1)
    assert town.got(who) == ["lure_1", "maybe_1"]


async def test_a_mail_that_arrives__ends_the_row_of_soft_bounces(town: Town, who: str) -> None:
    mail = await first_mail(town, who)
    for kind in ("bounced", "bounced", "delivered"):
        await town.report(mail, kind, bounce="Transient", at=now())
    await days(town, 1)
    await town.report(town.sender.mails[-1], "bounced", bounce="Transient", at=now())

    assert await town.rows("SELECT * FROM suppression") == []


async def test_a_lifted_suppression__is_kept_on_record_and_mails_go_again(town: Town, who: str) -> None:
    await town.suppress(who)
    assert await town.lift(who) == 1
    assert await town.lift(who) == 0

    await town.enter("lure", who)
    await town.send()

    assert town.got(who) == ["lure_1"]
    (row,) = await town.rows("SELECT * FROM suppression")
    assert row.lifted_at is not None
    assert row.lifted_because == "a mistake"


async def test_a_lifted_suppression__does_not_come_back_for_an_old_report(town: Town, who: str) -> None:
    mail = await first_mail(town, who)
    await town.report(mail, "bounced")
    await town.lift(who)

    await town.report(mail, "opened")
    await town.report(mail, "delivered")
    assert await town.lift(who) == 0
    await town.report(mail, "complained")
    assert await town.lift(who) == 1


async def test_an_address_that_nobody_knows_yet__can_be_suppressed(town: Town, who: str) -> None:
    await town.suppress(who.upper())
    await town.enter("lure", who)
    await town.send()

    assert town.sender.mails == []
    assert (await town.story(who))["lure_1"] == "asked us to stop"


async def test_leaving_while_the_mail_waits_for_its_turn__is_in_time(town: Town, who: str) -> None:
    class Turns:
        async def turn(self) -> None:
            await town.suppress(who)

        async def learn(self, rate: float | None) -> None: ...

        async def rest(self, seconds: float) -> None: ...

    other = address()
    await town.enter("lure", who)
    await town.enter("lure", other)
    town.delivery.turns = Turns()

    done = await town.send()

    assert (town.got(who), town.got(other)) == ([], ["lure_1"])
    assert (done.sent, done.skipped) == (1, {"asked us to stop": 1})


# -- outcomes ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("order", ["dos", "osd", "sod", "ods"])
async def test_openings_by_scanners__are_not_counted_in_any_order(town: Town, who: str, order: str) -> None:
    mail = await first_mail(town, who)
    at = now()
    reports: dict[str, dict[str, Any]] = {
        "d": {"kind": "delivered", "at": at},
        "s": {"kind": "opened", "at": at + timedelta(seconds=3)},
        "o": {"kind": "opened", "at": at + timedelta(minutes=5)},
    }

    for each in order:
        await town.report(mail, **reports[each])
    await town.report(mail, "clicked", at=at + timedelta(seconds=2))

    row = (await town.messages(who))[0]
    assert (row.state, row.delivered_at) == ("delivered", at)
    assert (row.opened_at, row.clicked_at) == (at + timedelta(minutes=5), None)
    await town.report(mail, "clicked", at=at + timedelta(minutes=6))
    assert (await town.messages(who))[0].clicked_at == at + timedelta(minutes=6)


async def test_a_delay__is_kept_with_the_mail(town: Town, who: str) -> None:
    mail = await first_mail(town, who)
    at = now()

    await town.report(mail, "delivery_delayed", at=at)

    row = (await town.messages(who))[0]
    assert (row.state, row.delayed_at) == ("sent", at)


# -- re-entry ----------------------------------------------------------------------------------------------------


async def test_a_second_missed_call__with_another_booking_is_a_new_sequence(town: Town, who: str) -> None:
    await town.enter("missed", who, key="a")
    await town.enter("missed", who, key="a")
    await days(town, 3)
    await town.enter("missed", who, key="b")
    await days(town, 3)

    assert town.got(who) == ["missed_1", "missed_2"] * 2


async def test_a_second_signup__while_one_is_running_is_none(town: Town, who: str) -> None:
    await town.enter("lure", who)
    await days(town, 1)
    second = await town.enter("lure", who)
    await days(town, 4)

    assert town.got(who) == ["lure_1", "lure_2", "lure_3"]
    (row,) = await town.rows("SELECT reason FROM event WHERE id = :id", id=second)
    assert row.reason == "the contact is in this sequence already"


async def test_a_signup_after_the_sequence__waits_for_the_campaigns_rule(town: Town, who: str) -> None:
    await town.enter("lure", who)
    await days(town, 5)
    early = await town.enter("lure", who)
    await days(town, 30)
    late = await town.enter("lure", who)
    await days(town, 5)

    assert town.got(who) == ["lure_1", "lure_2", "lure_3"] * 2
    (row,) = await town.rows("SELECT reason FROM event WHERE id = :id", id=early)
    assert row.reason.startswith("the contact has had this sequence, and may enter it again from 20")
    keys = [r.key for r in await town.rows("SELECT key FROM enrolment ORDER BY created_at")]
    assert keys == [who, f"{who}#2"]
    for event in (early, late):  # a replay decides as it was decided then
        async with town.ledger.transaction() as connection:
            await connection.exec_driver_sql("UPDATE event SET state = 'accepted' WHERE id = $1", (event,))
        assert (await town.handle(event)).new == ()


async def test_a_sequence_without_a_rule__is_entered_once(town: Town, who: str) -> None:
    await town.enter("maybe", who, key="m")
    await town.pass_time(400 * DAY)
    await town.send()

    again = await town.take("maybe", who, key="m")

    assert (await town.handle(again)).known == (again,)


# -- double opt-in -----------------------------------------------------------------------------------------------


async def test_nothing_but_the_question__goes_before_the_click(town: Town, who: str) -> None:
    await town.enter("club", who)
    await days(town, 30)

    assert town.got(who) == ["club_ask"]
    assert (await town.story(who))["club_1"] == "waits for the contact's click in the mail that asks for it"


async def test_after_the_click__the_sequence_begins(town: Town, who: str) -> None:
    await town.enter("club", who)
    await days(town, 3)

    assert await town.confirm(town.sender.mails[-1])
    assert await town.confirm(town.sender.mails[-1])
    await days(town, 2)

    assert town.got(who) == ["club_ask", "club_1", "club_2"]
    (row,) = await town.rows("SELECT confirmed_at FROM enrolment")
    assert row.confirmed_at is not None


async def test_who_is_cancelled_before_the_click__gets_nothing_after_it(town: Town, who: str) -> None:
    await town.enter("club", who)
    await town.send()
    given: dict[str, Any] = {"sequence": None, "reason": "phoned", "dry_run": False, "now": now()}

    assert len(await cancel_messages(town.ledger, who, **given) or []) == 2
    assert await retry_messages(town.ledger, email=who, now=now()) == []
    await town.confirm(town.sender.mails[-1])
    await days(town, 3)

    assert town.got(who) == ["club_ask"]


@pytest.mark.parametrize("by_retry", [False, True])
@pytest.mark.parametrize("ended", ["failed", "skipped", "cancelled", "reported"])
async def test_a_question_that_never_arrives__ends_what_waits_for_it_and_is_asked_anew(
    town: Town, who: str, ended: str, by_retry: bool
) -> None:
    if ended == "skipped":
        await town.enter("missed", who, key="m")
    await town.enter("club", who)
    if ended == "failed":
        town.copy.bodies["club_ask"] = "<p>{{ nobody_knows }}</p>"
    if ended == "cancelled":
        await cancel_run(town, "club_ask")
    await town.send()
    if ended == "reported":
        await town.report(town.sender.mails.pop(), "failed")

    story = await town.messages(who)
    reasons = {m.template: (m.state, m.reason) for m in story if m.sequence == "club"}
    assert {state for state, _ in reasons.values()} <= {"failed", "skipped", "cancelled"}
    assert ended == "reported" or len({reason for _, reason in reasons.values()}) == 1
    assert reasons["club_1"][1]

    town.copy.bodies["club_ask"] = "<a href='{{ confirm_url }}'>Yes</a>"
    await days(town, 4)
    if by_retry and ended != "skipped":
        await retry_messages(town.ledger, email=who, now=now())
    else:
        await town.enter("club", who)
    await town.send()
    assert await town.confirm(town.sender.mails[-1])
    await days(town, 2)
    assert [t for t in town.got(who) if t.startswith("club")] == ["club_ask", "club_1", "club_2"]


async def cancel_run(town: Town, template: str) -> None:
    run = uuid4()
    async with town.ledger.transaction() as connection:
        await connection.exec_driver_sql("UPDATE message SET flow_run_id = $1 WHERE template = $2", (run, template))
        assert await mails.cancel_run(connection, run, "cancelled in Prefect", now()) == 1


@pytest.mark.parametrize("clicked", [0, 1])
async def test_a_question_without_an_answer__is_asked_again_after_thirty_days_and_answered_once(
    town: Town, who: str, clicked: int
) -> None:
    await town.enter("club", who)
    await town.send()
    await town.pass_time(29 * DAY)
    assert (await town.handle(await town.take("club", who))).new == ()
    await town.pass_time(2 * DAY)

    await town.enter("club", who)
    await town.send()
    for mail in sorted(town.sender.mails, key=lambda each: each.at, reverse=bool(clicked)):
        assert await town.confirm(mail)
    await days(town, 3)

    assert town.got(who) == ["club_ask", "club_ask", "club_1", "club_2"]


async def test_a_question_without_its_link__is_refused_before_it_is_sent(town: Town, who: str) -> None:
    town.copy.bodies["club_ask"] = "<p>Please confirm</p>"

    event = await town.take("club", who)

    assert "has no {{ confirm_url }}, so nobody could confirm" in (await town.handle(event)).failed[event]


async def test_only_the_question__knows_the_link(town: Town, who: str) -> None:
    town.copy.bodies["club_1"] = "<p>{{ confirm_url }}</p>"

    event = await town.take("club", who)

    assert "'confirm_url' is undefined" in (await town.handle(event)).failed[event]
