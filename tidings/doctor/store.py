"""The ledger, and the clocks of everybody that signs."""

from __future__ import annotations

import asyncio
from datetime import datetime

from sqlalchemy import text

from tidings.adapters.public import time_of
from tidings.doctor.check import Word, all_of, ok, unknown, wrong
from tidings.errors import LedgerUnavailable, ServiceError
from tidings.ledger.revisions import head, revision
from tidings.wiring import App, utc_now

#: Signatures are refused when clocks differ by 300 s (Standard Webhooks, Stripe) or 180 s (Calendly): told long before.
SKEW_SECONDS = 60.0


async def ledger(parts: App, now: datetime) -> Word:
    """PostgreSQL answers, and has this code's tables."""
    try:
        at = await revision(parts.ledger)
    except LedgerUnavailable as error:
        return wrong(f"{error} Look at PostgreSQL, its disk and DATABASE_URL")
    if at == head():
        return ok(f"at revision {at}")
    return wrong(f"the ledger is at revision {at}, this code needs {head()}; run: tidings migrate")


async def clock(parts: App, now: datetime) -> Word:
    """This machine's clock agrees with the ledger's."""
    return _judged({"the ledger": await _ledgers_skew(parts)})


async def clocks(parts: App, now: datetime) -> Word:
    """This machine's clock agrees with the ledger's, and with those of Notion and Resend."""
    urls = {"Notion": parts.settings.notion_api_url, "Resend": parts.settings.resend_api_url}
    names = ["the ledger", *urls]
    asked = [_ledgers_skew(parts), *(_skew(url) for url in urls.values())]
    answers = await asyncio.gather(*asked, return_exceptions=True)
    for answer in answers:
        if isinstance(answer, BaseException) and not isinstance(answer, LedgerUnavailable | ServiceError):
            raise answer
    known = {n: a for n, a in zip(names, answers, strict=True) if isinstance(a, float)}
    return _judged(known) if known else unknown("neither the ledger nor Notion nor Resend tells the time")


def _judged(skews: dict[str, float]) -> Word:
    found = [
        f"this machine's clock is {abs(skew):.0f} s {'ahead of' if skew > 0 else 'behind'} that of {who}; set it by "
        "NTP: signed webhooks are refused from 180 s on"
        for who, skew in skews.items()
        if abs(skew) > SKEW_SECONDS
    ]
    return all_of(found, ", ".join(f"{who} {skew:+.1f} s" for who, skew in skews.items()))


async def _ledgers_skew(parts: App) -> float:
    async with parts.ledger.reading() as connection:
        before = utc_now()
        theirs: datetime = (await connection.execute(text("SELECT clock_timestamp()"))).scalar_one()
    return (before + (utc_now() - before) / 2 - theirs).total_seconds()


async def _skew(url: str) -> float | None:
    before = utc_now()
    theirs = await time_of(url)
    # Their second has begun at some time within the last second.
    return (before + (utc_now() - before) / 2 - theirs).total_seconds() - 0.5 if theirs else None
