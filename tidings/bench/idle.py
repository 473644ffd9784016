"""What the webhook server and the worker cost while nothing happens."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tidings.bench.figures import Figure
from tidings.bench.site import Site, until

SECTION = "idle"
TICKS = os.sysconf("SC_CLK_TCK")
#: A process's own time, and that of its children that have ended (proc(5)).
OWN, OF_ENDED = 11, 13
#: How often it is tried to find a time in which no run comes.
ATTEMPTS = 5


@dataclass(frozen=True)
class Size:
    seconds: float
    #: Seconds until first polls and the first round of checks are over: 25 for all of them.
    settle: float
    #: Whether Prefect's own worker and the bare endpoint are looked at, too.
    beside: bool


async def measure(site: Site, size: Size) -> list[Figure]:
    """Proportional memory and CPU of the two, beside Prefect's own worker and the bare endpoint if the size says so."""
    site.say(f"idle: looking for {size.seconds:g} s at processes that have nothing to do")
    memory, cpu = await _cost(site, [site.stack.pid("web"), site.stack.pid("worker")], size)
    memory_theirs, cpu_theirs = await _beside(site, size) if size.beside else (None, None)
    beside = "bare endpoint and Prefect's worker" if size.beside else ""
    return [
        Figure(section=SECTION, name="memory of web server and worker (PSS)", value=memory, unit="MB", better="less",
               baseline_name=beside, baseline=memory_theirs, aim_value=250),
        Figure(section=SECTION, name="their CPU", value=cpu, unit="% of a core", better="less",
               baseline_name=beside, baseline=cpu_theirs, aim_value=2, note="between the runs of sweep and mirror"),
    ]  # fmt: skip


async def _beside(site: Site, size: Size) -> tuple[float, float]:
    async with site.uvicorn("bare", "tidings.bench.bare:app"), site.standard_worker():
        return await _cost(site, [process.pid for process in site.beside.values()], size)


async def _cost(site: Site, pids: Sequence[int | None], size: Size) -> tuple[float, float]:
    """Megabytes, and per cent of one core, of these processes and all that they have started, while no run comes."""
    await asyncio.sleep(size.settle)
    roots = [pid for pid in pids if pid]
    for _ in range(ATTEMPTS):
        await _at_rest(site)
        before, ended = _ticks(roots), _ticks(roots, OF_ENDED)
        await asyncio.sleep(size.seconds)
        after = _ticks(roots)
        if after.keys() == before.keys() and _ticks(roots, OF_ENDED) == ended:
            break
        site.say("idle: a run came in between; once more")
    spent = sum(after[pid] - before.get(pid, 0) for pid in after)
    return sum(_pss(pid) for pid in after) / 1e6, 100 * spent / TICKS / size.seconds


async def _at_rest(site: Site) -> None:
    """Wait until no run is under way, and its process has ended too."""

    async def nobody() -> bool:
        return not await site.runs(flow_runs={"state": {"type": {"any_": ["PENDING", "RUNNING"]}}})

    await until("no run to be under way", nobody, within=300, every=0.5)
    await asyncio.sleep(1.0)


def _family(roots: list[int]) -> list[int]:
    children: dict[int, list[int]] = {}
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            parent = int((folder / "stat").read_text().rpartition(") ")[2].split()[1])
        except OSError:
            continue  # it has ended meanwhile
        children.setdefault(parent, []).append(int(folder.name))
    found, left = [], list(roots)
    while left:
        pid = left.pop()
        found.append(pid)
        left += children.get(pid, [])
    return found


def _ticks(roots: list[int], first: int = OWN) -> dict[int, int]:
    """What the processor has spent, by process; `first` of two fields of /proc/PID/stat, after the name."""
    found = {}
    for pid in _family(roots):
        try:
            fields = Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2].split()
        except OSError:
            continue
        found[pid] = int(fields[first]) + int(fields[first + 1])
    return found


def _pss(pid: int) -> int:
    try:
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    except OSError:
        return 0
    return next((1024 * int(line.split()[1]) for line in lines if line.startswith("Pss:")), 0)
