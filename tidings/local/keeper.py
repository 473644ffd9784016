"""Outlives the supervisor to end what it left behind. Run by its path; needs the standard library only.

The supervisor holds the other end of standard input and writes "+<group>" and "-<group>" as process groups
come and go. When that end closes, by a clean stop or because the supervisor was killed, whatever is left is
ended: the groups still listed, and any process that carries the stack's mark in its environment.
"""

from __future__ import annotations

import os
import signal
import sys
import time
from pathlib import Path

GRACE = 5.0  # seconds between asking and killing


def marked(mark: str) -> set[int]:
    """Processes whose environment has this text; Linux only."""
    found = set()
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            if mark.encode() in (entry / "environ").read_bytes().split(b"\0"):
                found.add(int(entry.name))
        except OSError:
            continue  # ended meanwhile, or another user's
    return found - {os.getpid()}


def signal_all(groups: set[int], mark: str, number: int) -> bool:
    """Signal everything that is left; whether there was anything."""
    found = False
    for send, target in [(os.killpg, g) for g in groups] + [(os.kill, p) for p in marked(mark)]:
        try:
            send(target, number)
            found = True
        except (ProcessLookupError, PermissionError):
            continue
    return found


def follow() -> set[int]:
    """The groups that are left when standard input ends."""
    groups: set[int] = set()
    for line in sys.stdin:
        group = int(line[1:])
        if line[0] == "+":
            groups.add(group)
        else:
            groups.discard(group)
    return groups


def main() -> None:
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    mark = sys.argv[1]
    left = follow()
    # PostgreSQL's fast stop is SIGINT; the rest take SIGTERM. A group that has both gets what ends it.
    if signal_all(left, mark, signal.SIGTERM):
        signal_all(left, mark, signal.SIGINT)
    deadline = time.monotonic() + GRACE
    while signal_all(left, mark, 0) and time.monotonic() < deadline:
        time.sleep(0.1)
    signal_all(left, mark, signal.SIGKILL)


if __name__ == "__main__":
    main()
