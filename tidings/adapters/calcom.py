"""Cal.com's API v2: one booking, where no webhook has told enough of it, and all of them, for what none has told.

Cal.com's no-show webhook has no name and no time; the list has no time at which an absence was marked.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import UTC, datetime, timedelta
from itertools import count
from typing import Any
from urllib.parse import quote

import httpx

from tidings.adapters.http import ServiceClient
from tidings.errors import Refused, RetryLater
from tidings.model import Booking, BookingState, Found, Scheme

SERVICE = "Cal.com"
#: Without this header Cal.com answers as an older version of this endpoint.
API_VERSION = "2024-08-13"
TIMEOUT_SECONDS = 10.0
PREFIX = "calcom:"
PAGE = 100
#: Hosts mark an absence some days after the meeting at the latest, so meetings are listed from so long before.
MARKED_WITHIN = timedelta(days=4)
#: All but bookings that the host has yet to confirm.
STATUSES = "upcoming,recurring,past,cancelled"


class Calcom:
    """The calendar of the settings' key."""

    scheme = Scheme.CALCOM

    def __init__(self, api_key: str, api_url: str, transport: httpx.AsyncBaseTransport | None = None) -> None:
        self._headers = {"Authorization": f"Bearer {api_key}", "cal-api-version": API_VERSION}
        self._url = api_url
        self._transport = transport

    async def booking(self, key: str) -> Booking | None:
        """A booking by its fact's key; None for another calendar's, and for one that Cal.com does not know.

        Raises RetryLater while Cal.com gives no usable answer, Refused when it does not let us in.
        """
        if not key.startswith(PREFIX):
            return None
        async with self._client() as client:
            answer = await self._get(client, f"/v2/bookings/{quote(key.removeprefix(PREFIX), safe='')}")
        if answer.status_code == 404:
            return None
        _check(answer)
        try:
            return _booking(key, answer.json()["data"])
        except UNREADABLE as error:
            raise Refused(SERVICE, f"described the booking in a way that is not understood: {error!r}") from error

    async def found(self, since: datetime, now: datetime) -> list[Found]:
        """Everything about meetings that began after `since`, or are ahead, as Cal.com's webhooks would tell it.

        Raises RetryLater while Cal.com gives no usable answer, Refused when it does not let us in.
        """
        wanted = {"afterStart": _text(since - MARKED_WITHIN), "status": STATUSES, "sortStart": "asc", "take": str(PAGE)}
        found: list[Found] = []
        async with self._client() as client:
            for skip in count(0, PAGE):
                answer = await self._get(client, "/v2/bookings", params={**wanted, "skip": str(skip)})
                _check(answer)
                try:
                    page = answer.json()["data"]
                    found += [each for booking in page for each in _told(booking, now)]
                except UNREADABLE as error:
                    raise Refused(SERVICE, f"listed bookings in a way that is not understood: {error!r}") from error
                if len(page) < PAGE:
                    break
        return found

    def _client(self) -> httpx.AsyncClient:
        return ServiceClient(SERVICE, timeout=TIMEOUT_SECONDS, transport=self._transport, headers=self._headers)

    async def _get(self, client: httpx.AsyncClient, path: str, **arguments: Any) -> httpx.Response:
        try:
            return await client.get(self._url + path, **arguments)
        except httpx.HTTPError as error:
            raise RetryLater(SERVICE, f"cannot be reached: {error!r}", retry_after=2.0) from error


#: What reading an answer raises that lacks what is needed.
UNREADABLE = (ValueError, LookupError, TypeError, AttributeError)


def _check(answer: httpx.Response) -> None:
    if answer.status_code == 429 or answer.status_code >= 500:
        raise RetryLater(SERVICE, "gave no answer", status=answer.status_code, retry_after=_pause(answer))
    if answer.status_code != 200:
        raise Refused(SERVICE, "refused to show its bookings; check CALCOM_API_KEY", status=answer.status_code)


def _pause(answer: httpx.Response) -> float:
    """What Retry-After asks for, in seconds."""
    said = answer.headers.get("retry-after", "")
    return float(said) if said.isdigit() else 2.0


def _booking(key: str, data: dict[str, Any]) -> Booking:
    """What the booking has in common with the one of Cal.com's webhooks."""
    attendee: dict[str, Any] = next(iter(data.get("attendees") or []), {})
    link = data.get("meetingUrl")
    details = {
        "name": attendee.get("name"),
        "zone": attendee.get("timeZone"),
        "title": data.get("title"),
        "link": link if isinstance(link, str) and link.startswith("https://") else None,
    }
    starts = datetime.fromisoformat(data["start"])
    if starts.tzinfo is None:
        raise ValueError(f"the start {data['start']!r} has no time zone")
    known = {name: value for name, value in details.items() if isinstance(value, str) and value}
    return Booking(key, BookingState.BOOKED, starts.astimezone(UTC), starts.astimezone(UTC), known)


def _told(booking: Mapping[str, Any], now: datetime) -> Iterator[Found]:
    """What the webhooks have told, or should have told, of one booking.

    Of a call that is off only that, and nothing of one that was moved: the booking in its place tells of it.
    """
    starts, updated = datetime.fromisoformat(booking["start"]), datetime.fromisoformat(booking["updatedAt"])
    if booking["status"] == "cancelled" and not booking.get("rescheduledToUid"):
        yield _body("BOOKING_CANCELLED", updated, _payload(booking), starts)
    if booking["status"] != "accepted":
        return
    created, before = datetime.fromisoformat(booking["createdAt"]), booking.get("rescheduledFromUid")
    moved = {"rescheduleUid": before} if before else {}
    trigger = "BOOKING_RESCHEDULED" if before else "BOOKING_CREATED"
    yield _body(trigger, created, {**_payload(booking), **moved}, starts)
    if starts < now:
        yield from _attendance(booking, max(starts, updated), now, starts)


def _attendance(booking: Mapping[str, Any], marked: datetime, now: datetime, starts: datetime) -> Iterator[Found]:
    """Who was missed, since the meeting; and who was not, as it is now."""
    for absent, at in ((True, marked), (False, now)):
        who = [one["email"] for one in booking["attendees"] if bool(one.get("absent")) is absent]
        if who:
            payload = {
                "bookingUid": booking["uid"],
                "bookingId": booking["id"],
                "attendees": [{"email": email, "noShow": absent} for email in who],
            }
            yield _body("BOOKING_NO_SHOW_UPDATED", at, payload, starts)


def _body(trigger: str, at: datetime, payload: Mapping[str, Any], starts: datetime) -> Found:
    return Found({"triggerEvent": trigger, "createdAt": _text(at), "payload": payload}, at, starts)


def _payload(booking: Mapping[str, Any]) -> dict[str, Any]:
    """A booking of the list in the other words of Cal.com's webhooks."""
    return {
        "uid": booking["uid"],
        "bookingId": booking["id"],
        "title": booking.get("title"),
        "startTime": booking["start"],
        "endTime": booking["end"],
        "status": str(booking["status"]).upper(),
        "attendees": [
            {"email": one["email"], "name": one.get("name"), "timeZone": one.get("timeZone")}
            for one in booking["attendees"]
        ],
        "metadata": {"videoCallUrl": booking.get("meetingUrl") or booking.get("location")},
    }


def _text(moment: datetime) -> str:
    return moment.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
