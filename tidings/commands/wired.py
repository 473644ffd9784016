"""What most commands work with: every part, made from the settings of this process."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from tidings.wiring import App

T = TypeVar("T")


def with_app(work: Callable[[App], Awaitable[T]]) -> T:
    """Run something with everything wired."""
    from tidings.adapters.blocks import settings_of_this_process
    from tidings.wiring import open_app

    async def go() -> T:
        async with open_app(settings_of_this_process()) as parts:
            return await work(parts)

    return asyncio.run(go())
