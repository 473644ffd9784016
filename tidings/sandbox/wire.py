"""A request and an answer as both stand-ins see them, and how paths find their handlers."""

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

SURROGATE = re.compile(rb"\\u[dD][89a-fA-F]")


@dataclass(frozen=True, kw_only=True)
class Call:
    """One API request; `path` is below the provider's base address."""

    service: str
    method: str
    path: str
    query: list[tuple[str, str]] = field(default_factory=list)
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes = b""
    #: seconds the work takes, from a "delay" fault: a second request with the same key meets it still running
    work_delay: float = 0.0

    def first(self, name: str) -> str | None:
        return next((value for key, value in self.query if key == name), None)

    def every(self, name: str) -> list[str]:
        return [value for key, value in self.query if key == name]

    def json(self) -> Any:
        """The body; half a surrogate pair, which no UTF-8 can carry on, becomes a question mark."""
        if not self.body.strip():
            return {}
        value = json.loads(self.body)
        if SURROGATE.search(self.body):
            value = json.loads(json.dumps(value, ensure_ascii=False).encode(errors="replace"))
        return value

    @property
    def bearer(self) -> str:
        scheme, _, token = self.headers.get("authorization", "").partition(" ")
        return token.strip() if scheme.lower() == "bearer" else ""


@dataclass(frozen=True)
class Reply:
    """An answer: status, JSON and extra headers."""

    status: int
    body: Any
    headers: dict[str, str] = field(default_factory=dict)

    def with_headers(self, more: dict[str, str]) -> "Reply":
        return Reply(self.status, self.body, self.headers | more)


class Service(Protocol):
    """A provider's stand-in."""

    name: str

    async def answer(self, call: Call) -> Reply: ...

    def failure(self, *, status: int, code: str | None, message: str | None) -> Reply:
        """An error in this provider's own words, for an injected fault."""
        ...


Handler = Callable[..., Any]


class Routes:
    """Method and path to handler; `{name}` in a path becomes a keyword argument."""

    def __init__(self) -> None:
        self._routes: list[tuple[str, re.Pattern[str], Handler]] = []

    def add(self, method: str, path: str, handler: Handler) -> None:
        pattern = re.sub(r"\{(\w+)\}", r"(?P<\1>[^/]+)", path)
        self._routes.append((method, re.compile(f"^{pattern}$"), handler))

    def find(self, method: str, path: str) -> tuple[Handler, dict[str, str]] | None:
        for wanted, pattern, handler in self._routes:
            found = pattern.match(path) if wanted == method else None
            if found:
                return handler, found.groupdict()
        return None

    def knows(self, path: str) -> bool:
        return any(pattern.match(path) for _, pattern, _ in self._routes)
