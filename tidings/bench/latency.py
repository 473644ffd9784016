"""From a webhook's answer to the first mail at the provider, on a stack that has nothing else to do."""

from __future__ import annotations

import asyncio
import sys
from dataclasses import dataclass
from datetime import UTC, datetime

from tidings.bench.figures import Figure, percentile
from tidings.bench.site import Site, person
from tidings.errors import TidingsError

SECTION = "latency"
#: Between two webhooks: longer than all work that a signup causes, so that each finds the stack idle. Procrastinate's
#: job is over with its mail.
REST_SECONDS, RIVALS_REST_SECONDS = 1.5, 0.2


@dataclass(frozen=True)
class Size:
    webhooks: int
    #: Webhooks for Prefect's own worker; 0 leaves it out.
    standard: int


async def measure(site: Site, size: Size) -> list[Figure]:
    """Tidings, Procrastinate and, where the size says so, the same deployments on Prefect's own worker.

    The first mail of each is not counted: what is slow only once is not what people wait for.
    """
    ours = await _many(site, site.signup, size.webhooks, "Tidings", REST_SECONDS)
    rival = await _rival(site, size.webhooks)
    standard = await _standard(site, size.standard)
    beside = "standard process worker" if standard else ""
    return [
        Figure(section=SECTION, name="webhook to first mail, p50", value=percentile(ours, 0.5), unit="s",
               better="less", baseline_name=beside, baseline=percentile(standard, 0.5) if standard else None,
               aim_value=0.8),
        Figure(section=SECTION, name="webhook to first mail, p95", value=percentile(ours, 0.95), unit="s",
               better="less", baseline_name=beside, baseline=percentile(standard, 0.95) if standard else None,
               aim_value=1.5),
        Figure(section=SECTION, name="the same beside Procrastinate, p50", value=percentile(ours, 0.5), unit="s",
               better="less", baseline_name="Procrastinate", baseline=percentile(rival, 0.5)),
    ]  # fmt: skip


async def _standard(site: Site, webhooks: int) -> list[float]:
    if not webhooks:
        return []
    async with site.standard_worker():
        return await _many(site, site.signup, webhooks, "Prefect's process worker", REST_SECONDS)


async def _rival(site: Site, webhooks: int) -> list[float]:
    base, env = await site.rival(), await site.rival_environment()
    worker = [sys.executable, "-m", "tidings.bench.rival"]
    async with site.process("rival-worker", worker, env=env):
        return await _many(site, f"{base}/signup", webhooks, "Procrastinate", RIVALS_REST_SECONDS)


async def _many(site: Site, url: str, count: int, who: str, rest: float) -> list[float]:
    await _first_mail(site, url, 120)
    found = []
    for number in range(count):
        await asyncio.sleep(rest)
        site.say(f"latency: {who}, {number + 1} of {count}")
        found.append(await _first_mail(site, url, 120))
    return found


async def _first_mail(site: Site, url: str, within: float) -> float:
    """Seconds, by the one clock that the server's and the sandbox's processes share."""
    email = person("latency")
    answer = await site.http.post(url, json={"email": email, "first_name": "Ada", "consent": True})
    if answer.status_code != 200:
        raise TidingsError(f"{url} answered {answer.status_code}: {answer.text[:300]}")
    answered = datetime.now(UTC)
    return max(0.0, (await site.mail_to(email, within) - answered).total_seconds())
