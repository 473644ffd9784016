"""The processes below the stack's own: uvicorn's workers, forked runs. Linux only."""

from __future__ import annotations

import contextlib
import os
import signal
from pathlib import Path


def children(pid: int) -> list[int]:
    """The direct children of a process."""
    found: list[int] = []
    for task in Path(f"/proc/{pid}/task").glob("*/children"):
        with contextlib.suppress(OSError):
            found += [int(word) for word in task.read_text().split()]
    return found


def descendants(pid: int) -> list[int]:
    below = children(pid)
    return below + [deeper for child in below for deeper in descendants(child)]


def command_line(pid: int) -> str:
    try:
        return (Path("/proc") / str(pid) / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
    except OSError:
        return ""


def uvicorn_workers(pid: int) -> list[int]:
    """The worker processes below uvicorn's own."""
    return [child for child in children(pid) if "spawn_main" in command_line(child)]


def forked_runs(worker: int) -> list[int]:
    """Flow runs below a worker: children of its fork server."""
    servers = [child for child in children(worker) if "forkserver" in command_line(child)]
    return [run for server in servers for run in children(server)]


def kill(pid: int) -> bool:
    """SIGKILL; whether the process was there."""
    try:
        os.kill(pid, signal.SIGKILL)
    except ProcessLookupError:
        return False
    return True
