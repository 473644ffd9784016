"""How services are called over HTTP: each call is counted, and what the answer says of the service's limits."""

from __future__ import annotations

import time
from typing import Any

import httpx

from tidings import counts


class ServiceClient(httpx.AsyncClient):
    """A client for one service, under whose name its calls are counted."""

    def __init__(self, service: str, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self._service = service

    async def send(self, request: httpx.Request, **kwargs: Any) -> httpx.Response:
        """As httpx does; all of its other methods come through here."""
        began, answer = time.perf_counter(), None
        try:
            answer = await super().send(request, **kwargs)
            return answer
        finally:
            counts.call(self._service, answer.status_code if answer is not None else None, time.perf_counter() - began)
            counts.limits(self._service, answer.headers if answer is not None else {})
