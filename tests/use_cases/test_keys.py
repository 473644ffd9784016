"""One call or payment is one enrolment however its time is said, also one that was stored under its key of 0.1."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from inn import CHRISTMAS, NOW, Inn
from sqlalchemy import text

from tidings.enrol import KNOWN
from tidings.ledger import Ledger, inbox

WHO = "delivered+ana@resend.dev"
SAID, IN_UTC, NEXT_DAY = "2026-11-30T22:00:00-05:00", "2026-12-01T03:00:00Z", "2026-12-02T03:00:00Z"
DATED: list[tuple[str, str, dict[str, Any]]] = [
    ("postcall-maybe", "call_date", {}),
    ("calendly-noshow", "scheduled_time", {}),
    ("onboarding-start", "payment_date", {"payment_confirmed": True}),
]


@pytest.fixture
def inn(ledger: Ledger) -> Inn:
    return Inn(ledger)


@pytest.mark.parametrize(("path", "field", "more"), DATED)
async def test_f15_one_moment_in_two_spellings__is_enrolled_once(
    inn: Inn, path: str, field: str, more: dict[str, Any]
) -> None:
    first = await inn.post(path, {"email": WHO, field: SAID, **more})
    again = await inn.post(path, {"email": WHO, field: IN_UTC, **more})
    other = await inn.post(path, {"email": WHO, field: NEXT_DAY, **more})

    assert (len(first.new), len(again.new), len(other.new)) == (1, 0, 1)


@pytest.mark.parametrize(("path", "field", "more"), DATED)
@pytest.mark.parametrize("days", [0, 3])
async def test_f15_what_is_enrolled_under_its_former_key__is_not_enrolled_again(
    inn: Inn, path: str, field: str, more: dict[str, Any], days: int
) -> None:
    body = {"email": WHO, field: SAID, **more}
    (event_id,) = (await inn.post(path, body)).new
    await under_former_key(inn, path, body)

    if days:  # an equal body, too late to be taken for a repeat of the event
        (event_id,) = await inn.take(path, body, at=NOW + timedelta(days=days))
    else:
        async with inn.ledger.transaction() as connection:
            await inbox.requeue(connection, [event_id])
    done = await inn.handle([event_id], at=NOW + timedelta(days=days))

    assert (done.new, done.known) == ((), (event_id,))
    assert KNOWN in {why for _, why in await inn.events()}
    assert len(await inn.rows("SELECT id FROM enrolment")) == 1


async def under_former_key(inn: Inn, path: str, body: dict[str, Any]) -> None:
    """The enrolment as 0.1 would have stored it."""
    former = CHRISTMAS.webhook(path).payload.model_validate(body).former_key()
    assert former == f"{WHO}|{SAID}"
    async with inn.ledger.transaction() as connection:
        await connection.execute(text("UPDATE enrolment SET key = :key"), {"key": former})
