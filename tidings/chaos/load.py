"""Posts webhooks the way real senders do: over many connections, and again until there is a 2xx."""

from __future__ import annotations

import asyncio
import time
from collections import Counter, defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field

import httpx

from tidings.chaos.scenario import Posting, Webhook

CONNECTIONS = 32
#: Seconds between attempts: a sender in a hurry, so that a run meets more of them.
FIRST_PAUSE, LONGEST_PAUSE = 0.5, 4.0


@dataclass
class Load:
    """What was posted, and what was answered."""

    client: httpx.AsyncClient
    base: str
    #: What lets its senders in.
    shown: Mapping[str, str] = field(default_factory=dict)
    #: The event ids that 2xx answers named, by the webhook's number.
    accepted: defaultdict[int, set[str]] = field(default_factory=lambda: defaultdict(set))
    tried: set[int] = field(default_factory=set)
    statuses: Counter[str] = field(default_factory=Counter)
    #: When each request that got a 2xx was sent, and when its answer came (Unix seconds).
    answered: list[tuple[float, float]] = field(default_factory=list)
    _tasks: set[asyncio.Task[None]] = field(default_factory=set)
    _free: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(CONNECTIONS))

    @property
    def open(self) -> int:
        """Postings that wait for their 2xx."""
        return len(self._tasks)

    def start(self, postings: tuple[Posting, ...]) -> None:
        """Post these, each at its time from now on."""
        for posting in postings:
            task = asyncio.create_task(self._post(posting))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def finish(self, patience: float) -> None:
        """Wait until everything has its 2xx; what has not by then is given up."""
        if self._tasks:
            _, late = await asyncio.wait(self._tasks, timeout=patience)
            for task in late:
                task.cancel()

    async def _post(self, posting: Posting) -> None:
        await asyncio.sleep(posting.at)
        pause = FIRST_PAUSE
        while (wait := await self._attempt(posting.webhook)) is not None:
            await asyncio.sleep(min(LONGEST_PAUSE, max(wait, pause)))
            pause = min(LONGEST_PAUSE, pause * 2)

    async def _attempt(self, webhook: Webhook) -> float | None:
        """One request; None when it was accepted, else how long the server asks to wait."""
        self.tried.add(webhook.number)
        headers = {"content-type": "application/json", **self.shown, **webhook.headers}
        async with self._free:
            sent = time.time()
            try:
                answer = await self.client.post(
                    f"{self.base}/webhook/{webhook.path}", content=webhook.body.encode(), headers=headers
                )
            except httpx.TransportError as error:
                self.statuses[type(error).__name__] += 1
                return 0.0
        self.statuses[str(answer.status_code)] += 1
        if not answer.is_success:
            asked = answer.headers.get("retry-after", "")
            return float(asked) if asked.isdigit() else 0.0
        self.accepted[webhook.number].add(answer.json()["event_id"])
        self.answered.append((sent, time.time()))
        return None
