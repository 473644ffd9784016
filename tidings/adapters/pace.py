"""One pace for all workers: Resend's limit is the team's, so Prefect's global limit hands out the turns."""

from __future__ import annotations

import logging
import math
from typing import Protocol

import httpx
from prefect.client.orchestration import PrefectClient
from prefect.client.schemas.actions import GlobalConcurrencyLimitCreate, GlobalConcurrencyLimitUpdate
from prefect.concurrency.asyncio import ConcurrencySlotAcquisitionError, rate_limit
from prefect.exceptions import ObjectNotFound, PrefectHTTPStatusError

log = logging.getLogger("tidings.pace")

LIMIT = "resend"
MEMO = "resend-requests-per-second"
#: A turn that has not come after this long is taken: Resend's own 429 still stands behind it.
LONGEST_WAIT = 30.0
#: Part of the allowed rate that is used, as Resend counts in whole seconds of its own clock.
SHARE = 0.95


class Memory(Protocol):
    """Keeps the rate that Resend last named."""

    async def recall(self, key: str) -> str | None: ...
    async def remember(self, key: str, value: str) -> None: ...


async def set_rate(client: PrefectClient, rate: float) -> None:
    """Make Prefect hand out this many turns a second."""
    slots, decay = max(1, math.floor(rate)), max(0.01, rate * SHARE)
    try:
        await client.update_global_concurrency_limit(
            LIMIT, GlobalConcurrencyLimitUpdate(limit=slots, slot_decay_per_second=decay)
        )
    except ObjectNotFound:
        await client.create_global_concurrency_limit(
            GlobalConcurrencyLimitCreate(name=LIMIT, limit=slots, slot_decay_per_second=decay)
        )


class Pace:
    """Waits for a turn before each request to Resend, and follows what Resend says its limit is."""

    def __init__(self, client: PrefectClient, memory: Memory) -> None:
        self._client = client
        self._memory = memory
        self._rate: str | None = None

    async def turn(self) -> None:
        """Returns when a request may be made."""
        try:
            await rate_limit(LIMIT, timeout_seconds=LONGEST_WAIT)
        # The last of these is what Prefect's client makes of a server that is away.
        except (TimeoutError, httpx.HTTPError, PrefectHTTPStatusError, ConcurrencySlotAcquisitionError) as error:
            log.warning("pace.skipped", extra={"error": str(error)})

    async def learn(self, rate: float | None) -> None:
        """Take over the rate that Resend named in its last answer, when it is another than before."""
        if rate is None:
            return
        named = f"{rate:g}"
        if self._rate is None:
            self._rate = await self._memory.recall(MEMO)
        if named == self._rate:
            return
        try:
            await set_rate(self._client, rate)
        except (httpx.HTTPError, PrefectHTTPStatusError) as error:
            log.warning("pace.not_learned", extra={"rate": named, "error": str(error)})
            return
        await self._memory.remember(MEMO, named)
        self._rate = named
        log.info("pace.learned", extra={"requests_per_second": named})
