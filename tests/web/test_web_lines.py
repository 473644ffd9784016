"""Log lines under load: those of one round of the event loop are told together."""

from __future__ import annotations

import asyncio
import logging

import pytest

from tidings.logs import FEW
from tidings.web.lines import Together


async def test_what_one_round_of_the_loop_says__is_told_together(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    together = Together(logging.getLogger("somebody"), "webhook.accepted")

    for number in range(FEW + 1):
        together.add({"event_id": number, "source": "winter"})
    await asyncio.sleep(0)
    together.add({"event_id": FEW + 1, "source": "winter"})
    await asyncio.sleep(0)

    many, one = (vars(record) for record in caplog.records)
    assert (many["message"], many["count"], many["source"]) == ("webhook.accepted", FEW + 1, "winter")
    assert (one["message"], one["event_id"], "count" in one) == ("webhook.accepted", FEW + 1, False)
