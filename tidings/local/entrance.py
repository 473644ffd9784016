"""What `up` and `demo` share: the user's environment, the campaigns, and how they are interrupted."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Coroutine, Mapping

from dotenv import dotenv_values

from tidings.campaign import Campaigns, load_campaigns
from tidings.settings import ROOT, folders

#: 128 + SIGINT, as shells count it.
INTERRUPTED = 130


def users_environment() -> dict[str, str]:
    """The environment over `.env`, the way the product's settings read them."""
    file = {name: value for name, value in dotenv_values(ROOT / ".env").items() if value is not None}
    return {**file, **os.environ}


def campaigns_of(environ: Mapping[str, str]) -> Campaigns:
    """The campaigns for people."""
    return load_campaigns(folders(environ.get("CAMPAIGNS_DIRS") or "campaigns")).for_people


def run(work: Coroutine[None, None, int]) -> int:
    """Run until it is done, or until Ctrl-C, SIGTERM or a closed terminal; then what it opened is closed.

    A second signal does not wait for that: the keeper ends what is left.
    """
    return asyncio.run(_interruptible(work))


async def _interruptible(work: Coroutine[None, None, int]) -> int:
    task = asyncio.create_task(work)
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        asyncio.get_running_loop().add_signal_handler(number, task.cancel)
    try:
        return await task
    except asyncio.CancelledError:
        return INTERRUPTED
