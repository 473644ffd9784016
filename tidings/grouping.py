"""Group commit: what comes while the last group is being stored is stored together, by one transaction."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Generic, TypeVar

from tidings.errors import LedgerUnavailable

Item = TypeVar("Item")
Result = TypeVar("Result")


class Grouped(Generic[Item, Result]):
    """Hands items to `store` in groups of at most `limit`; each waits for its result.

    While a group is being stored, the next one gathers. With `beside`, that one is stored at the same time as soon as
    it has so many items: under load, others are served while the database works.
    """

    def __init__(
        self, store: Callable[[list[Item]], Awaitable[list[Result]]], *, limit: int, beside: int | None = None
    ) -> None:
        self._store = store
        self._limit = limit
        self._beside = beside
        self._waiting: list[tuple[Item, asyncio.Future[Result]]] = []
        self._running = 0
        self._flushes: set[asyncio.Task[None]] = set()

    async def take(self, item: Item) -> Result:
        """Its result. Raises what storing it raised: LedgerUnavailable when its whole group could not be stored."""
        future: asyncio.Future[Result] = asyncio.get_running_loop().create_future()
        self._waiting.append((item, future))
        if not self._running or (self._beside and self._running == 1 and len(self._waiting) >= self._beside):
            self._running += 1
            flush = asyncio.create_task(self._store_all())
            self._flushes.add(flush)
            flush.add_done_callback(self._flushes.discard)
        return await future

    async def _store_all(self) -> None:
        try:
            while self._waiting:
                group, self._waiting = self._waiting[: self._limit], self._waiting[self._limit :]
                await self._store_group(group)
        finally:
            self._running -= 1  # in the very step that finds nobody waiting: who comes next begins anew

    async def _store_group(self, group: list[tuple[Item, asyncio.Future[Result]]]) -> None:
        try:
            results = await self._store([item for item, _ in group])
        except BaseException as error:
            if len(group) > 1 and not isinstance(error, (LedgerUnavailable, asyncio.CancelledError)):
                for one in group:  # one bad row must not cost the others theirs
                    await self._store_group([one])
                return
            _fail(group, error)
            if isinstance(error, asyncio.CancelledError):
                raise
            return
        for (_, future), result in zip(group, results, strict=True):
            if not future.done():
                future.set_result(result)

    async def drain(self) -> None:
        """Wait until what was taken is stored."""
        while self._flushes:
            await asyncio.gather(*self._flushes, return_exceptions=True)


def _fail(group: list[tuple[Item, asyncio.Future[Result]]], error: BaseException) -> None:
    for _, future in group:
        if not future.done():
            future.set_exception(error)
