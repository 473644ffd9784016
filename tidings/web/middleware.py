"""What every answer carries, as plain ASGI: cheaper on the webhook path than a wrapped request and response."""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping

from starlette.exceptions import HTTPException
from starlette.middleware.cors import CORSMiddleware
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from tidings import counts

log = logging.getLogger("tidings.web")

#: In the place of uvicorn's line for every request, which cost as much as a webhook's validation (docs/performance.md).
TELL_THEMSELVES = ("/webhook/", "/health", "/metrics")
#: What a page may do that names nothing else: nothing. Also for JSON, which a browser may be made to show.
NOTHING = "default-src 'none'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
SECURITY_HEADERS = {
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Content-Security-Policy": NOTHING,
}
#: Told to browsers when the world reaches this server by https: never again by http, for a year.
HTTPS_ONLY = {"Strict-Transport-Security": "max-age=31536000"}


def security_headers(scope: Scope) -> Mapping[str, str]:
    """The headers that keep browsers from guessing, framing, telling on, running and talking in the clear."""
    https = scope["app"].state.parts.settings.public_url.startswith("https://")
    return {**SECURITY_HEADERS, **HTTPS_ONLY} if https else SECURITY_HEADERS


def count(scope: Scope, status: int, seconds: float) -> None:
    """What was answered, for the figures. Webhooks that are no person's are in none."""
    if "source" not in scope:
        counts.request(getattr(scope.get("route"), "path", "none"), status)
    elif (source := scope["source"]) is not None:
        counts.webhook(source, "refused" if status >= 400 else scope.get("result", "accepted"), status, seconds)


def tell(method: str, path: str, status: int) -> None:
    """A line for what has no line of its own: accepted webhooks have one, checks that pass and figures need none."""
    if status >= 400:
        log.warning("http.refused", extra={"method": method, "path": path, "status": status})
    elif not path.startswith(TELL_THEMSELVES):
        log.info("http.answered", extra={"method": method, "path": path, "status": status})


class BodyCap:
    """No body is larger than this, whatever the route and whoever sends it: FastAPI reads it before it asks who."""

    def __init__(self, app: ASGIApp, limit: int) -> None:
        self._app = app
        self._limit = limit

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        # Webhooks have caps of their own, which are smaller (tidings.web.body).
        if scope["type"] != "http" or scope["path"].startswith("/webhook/"):
            await self._app(scope, receive, send)
            return
        size = 0

        async def counted() -> Message:
            nonlocal size
            message = await receive()
            size += len(message.get("body", b""))
            if size > self._limit:
                raise HTTPException(413, f"The body is larger than {self._limit} bytes")
            return message

        await self._app(scope, counted, send)


class SecurityHeaders:
    """Adds them to every answer, counts it and tells of it; a page that needs more brings a policy of its own."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app
        self._headers: list[tuple[bytes, bytes]] | None = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        if self._headers is None:
            self._headers = [(k.lower().encode(), v.encode()) for k, v in security_headers(scope).items()]
        added = self._headers
        began, answered = time.perf_counter(), False

        async def with_headers(message: Message) -> None:
            nonlocal answered
            if message["type"] == "http.response.start":
                answered = True
                count(scope, message["status"], time.perf_counter() - began)
                tell(scope["method"], scope["path"], message["status"])
                own = message["headers"]
                names = {name for name, _ in own}
                message["headers"] = [*own, *(pair for pair in added if pair[0] not in names)]
            await send(message)

        try:
            await self._app(scope, receive, with_headers)
        finally:
            if not answered:  # a fault of ours, which is answered outside of here
                count(scope, 500, time.perf_counter() - began)


def cors(app: ASGIApp, scope: Scope) -> CORSMiddleware:
    """What lets the websites of the settings read answers; no other page may."""
    return CORSMiddleware(
        app,
        allow_origins=scope["app"].state.parts.settings.origins,
        allow_methods=["GET", "POST"],
        allow_headers=["content-type"],
        expose_headers=["retry-after"],  # for a form that tells its visitor when to try again
    )


class Origins:
    """CORS for the websites of the settings, which are known only once the application has started."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app
        self._allowed: CORSMiddleware | None = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        # Only browsers name an origin; what senders post has no use for any of this.
        if scope["type"] != "http" or not any(name == b"origin" for name, _ in scope["headers"]):
            await self._app(scope, receive, send)
            return
        if self._allowed is None:
            self._allowed = cors(self._app, scope)
        await self._allowed(scope, receive, send)
