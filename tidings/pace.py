"""One pace for all workers: Resend's limit is the team's, so the ledger that they share hands out the turns."""

from __future__ import annotations

import asyncio
import logging
from typing import TypedDict

from tidings.ledger import Ledger, turns
from tidings.ledger.memory import Memory

log = logging.getLogger("tidings.pace")

MEMO = "resend-requests-per-second"
#: Part of the allowed rate that is used. Resend counts requests when they arrive, and those of a busy machine arrive up
#: to a tenth of a second later than others; one that is refused costs all workers a second.
SHARE = 0.9


class Window(TypedDict):
    """At most so many turns in any so many seconds."""

    turns: int
    window: float


def _window(rate: float) -> Window:
    """Resend counts the requests of one second; a rate below one is one request in a longer while."""
    turns = max(1, int(rate))
    return {"turns": turns, "window": turns / (rate * SHARE)}


class Pace:
    """Waits for a turn before each request to Resend, and follows what Resend says its limit is."""

    def __init__(self, ledger: Ledger, memory: Memory, *, rate: float) -> None:
        """`rate` is in requests a second, and counts until Resend names another."""
        self._ledger = ledger
        self._memory = memory
        self._configured = rate
        self._named: str | None = None

    async def turn(self) -> None:
        """Returns when a request may be made. Raises LedgerUnavailable."""
        rate = await self._rate()
        async with self._ledger.transaction() as connection:
            wait = await turns.take(connection, "resend", **_window(rate))
        await asyncio.sleep(wait)

    async def _rate(self) -> float:
        if self._named is None:
            self._named = await self._memory.recall(MEMO) or f"{self._configured:g}"
        return float(self._named)

    async def learn(self, rate: float | None) -> None:
        """Take over the rate that Resend named in its last answer, when it is another than before."""
        if rate is None or rate <= 0 or (named := f"{rate:g}") == self._named:
            return
        self._named = named
        await self._memory.remember(MEMO, named)
        log.info("pace.learned", extra={"requests_per_second": named})

    async def rest(self, seconds: float) -> None:
        """Let no worker ask again before so many seconds have passed. Raises LedgerUnavailable.

        A longer wait than anybody sits through is no matter of pace: then each mail is left to a later run.
        """
        if seconds <= turns.LONGEST_SECONDS:
            async with self._ledger.transaction() as connection:
                await turns.rest(connection, "resend", seconds=seconds)
