"""The webhooks' way through the server: one look-up by path, past FastAPI's matching and injection of arguments.

The same routes stay in FastAPI for OpenAPI, and for what is not a POST. docs/performance.md has what this saves.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Match
from starlette.types import Receive, Scope, Send

Endpoint = Callable[[Request], Awaitable[Response]]


class Direct(BaseRoute):
    """Serves POST for these exact paths."""

    def __init__(self, endpoints: Mapping[str, Endpoint]) -> None:
        self._endpoints = endpoints

    def matches(self, scope: Scope) -> tuple[Match, Scope]:
        if scope["type"] == "http" and scope["method"] == "POST":
            endpoint = self._endpoints.get(scope["path"].removeprefix(scope.get("root_path", "")))
            if endpoint is not None:
                return Match.FULL, {"endpoint": endpoint}
        return Match.NONE, {}

    async def handle(self, scope: Scope, receive: Receive, send: Send) -> None:
        response = await scope["endpoint"](Request(scope, receive, send))
        await response(scope, receive, send)
