"""Which webhooks are closed, and why: in production, what cannot work takes no traffic (decision 0015).

A webhook that has ever worked stays open: what it takes in is stored, and handled when the fault is mended. One that
never has is closed while something that it needs is known to be wrong, and opens by itself when that is mended.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable
from contextlib import asynccontextmanager

from tidings.adapters.deployed import expected_of, problems
from tidings.campaign import Campaign, Webhook
from tidings.doctor import providers
from tidings.errors import LedgerUnavailable, TidingsError
from tidings.ledger import inbox
from tidings.ledger.revisions import lacks, revision
from tidings.notion_setup import check_templates
from tidings.wiring import App, utc_now

log = logging.getLogger("tidings.gate")

#: How often what is closed, or not proven yet, is looked at anew; and how long the first look may hold up the start.
LOOK_SECONDS, START_SECONDS = 15.0, 10.0
#: What a sender that is sent away is told to wait.
RETRY_AFTER = {"Retry-After": "30"}
#: What has a fault that concerns every webhook.
EVERYTHING = ""

Route = tuple[Campaign, Webhook]


class Gate:
    """Looks until every webhook has been proven once, and from then on closes nothing."""

    def __init__(self, parts: App) -> None:
        self._parts = parts
        #: By path, why it is closed.
        self.closed: dict[str, str] = {}
        #: Why nothing at all can work, or None.
        self.shut: str | None = None
        #: The last word of each who is asked.
        self._words: dict[str, dict[str, str]] = {}
        self._unproven: list[Route] = parts.campaigns.for_people.webhooks if parts.settings.real else []

    def reason(self, path: str) -> str | None:
        """Why a webhook is closed; None: it is open."""
        return self.shut or self.closed.get(path)

    @asynccontextmanager
    async def watched(self) -> AsyncIterator[None]:
        """Looked at once before anything is let in, and then until all is proven."""
        try:
            async with asyncio.timeout(START_SECONDS):
                await self.look()
        except TimeoutError:
            log.warning("gate.unproven", extra={"error": f"nothing is known after {START_SECONDS:g} s"})
        task = asyncio.create_task(self._look_until_proven())
        task.add_done_callback(_loud)
        try:
            yield
        finally:
            task.cancel()
            await asyncio.wait([task])

    async def _look_until_proven(self) -> None:
        while self._unproven:
            await asyncio.sleep(LOOK_SECONDS)
            await self.look()

    async def look(self) -> None:
        """Ask anew about what is not proven. What cannot be asked now closes nothing."""
        if not self._unproven:
            return
        try:
            self._shut(await self._unmigrated())
            if not self.shut:
                await self._look_at_routes()
        except LedgerUnavailable as error:
            log.warning("gate.unproven", extra={"error": str(error)})

    async def _unmigrated(self) -> str | None:
        at = await revision(self._parts.ledger)
        return f"the ledger is at revision {at}, older than this code; run: tidings migrate" if lacks(at) else None

    def _shut(self, why: str | None) -> None:
        if why and not self.shut:
            log.error("gate.shut", extra={"why": why})
        if self.shut and not why:
            log.info("gate.opened", extra={"source": "all"})
        self.shut = why

    async def _look_at_routes(self) -> None:
        async with self._parts.ledger.reading() as connection:
            worked = await inbox.ever_handled(connection, [w.path for _, w in self._unproven])
        left = [(c, w) for c, w in self._unproven if w.path not in worked]
        faults, complete = await self._faults() if left else ({}, True)
        now_closed = {w.path: why for c, w in left if (why := _fault_of(faults, c, w))}
        self._tell(now_closed)
        self.closed = now_closed
        # What could not be asked is asked again; what is fine now has been proven.
        self._unproven = [(c, w) for c, w in left if w.path in now_closed or not complete]

    def _tell(self, now_closed: dict[str, str]) -> None:
        for path, why in now_closed.items():
            if self.closed.get(path) != why:
                log.error("gate.closed", extra={"source": path, "why": why})
        for path in self.closed.keys() - now_closed.keys():
            log.info("gate.opened", extra={"source": path})

    async def _faults(self) -> tuple[dict[str, str], bool]:
        """What is known to be wrong, by what has it; and whether everybody who is asked has ever answered.

        Who is away now is taken at his last word: what was wrong is not mended by that.
        """
        asked = (self._deployments, self._templates, self._sender)
        answers = await asyncio.gather(*(_known(ask()) for ask in asked))
        self._words |= {ask.__name__: word for ask, word in zip(asked, answers, strict=True) if word is not None}
        faults = {what: why for word in self._words.values() for what, why in word.items()}
        return faults, len(self._words) == len(asked)

    async def _deployments(self) -> dict[str, str]:
        parts = self._parts
        expected = await expected_of(parts.settings.campaign_folders)
        return await problems(parts.runs.api, expected, parts.settings.work_pool)

    async def _templates(self) -> dict[str, str]:
        parts, settings = self._parts, self._parts.settings
        database, facts = settings.notion_templates_db_id, settings.facts
        results = await check_templates(parts.notion, database, parts.campaigns, facts, utc_now())
        return {f"{r.campaign}/{r.sequence}": r.problem for r in reversed(results) if r.problem}

    async def _sender(self) -> dict[str, str]:
        problem = (await providers.resend(self._parts, utc_now())).problem
        return {EVERYTHING: problem} if problem else {}


def _fault_of(faults: dict[str, str], campaign: Campaign, webhook: Webhook) -> str | None:
    """Why this webhook cannot become mails, or None."""
    needed = (webhook.deployment, campaign.send_deployment, f"{campaign.name}/{webhook.sequence}", EVERYTHING)
    return next((faults[what] for what in needed if what in faults), None)


async def _known(call: Awaitable[dict[str, str]]) -> dict[str, str] | None:
    """What was found; a refusal concerns everything; None when whoever was asked is away."""
    try:
        return await call
    except TidingsError as error:
        if not error.retryable:
            return {EVERYTHING: str(error)}
        log.warning("gate.unproven", extra={"error": str(error)})
        return None


def _loud(task: asyncio.Task[None]) -> None:
    """A gate that nobody watches any more would stay as it is."""
    if not task.cancelled() and (error := task.exception()) is not None:
        log.critical("gate.failed", exc_info=error)
