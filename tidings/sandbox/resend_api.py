"""Resend's stand-in: who may call, how often, and which handler answers."""

import asyncio
import inspect
import json
import math
from collections.abc import Callable
from datetime import UTC
from typing import Any

from .clock import Clock
from .config import Settings
from .lifecycle import Lifecycle
from .limits import Window
from .postman import Postman
from .resend_account import Domains, Suppressions, WebhookEndpoints
from .resend_emails import Emails
from .resend_errors import USUAL_NAMES, ResendRefused, too_many
from .resend_send import Sending
from .store import Store
from .wire import Call, Reply, Routes

RESTRICTED = "re_restricted"
SEND_PATHS = ("/emails", "/emails/batch")
RETRY_AFTER = 1  # seconds: the window is one second long


class Resend:
    """Answers below the base address `/resend`."""

    name = "resend"

    def __init__(
        self,
        store: Store,
        lifecycle: Lifecycle,
        postman: Postman,
        *,
        settings: Callable[[], Settings],
        clock: Clock,
    ) -> None:
        self._store = store
        self._settings = settings
        self._clock = clock
        self._window = Window(settings().resend_rate)
        self.domains = Domains(store, clock=clock)
        self.endpoints = WebhookEndpoints(store, clock=clock)
        self.suppressions = Suppressions(store, postman, clock=clock)
        self._sending = Sending(store, lifecycle, settings=settings, clock=clock)
        self._emails = Emails(store, lifecycle, settings=settings, clock=clock)
        self._routes = self._route()

    def _route(self) -> Routes:
        routes = Routes()
        routes.add("POST", "/emails", self._sending.send)
        routes.add("POST", "/emails/batch", self._sending.send_batch)
        routes.add("GET", "/emails", self._emails.list)
        routes.add("GET", "/emails/{id}", self._emails.get)
        routes.add("PATCH", "/emails/{id}", self._emails.update)
        routes.add("POST", "/emails/{id}/cancel", self._emails.cancel)
        routes.add("POST", "/domains/{id}/verify", self.domains.verify)
        routes.add("POST", "/webhooks/{id}/signing-secret/rotate", self.endpoints.rotate)
        routes.add("POST", "/suppressions/batch/add", self.suppressions.batch_add)
        routes.add("POST", "/suppressions/batch/remove", self.suppressions.batch_remove)
        routes.add("GET", "/api-keys", self._api_keys)
        routes.add("GET", "/usage", self._usage)
        for base, noun in (
            ("/domains", self.domains),
            ("/webhooks", self.endpoints),
            ("/suppressions", self.suppressions),
        ):
            routes.add("GET", base, noun.list)
            routes.add("POST", base, noun.create)
            routes.add("GET", base + "/{id}", noun.get)
            routes.add("DELETE", base + "/{id}", noun.delete)
        routes.add("PATCH", "/domains/{id}", self.domains.update)
        routes.add("PATCH", "/webhooks/{id}", self.endpoints.update)
        return routes

    async def answer(self, call: Call) -> Reply:
        if call.path not in SEND_PATHS:  # a send takes its delay while it holds its key
            await asyncio.sleep(call.work_delay)
        try:
            self._admit(call)
            reply = await self._handled(call)
        except ResendRefused as refusal:
            reply = refusal.reply()
        return reply.with_headers(self._headers())

    def failure(self, *, status: int, code: str | None, message: str | None) -> Reply:
        name = code or USUAL_NAMES.get(status, "application_error")
        text = message or "The sandbox was told to fail this request."
        return ResendRefused(status, name, text).reply().with_headers(self._headers())

    # -- admission ---------------------------------------------------------------------------------------

    def _admit(self, call: Call) -> None:
        token = call.bearer
        if not token:
            raise ResendRefused(401, "missing_api_key", "Missing API key in the authorization header")
        if not self._accepted(token):
            raise ResendRefused(403, "invalid_api_key", "API key is invalid")
        if token.startswith(RESTRICTED) and (call.method != "POST" or call.path not in SEND_PATHS):
            raise ResendRefused(401, "restricted_api_key", "This API key is restricted to only send emails")
        self._window.rate = self._settings().resend_rate
        if not self._window.take(self._now()):
            raise too_many(math.floor(self._window.rate), RETRY_AFTER)

    def _accepted(self, token: str) -> bool:
        accepted = self._settings().resend_tokens
        return token.startswith("re_") if accepted is None else token in accepted

    def _now(self) -> float:
        return self._clock().timestamp()

    def _headers(self) -> dict[str, str]:
        """Rate headers, and what was used of the quotas: used, not what is left of them."""
        self._window.rate = self._settings().resend_rate
        today = self._clock().astimezone(UTC).date().isoformat()
        headers = self._window.headers(self._now())
        headers["x-resend-monthly-quota"] = str(self._store.recipients_since(today[:8] + "01"))
        if self._settings().daily_quota is not None:  # only the free plan has one, and the header
            headers["x-resend-daily-quota"] = str(self._store.recipients_since(today))
        return headers

    # -- handlers ----------------------------------------------------------------------------------------

    async def _handled(self, call: Call) -> Reply:
        found = self._routes.find(call.method, call.path)
        if found is None:
            raise self._no_route(call.path)
        handler, names = found
        try:
            answer = handler(call, **names)
            reply: Reply = await answer if inspect.isawaitable(answer) else answer
        except json.JSONDecodeError as error:
            raise ResendRefused(400, "validation_error", "The request body is not valid JSON.") from error
        return reply

    def _no_route(self, path: str) -> ResendRefused:
        if self._routes.knows(path):
            return ResendRefused(405, "method_not_allowed", "Method Not Allowed")
        return ResendRefused(404, "not_found", "The requested endpoint does not exist")

    def _api_keys(self, call: Call) -> Reply:
        key = {"id": "5a1d0b0e-0000-4000-8000-000000000001", "name": "Sandbox"}
        created = {"created_at": "2026-01-01 00:00:00.000000+00", "last_used_at": None}
        return Reply(200, {"object": "list", "has_more": False, "data": [key | created]})

    def _usage(self, call: Call) -> Reply:
        today = self._clock().astimezone(UTC).date().isoformat()
        used: dict[str, Any] = {
            "daily": {"used": self._store.recipients_since(today), "limit": self._settings().daily_quota},
            "monthly": {
                "used": self._store.recipients_since(today[:8] + "01"),
                "limit": self._settings().monthly_quota,
            },
        }
        return Reply(200, {"object": "usage", "emails": used})
