"""Many signups in a minute, with everything running: accepted without an error, enrolled soon, few runs."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass

from tidings.bench.figures import Figure
from tidings.bench.load import signups
from tidings.bench.site import Site, until

SECTION = "burst"
#: Gatherings are open for ten seconds when webhooks keep coming, so a short burst is not enrolled sooner than this.
SOONEST = 20.0
#: So many that each waits long between its requests: the time of an answer hardly slows the rate.
CONNECTIONS = 256


@dataclass(frozen=True)
class Size:
    seconds: float
    rate: float


async def measure(site: Site, size: Size) -> list[Figure]:
    """A minute's rush."""
    await site.settled()
    await site.provider(resend_rate=5)
    runs, events = await site.runs(), await _events(site)
    site.say(f"burst: {size.rate:.0f} signups a second for {size.seconds:g} s")
    began = time.monotonic()
    load = await signups(site.signup, seconds=size.seconds, connections=CONNECTIONS, rate=size.rate)

    async def enrolled() -> bool:
        waiting = await site.value("SELECT count(*) FROM event WHERE state IN ('accepted', 'dispatched')")
        site.say(f"burst: {waiting:,} signups wait to be enrolled")
        return not waiting

    await until("the burst to be enrolled", enrolled, within=900, every=1.0)
    seconds = time.monotonic() - began
    await asyncio.sleep(2)
    accepted = await _events(site) - events
    made = await site.runs() - runs
    return [
        Figure(section=SECTION, name=f"{accepted:,} signups accepted and enrolled", value=seconds, unit="s",
               better="less", baseline_name="time they came in", baseline=size.seconds,
               aim_value=max(SOONEST, size.seconds * 5)),
        Figure(section=SECTION, name="errors among them", value=load.refused + load.lost, unit="", better="less",
               aim_value=0),
        Figure(section=SECTION, name="p99 of their answers", value=load.p99_ms, unit="ms", better="less"),
        Figure(section=SECTION, name="Prefect runs they made", value=made, unit="", better="less",
               baseline_name="signups", baseline=float(accepted), aim_ratio=0.1),
    ]  # fmt: skip


async def _events(site: Site) -> int:
    return int(await site.value("SELECT count(*) FROM event"))
