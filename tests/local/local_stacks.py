"""What the tests of the local stack share."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

from tidings.local.config import StackConfig

MakeConfig = Callable[..., StackConfig]


async def eventually(what: Callable[[], bool], within: float = 10.0) -> bool:
    """Whether something becomes true in time."""
    deadline = time.monotonic() + within
    while time.monotonic() < deadline:
        if what():
            return True
        await asyncio.sleep(0.05)
    return what()
