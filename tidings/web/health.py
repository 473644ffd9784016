"""`/health` says that the process lives; `/health/ready` proves that a webhook becomes a mail, part by part."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable
from typing import Any

from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse

from tidings.readiness import Check, checks
from tidings.wiring import App, utc_now

router = APIRouter(tags=["health"])

#: How long a result is kept, in seconds: a load balancer that asks often must not use up Notion's rate.
FRESH_SECONDS = 5.0
#: The longest that one check may take.
CHECK_SECONDS = 8.0


class Readiness:
    """The last result, and one check at a time."""

    def __init__(self, parts: App) -> None:
        self._parts = parts
        self._lock = asyncio.Lock()
        self._at = float("-inf")
        self._result: dict[str, Any] = {}

    async def result(self) -> dict[str, Any]:
        async with self._lock:
            if time.monotonic() - self._at > FRESH_SECONDS:
                self._result = await self._check()
                self._at = time.monotonic()
            return self._result

    async def _check(self) -> dict[str, Any]:
        named = checks(self._parts, utc_now())
        problems = await asyncio.gather(*[_within(call) for _, call in named])
        results = [Check(name, problem) for (name, _), problem in zip(named, problems, strict=True)]
        return {
            "ready": all(r.problem is None for r in results),
            "checks": {r.name: r.problem or "ok" for r in results},
        }


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
