"""Cal.com's API v2, asked for a booking that no webhook has told enough of.

Cal.com's no-show webhook has no name and no time.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any
from urllib.parse import quote

import httpx

from tidings.adapters.http import ServiceClient
from tidings.errors import Refused, RetryLater
from tidings.model import Booking, BookingState

SERVICE = "Cal.com"
#: Without this header Cal.com answers as an older version of this endpoint.
API_VERSION = "2024-08-13"
TIMEOUT_SECONDS = 10.0
PREFIX = "calcom:"


class Calcom:
    """The calendar of the settings' key."""

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
        answer = await self._get(f"/v2/bookings/{quote(key.removeprefix(PREFIX), safe='')}")
        if answer.status_code == 404:
            return None
        if answer.status_code == 429 or answer.status_code >= 500:
            raise RetryLater(SERVICE, "gave no answer", status=answer.status_code, retry_after=_pause(answer))
        if answer.status_code != 200:
            raise Refused(SERVICE, "refused to show a booking; check CALCOM_API_KEY", status=answer.status_code)
        try:
            return _booking(key, answer.json()["data"])
        except (ValueError, LookupError, TypeError, AttributeError) as error:
            raise Refused(SERVICE, f"described the booking in a way that is not understood: {error!r}") from error

    async def _get(self, path: str) -> httpx.Response:
        try:
            async with ServiceClient(SERVICE, timeout=TIMEOUT_SECONDS, transport=self._transport) as client:
                return await client.get(self._url + path, headers=self._headers)
        except httpx.HTTPError as error:
            raise RetryLater(SERVICE, f"cannot be reached: {error!r}", retry_after=2.0) from error


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
