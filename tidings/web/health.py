"""`/health` says that the process lives; `/health/ready` proves that a webhook becomes a mail, part by part."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable
from contextlib import suppress
from typing import Any

from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse
from pydantic import BaseModel, Field

from tidings.doctor.check import Check, State, Word, wrong
from tidings.errors import LedgerUnavailable, RetryLater
from tidings.instance import instance_of
from tidings.looks import Look
from tidings.readiness import CHECKS
from tidings.web.gate import Gate
from tidings.wiring import App, utc_now

log = logging.getLogger("tidings.health")

router = APIRouter(tags=["health"])

#: The longest that one check may take.
CHECK_SECONDS = 8.0
#: What the words' freshness is made for.
USUAL_WATCH_SECONDS = 20.0
#: For how many seconds the word of a check is good that has found something wrong.
AGAIN_WHEN_WRONG = 15.0
#: How long `/health` waits for the ledger's id, and how long it does without before it asks again.
INSTANCE_SECONDS, AGAIN_SECONDS = 1.0, 5.0


class Instance:
    """Which Tidings this is, once the ledger has said so: asked until then, and no longer."""

    def __init__(self, parts: App) -> None:
        self._parts = parts
        self._known: str | None = None
        self._again = float("-inf")

    async def known(self) -> str | None:
        if self._known is None and time.monotonic() >= self._again:
            self._again = time.monotonic() + AGAIN_SECONDS
            secret = self._parts.settings.secret_key.get_secret_value()
            with suppress(LedgerUnavailable, TimeoutError):
                async with asyncio.timeout(INSTANCE_SECONDS):
                    self._known = await instance_of(self._parts.ledger, secret)
        return self._known


class Readiness:
    """The last word of each check. One round of checks at a time, however many ask."""

    def __init__(self, parts: App) -> None:
        self._parts = parts
        self._lock = asyncio.Lock()
        self._known: dict[str, tuple[float, Word]] = {}
        # Who watches more often wants fresher words.
        self._pace = min(1.0, parts.settings.watch_seconds / USUAL_WATCH_SECONDS)

    async def looks(self) -> dict[str, Look]:
        """What each check said last, and when, for whoever watches."""
        async with self._lock:
            await self._refresh(time.monotonic())
        return {name: Look(at, word.problem) for name, (at, word) in self._known.items()}

    async def result(self) -> dict[str, Any]:
        async with self._lock:
            await self._refresh(time.monotonic())
        return {
            "ready": all(word.state is not State.WRONG for _, word in self._known.values()),
            "checks": {name: str(word) for name, (_, word) in self._known.items()},
        }

    async def _refresh(self, now: float) -> None:
        checks = CHECKS
        stale = [check for check in checks if self._is_stale(check, now)]
        words = await asyncio.gather(*[self._word(check) for check in stale], return_exceptions=True)
        found = {c.name: (now, _said(c, word)) for c, word in zip(stale, words, strict=True)}
        known = self._known | found
        self._known = {check.name: known[check.name] for check in checks}

    def _is_stale(self, check: Check, now: float) -> bool:
        """What is wrong is asked about again soon: it may have been a moment's, or be mended by now."""
        if check.name not in self._known:
            return True
        at, word = self._known[check.name]
        fresh = min(check.fresh, AGAIN_WHEN_WRONG) if word.state is State.WRONG else check.fresh
        return now - at > fresh * self._pace

    async def _word(self, check: Check) -> Word:
        """The check's word; the one before when the service asks us to slow down."""
        try:
            return await _within(check.word(self._parts, utc_now()))
        except RetryLater as error:
            if check.name in self._known:
                return self._known[check.name][1]
            await asyncio.sleep(min(error.retry_after, CHECK_SECONDS))
        try:
            return await _within(check.word(self._parts, utc_now()))
        except RetryLater as error:
            return wrong(f"not proven yet: {error}")


def _said(check: Check, word: Word | BaseException) -> Word:
    """A check that breaks in a way that nobody foresaw is wrong itself, and hides none of the others."""
    if isinstance(word, Word):
        return word
    if not isinstance(word, Exception):
        raise word
    log.critical("check.broken", exc_info=word, extra={"check": check.name})
    return wrong(f"the check itself broke: {type(word).__name__}; look for check.broken in the web server's log")


async def _within(call: Awaitable[Word]) -> Word:
    try:
        async with asyncio.timeout(CHECK_SECONDS):
            return await call
    except TimeoutError:
        return wrong(f"no answer within {CHECK_SECONDS:g} s")


@router.get("/health", summary="The process lives")
async def live(request: Request) -> JSONResponse:
    """`instance` is the same for all servers on one ledger; null while the ledger has not been reached.

    503 in production while the ledger is older than this code: a container that cannot work takes nobody's place.
    """
    shut: str | None = request.app.state.gate.shut
    said = {"status": f"refusing: {shut}" if shut else "ok", "instance": await request.app.state.instance.known()}
    return JSONResponse(said, status_code=503 if shut else 200)


class Ready(BaseModel):
    """Whether a webhook that comes in now becomes a mail."""

    ready: bool
    checks: dict[str, str] = Field(description="Each check by name: `ok`, or what is wrong and what to do")
    closed: dict[str, str] = Field({}, description="Webhook routes that answer 503 until their check is mended")


@router.get(
    "/health/ready",
    summary="Every part is proven, with a reason for each that is not",
    response_model=Ready,
    responses={503: {"model": Ready, "description": "A part is not as it must be; its check says what to do"}},
)
async def ready(request: Request) -> JSONResponse:
    result = await request.app.state.readiness.result()
    gate: Gate = request.app.state.gate
    if closed := ({"all": gate.shut} if gate.shut else gate.closed):
        result |= {"ready": False, "closed": closed}
    return JSONResponse(result, status_code=200 if result["ready"] else 503)
