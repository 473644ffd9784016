"""The verdict is proven on sides made up for each way in which it can go wrong."""

from __future__ import annotations

from dataclasses import replace

import pytest

from tidings.chaos.verdict import Arrived, Asked, Message, Run, Sides, judge

EVENT = "e1"


def asked(email: str = "a@x", *templates: str, event_ids: tuple[str, ...] = (EVENT,)) -> Asked:
    return Asked(email, templates or ("t1",), frozenset(event_ids))


def message(email: str = "a@x", template: str = "t1", state: str = "delivered", **given: str) -> Message:
    known = {"id": f"m-{email}-{template}", "provider_id": "p", "payload": "{}", "reason": None}
    return Message(email=email, template=template, state=state, **{**known, **given})


def arrived(email: str = "a@x", template: str = "t1", number: int = 1, payload: str = "{}") -> Arrived:
    return Arrived(f"r{number}", email, template, f"m-{email}-{template}", payload)


@pytest.fixture
def right() -> Sides:
    return Sides(
        asked=[asked()],
        events={EVENT: "handled"},
        enrolments=1,
        messages=[message()],
        inbox=[arrived()],
        runs=[Run("later", "Scheduled", future=True)],
    )


def kinds(sides: Sides) -> list[str]:
    return [finding.partition(":")[0] for finding in judge(sides).findings]


def test_nothing_is_found_where_nothing_is_wrong(right: Sides) -> None:
    verdict = judge(right)
    assert verdict.right
    counts = (verdict.accepted, verdict.enrolled, verdict.due, verdict.delivered, verdict.duplicates, verdict.lost)
    assert counts == (1, 1, 1, 1, 0, 0)


def test_a_mail_that_did_not_arrive_is_lost(right: Sides) -> None:
    sides = replace(right, inbox=[], messages=[message(state="failed", reason="why")])
    assert judge(sides).lost == 1
    assert judge(sides).findings == ("lost: t1 to a@x did not arrive; the ledger says failed (why)",)


def test_a_mail_that_arrived_twice_is_doubled(right: Sides) -> None:
    sides = replace(right, inbox=[arrived(), arrived(number=2)])
    assert judge(sides).duplicates == 1
    assert kinds(sides) == ["doubled"]


def test_a_webhook_with_a_2xx_must_be_in_the_ledger(right: Sides) -> None:
    assert kinds(replace(right, events={})) == ["lost event"]


def test_one_webhook_is_one_event(right: Sides) -> None:
    sides = replace(right, asked=[asked(event_ids=("e1", "e2"))], events={"e1": "handled", "e2": "handled"})
    assert kinds(sides) == ["doubled event"]


def test_a_webhook_without_a_2xx_promises_nothing(right: Sides) -> None:
    refused = Asked("b@x", ("t1",), frozenset())
    assert judge(replace(right, asked=[asked(), refused])).right
    # It may have been stored all the same: the answer was lost.
    sides = replace(
        right,
        asked=[asked(), refused],
        messages=[message(), message("b@x")],
        inbox=[arrived(), arrived("b@x", number=2)],
    )
    assert judge(sides).right


def test_a_mail_that_no_webhook_asked_for_is_noticed(right: Sides) -> None:
    sides = replace(right, messages=[message(), message("b@x")], inbox=[arrived(), arrived("b@x", number=2)])
    assert kinds(sides) == ["unasked"]


@pytest.mark.parametrize("state", ["skipped", "failed", "cancelled"])
def test_the_ledger_must_say_of_a_mail_that_arrived_that_it_was_sent(right: Sides, state: str) -> None:
    assert kinds(replace(right, messages=[message(state=state)])) == ["disagreed"]


def test_the_ledger_must_not_say_sent_of_a_mail_that_never_arrived(right: Sides) -> None:
    assert kinds(replace(right, inbox=[])) == ["lost", "disagreed"]


def test_what_arrived_is_what_the_ledger_stored(right: Sides) -> None:
    assert kinds(replace(right, inbox=[arrived(payload='{"subject":"another"}')])) == ["disagreed"]


def test_unknown_unfinished_and_hanging_are_noticed(right: Sides) -> None:
    assert kinds(replace(right, messages=[message(state="unknown")])) == ["disagreed", "unknown"]
    assert kinds(replace(right, messages=[message(), message("b@x", state="scheduled")])) == ["unfinished mail"]
    assert kinds(replace(right, events={EVENT: "dispatched"})) == ["unfinished event"]
    assert kinds(replace(right, runs=[Run("now", "Running", future=False)])) == ["unfinished run"]
