"""Sending on a real ledger and a real wire: every mail once, whatever happens between the steps."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import uuid4

import pytest
from winter import HELLO
from worlds import IDENTITY, World, other_sender

from tidings.deliver import Delivery, Selection, Sent, send_next
from tidings.errors import OutcomeUnknown, QuotaExhausted, Refused, RetryLater
from tidings.ledger import mails, people
from tidings.ledger.memory import Memory
from tidings.pace import Pace
from tidings.ports import Sender


class Watched:
    """Resend itself, with something done just before or just after each call."""

    def __init__(self, sender: Sender, *, before: Any = None, after: Any = None) -> None:
        self._sender = sender
        self._before = before
        self._after = after

    def __getattr__(self, name: str) -> Any:
        return getattr(self._sender, name)

    async def send(self, payloads: Sequence[Mapping[str, Any]], key: str) -> list[str | Refused]:
        if self._before:
            await self._before()
        answer = await self._sender.send(payloads, key)
        if self._after:
            await self._after()
        return answer


def watched(world: World, **hooks: Any) -> Delivery:
    return world.delivery(sender=Watched(world.resend, **hooks))


async def expire_leases(world: World) -> None:
    await world.run_sql("UPDATE claim SET lease_until = now() - interval '1 second' WHERE settled_at IS NULL")


async def make_due(world: World) -> None:
    """As if the minute or two had passed for which refused mails are put back."""
    await world.run_sql("UPDATE message SET slot_at = now() WHERE state = 'scheduled' AND due_at <= now()")


async def suppress(world: World, email: str, sequence: str | None = None) -> None:
    async with world.ledger.transaction() as connection:
        who = await people.find_contact(connection, email)
        await people.suppress(
            connection, who.id, reason="asked us to stop", source="test", now=datetime.now(UTC), sequence=sequence
        )


def total(done: list[Sent]) -> Sent:
    whole = Sent()
    for each in done:
        whole.add(each)
    return whole


# -- the plain way -------------------------------------------------------------------------------------------


async def test_one_mail__is_sent_and_settled(world: World) -> None:
    (who,) = await world.enrolled(first_name="Ada")

    done = await world.send()

    (mail,) = world.inbox()
    row = await world.message()
    assert total(done) == Sent(sent=1)
    assert (row.state, row.provider_id, row.reason) == ("sent", mail["id"], None)
    assert mail["to"] == [who]
    assert mail["subject"] == "winter_hello_1 for Ada"
    assert "Hello Ada</p>" in mail["html"]
    assert "Hello Ada" in mail["text"]


async def test_one_mail__carries_the_way_out_and_who_sent_it(world: World) -> None:
    await world.enrolled()

    await world.send(delivery=world.delivery(identity=replace(IDENTITY, reply_to="desk@tidings.test")))

    (mail,) = world.inbox()
    row = await world.message()
    link = mail["headers"]["List-Unsubscribe"].split(">")[0].removeprefix("<")
    assert link.startswith("https://t.tidings.test/unsubscribe/")
    assert mail["headers"]["List-Unsubscribe-Post"] == "List-Unsubscribe=One-Click"
    assert link in mail["html"]
    assert link in mail["text"]
    assert "1 Example Street, Toronto" in mail["html"]
    assert (mail["from"], mail["reply_to"]) == (IDENTITY.sender, ["desk@tidings.test"])
    assert {t["name"]: t["value"] for t in mail["tags"]} == {
        "campaign": "winter",
        "sequence": "hello",
        "template": HELLO[0],
        "message": str(row.id),
    }


async def test_mails_not_yet_due__stay(world: World) -> None:
    await world.enrolled()

    assert await world.send(template=HELLO[1]) == []

    assert (await world.message(HELLO[1])).state == "scheduled"
    assert world.inbox() == []


async def test_a_hundred_and_one__leave_in_two_calls(world: World) -> None:
    who = await world.enrolled(101)

    done = await world.send()

    assert [d.sent for d in done] == [100, 1]
    assert [c["path"] for c in world.calls()] == ["/emails/batch", "/emails"]
    assert world.mailed() == sorted(who)
    assert {m.state for m in await world.messages()} == {"sent"}


async def test_each_message__is_settled_with_its_own_id(world: World) -> None:
    await world.enrolled(7)

    await world.send()

    by_id = {m["id"]: m for m in world.inbox()}
    for row in await world.messages():
        assert str(row.id) in [t["value"] for t in by_id[row.provider_id]["tags"]]


# -- refusals ------------------------------------------------------------------------------------------------


async def test_a_refused_recipient__fails_alone_with_resends_words(world: World) -> None:
    good = await world.enrolled(4)
    await world.enrolled(email="someone@example.com")

    done = total(await world.send())

    failed = [m for m in await world.messages() if m.state == "failed"]
    assert world.mailed() == sorted(good)
    assert len(failed) == 1
    assert "Please use our testing email address" in failed[0].reason
    assert (done.sent, sum(done.failed.values())) == (4, 1)


async def test_a_refused_recipient__that_is_the_only_one(world: World) -> None:
    await world.enrolled(email="someone@example.com")

    await world.send()

    row = await world.message()
    assert (row.state, world.inbox()) == ("failed", [])
    assert "Invalid `to` field" in row.reason
    assert await world.send() == []


async def test_a_batch_refused_as_a_whole__is_sent_one_by_one_under_new_keys(world: World) -> None:
    good = await world.enrolled(3)
    await world.enrolled(email="someone@example.com")
    world.box.fault("status", service="resend", path="/emails/batch", status=422)

    done = total(await world.send())

    keys = [c["idempotency_key"] for c in world.calls()]
    assert world.mailed() == sorted(good)
    assert (done.sent, sum(done.failed.values())) == (3, 1)
    assert len(keys) == len(set(keys)) == 5
    assert await world.rows("SELECT id FROM claim WHERE settled_at IS NULL") == []


@pytest.mark.parametrize("count", [1, 3])
async def test_an_unverified_domain__leaves_the_mails_for_later(world: World, count: int) -> None:
    who = await world.enrolled(count)
    unverified = world.delivery(identity=other_sender("New <hello@new.tidings.test>"))

    with pytest.raises(Refused, match="domain is not verified"):
        await world.send(delivery=unverified)
    waiting = await world.messages()
    world.box.set(domains={"new.tidings.test": "verified"})
    await make_due(world)
    done = total(await world.send(delivery=unverified))

    assert {m.state for m in waiting} == {"scheduled"}
    assert all("domain is not verified" in m.reason and m.slot_at > m.due_at for m in waiting)
    assert done.sent == count
    assert world.mailed() == sorted(who)
    assert {(m.state, m.reason) for m in await world.messages()} == {("sent", None)}


@pytest.mark.parametrize("count", [1, 3])
async def test_an_unverified_domain__may_also_be_mended_by_another_sender(world: World, count: int) -> None:
    who = await world.enrolled(count)
    with pytest.raises(Refused):
        await world.send(delivery=world.delivery(identity=other_sender("New <hello@new.tidings.test>")))

    await make_due(world)
    await world.send()

    assert world.mailed() == sorted(who)
    assert {m["from"] for m in world.inbox()} == {IDENTITY.sender}


@pytest.mark.parametrize("count", [1, 3])
async def test_an_invalid_key__leaves_the_mails_for_later(world: World, count: int) -> None:
    who = await world.enrolled(count)
    world.box.set(resend_tokens=["re_other"])

    with pytest.raises(Refused, match="API key is invalid"):
        await world.send()
    assert await world.send() == []  # others do not run into the same wall at once
    world.box.set(resend_tokens=None)
    await make_due(world)
    await world.send()

    assert world.mailed() == sorted(who)
    assert {m.state for m in await world.messages()} == {"sent"}


async def test_a_refused_set_up_after_a_lost_answer__keeps_body_and_key(world: World) -> None:
    (who,) = await world.enrolled()
    world.box.fault("work_then_reset", service="resend", path="/emails")
    with pytest.raises(OutcomeUnknown):
        await world.send()
    world.box.set(resend_tokens=["re_other"])
    with pytest.raises(Refused):
        await world.send()

    world.box.set(resend_tokens=None)
    await expire_leases(world)
    await world.send()

    assert world.mailed() == [who]
    assert len({c["idempotency_key"] for c in world.calls()}) == 1


async def test_a_mail_that_waits_for_our_set_up__is_not_sent_to_who_left_meanwhile(world: World) -> None:
    gone, stays = await world.enrolled(2)
    world.box.set(resend_tokens=["re_other"])
    with pytest.raises(Refused):
        await world.send()

    await suppress(world, gone)
    world.box.set(resend_tokens=None)
    await make_due(world)
    await world.send()

    assert world.mailed() == [stays]
    assert sorted(m.state for m in await world.messages()) == ["sent", "skipped"]


async def test_a_mail_that_waits_for_a_rate_limit__is_not_sent_to_who_left_meanwhile(world: World) -> None:
    gone, stays = await world.enrolled(2)
    world.box.fault("status", service="resend", path="/emails", status=429, retry_after=1)
    with pytest.raises(RetryLater):
        await world.send()

    await suppress(world, gone)
    await expire_leases(world)
    await world.send()

    assert world.mailed() == [stays]
    assert sorted(m.state for m in await world.messages()) == ["sent", "skipped"]


# -- answers that do not come --------------------------------------------------------------------------------


@pytest.mark.parametrize("count", [1, 3])
@pytest.mark.parametrize("fault", ["work_then_reset", "work_then_html", "work_then_empty", "work_then_truncated"])
async def test_a_lost_answer__is_taken_over_under_the_same_key(world: World, count: int, fault: str) -> None:
    who = await world.enrolled(count)
    world.box.fault(fault, service="resend", path="/emails", status=502)

    with pytest.raises(OutcomeUnknown):
        await world.send()
    done = total(await world.send())

    first, second = world.calls()
    assert done.sent == count
    assert world.mailed() == sorted(who)
    assert first["idempotency_key"] == second["idempotency_key"]
    assert {m.state for m in await world.messages()} == {"sent"}


async def test_a_lost_answer_whose_mails_are_all_reported_on__is_taken_over_all_the_same(world: World) -> None:
    who = await world.enrolled(2)
    world.box.fault("work_then_reset", service="resend", path="/emails")
    with pytest.raises(OutcomeUnknown):
        await world.send()
    await world.run_sql("UPDATE message SET provider_id = id::text")

    done = total(await world.send())

    first, second = world.calls()
    assert done.sent == 2
    assert world.mailed() == sorted(who)
    assert first["idempotency_key"] == second["idempotency_key"]
    assert {m.state for m in await world.messages()} == {"sent"}
    assert await world.send() == []


async def test_f13_a_process_that_dies_after_the_send__causes_no_second_mail(world: World) -> None:
    who = await world.enrolled(3)

    async def die() -> None:
        raise asyncio.CancelledError

    with pytest.raises(asyncio.CancelledError):
        await world.send(delivery=watched(world, after=die))
    assert await world.send() == []  # the dead run's lease still holds
    await expire_leases(world)
    await world.send()

    assert world.mailed() == sorted(who)
    assert {m.state for m in await world.messages()} == {"sent"}


async def test_f13_row_and_body__are_stored_before_the_call(world: World) -> None:
    await world.enrolled()
    seen: list[Any] = []

    async def look() -> None:
        seen.append(await world.message())
        seen.append((await world.rows("SELECT * FROM claim"))[0])

    await world.send(delivery=watched(world, before=look))

    message, claim = seen
    (mail,) = world.inbox()
    stored = json.loads(message.payload)
    assert message.state == "sending"
    assert (stored["html"], stored["text"], stored["subject"]) == (mail["html"], mail["text"], mail["subject"])
    assert claim.first_sent_at is not None
    assert mail["idempotency_key"] == f"tidings/{claim.id}"


async def test_stored_payload__stays_the_same_to_the_byte_though_the_copy_was_edited(world: World) -> None:
    await world.enrolled()
    world.box.fault("reset", service="resend", path="/emails")
    with pytest.raises(OutcomeUnknown):
        await world.send()
    before = (await world.message()).payload

    await world.edit_template(HELLO[0], subject="Other words", body="<p>Other words</p>")
    await world.send()

    row = await world.message()
    assert row.payload == before
    assert row.state == "sent"
    assert world.inbox()[0]["subject"] == "winter_hello_1 for you"


async def old_key(world: World, fault: str) -> None:
    """A mail whose answer was lost so long ago that Resend has forgotten the key."""
    world.box.fault(fault, service="resend", path="/emails")
    with pytest.raises(OutcomeUnknown):
        await world.send()
    await world.run_sql("UPDATE claim SET first_sent_at = now() - interval '23 hours 1 minute'")


def sendings(world: World) -> int:
    return sum(c["method"] == "POST" for c in world.calls())


@pytest.mark.parametrize("count", [1, 3])
async def test_a_key_that_resend_has_forgotten__makes_it_unknown_and_is_not_sent_again(
    world: World, count: int
) -> None:
    await world.enrolled(count)
    await old_key(world, "reset")

    await world.send()

    for row in await world.messages():
        assert row.state == "unknown"
        assert "without an answer" in row.reason
    assert sendings(world) == 1
    assert await world.send() == []


async def test_a_key_that_resend_has_forgotten__is_settled_from_resends_own_list(world: World) -> None:
    (who,) = await world.enrolled()
    await old_key(world, "work_then_reset")

    await world.send()

    row = await world.message()
    assert (row.state, row.provider_id) == ("sent", world.inbox()[0]["id"])
    assert world.mailed() == [who]
    assert sendings(world) == 1


async def test_a_key_that_resend_has_forgotten__with_a_key_that_may_only_send(world: World) -> None:
    await world.enrolled()
    await old_key(world, "work_then_reset")
    world.box.fault("status", service="resend", method="GET", status=401, code="restricted_api_key", times=None)

    await world.send()

    assert (await world.message()).state == "unknown"
    assert sendings(world) == 1


async def test_f18_who_leaves_while_resend_answers_with_500__is_not_mailed_by_the_repeat(world: World) -> None:
    gone, stays = await world.enrolled(2)
    world.box.fault("status", service="resend", path="/emails", status=500)
    with pytest.raises(OutcomeUnknown):
        await world.send()

    await suppress(world, gone)
    await world.run_sql(
        "UPDATE claim SET first_sent_at = now() - interval '1 hour', last_sent_at = now() - interval '1 hour'"
    )
    await world.send()
    await make_due(world)
    await world.send()

    assert world.mailed() == [stays]
    assert sorted(m.state for m in await world.messages()) == ["sent", "skipped"]


async def test_who_leaves_after_resend_has_taken_the_batch__has_got_it_and_no_second_call_is_made(world: World) -> None:
    gone, stays = await world.enrolled(2)
    world.box.fault("work_then_reset", service="resend", path="/emails")
    with pytest.raises(OutcomeUnknown):
        await world.send()

    await suppress(world, gone)
    await world.run_sql("UPDATE claim SET last_sent_at = now() - interval '1 hour'")
    await world.send()

    assert world.mailed() == sorted([gone, stays])
    assert {m.state for m in await world.messages()} == {"sent"}
    assert sendings(world) == 1


async def test_a_key_of_less_than_a_day__is_still_good(world: World) -> None:
    (who,) = await world.enrolled()
    world.box.fault("work_then_reset", service="resend", path="/emails")
    with pytest.raises(OutcomeUnknown):
        await world.send()

    await world.run_sql("UPDATE claim SET first_sent_at = now() - interval '22 hours 59 minutes'")
    await world.send()

    assert world.mailed() == [who]
    assert (await world.message()).state == "sent"


async def test_a_key_known_with_other_content__is_unknown_and_left_to_a_person(world: World) -> None:
    await world.enrolled()
    world.box.fault("status", service="resend", path="/emails", status=409, code="invalid_idempotent_request")

    await world.send()

    row = await world.message()
    assert row.state == "unknown"
    assert "invalid_idempotent_request" in row.reason
    assert await world.send() == []


# -- come again later ----------------------------------------------------------------------------------------


async def test_a_rate_limit__is_told_and_the_next_attempt_sends_once(world: World) -> None:
    (who,) = await world.enrolled()
    world.box.fault("status", service="resend", path="/emails", status=429, retry_after=7)

    with pytest.raises(RetryLater) as told:
        await world.send()
    assert told.value.retry_after == 7
    await expire_leases(world)
    await world.send()

    first, second = world.calls()
    assert world.mailed() == [who]
    assert first["idempotency_key"] == second["idempotency_key"]


@pytest.mark.parametrize("wait", [30, 300])
async def test_a_wait__is_kept_by_whoever_comes_next(world: World, wait: int) -> None:
    (who,) = await world.enrolled()
    world.box.fault("status", service="resend", path="/emails", status=429, retry_after=wait)

    with pytest.raises(RetryLater):
        await world.send()
    assert await world.send() == []
    (claim,) = await world.rows("SELECT lease_until - now() AS rest FROM claim")
    assert timedelta(seconds=wait - 10) < claim.rest <= timedelta(seconds=wait)

    await expire_leases(world)
    await world.send()
    assert world.mailed() == [who]


async def test_a_wait__is_over_for_the_run_that_sits_it_out(world: World) -> None:
    (who,) = await world.enrolled()
    world.box.fault("status", service="resend", path="/emails", status=429, retry_after=1)
    with pytest.raises(RetryLater) as told:
        await world.send()

    await asyncio.sleep(told.value.retry_after)

    assert await world.send() == [Sent(sent=1)]
    assert world.mailed() == [who]


async def test_a_wait__holds_for_all_workers_and_all_mails(world: World) -> None:
    workers = [world.delivery(turns=Pace(world.ledger, Memory(world.ledger), rate=100)) for _ in range(2)]
    await world.enrolled()
    world.box.fault("status", service="resend", path="/emails", status=429, retry_after=2, times=1)
    with pytest.raises(RetryLater):
        await world.send(delivery=workers[0])
    told = time.monotonic()
    await world.enrolled()

    await world.send(delivery=workers[1])

    assert time.monotonic() - told >= 1.9
    assert len(world.mailed()) == 2


async def test_a_used_up_quota__keeps_nobody_waiting_for_a_turn(world: World) -> None:
    delivery = world.delivery(turns=Pace(world.ledger, Memory(world.ledger), rate=100))
    await world.enrolled()
    world.box.set(daily_quota=0)
    with pytest.raises(QuotaExhausted):
        await world.send(delivery=delivery)

    began = time.monotonic()
    await Pace(world.ledger, Memory(world.ledger), rate=100).turn()

    assert time.monotonic() - began < 1


async def test_a_used_up_quota__waits_an_hour_and_counts_as_not_handed_over(world: World) -> None:
    await world.enrolled()
    world.box.set(daily_quota=0)

    with pytest.raises(QuotaExhausted) as told:
        await world.send()

    (claim,) = await world.rows("SELECT first_sent_at, lease_until - now() AS rest FROM claim")
    assert told.value.retry_after == 3600
    assert claim.rest > timedelta(minutes=59)
    assert claim.first_sent_at is None
    assert (await world.message()).state == "sending"


async def test_a_refusal_after_a_lost_answer__does_not_forget_that_it_may_have_been_sent(world: World) -> None:
    await world.enrolled()
    world.box.fault("work_then_reset", service="resend", path="/emails")
    with pytest.raises(OutcomeUnknown):
        await world.send()
    world.box.fault("status", service="resend", path="/emails", status=429, retry_after=1)

    with pytest.raises(RetryLater):
        await world.send()

    (claim,) = await world.rows("SELECT * FROM claim")
    assert claim.first_sent_at is not None


# -- several at once -----------------------------------------------------------------------------------------


async def test_several_deliverers_at_once__send_each_mail_once(world: World) -> None:
    who = await world.enrolled(250)

    done = await asyncio.gather(*[world.send() for _ in range(4)])

    claims = await world.rows("SELECT claim_id FROM message WHERE template = :t", t=HELLO[0])
    assert world.mailed() == sorted(who)
    assert sum(d.sent for each in done for d in each) == 250
    assert all(row.claim_id for row in claims)


async def test_a_message_that_another_run_holds__is_not_claimed(world: World) -> None:
    await world.enrolled(3)
    delivery = world.delivery()
    until = Selection("winter", datetime.now(UTC) + timedelta(seconds=1), template=HELLO[0])

    first = await delivery.next_claim(until, uuid4())
    second = await delivery.next_claim(until, uuid4())

    assert first is not None
    assert len(first.messages) == 3
    assert second is None


async def test_a_slow_deliverer_whose_claim_was_taken_over__sends_nothing(world: World) -> None:
    (who,) = await world.enrolled()
    until = Selection("winter", datetime.now(UTC) + timedelta(seconds=1), template=HELLO[0])
    slow = world.delivery()
    slow_run = uuid4()
    claim = await slow.next_claim(until, slow_run)
    assert claim is not None
    claim, _ = await slow.prepare(claim)

    await expire_leases(world)
    await world.send()
    late = await slow.hand_over(claim, slow_run)

    assert late == Sent()
    assert len(world.calls()) == 1
    assert world.mailed() == [who]


async def test_a_slow_deliverer_whose_claim_another_run_holds_by_now__leaves_it_to_that_one(world: World) -> None:
    (who,) = await world.enrolled()
    until = Selection("winter", datetime.now(UTC) + timedelta(seconds=1), template=HELLO[0])
    slow, slow_run, quick, quick_run = world.delivery(), uuid4(), world.delivery(), uuid4()
    claim = await slow.next_claim(until, slow_run)
    assert claim is not None
    claim, _ = await slow.prepare(claim)
    await expire_leases(world)
    taken = await quick.next_claim(until, quick_run)
    assert taken is not None

    late = await slow.hand_over(claim, slow_run)
    assert (late, world.calls()) == (Sent(), [])
    taken, _ = await quick.prepare(taken)
    await quick.hand_over(taken, quick_run)

    assert taken.key == claim.key
    assert world.mailed() == [who]


async def test_the_same_run__takes_its_own_claim_up_again_after_an_error(world: World) -> None:
    (who,) = await world.enrolled()
    run = uuid4()
    world.box.fault("status", service="resend", path="/emails", status=503)

    with pytest.raises(OutcomeUnknown):
        await world.send(run=run)
    await world.send(run=run)

    assert world.mailed() == [who]
    assert len(await world.rows("SELECT id FROM claim")) == 1


# -- who may not be mailed, and copy that went bad -----------------------------------------------------------


async def test_a_suppression_before_the_claim__skips_all_that_waits_with_the_reason(world: World) -> None:
    gone, stays = await world.enrolled(2)

    await suppress(world, gone)
    await world.send()

    rows = await world.rows(
        "SELECT m.state, m.reason FROM message m JOIN enrolment e ON e.id = enrolment_id "
        "JOIN contact c ON c.id = e.contact_id WHERE c.email = :who",
        who=gone,
    )
    assert {(r.state, r.reason) for r in rows} == {("skipped", "asked us to stop")}
    assert len(rows) == 3
    assert world.mailed() == [stays]


async def test_a_suppression_after_the_claim__still_skips_and_says_so(world: World) -> None:
    gone, stays = await world.enrolled(2)
    delivery = world.delivery()
    run = uuid4()
    until = Selection("winter", datetime.now(UTC) + timedelta(seconds=1), template=HELLO[0])
    claim = await delivery.next_claim(until, run)
    assert claim is not None

    await suppress(world, gone)
    ready, done = await delivery.prepare(claim)
    done.add(await delivery.hand_over(ready, run))

    assert done == Sent(sent=1, skipped={"asked us to stop": 1})
    assert world.mailed() == [stays]
    assert sorted(m.state for m in await world.messages()) == ["sent", "skipped"]
    assert await world.rows("SELECT id FROM claim WHERE settled_at IS NULL") == []


async def test_a_suppression_of_another_series__stops_nothing_here(world: World) -> None:
    (who,) = await world.enrolled()

    await suppress(world, who, sequence="meeting")
    await world.send()

    assert world.mailed() == [who]


async def test_a_template_broken_since_the_enrolment__fails_only_its_own_messages(world: World) -> None:
    (who,) = await world.enrolled(ago=timedelta(minutes=50))
    await world.run_sql("UPDATE message SET slot_at = now() WHERE state = 'scheduled'")
    await world.edit_template(HELLO[1], body="<p>{{ nobody_knows }}</p>")
    everything = Selection("winter", datetime.now(UTC) + timedelta(seconds=1))

    done = await send_next(world.delivery(), everything, uuid4())

    states = {t: (await world.message(t)).state for t in HELLO}
    reason = (await world.message(HELLO[1])).reason
    assert done is not None
    assert states == {HELLO[0]: "sent", HELLO[1]: "failed", HELLO[2]: "sent"}
    assert "nobody_knows" in reason
    assert HELLO[1] in reason
    assert world.mailed() == [who, who]


async def test_a_template_gone_since_the_enrolment__fails_its_messages_with_the_cure(world: World) -> None:
    await world.enrolled(2)
    rows = await world.notion.query("NOTION_TEMPLATES_DB_ID", world.templates_id)
    for row in rows:
        await world.notion._client.pages.update(page_id=row["id"], in_trash=True)

    await world.send()

    assert {m.state for m in await world.messages()} == {"failed"}
    assert "is missing" in (await world.messages())[0].reason
    assert world.calls() == []


async def test_notion_away_at_sending__leaves_the_mail_for_later(world: World) -> None:
    (who,) = await world.enrolled()
    world.box.fault("status", service="notion", status=429, retry_after=90)

    with pytest.raises(RetryLater) as told:
        await world.send()
    assert told.value.retry_after == 90
    await expire_leases(world)
    await world.send()

    assert world.mailed() == [who]


async def test_story__tells_every_mail_in_order(world: World) -> None:
    (who,) = await world.enrolled()
    await world.send()

    async with world.ledger.reading() as connection:
        story = await mails.story(connection, who.upper())

    assert [(m.template, m.state) for m in story] == list(zip(HELLO, ("sent", "scheduled", "scheduled"), strict=True))
