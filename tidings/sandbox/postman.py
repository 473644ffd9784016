"""Delivers webhooks: signed, at least once, in no promised order. Resend's as Svix does, the others' as they do."""

import asyncio
import json
import random
import secrets
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import Any

import httpx
from standardwebhooks import Webhook

from . import senders
from .clock import Clock
from .config import Settings
from .store import Row, Store

#: seconds before each further attempt (docs.svix.com/retries; the first attempt is at once)
RETRIES = (5, 300, 1800, 7200, 18_000, 36_000, 36_000)
IDLE = 1.0


def next_attempt(attempts: int, factor: float, retries: Sequence[float] = RETRIES) -> float | None:
    """Seconds until the attempt after the `attempts`-th, or None when there is none."""
    return retries[attempts - 1] * factor if attempts <= len(retries) else None


class Postman:
    """Queues events for each endpoint and posts those that are due."""

    def __init__(self, store: Store, *, settings: Callable[[], Settings], clock: Clock) -> None:
        self._store = store
        self._settings = settings
        self._clock = clock
        self._news = asyncio.Event()
        self._on_the_road: dict[int, asyncio.Task[None]] = {}

    def wake(self) -> None:
        self._news.set()

    def subscribers(self) -> list[Row]:
        return [endpoint for endpoint in self._store.endpoints() if endpoint["status"] == "enabled"]

    def post(self, body: dict[str, Any], *, endpoints: list[Row], now: float, email_id: str | None = None) -> None:
        """Queues the event for these endpoints, already those that want it."""
        for endpoint in endpoints:
            self._queue(endpoint, body, now, email_id)

    def tell(self, service: str, kind: str, body: dict[str, Any]) -> int:
        """Queues an event of another service for its active subscriptions that want it; returns for how many."""
        heard = [s for s in self._store.subscriptions(service) if senders.wants(s, kind)]
        for subscription in heard:
            self._queue(subscription, {"type": kind}, self._clock().timestamp(), None, text=senders.as_sent(body))
        self.wake()
        return len(heard)

    def _queue(
        self, endpoint: Row, body: dict[str, Any], now: float, email_id: str | None, text: str | None = None
    ) -> None:
        knobs = self._settings()
        dropped = random.random() < knobs.webhook_drop  # noqa: S311
        twice = random.random() < knobs.webhook_duplicate  # noqa: S311
        delivery = {
            "msg_id": f"msg_{secrets.token_urlsafe(18).replace('-', 'A').replace('_', 'B')}",
            "endpoint_id": endpoint["id"],
            "type": body["type"],
            "email_id": email_id,
            "body": text or json.dumps(body, ensure_ascii=False, separators=(",", ":")),
            "state": "dropped" if dropped else "pending",
            "created_at": now,
        }
        for _ in range(2 if twice else 1):
            due_at = now + random.uniform(0, knobs.webhook_reorder)  # noqa: S311
            self._store.queue_delivery(delivery | {"due_at": due_at})

    async def run(self) -> None:
        limits = httpx.Limits(max_connections=100)
        async with httpx.AsyncClient(limits=limits, trust_env=False) as client:
            try:
                while True:
                    self._news.clear()
                    self._send_out(client)
                    await self._until_next()
            finally:
                for task in self._on_the_road.values():
                    task.cancel()
                await asyncio.gather(*self._on_the_road.values(), return_exceptions=True)

    def _send_out(self, client: httpx.AsyncClient) -> None:
        free = self._settings().webhook_concurrency - len(self._on_the_road)
        if free <= 0:
            return
        due = self._store.due_deliveries(self._clock().timestamp(), free + len(self._on_the_road))
        known = [*self._store.endpoints(), *self._store.subscriptions()]
        endpoints = {endpoint["id"]: endpoint for endpoint in known}
        waiting = [delivery for delivery in due if delivery["seq"] not in self._on_the_road]
        for delivery in waiting[:free]:
            task = asyncio.create_task(self._deliver(client, delivery, endpoints.get(delivery["endpoint_id"])))
            self._on_the_road[delivery["seq"]] = task

    async def _until_next(self) -> None:
        """Wakes for news, among them each finished delivery, and for the next one that falls due."""
        now = self._clock().timestamp()
        due = self._store.next_delivery_due(now)
        wait = IDLE if due is None else min(IDLE, due - now)
        try:
            await asyncio.wait_for(self._news.wait(), wait)
        except TimeoutError:
            return

    async def _deliver(self, client: httpx.AsyncClient, delivery: Row, endpoint: Row | None) -> None:
        try:
            if endpoint is None or endpoint["status"] not in ("enabled", senders.ACTIVE):
                self._settle(delivery, "failed", None, "the endpoint is gone or disabled")
                return
            result = await self._attempt(client, delivery, endpoint)
            if result.isdigit() and 200 <= int(result) < 300:
                self._settle(delivery, "done", None, result)
            else:
                self._repeat_later(delivery, endpoint, result)
        finally:
            self._on_the_road.pop(delivery["seq"], None)
            self.wake()

    def _repeat_later(self, delivery: Row, endpoint: Row, result: str) -> None:
        retries = senders.RETRIES.get(endpoint.get("service", "resend"), RETRIES)
        wait = next_attempt(delivery["attempts"] + 1, self._settings().webhook_retry_factor, retries)
        self._settle(delivery, "pending" if wait is not None else "failed", wait, result)
        if (changed := senders.after_failure(endpoint, result, self._clock(), over=wait is None)) is not None:
            self._store.save_subscription(changed)

    async def _attempt(self, client: httpx.AsyncClient, delivery: Row, endpoint: Row) -> str:
        """The HTTP status as text, or what went wrong instead."""
        try:
            response = await client.post(
                endpoint["url"],
                content=delivery["body"].encode(),
                headers=_headers(delivery, endpoint),
                timeout=self._settings().webhook_timeout,
                follow_redirects=False,
            )
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            return f"{type(error).__name__}: {error}"
        return str(response.status_code)

    def _settle(self, delivery: Row, state: str, wait: float | None, result: str) -> None:
        due_at = self._clock().timestamp() + (wait or 0)
        self._store.settle_delivery(delivery["seq"], state=state, due_at=due_at, result=result)


def _headers(delivery: Row, endpoint: Row) -> dict[str, str]:
    """The headers that this endpoint's service sends with a delivery."""
    if "service" in endpoint:
        return senders.headers(endpoint, delivery["body"], datetime.now(UTC))
    return signed_headers(delivery["msg_id"], delivery["body"], endpoint["secret"])


def signed_headers(msg_id: str, body: str, secret: str) -> dict[str, str]:
    """Signed at the moment of posting, with the real time: receivers refuse what is five minutes old."""
    now = datetime.now(UTC)
    return {
        "content-type": "application/json",
        "user-agent": "Svix-Webhooks/1.84 (sender-9YMgn; +https://www.svix.com/http-sender/)",
        "svix-id": msg_id,
        "svix-timestamp": str(int(now.timestamp())),
        "svix-signature": Webhook(secret).sign(msg_id, now, body),
    }
