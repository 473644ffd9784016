"""Calendly's stand-in: the organization's scheduled events, their invitees and no-shows, and webhook subscriptions.

Shapes, parameters and limits are those of developer.calendly.com (Nov 2026).
"""

import asyncio
import json
import math
import uuid
from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Any

from . import senders
from .clock import Clock, parse_time
from .config import Settings
from .limits import Window
from .postman import Postman
from .senders import stamp
from .store import Row, Store
from .wire import Call, Reply, Routes

API = "https://api.calendly.com"
USER, ORGANIZATION = f"{API}/users/SANDBOX", f"{API}/organizations/SANDBOX"
EVENTS = ("invitee.created", "invitee.canceled", "invitee_no_show.created", "invitee_no_show.deleted")
#: Remembers that the subscription of the settings was made, so that one that is lost stays lost.
FURNISHED = "calendly_furnished"
TITLES = {
    400: "Invalid Argument",
    401: "Unauthenticated",
    403: "Permission Denied",
    404: "Resource Not Found",
    409: "Already Exists",
    429: "Too Many Requests",
}
MESSAGES = {
    401: "The access token is invalid",
    403: "You do not have permission to access this resource.",
    404: "The server could not find the requested resource.",
    429: "You have exceeded your rate limit.",
}


class CalendlyRefused(Exception):
    """Calendly says no."""

    def __init__(self, status: int, message: str = "", *, parameter: str = "") -> None:
        super().__init__(message)
        self.status = status
        self.message = message or MESSAGES.get(status, "The supplied parameters are invalid.")
        self.details = [{"parameter": parameter, "message": message}] if parameter else []

    def reply(self) -> Reply:
        body: dict[str, Any] = {"title": TITLES.get(self.status, "Internal Server Error"), "message": self.message}
        return Reply(self.status, body | ({"details": self.details} if self.details else {}))


class Calendly:
    """Answers below the base address `/calendly`."""

    name = "calendly"

    def __init__(self, store: Store, postman: Postman, *, settings: Callable[[], Settings], clock: Clock) -> None:
        self._store = store
        self._postman = postman
        self._settings = settings
        self._clock = clock
        self._window = Window(settings().calendly_rate, seconds=60.0)
        self._routes = self._route()

    def _route(self) -> Routes:
        routes = Routes()
        routes.add("GET", "/users/me", self._me)
        routes.add("GET", "/scheduled_events", self._events)
        routes.add("GET", "/scheduled_events/{event}/invitees", self._invitees)
        routes.add("POST", "/invitee_no_shows", self._mark)
        routes.add("DELETE", "/invitee_no_shows/{no_show}", self._unmark)
        routes.add("GET", "/webhook_subscriptions", self._subscriptions)
        routes.add("POST", "/webhook_subscriptions", self._subscribe)
        routes.add("DELETE", "/webhook_subscriptions/{subscription}", self._unsubscribe)
        return routes

    async def answer(self, call: Call) -> Reply:
        await asyncio.sleep(call.work_delay)
        try:
            self._admit(call)
            reply = self._handled(call)
        except CalendlyRefused as refusal:
            reply = refusal.reply()
        return reply.with_headers(self._headers())

    def failure(self, *, status: int, code: str | None, message: str | None) -> Reply:
        text = (
            message or "The server encountered an unexpected condition that prevented it from fulfilling the request."
        )
        return CalendlyRefused(status, text).reply().with_headers(self._headers())

    def _admit(self, call: Call) -> None:
        accepted = self._settings().calendly_tokens
        if not call.bearer or (accepted is not None and call.bearer not in accepted):
            raise CalendlyRefused(401)
        self._window.rate = self._settings().calendly_rate
        if not self._window.take(self._clock().timestamp()):
            raise CalendlyRefused(429)

    def _headers(self) -> dict[str, str]:
        if not self._window.rate:
            return {}
        return {
            "X-RateLimit-Limit": str(math.floor(self._window.rate)),
            "X-RateLimit-Remaining": str(self._window.left()),
            "X-RateLimit-Reset": str(self._window.reset(self._clock().timestamp())),
        }

    def _handled(self, call: Call) -> Reply:
        found = self._routes.find(call.method, call.path)
        if found is None:
            raise CalendlyRefused(404)
        handler, names = found
        try:
            reply: Reply = handler(call, **names)
        except json.JSONDecodeError as error:
            raise CalendlyRefused(400, "The request body is not valid JSON.") from error
        return reply

    # -- reading -----------------------------------------------------------------------------------------

    def _me(self, call: Call) -> Reply:
        user = {
            "uri": USER,
            "name": "Sandbox Host",
            "slug": "sandbox-host",
            "email": "host@tidings.test",
            "scheduling_url": "https://calendly.com/sandbox-host",
            "timezone": "America/Toronto",
            "avatar_url": None,
            "created_at": "2026-01-01T00:00:00.000000Z",
            "updated_at": "2026-01-01T00:00:00.000000Z",
            "current_organization": ORGANIZATION,
            "resource_type": "User",
            "locale": "en",
        }
        return Reply(200, {"resource": user})

    def _check_scope(self, organization: str | None, user: str | None) -> None:
        """One of them is needed, and the whole organization is for its owners and admins."""
        if organization is None and user is None:
            raise CalendlyRefused(400, "is missing", parameter="organization")
        if (organization or ORGANIZATION, user or USER) != (ORGANIZATION, USER):
            raise CalendlyRefused(403)
        if user is None and not self._settings().calendly_owner:
            raise CalendlyRefused(403)

    def _events(self, call: Call) -> Reply:
        self._check_scope(call.first("organization"), call.first("user"))
        first, last = self._time(call, "min_start_time"), self._time(call, "max_start_time")
        rows = [
            event
            for event in self._store.objects(self.name, "event")
            if call.first("status") in (None, event["status"])
            and (first is None or _moment(event["start_time"]) >= first)
            and (last is None or _moment(event["start_time"]) < last)
        ]
        descending = call.first("sort") == "start_time:desc"
        return _page(call, sorted(rows, key=lambda row: str(row["start_time"]), reverse=descending))

    def _time(self, call: Call, name: str) -> datetime | None:
        text = call.first(name)
        moment = parse_time(text) if text else None
        if text and moment is None:
            raise CalendlyRefused(400, "is not a time", parameter=name)
        return moment

    def _invitees(self, call: Call, event: str) -> Reply:
        if self._store.object(self.name, "event", event) is None:
            raise CalendlyRefused(404)
        uri = f"{API}/scheduled_events/{event}"
        rows = [row for row in self._store.objects(self.name, "invitee") if row["event"] == uri]
        return _page(call, [row for row in rows if call.first("status") in (None, row["status"])])

    # -- no-shows ----------------------------------------------------------------------------------------

    def _mark(self, call: Call) -> Reply:
        invitee = self._store.object(self.name, "invitee", str(call.json().get("invitee", "")))
        if invitee is None:
            raise CalendlyRefused(400, "is not an invitee", parameter="invitee")
        marked = self.mark(invitee["uri"])
        return Reply(201, {"resource": marked["no_show"] | {"invitee": marked["uri"]}})

    def _unmark(self, call: Call, no_show: str) -> Reply:
        for invitee in self._store.objects(self.name, "invitee"):
            if (invitee["no_show"] or {}).get("uri") == f"{API}/invitee_no_shows/{no_show}":
                self.unmark(invitee["uri"])
                return Reply(204, {})
        raise CalendlyRefused(404)

    # -- subscriptions -----------------------------------------------------------------------------------

    def _subscriptions(self, call: Call) -> Reply:
        scope = call.first("scope")
        if scope not in ("organization", "user"):
            raise CalendlyRefused(400, "must be organization or user", parameter="scope")
        if call.first("organization") is None:
            raise CalendlyRefused(400, "is missing", parameter="organization")
        self._check_scope(call.first("organization"), call.first("user") if scope == "user" else None)
        rows = [_shown(row) for row in self._store.subscriptions(self.name) if row["scope"] == scope]
        return _page(call, rows)

    def _subscribe(self, call: Call) -> Reply:
        body = call.json()
        for parameter in ("url", "events", "organization", "scope"):
            if not body.get(parameter):
                raise CalendlyRefused(400, "is missing", parameter=parameter)
        if strangers := set(body["events"]) - set(EVENTS):
            raise CalendlyRefused(400, f"has {', '.join(sorted(strangers))}", parameter="events")
        user = body.get("user") if body["scope"] == "user" else None
        self._check_scope(body["organization"], user)
        if any(row["url"] == body["url"] for row in self._store.subscriptions(self.name)):
            raise CalendlyRefused(409, "Hook with this url already exists")
        made = self.subscribe(body["url"], body["events"], body.get("signing_key"), scope=body["scope"])
        return Reply(201, {"resource": _shown(made)})

    def _unsubscribe(self, call: Call, subscription: str) -> Reply:
        if not self._store.remove_subscription(subscription):
            raise CalendlyRefused(404)
        return Reply(204, {})

    def subscribe(self, url: str, events: list[str], key: str | None, *, scope: str = "organization") -> Row:
        now = stamp(self._clock())
        subscription: Row = {
            "id": str(uuid.uuid4()),
            "service": self.name,
            "url": url,
            "secret": key,
            "events": events,
            "status": senders.ACTIVE,
            "scope": scope,
            "created_at": now,
            "updated_at": now,
            "retry_started_at": None,
        }
        self._store.save_subscription(subscription)
        return subscription

    def disable(self, url: str | None) -> int:
        """Switch subscriptions off, as Calendly does after 24 h of failures; returns how many."""
        found = [s for s in self._store.subscriptions(self.name) if url in (None, s["url"])]
        for subscription in found:
            self._store.save_subscription(
                subscription | {"status": senders.DISABLED, "updated_at": stamp(self._clock())}
            )
        return len(found)

    def furnish(self) -> None:
        """The subscription that the settings name, once: what becomes of it later is Calendly's business."""
        url = self._settings().calendly_webhook_url
        if url and not self._store.recall(FURNISHED):
            self.subscribe(url, list(EVENTS), self._settings().calendly_signing_key)
            self._store.remember(FURNISHED, True)

    def reset(self) -> None:
        self._window = Window(self._settings().calendly_rate, seconds=60.0)
        self._store.remember(FURNISHED, False)

    # -- what people do ----------------------------------------------------------------------------------

    def book(
        self,
        *,
        email: str,
        name: str,
        start: datetime,
        title: str = "Diagnostic call",
        created: datetime | None = None,
        old_invitee: str | None = None,
        webhook: bool = True,
    ) -> Row:
        """A new event with one invitee; returns the invitee. `webhook` false: nobody is told."""
        at = stamp(created or self._clock())
        event = self._new_event(start, title, at)
        uri = f"{event['uri']}/invitees/{uuid.uuid4()}"
        token = uri.rpartition("/")[2]
        invitee = {
            "uri": uri,
            "event": event["uri"],
            "email": email,
            "name": name,
            "first_name": None,
            "last_name": None,
            "status": "active",
            "timezone": "America/Toronto",
            "created_at": at,
            "updated_at": at,
            "rescheduled": False,
            "old_invitee": old_invitee,
            "new_invitee": None,
            "cancel_url": f"https://calendly.com/cancellations/{token}",
            "reschedule_url": f"https://calendly.com/reschedulings/{token}",
            "no_show": None,
            "questions_and_answers": [],
            "tracking": {},
            "text_reminder_number": None,
            "payment": None,
            "reconfirmation": None,
            "routing_form_submission": None,
        }
        self._save(invitee)
        self._tell("invitee.created", invitee, created, webhook=webhook)
        return invitee

    def _new_event(self, start: datetime, title: str, at: str) -> Row:
        event_id = str(uuid.uuid4())
        event: Row = {
            "uri": f"{API}/scheduled_events/{event_id}",
            "name": title,
            "status": "active",
            "start_time": stamp(start),
            "end_time": stamp(start + timedelta(minutes=30)),
            "event_type": f"{API}/event_types/SANDBOX",
            "location": {
                "type": "google_conference",
                "status": "pushed",
                "join_url": f"https://meet.tidings.test/{event_id}",
            },
            "invitees_counter": {"total": 1, "active": 1, "limit": 1},
            "event_memberships": [{"user": USER, "user_email": "host@tidings.test", "user_name": "Sandbox Host"}],
            "event_guests": [],
            "meeting_notes_plain": None,
            "meeting_notes_html": None,
            "created_at": at,
            "updated_at": at,
        }
        self._store.save_object(self.name, "event", event_id, event)
        return event

    def cancel(self, uri: str, *, reason: str = "", webhook: bool = True, new_invitee: str | None = None) -> Row:
        """Call a meeting off, or give its place to another (`new_invitee`)."""
        now = stamp(self._clock())
        changed = self._known(uri) | {
            "status": "canceled",
            "rescheduled": new_invitee is not None,
            "new_invitee": new_invitee,
            "updated_at": now,
            "cancellation": {
                "canceled_by": "Sandbox",
                "reason": reason,
                "canceler_type": "invitee",
                "created_at": now,
            },
        }
        event = self._event_of(changed) | {"status": "canceled", "updated_at": now}
        self._store.save_object(self.name, "event", event["uri"].rpartition("/")[2], event)
        self._save(changed)
        self._tell("invitee.canceled", changed, webhook=webhook)
        return changed

    def mark(self, uri: str, *, at: datetime | None = None, webhook: bool = True) -> Row:
        """Say that an invitee did not come."""
        now = stamp(at or self._clock())
        no_show = {"uri": f"{API}/invitee_no_shows/{uuid.uuid4()}", "created_at": now}
        changed = self._known(uri) | {"no_show": no_show, "updated_at": now}
        self._save(changed)
        self._tell("invitee_no_show.created", changed, at, webhook=webhook)
        return changed

    def unmark(self, uri: str, *, webhook: bool = True) -> Row:
        """Take a no-show back."""
        changed = self._known(uri) | {"no_show": None, "updated_at": stamp(self._clock())}
        self._save(changed)
        self._tell("invitee_no_show.deleted", changed, webhook=webhook)
        return changed

    def _known(self, uri: str) -> Row:
        found = self._store.object(self.name, "invitee", uri)
        if found is None:
            raise LookupError(f"Calendly has no invitee {uri}")
        return found

    def _event_of(self, invitee: Row) -> Row:
        event = self._store.object(self.name, "event", invitee["event"].rpartition("/")[2])
        assert event is not None, invitee
        return event

    def _save(self, invitee: Row) -> None:
        self._store.save_object(self.name, "invitee", invitee["uri"], invitee)

    def _tell(self, kind: str, invitee: Row, at: datetime | None = None, *, webhook: bool) -> None:
        """The webhook's own time is that of its making, in whole seconds, and so another than the invitee's."""
        if not webhook:
            return
        body = {
            "created_at": stamp((at or self._clock()).replace(microsecond=0)),
            "created_by": USER,
            "event": kind,
            "payload": invitee | {"scheduled_event": self._event_of(invitee)},
        }
        self._postman.tell(self.name, kind, body)


def _moment(text: str) -> datetime:
    moment = parse_time(text)
    assert moment is not None, text
    return moment


def _shown(subscription: Row) -> Row:
    return {
        "uri": f"{API}/webhook_subscriptions/{subscription['id']}",
        "callback_url": subscription["url"],
        "created_at": subscription["created_at"],
        "updated_at": subscription["updated_at"],
        "retry_started_at": subscription["retry_started_at"],
        "state": subscription["status"],
        "events": subscription["events"],
        "scope": subscription["scope"],
        "organization": ORGANIZATION,
        "user": USER if subscription["scope"] == "user" else None,
        "creator": USER,
    }


def _page(call: Call, rows: list[Row]) -> Reply:
    """One page of a collection; the token is where the next one begins."""
    text, token = call.first("count") or "20", call.first("page_token") or "0"
    if not text.isdigit() or not 1 <= int(text) <= 100:
        raise CalendlyRefused(400, "must be between 1 and 100", parameter="count")
    if not token.isdigit():
        raise CalendlyRefused(400, "is invalid", parameter="page_token")
    start, count = int(token), int(text)
    more = len(rows) > start + count
    following = str(start + count) if more else None
    pagination = {
        "count": len(rows[start : start + count]),
        "next_page": f"{API}{call.path}?count={count}&page_token={following}" if more else None,
        "previous_page": None,
        "next_page_token": following,
        "previous_page_token": None,
    }
    return Reply(200, {"collection": rows[start : start + count], "pagination": pagination})
