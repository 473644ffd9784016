"""What is wrong is one alert for as long as it is, and is over when it is."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

from sqlalchemy import select

from tidings.alerts import Finding, note
from tidings.ledger import Ledger
from tidings.ledger.tables import alert

NOW = datetime(2026, 12, 1, 12, tzinfo=UTC)
LATE = Finding("late-mail", "3 mails are late", "No worker took their run.", subject="christmas_email_2")
LEAD = Finding("hot-lead", "A CRITICAL signup", "tidings contact …", subject="event-1", lasting=False)


async def rows(ledger: Ledger) -> list[Any]:
    async with ledger.reading() as connection:
        return list((await connection.execute(select(alert).order_by(alert.c.opened_at, alert.c.key))).all())


async def test_what_is_found_again__is_the_same_alert(ledger: Ledger) -> None:
    await note(ledger, [LATE], {"late-mail"}, NOW)
    await note(ledger, [LATE], {"late-mail"}, NOW + timedelta(minutes=1))

    [row] = await rows(ledger)
    assert (row.key, row.times, row.opened_at) == ("late-mail:christmas_email_2", 2, NOW)
    assert (row.seen_at, row.recovered_at) == (NOW + timedelta(minutes=1), None)


async def test_what_is_not_found_any_more__is_over_and_opens_anew(ledger: Ledger) -> None:
    await note(ledger, [LATE], {"late-mail"}, NOW)
    await note(ledger, [], {"late-mail"}, NOW + timedelta(minutes=1))
    await note(ledger, [LATE], {"late-mail"}, NOW + timedelta(minutes=2))

    first, second = await rows(ledger)
    assert (first.recovered_at, second.recovered_at) == (NOW + timedelta(minutes=1), None)


async def test_a_kind_that_nobody_looked_at__stays(ledger: Ledger) -> None:
    await note(ledger, [LATE], {"late-mail"}, NOW)
    await note(ledger, [], {"stuck-run"}, NOW)

    [row] = await rows(ledger)
    assert row.recovered_at is None


async def test_what_happens_once__is_written_once_and_needs_no_recovery(ledger: Ledger) -> None:
    for _ in range(2):
        await note(ledger, [LEAD], set(), NOW)

    [row] = await rows(ledger)
    assert (row.told_at, row.recovered_at, row.recovery_told_at) == (None, NOW, NOW)
