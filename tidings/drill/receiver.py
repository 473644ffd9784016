"""A channel that alerts can be sent to: it keeps what it is told, and can be made to refuse."""

from __future__ import annotations

import json
import threading
import time
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Self

from tidings.local.config import HOST


@dataclass(frozen=True, slots=True)
class Told:
    """What one person would have read, and when (`time.monotonic`)."""

    at: float
    title: str
    body: str
    #: Apprise's word for how bad it is: success, info, warning, failure.
    type: str

    @property
    def text(self) -> str:
        """Without line breaks, which each channel makes its own way."""
        return " ".join(f"{self.title} {self.body}".split())


class Receiver:
    """What Apprise posts to `json://`, on a free port. Its list grows while others look at it."""

    def __init__(self) -> None:
        self.told: list[Told] = []
        #: Answer 500, as a channel that is down does.
        self.refuses = False
        #: How often it has refused.
        self.refused = 0
        self._server = ThreadingHTTPServer((HOST, 0), self._handler())
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)

    @property
    def url(self) -> str:
        """For ALERT_URLS."""
        return f"json://{HOST}:{self._server.server_address[1]}"

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.shutdown()
        self._server.server_close()

    def take(self, body: bytes) -> bool:
        """Whether it was taken."""
        if self.refuses:
            self.refused += 1
            return False
        said = json.loads(body)
        self.told.append(Told(time.monotonic(), said.get("title", ""), said["message"], said.get("type", "")))
        return True

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        receiver = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers.get("content-length", "0")))
                self.send_response(200 if receiver.take(body) else 500)
                self.send_header("content-length", "0")
                self.end_headers()

            def log_message(self, format: str, *args: object) -> None:  # noqa: A002  (its name in the library)
                """Nothing on the terminal."""

        return Handler
