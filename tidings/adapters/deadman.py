"""An outside watchman, such as healthchecks.io: asked when all is well, it raises the alarm when it is not asked."""

from __future__ import annotations

import asyncio
import logging

import httpx

from tidings.adapters.http import ServiceClient

log = logging.getLogger("tidings.deadman")

TRIES, PAUSE_SECONDS, PATIENCE_SECONDS = 3, 2.0, 5.0


class DeadmanUrl:
    """An address whose knowledge is all that is needed, so it is a secret and in no log."""

    def __init__(self, url: str, transport: httpx.AsyncBaseTransport | None = None) -> None:
        self._url = httpx.URL(url)
        self._transport = transport

    async def well(self) -> None:
        """Ask it: a canary is back."""
        await self._ask("GET", self._url)

    async def failed(self, why: str) -> None:
        """Ask for the alarm at once, as healthchecks.io understands it; others see a 404 and raise theirs later."""
        await self._ask("POST", self._url.copy_with(path=self._url.path.rstrip("/") + "/fail"), why)

    async def _ask(self, method: str, url: httpx.URL, text: str = "") -> None:
        """Not reaching it is no failure of ours: it will raise the alarm by itself."""
        said = ""
        async with ServiceClient("Deadman", timeout=PATIENCE_SECONDS, transport=self._transport) as client:
            for attempt in range(TRIES):
                await asyncio.sleep(PAUSE_SECONDS * attempt)
                try:
                    answer = await client.request(method, url, content=text.encode() or None)
                except httpx.TransportError as error:
                    said = type(error).__name__
                    continue
                if answer.is_success:
                    return
                said = f"answered {answer.status_code}"
        log.warning("deadman.unreached", extra={"error": said})
