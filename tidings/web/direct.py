"""The webhooks' way through the server: one look-up by path, past FastAPI's matching, injection and middleware.

The same routes stay in FastAPI for OpenAPI, and for what is not a POST. docs/performance.md has what this saves.
"""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from functools import cached_property
from typing import Any

from fastapi import FastAPI
from fastapi.exception_handlers import http_exception_handler
from starlette.datastructures import Headers
from starlette.exceptions import HTTPException
from starlette.middleware.cors import CORSMiddleware
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from tidings.errors import LedgerUnavailable
from tidings.web.middleware import cors, count, security_headers, tell

Endpoint = Callable[[Request], Awaitable[Response]]
Handler = Callable[[Request, Any], Awaitable[Response]]


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


class Direct:
    """An ASGI application that serves POST for these exact paths, with all that middleware adds to other answers.

    `sources` are those that are counted, each under its name.
    """

    def __init__(
        self,
        endpoints: Mapping[str, Endpoint],
        sources: Mapping[str, str],
        *,
        unavailable: Handler,
        broken: Handler,
    ) -> None:
        self._endpoints = endpoints
        self._sources = sources
        self._unavailable = unavailable
        self._broken = broken
        self._cors: CORSMiddleware | None = None
        self._added: Sequence[tuple[bytes, bytes]] | None = None

    def serves(self, scope: Scope) -> bool:
        """Whether this request is one of its own."""
        return scope["type"] == "http" and scope["method"] == "POST" and self._path(scope) in self._endpoints

    @staticmethod
    def _path(scope: Scope) -> str:
        path: str = scope["path"]
        return path.removeprefix(scope.get("root_path", ""))

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if not any(name == b"origin" for name, _ in scope["headers"]):  # only browsers name one
            await self._serve(scope, receive, send)
            return
        if self._cors is None:
            self._cors = cors(self._serve, scope)
        await self._cors(scope, receive, send)

    async def _serve(self, scope: Scope, receive: Receive, send: Send) -> None:
        request = QuickRequest(scope, receive, send)
        scope["source"] = self._sources.get(self._path(scope))
        began = time.perf_counter()
        try:
            response = await self._response(request)
        except BaseException as error:  # a fault of ours: the sender is told, and uvicorn writes it down
            if isinstance(error, Exception):
                count(scope, 500, time.perf_counter() - began)
                await (await self._broken(request, error))(scope, receive, send)
            raise
        if self._added is None:
            self._added = [(k.lower().encode(), v.encode()) for k, v in security_headers(scope).items()]
        response.raw_headers += self._added
        count(scope, response.status_code, time.perf_counter() - began)
        tell("POST", scope["path"], response.status_code)
        await response(scope, receive, send)

    async def _response(self, request: Request) -> Response:
        try:
            return await self._endpoints[self._path(request.scope)](request)
        except HTTPException as error:
            return await http_exception_handler(request, error)
        except LedgerUnavailable as error:
            return await self._unavailable(request, error)


class Server(FastAPI):
    """FastAPI, with a way of their own for webhooks once it is known which there are."""

    direct: Direct | None = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if self.direct is None or not self.direct.serves(scope):
            await super().__call__(scope, receive, send)
            return
        scope["app"] = self
        await self.direct(scope, receive, send)
