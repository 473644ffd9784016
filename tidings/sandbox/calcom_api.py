"""Cal.com's stand-in: bookings as API v2 (2024-08-13) lists them, and its triggers.

Parameters and shapes are those of Cal.com's own source, apps/api/v2 and packages/features/webhooks (Nov 2026).
"""

import asyncio
import math
import secrets
import uuid
from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Any

from . import senders
from .clock import Clock, parse_time
from .config import Settings
from .limits import Window
from .postman import Postman
from .store import Row, Store
from .wire import Call, Reply, Routes

VERSION = "2024-08-13"
STATUSES = ("upcoming", "recurring", "past", "cancelled", "unconfirmed")
#: The webhook that the settings name.
OWN = str(uuid.uuid5(uuid.NAMESPACE_URL, "tidings-sandbox-calcom"))


def stamp(moment: datetime) -> str:
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")


class CalcomRefused(Exception):
    """Cal.com says no."""

    def __init__(self, status: int, code: str, message: str) -> None:
        super().__init__(message)
        self.status = status
        self.code = code
        self.message = message

    def reply(self, path: str, at: datetime) -> Reply:
        error = {"code": self.code, "message": self.message, "details": {"message": self.message}}
        return Reply(self.status, {"status": "error", "timestamp": stamp(at), "path": f"/v2{path}", "error": error})


class Calcom:
    """Answers below the base address `/calcom`."""

    name = "calcom"

    def __init__(self, store: Store, postman: Postman, *, settings: Callable[[], Settings], clock: Clock) -> None:
        self._store = store
        self._postman = postman
        self._settings = settings
        self._clock = clock
        self._window = Window(settings().calcom_rate, seconds=60.0)
        self._routes = Routes()
        self._routes.add("GET", "/v2/bookings", self._list)
        self._routes.add("GET", "/v2/bookings/{uid}", self._get)

    async def answer(self, call: Call) -> Reply:
        await asyncio.sleep(call.work_delay)
        try:
            self._admit(call)
            found = self._routes.find(call.method, call.path)
            if found is None:
                raise CalcomRefused(404, "NotFoundException", f"Cannot {call.method} {call.path}")
            handler, names = found
            reply: Reply = handler(call, **names)
        except CalcomRefused as refusal:
            reply = refusal.reply(call.path, self._clock())
        return reply.with_headers(self._headers())

    def failure(self, *, status: int, code: str | None, message: str | None) -> Reply:
        refusal = CalcomRefused(status, code or "InternalServerErrorException", message or "Internal server error")
        return refusal.reply("/bookings", self._clock()).with_headers(self._headers())

    def _admit(self, call: Call) -> None:
        accepted = self._settings().calcom_tokens
        right = call.bearer.startswith("cal_") if accepted is None else call.bearer in accepted
        if not right:
            raise CalcomRefused(401, "UnauthorizedException", "ApiAuthStrategy - api key - Your api key is not valid")
        if call.headers.get("cal-api-version") != VERSION:  # an older version has no such endpoint
            raise CalcomRefused(404, "NotFoundException", f"Cannot {call.method} {call.path}")
        self._window.rate = self._settings().calcom_rate
        if not self._window.take(self._clock().timestamp()):
            raise CalcomRefused(429, "ThrottlerException", "ThrottlerException: Too Many Requests")

    def _headers(self) -> dict[str, str]:
        if not self._window.rate:
            return {}
        now = self._clock().timestamp()
        headers = {
            "X-RateLimit-Limit-Default": str(math.floor(self._window.rate)),
            "X-RateLimit-Remaining-Default": str(self._window.left()),
            "X-RateLimit-Reset-Default": str(math.ceil(now) + self._window.reset(now)),
        }
        return headers | ({} if self._window.left() else {"Retry-After": str(self._window.reset(now))})

    # -- reading -----------------------------------------------------------------------------------------

    def _list(self, call: Call) -> Reply:
        wanted = [s.strip() for s in (call.first("status") or "").split(",") if s.strip()]
        if strangers := set(wanted) - set(STATUSES):
            raise CalcomRefused(400, "BadRequestException", f"Invalid status {', '.join(sorted(strangers))}")
        after = parse_time(call.first("afterStart") or "")
        rows = [
            row
            for row in self._store.objects(self.name, "booking")
            if (not wanted or self._status(row) in wanted) and (after is None or _moment(row["start"]) >= after)
        ]
        rows.sort(key=lambda row: str(row["start"]), reverse=call.first("sortStart") == "desc")
        return self._page(call, rows)

    def _status(self, row: Row) -> str:
        if row["status"] in ("cancelled", "rejected"):
            return "cancelled"
        return "upcoming" if _moment(row["end"]) >= self._clock() else "past"

    def _page(self, call: Call, rows: list[Row]) -> Reply:
        take, skip = int(call.first("take") or 100), int(call.first("skip") or 0)
        if not 1 <= take <= 250:
            raise CalcomRefused(400, "BadRequestException", "take must not be greater than 250")
        data = rows[skip : skip + take]
        left = max(0, len(rows) - skip - take)
        pagination = {
            "totalItems": len(rows),
            "remainingItems": left,
            "returnedItems": len(data),
            "itemsPerPage": take,
            "currentPage": skip // take + 1,
            "totalPages": math.ceil(len(rows) / take),
            "hasNextPage": left > 0,
            "hasPreviousPage": skip > 0,
        }
        return Reply(200, {"status": "success", "data": data, "pagination": pagination})

    def _get(self, call: Call, uid: str) -> Reply:
        row = self._store.object(self.name, "booking", uid)
        if row is None:
            raise CalcomRefused(404, "NotFoundException", f"Booking with uid={uid} was not found in the database")
        return Reply(200, {"status": "success", "data": row})

    # -- what people do ----------------------------------------------------------------------------------

    def furnish(self) -> None:
        """The webhook that the settings name."""
        url = self._settings().calcom_webhook_url
        self._store.remove_subscription(OWN)
        if url:
            self._store.save_subscription(
                {
                    "id": OWN,
                    "service": self.name,
                    "url": url,
                    "secret": self._settings().calcom_webhook_secret,
                    "events": [],
                    "status": senders.ACTIVE,
                }
            )

    def reset(self) -> None:
        self._window = Window(self._settings().calcom_rate, seconds=60.0)

    def book(
        self,
        *,
        email: str,
        name: str,
        start: datetime,
        title: str = "Diagnostic call",
        created: datetime | None = None,
        before: str | None = None,
        webhook: bool = True,
    ) -> Row:
        """A new booking, or one in the place of another (`before`, its uid). `webhook` false: nobody is told."""
        at = created or self._clock()
        booking: Row = {
            "id": len(self._store.objects(self.name, "booking")) + 1,
            "uid": secrets.token_urlsafe(16),
            "title": title,
            "description": "",
            "hosts": [{"id": 1, "name": "Sandbox Host", "email": "host@tidings.test", "username": "sandbox"}],
            "status": "accepted",
            "start": stamp(start),
            "end": stamp(start + timedelta(minutes=30)),
            "duration": 30,
            "eventTypeId": 10,
            "eventType": {"id": 10, "slug": "diagnostic-call"},
            "location": "https://meet.tidings.test/cal",
            "meetingUrl": "https://meet.tidings.test/cal",
            "absentHost": False,
            "createdAt": stamp(at),
            "updatedAt": stamp(at),
            "attendees": [
                {"name": name, "email": email, "timeZone": "America/Toronto", "language": "en", "absent": False}
            ],
            "guests": [],
            "bookingFieldsResponses": {"email": email, "name": name},
            "metadata": {},
            **({"rescheduledFromUid": before} if before else {}),
        }
        self._save(booking)
        if before:
            self._move(before, booking)
        trigger = "BOOKING_RESCHEDULED" if before else "BOOKING_CREATED"
        payload = {**_payload(booking), **({"rescheduleUid": before} if before else {})}
        self._tell(trigger, payload, created, webhook=webhook)
        return booking

    def _move(self, before: str, booking: Row) -> None:
        old = self._known(before)
        self._save(old | {"status": "cancelled", "rescheduledToUid": booking["uid"], "updatedAt": booking["createdAt"]})

    def cancel(self, uid: str, *, reason: str = "", webhook: bool = True) -> Row:
        """Call a meeting off."""
        changed = self._known(uid) | {
            "status": "cancelled",
            "cancellationReason": reason,
            "updatedAt": stamp(self._clock()),
        }
        self._save(changed)
        self._tell("BOOKING_CANCELLED", {**_payload(changed), "cancellationReason": reason}, webhook=webhook)
        return changed

    def mark(self, uid: str, *, absent: bool = True, webhook: bool = True) -> Row:
        """Say of all attendees that they did not come, or take it back. A booking's own times stay as they are."""
        booking = self._known(uid)
        changed = booking | {"attendees": [one | {"absent": absent} for one in booking["attendees"]]}
        self._save(changed)
        payload = {
            "bookingUid": uid,
            "bookingId": booking["id"],
            "attendees": [{"email": one["email"], "noShow": absent} for one in booking["attendees"]],
            "message": "x_marked_as_no_show" if absent else "x_unmarked_as_no_show",
        }
        self._tell("BOOKING_NO_SHOW_UPDATED", payload, webhook=webhook)
        return changed

    def _known(self, uid: str) -> Row:
        found = self._store.object(self.name, "booking", uid)
        if found is None:
            raise LookupError(f"Cal.com has no booking {uid}")
        return found

    def _save(self, booking: Row) -> None:
        self._store.save_object(self.name, "booking", booking["uid"], booking)

    def _tell(self, trigger: str, payload: Row, at: datetime | None = None, *, webhook: bool) -> None:
        """The webhook is made a moment after what it tells of."""
        if webhook:
            at = (at or self._clock()) + timedelta(milliseconds=137)
            body = {"triggerEvent": trigger, "createdAt": stamp(at), "payload": payload}
            self._postman.tell(self.name, trigger, body)


def _moment(text: str) -> datetime:
    moment = parse_time(text)
    assert moment is not None, text
    return moment


def _payload(booking: Row) -> dict[str, Any]:
    """A booking in the other words of Cal.com's webhooks."""
    return {
        "type": booking["eventType"]["slug"],
        "title": booking["title"],
        "description": booking["description"],
        "additionalNotes": "",
        "startTime": booking["start"],
        "endTime": booking["end"],
        "organizer": {"id": 1, "name": "Sandbox Host", "email": "host@tidings.test", "timeZone": "America/Toronto"},
        "attendees": [
            {
                "email": one["email"],
                "name": one["name"],
                "timeZone": one["timeZone"],
                "language": {"locale": one["language"]},
                "firstName": "",
                "lastName": "",
            }
            for one in booking["attendees"]
        ],
        "uid": booking["uid"],
        "bookingId": booking["id"],
        "eventTypeId": booking["eventTypeId"],
        "length": booking["duration"],
        "status": booking["status"].upper(),
        "metadata": {"videoCallUrl": booking["meetingUrl"]},
    }
