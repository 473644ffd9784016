"""A wave: many mails due at the same moment leave once each, shared by two runs, within the provider's limit."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from live_parts import Json, Live, until

from flows.send_email import WAVE
from tidings.bench.seed import seed

pytestmark = pytest.mark.stack

MAILS = WAVE + 50
TEMPLATE = "christmas_email_3"


class Seeded:
    """What `seed` asks of a site."""

    def __init__(self, live: Live) -> None:
        self.stack = live.stack

    def say(self, _: str) -> None:
        """Nobody listens."""


async def test_a_wave__is_shared_by_two_runs_and_sent_once_each(live: Live) -> None:
    await live.sandbox.change(resend_rate=5)
    due = datetime.now(UTC) + timedelta(seconds=30)
    await seed(Seeded(live), MAILS, TEMPLATE, [due])

    async def settled() -> list[Json] | None:
        states = await live.ledger.rows(
            "SELECT state, count(*) AS n FROM message WHERE due_at = $1 GROUP BY state", due
        )
        done = sum(row["n"] for row in states if row["state"] in {"sent", "delivered"})
        return states if done == MAILS else None

    await until("the wave to have left", settled, within=120)
    rows = await live.ledger.rows(
        "SELECT c.email, m.provider_id FROM message m JOIN enrolment e ON e.id = m.enrolment_id "
        "JOIN contact c ON c.id = e.contact_id WHERE m.due_at = $1",
        due,
    )
    mails = [m for m in await live.sandbox.everything() if m["to"][0] in {row["email"] for row in rows}]
    assert len(mails) == len({m["to"][0] for m in mails}) == MAILS
    assert {m["id"] for m in mails} == {row["provider_id"] for row in rows}
    runs = [
        run
        for run in await live.prefect.runs_of_deployment("christmas-send-email")
        if run["parameters"].get("template") == TEMPLATE and run["parameters"]["due"] == due.isoformat()
    ]
    assert len(runs) == 2
    ended = [await live.prefect.ended(run["id"]) for run in runs]
    assert [run["state_type"] for run in ended] == ["COMPLETED"] * 2
