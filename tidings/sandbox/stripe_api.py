"""Stripe's stand-in: checkouts, the events that tell of them, and its webhooks.

Shapes and errors are those of docs.stripe.com/api (events, checkout sessions, errors; Nov 2026).
"""

import asyncio
import secrets
import uuid
from collections.abc import Callable
from typing import Any

from . import senders
from .clock import Clock
from .config import Settings
from .limits import Window
from .postman import Postman
from .store import Row, Store
from .wire import Call, Reply, Routes

API_VERSION = "2026-10-28.endive"
#: The endpoint that the settings name.
OWN = str(uuid.uuid5(uuid.NAMESPACE_URL, "tidings-sandbox-stripe"))
#: The API's list of events goes back so far, in seconds.
KEPT = 30 * 24 * 3600


class StripeRefused(Exception):
    """Stripe says no."""

    def __init__(self, status: int, kind: str, message: str, code: str | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.error = {"type": kind, "message": message} | ({"code": code} if code else {})

    def reply(self) -> Reply:
        return Reply(self.status, {"error": self.error})


class Stripe:
    """Answers below the base address `/stripe`."""

    name = "stripe"

    def __init__(self, store: Store, postman: Postman, *, settings: Callable[[], Settings], clock: Clock) -> None:
        self._store = store
        self._postman = postman
        self._settings = settings
        self._clock = clock
        self._window = Window(settings().stripe_rate)
        self._routes = Routes()
        self._routes.add("GET", "/v1/events", self._events)

    async def answer(self, call: Call) -> Reply:
        await asyncio.sleep(call.work_delay)
        try:
            self._admit(call)
            found = self._routes.find(call.method, call.path)
            if found is None:
                text = f"Unrecognized request URL ({call.method}: {call.path})."
                raise StripeRefused(404, "invalid_request_error", text)
            reply: Reply = found[0](call)
        except StripeRefused as refusal:
            reply = refusal.reply()
        return reply.with_headers({"request-id": f"req_{secrets.token_hex(7)}", "stripe-version": API_VERSION})

    def failure(self, *, status: int, code: str | None, message: str | None) -> Reply:
        return StripeRefused(status, "api_error", message or "An unknown error occurred", code).reply()

    def _admit(self, call: Call) -> None:
        accepted = self._settings().stripe_tokens
        right = call.bearer.startswith(("sk_", "rk_")) if accepted is None else call.bearer in accepted
        if not right:
            raise StripeRefused(401, "invalid_request_error", "Invalid API Key provided")
        self._window.rate = self._settings().stripe_rate
        if not self._window.take(self._clock().timestamp()):
            raise StripeRefused(429, "invalid_request_error", "Request rate limit exceeded.", "rate_limit")

    # -- reading -----------------------------------------------------------------------------------------

    def _events(self, call: Call) -> Reply:
        wanted = [value for name, value in call.query if name.startswith("types")]
        oldest = self._clock().timestamp() - KEPT
        rows = [
            row
            for row in self._store.objects(self.name, "event")
            if row["created"] >= oldest and (not wanted or row["type"] in wanted)
        ]
        return self._page(call, rows)

    def _page(self, call: Call, rows: list[Row]) -> Reply:
        """Newest first; `starting_after` is an object that older ones follow."""
        limit, since = int(call.first("limit") or 10), float(call.first("created[gte]") or 0)
        if not 1 <= limit <= 100:
            raise StripeRefused(400, "invalid_request_error", "This value must be less than or equal to 100.")
        rows = sorted((r for r in rows if r["created"] >= since), key=lambda r: int(r["created"]), reverse=True)
        after = call.first("starting_after")
        start = next((n + 1 for n, row in enumerate(rows) if row["id"] == after), 0)
        data = rows[start : start + limit]
        more = len(rows) > start + limit
        return Reply(200, {"object": "list", "url": call.path, "has_more": more, "data": data})

    # -- what people do ----------------------------------------------------------------------------------

    def furnish(self) -> None:
        """The endpoint that the settings name."""
        url = self._settings().stripe_webhook_url
        self._store.remove_subscription(OWN)
        if url:
            self._store.save_subscription(
                {
                    "id": OWN,
                    "service": self.name,
                    "url": url,
                    "secret": self._settings().stripe_webhook_secret,
                    "events": [],
                    "status": senders.ACTIVE,
                }
            )

    def reset(self) -> None:
        self._window = Window(self._settings().stripe_rate)

    def check_out(
        self, *, email: str, name: str, amount: int = 200_000, paid: bool = True, created: float | None = None,
        webhook: bool = True,
    ) -> Row:  # fmt: skip
        """A checkout that is completed, and paid unless it takes days; returns its event."""
        at = int(created or self._clock().timestamp())
        session: Row = {
            "id": f"cs_test_{secrets.token_hex(16)}",
            "object": "checkout.session",
            "mode": "payment",
            "status": "complete",
            "payment_status": "paid" if paid else "unpaid",
            "amount_total": amount,
            "amount_subtotal": amount,
            "currency": "cad",
            "customer": None,
            "customer_email": None,
            "customer_details": {"email": email, "name": name, "phone": None, "address": None},
            "payment_intent": f"pi_{secrets.token_hex(12)}",
            "client_reference_id": None,
            "metadata": {},
            "created": at,
            "expires_at": at + 86_400,
            "livemode": False,
        }
        self._store.save_object(self.name, "session", session["id"], session)
        return self._happen("checkout.session.completed", session, at, webhook=webhook)

    def settle(self, session_id: str, *, webhook: bool = True) -> Row:
        """The payment that took days has come; returns its event."""
        session = self._store.object(self.name, "session", session_id)
        if session is None:
            raise LookupError(f"Stripe has no checkout session {session_id}")
        session |= {"payment_status": "paid"}
        self._store.save_object(self.name, "session", session_id, session)
        at = int(self._clock().timestamp())
        return self._happen("checkout.session.async_payment_succeeded", session, at, webhook=webhook)

    def _happen(self, kind: str, session: Row, at: int, *, webhook: bool) -> Row:
        event: dict[str, Any] = {
            "id": f"evt_{secrets.token_hex(12)}",
            "object": "event",
            "api_version": API_VERSION,
            "created": at,
            "livemode": False,
            "pending_webhooks": 1,
            "request": {"id": None, "idempotency_key": None},
            "type": kind,
            "data": {"object": session},
        }
        self._store.save_object(self.name, "event", event["id"], event)
        if webhook:
            self._postman.tell(self.name, kind, event)
        return event
