"""What the commands that start a stack share: the user's environment, the campaigns, and how they begin and end."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import tempfile
from collections.abc import Callable, Coroutine, Mapping
from pathlib import Path

import typer
from dotenv import dotenv_values
from rich.console import Console

from tidings.campaign import Campaigns, load_campaigns
from tidings.errors import TidingsError
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


def make_console(*, without_terminal: int = 160) -> Console:
    """Where a command writes. A log has no width, so it is given one that has room for the tables."""
    console = Console()
    return console if console.is_terminal else Console(width=without_terminal)


def main(app: typer.Typer) -> int:
    """Our own errors are a message and exit code 1, not a traceback."""
    try:
        app()
    except TidingsError as error:
        Console(stderr=True).print(str(error), highlight=False, markup=False, soft_wrap=True)
        return 1
    return 0


def in_folder(keep: Path | None, prefix: str, console: Console, work: Callable[[Path], int]) -> int:
    """Work in `keep`, or in a folder that is removed again unless the work ends with another exit code than 0."""
    folder = keep or Path(tempfile.mkdtemp(prefix=prefix))
    code = work(folder)
    if keep is None and code == 0:
        shutil.rmtree(folder)
    else:
        console.print(f"Data and logs are in {folder}", highlight=False)
    return code
