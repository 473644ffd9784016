"""Calendly's adapter against the sandbox."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from sandbox_process import Sandbox

from tidings.adapters.calendly import Calendly
from tidings.errors import OutcomeUnknown, Refused, RetryLater, ServiceError
from tidings.model import Found

NOW = datetime.now(UTC)
AHEAD, PAST = NOW + timedelta(days=3), NOW - timedelta(days=1)
SINCE = NOW - timedelta(days=3)
URL = "https://t.tidings.test/webhook/calendly-noshow"
EVENTS = ("invitee.created", "invitee_no_show.created")


@pytest.fixture
async def calendly(box: Sandbox) -> AsyncIterator[Calendly]:
    calendly = Calendly("token", f"{box.url}/calendly")
    yield calendly
    await calendly.close()


def book(box: Sandbox, email: str = "delivered+ana@resend.dev", start: datetime = AHEAD, **more: Any) -> str:
    made = box.post("calendly/bookings", email=email, start=start.isoformat(), **more)
    return str(made["uri"])


def kinds(found: list[Found]) -> list[str]:
    return [str(each.body["event"]) for each in found]


async def test_a_token__names_its_organization(calendly: Calendly) -> None:
    assert await calendly.organization() == "https://api.calendly.com/organizations/SANDBOX"


async def test_a_booking_ahead__is_told_as_its_webhook_would(calendly: Calendly, box: Sandbox) -> None:
    uri = book(box)

    (found,) = await calendly.found(SINCE, NOW)

    assert found.body["event"] == "invitee.created"
    assert found.body["payload"]["uri"] == uri
    assert found.body["payload"]["scheduled_event"]["name"] == "Diagnostic call"
    assert found.starts_at == AHEAD
    assert abs(found.at - NOW) < timedelta(minutes=2)


async def test_a_call_that_is_off__is_told_of_as_cancelled_alone(calendly: Calendly, box: Sandbox) -> None:
    box.post("calendly/cancellations", of=book(box))

    assert kinds(await calendly.found(SINCE, NOW)) == ["invitee.canceled"]


async def test_a_call_that_was_moved__is_told_of_from_both_sides(calendly: Calendly, box: Sandbox) -> None:
    first = book(box)
    second = book(box, start=AHEAD + timedelta(days=1), before=first)

    old, new = sorted(await calendly.found(SINCE, NOW), key=lambda each: str(each.body["event"]))

    assert (old.body["event"], old.body["payload"]["rescheduled"]) == ("invitee.canceled", True)
    assert (new.body["payload"]["uri"], new.body["payload"]["old_invitee"]) == (second, first)


async def test_a_no_show__is_told_with_its_own_time(calendly: Calendly, box: Sandbox) -> None:
    at = PAST + timedelta(hours=2)
    box.post("calendly/no-shows", of=book(box, start=PAST), at=at.isoformat())

    booked, missed = await calendly.found(SINCE, NOW)

    assert kinds([booked, missed]) == ["invitee.created", "invitee_no_show.created"]
    assert missed.at == at
    assert booked.body["payload"]["no_show"] is None


async def test_whoever_was_not_missed__is_told_of_as_having_come(calendly: Calendly, box: Sandbox) -> None:
    book(box, start=PAST)

    found = await calendly.found(SINCE, NOW)

    assert kinds(found) == ["invitee.created", "invitee_no_show.deleted"]
    assert found[1].at == NOW


async def test_meetings_from_long_ago__are_not_asked_about(calendly: Calendly, box: Sandbox) -> None:
    book(box, start=NOW - timedelta(days=30))

    assert await calendly.found(SINCE, NOW) == []


async def test_more_than_a_page__is_read_to_its_end(calendly: Calendly, box: Sandbox) -> None:
    for n in range(103):
        book(box, email=f"delivered+{n}@resend.dev", start=AHEAD + timedelta(minutes=n), webhook=False)

    found = await calendly.found(SINCE, NOW)

    assert len({each.body["payload"]["email"] for each in found}) == 103


async def test_a_user_who_is_no_admin__sees_what_is_theirs(calendly: Calendly, box: Sandbox) -> None:
    box.set(calendly_owner=False)
    book(box)

    assert kinds(await calendly.found(SINCE, NOW)) == ["invitee.created"]
    await calendly.subscribe(URL, EVENTS, "key")
    assert [s.url for s in await calendly.subscriptions()] == [URL]


async def test_a_subscription__is_made_switched_off_and_deleted(calendly: Calendly, box: Sandbox) -> None:
    await calendly.subscribe(URL, EVENTS, "key")
    (made,) = await calendly.subscriptions()
    assert (made.url, made.active, made.events) == (URL, True, frozenset(EVENTS))

    box.post("calendly/disable", url=URL)
    (off,) = await calendly.subscriptions()
    assert (off.uri, off.active) == (made.uri, False)

    await calendly.unsubscribe(off.uri)
    await calendly.unsubscribe(off.uri)
    assert await calendly.subscriptions() == []


async def test_a_second_subscription_of_one_address__is_refused_with_calendlys_reason(calendly: Calendly) -> None:
    await calendly.subscribe(URL, EVENTS, "key")

    with pytest.raises(Refused, match="already exists"):
        await calendly.subscribe(URL, EVENTS, "key")


@pytest.mark.parametrize(
    ("fault", "error", "says"),
    [
        ({"status": 401}, Refused, "CALENDLY_TOKEN"),
        ({"status": 500}, RetryLater, "gave no answer"),
        ({"status": 429, "retry_after": 7}, RetryLater, "later"),
        ({"kind": "html", "status": 502}, RetryLater, "gave no answer"),
        ({"kind": "empty"}, OutcomeUnknown, "not JSON"),
        ({"kind": "truncated"}, OutcomeUnknown, "lost"),
        ({"kind": "reset"}, OutcomeUnknown, "lost"),
    ],
)
async def test_what_goes_wrong__says_whether_trying_again_helps(
    calendly: Calendly, box: Sandbox, fault: dict[str, Any], error: type[ServiceError], says: str
) -> None:
    box.fault(service="calendly", path="/users/me", **{"kind": "status", **fault})

    with pytest.raises(error, match=says) as caught:
        await calendly.found(SINCE, NOW)

    assert caught.value.retryable == (error is not Refused)
    if isinstance(caught.value, RetryLater) and caught.value.status == 429:
        assert 0 < caught.value.retry_after <= 60


async def test_a_server_that_is_away__is_worth_another_try() -> None:
    calendly = Calendly("token", "http://127.0.0.1:9")

    with pytest.raises(RetryLater, match="cannot be reached"):
        await calendly.organization()


async def test_a_used_up_rate__is_waited_for_rather_than_run_into(calendly: Calendly, box: Sandbox) -> None:
    box.set(calendly_rate=2)
    await calendly.organization()
    assert calendly._pause == 0.0

    await calendly._call("GET", "/users/me")

    assert 0 < calendly._pause <= 60
