"""How many webhooks a second are durably answered, and how fast at half of that."""

from __future__ import annotations

import statistics
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

from tidings.bench.figures import Figure
from tidings.bench.load import Load, signups
from tidings.bench.site import Site

SECTION = "acceptance"
#: Enough that there is always somebody to serve while a group is being committed.
CONNECTIONS = 128
#: Connections at half load, and seconds of it before it is measured.
PATIENT, LEAD_IN = 64, 2.0


@dataclass(frozen=True)
class Size:
    seconds: float
    rounds: int


async def measure(site: Site, size: Size) -> list[Figure]:
    """Tidings, a bare endpoint and Procrastinate in turns, so that a slow minute of the machine hits all three.

    The last of all measurements: nothing works off what is taken in here, so the worker is stopped for good.
    """
    await site.settled()
    await site.stack.stop_one("worker")
    async with _three(site) as urls:
        loads: dict[str, list[Load]] = {name: [] for name in urls}
        for round_ in range(size.rounds):
            for name, url in urls.items():
                site.say(f"acceptance, round {round_ + 1} of {size.rounds}: {name}")
                loads[name].append(await signups(url, seconds=size.seconds, connections=CONNECTIONS))
        rates = {name: statistics.median(load.rate for load in seen) for name, seen in loads.items()}
        site.say("acceptance, half load: Tidings")
        early, half = await _half(urls["Tidings"], size.seconds, rates["Tidings"] / 2)
        site.say("acceptance, half load: bare")
        bare = await signups(urls["bare"], seconds=size.seconds, connections=PATIENT, rate=rates["Tidings"] / 2)
    wrong = sum(load.refused + load.lost for load in [*loads["Tidings"], early, half])
    return [
        Figure(section=SECTION, name="webhooks durably answered a second", value=rates["Tidings"], unit="/s",
               baseline_name="bare endpoint", baseline=rates["bare"], aim_ratio=0.6),
        Figure(section=SECTION, name="the same, beside Procrastinate", value=rates["Tidings"], unit="/s",
               baseline_name="Procrastinate", baseline=rates["Procrastinate"], aim_ratio=1.0),
        Figure(section=SECTION, name=f"p50 at {half.rate:.0f} a second", value=half.p50_ms, unit="ms", better="less",
               baseline_name="bare endpoint", baseline=bare.p50_ms),
        Figure(section=SECTION, name=f"p99 at {half.rate:.0f} a second", value=half.p99_ms, unit="ms", better="less",
               baseline_name="bare endpoint", baseline=bare.p99_ms, aim_value=50),
        Figure(section=SECTION, name="errors among them", value=wrong, unit="", better="less", aim_value=0),
    ]  # fmt: skip


async def _half(url: str, seconds: float, rate: float) -> tuple[Load, Load]:
    """The lead-in and the load at a steady rate. While the first gathering is opened, everybody waits for its run in
    Prefect: that is in the lead-in, as it happens once in a while and not once in a hundred webhooks."""
    early = await signups(url, seconds=LEAD_IN, connections=PATIENT, rate=rate)
    # A connection waits for its answers, too, which makes it slower: by as much as it did in the lead-in.
    asked = 1 / (2 / rate - 1 / early.rate)
    return early, await signups(url, seconds=seconds, connections=PATIENT, rate=asked)


@asynccontextmanager
async def _three(site: Site) -> AsyncIterator[dict[str, str]]:
    rival = await site.rival()
    # Tidings has a line of its own for each webhook in the place of uvicorn's; the bare endpoint gets none at all.
    async with site.uvicorn("bare", "tidings.bench.bare:app", "--no-access-log") as bare:
        yield {"Tidings": site.signup, "bare": f"{bare}/signup", "Procrastinate": f"{rival}/signup"}
