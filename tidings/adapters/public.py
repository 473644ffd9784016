"""This very server as the world reaches it, at PUBLIC_URL: through DNS, certificate and proxy."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from email.utils import parsedate_to_datetime
from typing import Any

import httpx

from tidings.adapters.http import ServiceClient
from tidings.errors import OutcomeUnknown, RetryLater

SERVICE = "PUBLIC_URL"
#: How long an answer may take.
PATIENCE_SECONDS = 10.0


@dataclass(frozen=True, slots=True)
class Answer:
    """What came back: status, JSON (None where it was none), and headers in lower case."""

    status: int
    body: Any
    headers: Mapping[str, str]


class PublicSide:
    """Asks the public address. Raises RetryLater when it cannot be reached, OutcomeUnknown when it says nothing."""

    def __init__(self, public_url: str, transport: httpx.AsyncBaseTransport | None = None) -> None:
        self.url = public_url
        self._client = ServiceClient(SERVICE, base_url=public_url, timeout=PATIENCE_SECONDS, transport=transport)

    async def __aenter__(self) -> PublicSide:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._client.aclose()

    async def get(self, path: str) -> Answer:
        return await self._ask("GET", path)

    async def preflight(self, path: str, origin: str) -> Answer:
        """What a browser asks before a page of that origin may post JSON."""
        asks = {"access-control-request-method": "POST", "access-control-request-headers": "content-type"}
        return await self._ask("OPTIONS", path, headers={"origin": origin, **asks})

    async def post(self, path: str, body: str, headers: Mapping[str, str]) -> tuple[int, Mapping[str, Any]]:
        """Post JSON, as a sender does; returns the status and the answer's object, empty where there was none."""
        given = {"content-type": "application/json", **headers}
        answer = await self._ask("POST", path, content=body, headers=given)
        return answer.status, answer.body if isinstance(answer.body, dict) else {}

    async def _ask(self, method: str, path: str, **given: Any) -> Answer:
        answer = await _call(self._client.request(method, path, **given), f"{self.url}{path}")
        return _understood(answer)


async def time_of(url: str, transport: httpx.AsyncBaseTransport | None = None) -> datetime | None:
    """The time by the clock of whoever answers there, to the second; None when it does not say."""
    async with ServiceClient("Clocks", timeout=PATIENCE_SECONDS, transport=transport) as client:
        answer = await _call(client.get(url), url)
    try:
        return parsedate_to_datetime(answer.headers["date"])
    except (KeyError, ValueError):
        return None


async def _call(call: Any, what: str) -> httpx.Response:
    try:
        answer: httpx.Response = await call
    except (httpx.ConnectError, httpx.ConnectTimeout) as error:
        raise RetryLater(SERVICE, f"{what} cannot be reached: {error or type(error).__name__}") from error
    except (httpx.TransportError, httpx.InvalidURL) as error:
        raise OutcomeUnknown(SERVICE, f"{what} did not answer: {error or type(error).__name__}") from error
    return answer


def _understood(answer: httpx.Response) -> Answer:
    try:
        body = answer.json()
    except ValueError:
        body = None
    return Answer(answer.status_code, body, {k.lower(): v for k, v in answer.headers.items()})
