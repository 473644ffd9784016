"""What Linux tells about other processes. Elsewhere these functions know nothing and say so by None or ""."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

PROC = Path("/proc")
LISTENING = "0A"


def exists(pid: int) -> bool:
    """Whether a process has this id; one that has ended and waits for its parent does not count."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return _state(pid) != "Z"


def command(pid: int) -> str | None:
    """The command line of a process."""
    try:
        raw = (PROC / str(pid) / "cmdline").read_bytes()
    except OSError:
        return None
    return " ".join(raw.replace(b"\0", b" ").decode(errors="replace").split()) or None


def works_in(pid: int, folder: Path) -> bool | None:
    """Whether a process has this current folder; None when that cannot be known."""
    if not PROC.is_dir():
        return None
    try:
        return (PROC / str(pid) / "cwd").readlink() == folder.resolve()
    except FileNotFoundError:
        return False
    except OSError:
        return None


def holder(port: int) -> str:
    """ " by process …" for whoever listens on this port of this machine, as far as it can be seen."""
    inodes = _listeners(port)
    for entry in PROC.glob("[0-9]*") if inodes else ():
        if _holds(entry, inodes):
            pid = int(entry.name)
            return f" by process {pid} ({(command(pid) or 'unnamed')[:80]})"
    return ""


def _state(pid: int) -> str:
    try:
        return (PROC / str(pid) / "stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return ""


def _listeners(port: int) -> set[str]:
    """The inodes of the sockets that listen on this port."""
    found = set()
    for table in (PROC / "net/tcp", PROC / "net/tcp6"):
        try:
            lines = table.read_text().splitlines()[1:]
        except OSError:
            continue
        for fields in map(str.split, lines):
            if fields[3] == LISTENING and int(fields[1].rpartition(":")[2], 16) == port:
                found.add(fields[9])
    return found


def _holds(entry: Path, inodes: set[str]) -> bool:
    """Whether a process has one of these sockets open; not for another user's, nor one that has ended."""
    links = {f"socket:[{inode}]" for inode in inodes}
    with contextlib.suppress(OSError):
        return any(_target(descriptor) in links for descriptor in (entry / "fd").iterdir())
    return False


def _target(descriptor: Path) -> str:
    try:
        return str(descriptor.readlink())
    except OSError:  # closed meanwhile, as the one that lists this very folder
        return ""
