"""A canary by hand: each station as it passes, with the seconds since it left."""

from __future__ import annotations

import asyncio
import logging
import time
from uuid import UUID

from tidings.adapters.blocks import settings_of_this_process
from tidings.adapters.public import PublicSide
from tidings.canary import MORE, look_after, send, stations, where_lost
from tidings.commands.console import say
from tidings.ledger import canaries
from tidings.ledger.canaries import Journey
from tidings.wiring import App, deadman_of, open_app, utc_now

POLL_SECONDS = 0.3


def fly(wait: float) -> bool:
    """Whether it came back within so many seconds."""
    logging.getLogger("tidings.canary").setLevel(logging.CRITICAL)  # what it says is shown here anyway
    return asyncio.run(_fly(wait))


async def _fly(wait: float) -> bool:
    settings = settings_of_this_process()
    async with open_app(settings) as parts, PublicSide(settings.public_url) as door:
        say(f"a canary leaves for {settings.public_url}")
        canary_id = await send(parts.ledger, door, settings, deadman_of(settings), utc_now())
        last = await _watch(parts, canary_id, wait)
    if last.returned_at is not None:
        say(("it is back", "green"), ": the whole chain works")
        return True
    say(("it did not come back", "red"), f": {where_lost(last)}. {MORE}.")
    return False


async def _watch(parts: App, canary_id: UUID, wait: float) -> Journey:
    """How far it has come when it is back, given up, or time is up."""
    deadline, shown = time.monotonic() + wait, 0
    while True:
        await look_after(parts.ledger, deadman_of(parts.settings), utc_now())
        async with parts.ledger.reading() as connection:
            journey = await canaries.journey(connection, canary_id)
        passed = _passed(journey)
        for name, seconds in passed[shown:]:
            say(("✓", "green"), f" {name} after {seconds:.1f} s")
        shown = max(shown, len(passed))
        if journey.returned_at or journey.problem or time.monotonic() > deadline:
            return journey
        await asyncio.sleep(POLL_SECONDS)


def _passed(journey: Journey) -> list[tuple[str, float]]:
    """The stations behind it, each with the seconds since it left. Resend's clock may be a little behind."""
    return [
        (station.name, max(0.0, (station.at - journey.started_at).total_seconds()))
        for station in stations(journey)
        if station.at is not None
    ]
