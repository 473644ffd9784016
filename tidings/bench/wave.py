"""Many mails that are due at the same moment."""

from __future__ import annotations

import asyncio
import sys
import time
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import asyncpg

from tidings.bench.figures import Figure
from tidings.bench.seed import seed
from tidings.bench.site import Site, until
from tidings.errors import TidingsError

SECTION = "wave"
TEMPLATE = "christmas_email_2"
#: What the sandbox enforces, as Resend does: requests a second, mails a request.
RATE, BATCH = 5, 100
#: From the beginning of the seeding to the moment at which the mails are due, so that their run is planned by then;
#: and what the seeding of each mail adds.
AHEAD, AHEAD_EACH = timedelta(seconds=8), timedelta(milliseconds=1)


@dataclass(frozen=True)
class Size:
    mails: int
    #: Mails for Prefect's own worker; 0 leaves it out.
    standard: int
    rival: int


async def measure(site: Site, size: Size) -> list[Figure]:
    """Seconds from the due moment until the last mail was taken, beside what the provider allows at best."""
    await site.settled()
    rival = await _rival(site, size.rival)
    seconds, refused = await _wave(site, size.mails)
    # The first second's requests may all come at once, so the last batch can leave a second early.
    best = size.mails / BATCH / RATE
    rate = size.mails / seconds
    figures = [
        Figure(section=SECTION, name=f"{size.mails:,} mails due at once", value=seconds, unit="s", better="less",
               baseline_name="provider's limit", baseline=best, aim_ratio=1.25),
        Figure(section=SECTION, name="mails a second, limit on", value=rate, unit="/s",
               baseline_name="Procrastinate, limit off", baseline=rival, aim_ratio=1.0),
        Figure(section=SECTION, name="requests refused by the provider (429)", value=refused, unit="", better="less",
               note="each is repeated with the same key"),
    ]  # fmt: skip
    if size.standard:
        standard = await _standard(site, size.standard)
        figures.append(
            Figure(section=SECTION, name="mails a second, limit on", value=rate, unit="/s",
                   baseline_name="standard worker, a run a mail", baseline=standard)
        )  # fmt: skip
    return figures


async def _wave(site: Site, count: int) -> tuple[float, int]:
    await site.provider(resend_rate=RATE)
    before = await _refusals(site)
    due = datetime.now(UTC) + AHEAD + count * AHEAD_EACH
    await seed(site, count, TEMPLATE, [due])
    await site.start_run("tidings-sweep")  # which plans their run; by itself one comes every five minutes
    site.say(f"wave: due at {due:%H:%M:%S} UTC")
    await asyncio.sleep(max(0.0, (due - datetime.now(UTC)).total_seconds()))
    if left := await site.value("SELECT count(*) FROM message WHERE due_at = $1 AND flow_run_id IS NULL", due):
        raise TidingsError(f"{left} mails had no run when they were due: the machine is too slow for AHEAD")
    last = await _all_sent(site, due, count, within=60 + count / 50)
    return (last - due).total_seconds(), await _refusals(site) - before


async def _all_sent(site: Site, due: datetime, count: int, within: float) -> datetime:
    async def done() -> datetime | None:
        async with site.ledger() as ledger:
            row = await ledger.fetchrow(
                "SELECT count(*) AS n, max(sent_at) AS last FROM message WHERE due_at = $1 AND sent_at IS NOT NULL", due
            )
        sent, last = row or (0, None)
        site.say(f"wave: {sent:,} of {count:,} sent")
        return last if sent == count else None

    return await until("the wave's last mail", done, within=within, every=1.0)


async def _refusals(site: Site) -> int:
    answer = await site.http.get(f"{site.stack.addresses.sandbox}/control/stats")
    return int(answer.json()["answers"].get("resend 429", 0))


async def _rival(site: Site, count: int) -> float:
    """Mails a second of Procrastinate's worker; it has no batches, so the limit is lifted for it."""
    base, env = await site.rival(), await site.rival_environment()
    await site.provider(resend_rate=0)
    for start in range(0, count, 50):
        bodies = [{"email": f"delivered+r{start + n}@resend.dev", "consent": True} for n in range(50)]
        await asyncio.gather(*(site.http.post(f"{base}/signup", json=body) for body in bodies))
    site.say(f"wave: Procrastinate works off {count} jobs")
    async with (
        site.ledger("rival") as queue,
        site.process("rival-worker", [sys.executable, "-m", "tidings.bench.rival"], env=env),
    ):
        return await _worked_off(queue)


async def _worked_off(queue: asyncpg.Connection[Any]) -> float:
    """Jobs a second, from when the first is seen to be taken up: the worker's own start is not counted."""

    async def waiting() -> int:
        return int(await queue.fetchval("SELECT count(*) FROM procrastinate_jobs WHERE status = 'todo'"))

    async def begun() -> bool:
        return await waiting() < at_first

    async def done() -> bool:
        return not await waiting()

    at_first = await waiting()
    await until("Procrastinate's first job", begun, within=60, every=0.05)
    left, began = await waiting(), time.monotonic()
    await until("Procrastinate's queue to be empty", done, within=300, every=0.05)
    return left / (time.monotonic() - began)


async def _standard(site: Site, count: int) -> float:
    """Mails a second when each mail is a run of its own on Prefect's process worker."""
    start = datetime.now(UTC) + timedelta(seconds=20)
    due = [start + timedelta(milliseconds=n) for n in range(count)]
    await seed(site, count, TEMPLATE, due)
    async with site.standard_worker():
        site.say(f"wave: Prefect's process worker, {count} runs of one mail each")

        async def finished() -> datetime | None:
            async with site.ledger() as ledger:
                row = await ledger.fetchrow(
                    "SELECT count(*) AS n, max(sent_at) AS last FROM message WHERE due_at >= $1 AND due_at <= $2 "
                    "AND sent_at IS NOT NULL", due[0], due[-1],
                )  # fmt: skip
            sent, last = row or (0, None)
            return last if sent == count else None

        ended = await until("the standard worker's last mail", finished, within=60 + 20 * count, every=0.5)
    return count / (ended - start).total_seconds()
