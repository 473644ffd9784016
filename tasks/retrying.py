"""When trying again can help. The only place where retries of flows are configured."""

from __future__ import annotations

import asyncio
from typing import Any

from prefect.client.schemas.objects import State, TaskRun
from prefect.tasks import Task

from tidings.deliver import PATIENCE
from tidings.errors import RetryLater, TidingsError

#: Seconds before each further attempt: together a minute, which outlasts a restart of any part.
DELAYS: list[float] = [1, 2, 5, 10, 20, 20]


def worth_retrying(task: Task[..., Any], run: TaskRun, state: State[Any]) -> bool:
    """Only errors that say so, and only when the wait is short enough to sit through.

    Prefect takes an exception in here for "never retry", so nothing in here may raise.
    """
    error = state.data
    if isinstance(error, RetryLater) and error.retry_after > PATIENCE:
        return False
    return isinstance(error, TidingsError) and error.retryable


async def as_told(error: RetryLater) -> None:
    """Wait as long as the service asked, beyond Prefect's own delay between attempts."""
    if error.retry_after <= PATIENCE:
        await asyncio.sleep(max(0.0, error.retry_after - DELAYS[0]))
