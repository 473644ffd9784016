"""The webhooks' way through the server: one look-up by path, past FastAPI's matching and injection of arguments.

The same routes stay in FastAPI for OpenAPI, and for what is not a POST. docs/performance.md has what this saves.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from functools import cached_property

from starlette.datastructures import Headers
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Match
from starlette.types import Receive, Scope, Send

Endpoint = Callable[[Request], Awaitable[Response]]


class QuickHeaders(Headers):
    """Headers that are looked up in a dictionary: each webhook is asked for several, and starlette goes through all."""

    def __init__(self, scope: Scope) -> None:
        super().__init__(scope=scope)
        self._by_name: dict[str, list[str]] = {}
        for name, value in scope["headers"]:
            self._by_name.setdefault(name.decode("latin-1"), []).append(value.decode("latin-1"))

    def __getitem__(self, key: str) -> str:
        return self._by_name[key.lower()][0]

    def __contains__(self, key: object) -> bool:
        return isinstance(key, str) and key.lower() in self._by_name

    def getlist(self, key: str) -> list[str]:
        return self._by_name.get(key.lower(), [])


class QuickRequest(Request):
    """A request whose headers are QuickHeaders."""

    @cached_property
    def headers(self) -> QuickHeaders:
        return QuickHeaders(self.scope)


class Direct(BaseRoute):
    """Serves POST for these exact paths. `sources` are those that are counted, each under its name."""

    def __init__(self, endpoints: Mapping[str, Endpoint], sources: Mapping[str, str]) -> None:
        self._endpoints = endpoints
        self._sources = sources

    def matches(self, scope: Scope) -> tuple[Match, Scope]:
        if scope["type"] == "http" and scope["method"] == "POST":
            path = scope["path"].removeprefix(scope.get("root_path", ""))
            endpoint = self._endpoints.get(path)
            if endpoint is not None:
                return Match.FULL, {"endpoint": endpoint, "source": self._sources.get(path)}
        return Match.NONE, {}

    async def handle(self, scope: Scope, receive: Receive, send: Send) -> None:
        response = await scope["endpoint"](QuickRequest(scope, receive, send))
        await response(scope, receive, send)
