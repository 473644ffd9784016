"""Answers that go wrong on the wire: cut short, reset, never sent."""

import asyncio
import os
import socket
import struct
from typing import Any

from starlette.responses import Response
from starlette.types import Message, Receive, Scope, Send
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

TRANSPORT = "tidings.transport"
LONGEST_SILENCE = 60.0  # seconds


class OpenProtocol(HttpToolsProtocol):
    """uvicorn's protocol, which also lets the application reach its own connection."""

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self.scope["extensions"] = {TRANSPORT: self.transport}  # type: ignore[dict-item]


def _transport(scope: Scope) -> asyncio.Transport:
    transport: asyncio.Transport = scope["extensions"][TRANSPORT]
    return transport


def _reset_on_close(transport: asyncio.Transport) -> None:
    """SO_LINGER of zero makes the close an RST. uvloop's socket object cannot set it, a duplicate can."""
    handle: Any = transport.get_extra_info("socket")
    with socket.socket(fileno=os.dup(handle.fileno())) as twin:
        twin.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


async def _until_gone(receive: Receive) -> None:
    message: Message = {"type": ""}
    while message["type"] != "http.disconnect":
        message = await receive()


class ResetResponse(Response):
    """Breaks the connection instead of answering."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        transport = _transport(scope)
        _reset_on_close(transport)
        transport.abort()
        await _until_gone(receive)


class SilentResponse(ResetResponse):
    """Says nothing until the client gives up, or until `longest` seconds have passed."""

    def __init__(self, longest: float) -> None:
        super().__init__()
        self._longest = longest or LONGEST_SILENCE

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await asyncio.wait_for(_until_gone(receive), self._longest)
        except TimeoutError:
            await super().__call__(scope, receive, send)


class TruncatedResponse(Response):
    """Promises the whole body, sends the first half and closes."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
        half = bytes(self.body[: len(self.body) // 2])
        await send({"type": "http.response.body", "body": half, "more_body": True})
        _transport(scope).close()
        await _until_gone(receive)
