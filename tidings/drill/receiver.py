"""A channel for alerts: what Apprise posts to `json://`, kept; and it can be made to refuse."""

from __future__ import annotations

import json
import threading
import time
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Self


@dataclass(frozen=True)
class Told:
    """A message as a person reads it. `type` is Apprise's word for how it sounds."""

    title: str
    message: str
    type: str
    #: By `time.monotonic`.
    at: float = field(default_factory=time.monotonic, compare=False)


@dataclass
class Receiver:
    """Listens on a free port from the beginning of its `with` to the end."""

    refuses: bool = False
    told: list[Told] = field(default_factory=list)
    #: The paths that were posted to.
    paths: list[str] = field(default_factory=list)

    def __enter__(self) -> Self:
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()

    @property
    def port(self) -> int:
        return int(self._server.server_address[1])

    @property
    def url(self) -> str:
        """For ALERT_URLS."""
        return f"json://127.0.0.1:{self.port}"

    def titles(self, type_: str | None = None) -> list[str]:
        return [each.title for each in list(self.told) if type_ in (None, each.type)]

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        receiver = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                said = json.loads(self.rfile.read(int(self.headers["content-length"])))
                receiver.paths.append(self.path)
                if not receiver.refuses:
                    receiver.told.append(Told(said["title"], said["message"], said["type"]))
                self.send_response(503 if receiver.refuses else 200)
                self.send_header("content-length", "0")
                self.end_headers()

            def log_message(self, *_: object) -> None:
                """Nothing on the terminal."""

        return Handler
