"""Prefect stays small: what ended long ago is deleted there, and stays in the ledger."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import asyncpg
import pytest
from live_parts import Live, address, until
from live_sequences import signup

from tidings.local.environment import CLEANING_SECONDS, RUNS_KEPT

pytestmark = pytest.mark.stack


async def test_a_run_that_ended_long_ago__is_deleted_and_its_mail_stays_known(live: Live) -> None:
    old, young = address("old-run"), address("young-run")
    runs = {}
    for email in (old, young):
        runs[email] = (await live.accepted("christmas-signup", signup(email)))["flow_run_id"]
        await live.mails(email, 7)
        await live.prefect.ended(runs[email])
    connection = await asyncpg.connect(live.stack.addresses.database("prefect"))
    try:
        ended = datetime.now(UTC) - RUNS_KEPT - timedelta(hours=1)
        await connection.execute("UPDATE flow_run SET end_time = $1 WHERE id = $2", ended, runs[old])

        async def deleted() -> bool:
            return not await connection.fetchval("SELECT count(*) FROM flow_run WHERE id = $1", runs[old])

        assert await until("the old run to be deleted", deleted, within=CLEANING_SECONDS + 60)
        assert await connection.fetchval("SELECT count(*) FROM flow_run WHERE id = $1", runs[young]) == 1
    finally:
        await connection.close()
    assert await live.ledger.states(old) == ["delivered"] * 7
