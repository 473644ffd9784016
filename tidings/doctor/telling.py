"""Alerts: somebody looks, and who is to be told can be."""

from __future__ import annotations

from datetime import datetime

from tidings.doctor.check import Word, ok, unknown, wrong
from tidings.ledger.memory import Memory
from tidings.settings import Settings
from tidings.telling import TROUBLE
from tidings.wiring import App

#: Under which it is remembered when somebody last looked at everything.
WATCHED = "alerts-watched"
#: How the word begins that whoever watches knows to be over.
NOBODY = "nobody has looked"
#: So many times WATCH_SECONDS without a look, and nobody watches.
MISSED_LOOKS = 6


async def alerts(parts: App, now: datetime) -> Word:
    """Everything is looked at again and again, and the last alert reached every channel."""
    memory = Memory(parts.ledger)
    since = await memory.since(WATCHED)
    if since is not None and nobody_watches(parts.settings, since, now):
        return wrong(
            f"{NOBODY} for what is wrong since {since:%Y-%m-%d %H:%M:%S} UTC; restart the web server, and "
            "look for watch.failed in its log"
        )
    if trouble := await memory.recall(TROUBLE):
        return wrong(f"the last alert did not reach everybody: {trouble}; mend that, then: tidings alerts test")
    if parts.settings.alert_urls is None:
        words = "ALERT_URLS is not set, so alerts are only in the log and in `tidings alerts`"
        return unknown(words) if parts.settings.real else ok(words)
    return ok()


def nobody_watches(settings: Settings, since: datetime, now: datetime) -> bool:
    """Whether the last look was too long ago."""
    return (now - since).total_seconds() > MISSED_LOOKS * settings.watch_seconds
