"""Ask all checks at the same time, each with a time limit of its own."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass

from tidings.doctor.check import Check, Word, wrong
from tidings.errors import RetryLater
from tidings.wiring import App, utc_now

#: The longest that one check may take, and that it waits for a service that asks to come again.
LIMIT_SECONDS = 30.0


@dataclass(frozen=True, slots=True)
class Finding:
    """A check's word, and how many seconds it took."""

    name: str
    word: Word
    seconds: float


async def examine(parts: App, checks: Sequence[Check]) -> AsyncIterator[Finding]:
    """Each check's word as soon as it is known."""
    asked = [asyncio.ensure_future(_find(parts, check)) for check in checks]
    try:
        for each in asyncio.as_completed(asked):
            yield await each
    finally:
        for task in asked:
            task.cancel()


async def _find(parts: App, check: Check) -> Finding:
    began = time.monotonic()
    try:
        async with asyncio.timeout(LIMIT_SECONDS):
            word = await _patiently(parts, check)
    except TimeoutError:
        word = wrong(f"no answer within {LIMIT_SECONDS:g} s")
    return Finding(check.name, word, time.monotonic() - began)


async def _patiently(parts: App, check: Check) -> Word:
    """As often as the service asks to be asked again."""
    while True:
        try:
            return await check.word(parts, utc_now())
        except RetryLater as error:
            await asyncio.sleep(max(0.2, error.retry_after))
