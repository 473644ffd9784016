"""Cal.com's list of bookings, against the sandbox. One booking alone is tested where it is needed (test_natives)."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from sandbox_process import Sandbox

from tidings.adapters.calcom import Calcom
from tidings.errors import Refused, RetryLater, ServiceError
from tidings.model import Booking, Found

NOW = datetime.now(UTC).replace(microsecond=0)
AHEAD, PAST = NOW + timedelta(days=3), NOW - timedelta(days=1)
SINCE = NOW - timedelta(days=3)
ANA = "delivered+ana@resend.dev"


@pytest.fixture
def calcom(box: Sandbox) -> Calcom:
    return Calcom("cal_test", f"{box.url}/calcom")


def book(box: Sandbox, email: str = ANA, start: datetime = AHEAD, **more: Any) -> str:
    return str(box.post("calcom/bookings", email=email, start=start.isoformat(), **more)["uid"])


def triggers(found: list[Found]) -> list[str]:
    return [str(each.body["triggerEvent"]) for each in found]


async def test_a_booking_ahead__is_told_as_its_webhook_would(calcom: Calcom, box: Sandbox) -> None:
    uid = book(box)

    (found,) = await calcom.found(SINCE, NOW)

    payload = found.body["payload"]
    assert (found.body["triggerEvent"], payload["uid"], found.starts_at) == ("BOOKING_CREATED", uid, AHEAD)
    assert payload["attendees"] == [{"email": ANA, "name": "Robin Poole", "timeZone": "America/Toronto"}]
    assert payload["metadata"] == {"videoCallUrl": "https://meet.tidings.test/cal"}


async def test_a_call_that_is_off__is_told_of_as_cancelled_alone(calcom: Calcom, box: Sandbox) -> None:
    box.post("calcom/cancellations", of=book(box))

    assert triggers(await calcom.found(SINCE, NOW)) == ["BOOKING_CANCELLED"]


async def test_a_call_that_was_moved__is_told_of_by_the_booking_in_its_place(calcom: Calcom, box: Sandbox) -> None:
    first = book(box)
    second = book(box, start=AHEAD + timedelta(days=1), before=first)

    (found,) = await calcom.found(SINCE, NOW)

    payload = found.body["payload"]
    assert (found.body["triggerEvent"], payload["uid"], payload["rescheduleUid"]) == (
        "BOOKING_RESCHEDULED", second, first,
    )  # fmt: skip


async def test_an_absence__counts_from_the_meeting_as_its_own_time_is_not_listed(calcom: Calcom, box: Sandbox) -> None:
    box.post("calcom/no-shows", of=book(box, start=PAST, created=(PAST - timedelta(days=9)).isoformat()))

    _, missed = await calcom.found(SINCE, NOW)

    assert missed.body["payload"]["attendees"] == [{"email": ANA, "noShow": True}]
    assert missed.at == PAST


async def test_whoever_was_not_missed__is_told_of_as_having_come(calcom: Calcom, box: Sandbox) -> None:
    book(box, start=PAST)

    _, came = await calcom.found(SINCE, NOW)

    assert (came.body["payload"]["attendees"], came.at) == ([{"email": ANA, "noShow": False}], NOW)


async def test_meetings_from_long_ago__are_not_asked_about(calcom: Calcom, box: Sandbox) -> None:
    book(box, start=NOW - timedelta(days=30))

    assert await calcom.found(SINCE, NOW) == []


async def test_more_than_a_page__is_read_to_its_end(calcom: Calcom, box: Sandbox) -> None:
    for n in range(103):
        book(box, email=f"delivered+{n}@resend.dev", start=AHEAD + timedelta(minutes=n))

    found = await calcom.found(SINCE, NOW)

    assert len({each.body["payload"]["uid"] for each in found}) == 103


async def test_one_booking__is_known_by_its_key(calcom: Calcom, box: Sandbox) -> None:
    uid = book(box)

    booking = await calcom.booking(f"calcom:{uid}")

    assert isinstance(booking, Booking)
    assert (booking.starts_at, booking.details["name"]) == (AHEAD, "Robin Poole")
    assert await calcom.booking("calcom:unknown") is None


@pytest.mark.parametrize(
    ("fault", "error"),
    [({"status": 401}, Refused), ({"status": 500}, RetryLater), ({"status": 429, "retry_after": 7}, RetryLater),
     ({"kind": "empty"}, Refused), ({"kind": "reset"}, RetryLater)],
)  # fmt: skip
async def test_what_goes_wrong__says_whether_trying_again_helps(
    calcom: Calcom, box: Sandbox, fault: dict[str, Any], error: type[ServiceError]
) -> None:
    box.fault(service="calcom", **{"kind": "status", **fault})

    with pytest.raises(error) as caught:
        await calcom.found(SINCE, NOW)

    if isinstance(caught.value, RetryLater) and "retry_after" in fault:
        assert caught.value.retry_after == 7.0
