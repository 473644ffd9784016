"""What the webhook server and the worker cost while nothing happens."""

from __future__ import annotations

import asyncio
import os
from dataclasses import dataclass
from pathlib import Path

from tidings.bench.figures import Figure
from tidings.bench.site import Site

SECTION = "idle"
#: After everything has been quiet for this long, imports, first polls and the first round of checks are over.
SETTLE_SECONDS = 25.0
TICKS = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True)
class Size:
    seconds: float


async def measure(site: Site, size: Size) -> list[Figure]:
    """Proportional memory and CPU of the two, beside Prefect's own worker and the bare endpoint."""
    site.say(f"idle: looking for {size.seconds:g} s at processes that have nothing to do")
    await asyncio.sleep(SETTLE_SECONDS)
    ours = [site.stack.pid("web"), site.stack.pid("worker")]
    memory, cpu = await _cost([pid for pid in ours if pid], size.seconds)
    async with site.uvicorn("bare", "tidings.bench.bare:app"), site.standard_worker():
        await asyncio.sleep(SETTLE_SECONDS)
        theirs = [process.pid for process in site.beside.values() if process.pid]
        memory_theirs, cpu_theirs = await _cost(theirs, size.seconds)
    beside = "bare endpoint and Prefect's worker"
    return [
        Figure(section=SECTION, name="memory of web server and worker (PSS)", value=memory, unit="MB", better="less",
               baseline_name=beside, baseline=memory_theirs, aim_value=250),
        Figure(section=SECTION, name="their CPU", value=100 * cpu, unit="% of a core", better="less",
               baseline_name=beside, baseline=100 * cpu_theirs, aim_value=2),
    ]  # fmt: skip


async def _cost(roots: list[int], seconds: float) -> tuple[float, float]:
    """Megabytes, and the share of one core, of these processes and all that they have started."""
    before = _ticks(roots)
    await asyncio.sleep(seconds)
    after = _ticks(roots)
    spent = sum(after[pid] - before.get(pid, 0) for pid in after)
    return sum(_pss(pid) for pid in after) / 1e6, spent / TICKS / seconds


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


def _ticks(roots: list[int]) -> dict[int, int]:
    found = {}
    for pid in _family(roots):
        try:
            fields = Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2].split()
        except OSError:
            continue
        found[pid] = int(fields[11]) + int(fields[12])
    return found


def _pss(pid: int) -> int:
    try:
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    except OSError:
        return 0
    return next((1024 * int(line.split()[1]) for line in lines if line.startswith("Pss:")), 0)
