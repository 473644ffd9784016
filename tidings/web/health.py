"""`/health` says that the process lives; `/health/ready` proves that a webhook becomes a mail, part by part."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable
from typing import Any

from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse

from tidings.errors import RetryLater
from tidings.readiness import CHECKS, Check
from tidings.wiring import App, utc_now

router = APIRouter(tags=["health"])

#: The longest that one check may take.
CHECK_SECONDS = 8.0


class Readiness:
    """The last word of each check. One round of checks at a time, however many ask."""

    def __init__(self, parts: App) -> None:
        self._parts = parts
        self._lock = asyncio.Lock()
        self._known: dict[str, tuple[float, str | None]] = {}

    async def result(self) -> dict[str, Any]:
        async with self._lock:
            await self._refresh(time.monotonic())
        return {
            "ready": all(problem is None for _, problem in self._known.values()),
            "checks": {name: problem or "ok" for name, (_, problem) in self._known.items()},
        }

    async def _refresh(self, now: float) -> None:
        stale = [check for check in CHECKS if now - self._known.get(check.name, (float("-inf"), ""))[0] > check.fresh]
        words = await asyncio.gather(*[self._word(check) for check in stale])
        self._known |= {check.name: (now, word) for check, word in zip(stale, words, strict=True)}
        self._known = {check.name: self._known[check.name] for check in CHECKS}

    async def _word(self, check: Check) -> str | None:
        """The check's word; the one before when the service asks us to slow down."""
        try:
            return await _within(check.prove(self._parts, utc_now()))
        except RetryLater as error:
            if check.name in self._known:
                return self._known[check.name][1]
            await asyncio.sleep(min(error.retry_after, CHECK_SECONDS))
        try:
            return await _within(check.prove(self._parts, utc_now()))
        except RetryLater as error:
            return f"not proven yet: {error}"


async def _within(call: Awaitable[str | None]) -> str | None:
    try:
        async with asyncio.timeout(CHECK_SECONDS):
            return await call
    except TimeoutError:
        return f"no answer within {CHECK_SECONDS:g} s"


@router.get("/health", summary="The process lives")
async def live() -> dict[str, str]:
    return {"status": "ok"}


@router.get("/health/ready", summary="Every part is proven, with a reason for each that is not")
async def ready(request: Request) -> JSONResponse:
    result = await request.app.state.readiness.result()
    return JSONResponse(result, status_code=200 if result["ready"] else 503)
