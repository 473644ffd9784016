"""The ledger stays as fast as it grows: what the hot paths ask has an index that PostgreSQL's plan uses."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any
from uuid import uuid4

import asyncpg
import pytest
from sqlalchemy import event as listening
from test_outcome import report
from worlds import TABLES, World, now

from tidings import reconcile
from tidings.accept import Intake
from tidings.alerts import note
from tidings.bench.growth import fill
from tidings.campaign import load_campaigns
from tidings.enrol import schedule
from tidings.ledger import Ledger, inbox, mails
from tidings.ledger import mirror as mirrored
from tidings.model import Allowance
from tidings.outcome import take_reports
from tidings.settings import ROOT
from tidings.telling import Teller
from tidings.watch import Limits, Watch

#: Enough for a plan to differ from that of an empty table; seven mails each.
CONTACTS = 5_000
#: Tables that grow with every webhook and mail.
LARGE = {
    "contact", "event", "enrolment", "message", "claim", "dispatch", "outcome", "booking", "milestone", "suppression",
}  # fmt: skip

CHRISTMAS = load_campaigns([ROOT / "campaigns"])

Asked = dict[str, Any]


@pytest.fixture
async def large(world: World, postgres: str) -> AsyncIterator[World]:
    """A ledger with thirty-five thousand mails, most of them long delivered."""
    connection = await asyncpg.connect(postgres)
    try:
        await fill(connection, 0, CONTACTS, now())
        yield world
        await connection.execute(f"TRUNCATE {', '.join(TABLES)} CASCADE")
        await connection.execute("VACUUM ANALYZE")
    finally:
        await connection.close()


@contextmanager
def recorded(ledger: Ledger) -> Iterator[Asked]:
    """Every statement that the ledger is asked, with its values."""
    asked: Asked = {}

    def keep(_: Any, __: Any, statement: str, values: Any, *___: Any) -> None:
        asked.setdefault(statement, values[0] if isinstance(values, list) else values)

    engine = ledger.engine.sync_engine
    listening.listen(engine, "before_cursor_execute", keep)
    yield asked
    listening.remove(engine, "before_cursor_execute", keep)


async def scans(ledger: Ledger, asked: Asked) -> dict[str, set[str]]:
    """Statements that read a large table from one end to the other, and which."""
    found = {}
    for statement, values in asked.items():
        if not statement.lstrip().upper().startswith(("SELECT", "INSERT", "UPDATE", "DELETE", "WITH")):
            continue
        async with ledger.reading() as connection:
            rows = await connection.exec_driver_sql(f"EXPLAIN (FORMAT JSON) {statement}", tuple(values))
            plan = rows.scalar_one()
        whole = set(sequential(plan if isinstance(plan, list) else json.loads(plan))) & LARGE
        if whole:
            found[statement] = whole
    return found


def sequential(node: Any) -> Iterator[str]:
    if isinstance(node, list):
        for part in node:
            yield from sequential(part)
    elif isinstance(node, dict):
        if node.get("Node Type") == "Seq Scan":
            yield node["Relation Name"]
        for part in node.values():
            yield from sequential(part)


async def test_a_webhooks_whole_way__reads_no_large_table_through(large: World) -> None:
    with recorded(large.ledger) as asked:
        intake = Intake(large.ledger, large.runs, now=now)
        arrivals = [large.arrival() for _ in range(3)]
        for each in (*arrivals, arrivals[0]):
            receipt = await intake.take(each)
            if receipt.dispatch_id:
                await intake.dispatch(each.deployment, receipt.dispatch_id)
        await intake.drain()
        ids = [a.id for a in arrivals]
        await large.enrol(*ids)
        await schedule(large.ledger, large.runs, ids, now(), lambda _: None)
        await large.send(run=uuid4())
    sent = [row.provider_id for row in await large.messages() if row.provider_id]
    with recorded(large.ledger) as later:
        reports = [(report("email.delivered", sent[0]), "{}"), (report("email.bounced", sent[1]), "{}")]
        await take_reports(large.ledger, reports, now())

    assert len(sent) == 3
    assert len(asked) > 20
    assert await scans(large.ledger, asked | later) == {}


async def test_the_keepers_round__reads_no_large_table_through(large: World) -> None:
    with recorded(large.ledger) as asked:
        await reconcile.reconcile(large.ledger, large.runs, load_campaigns([ROOT / "campaigns"]), now(), thorough=True)
        await reconcile.dispatch_waiting(large.ledger, large.runs, now())

    assert len(asked) > 5
    assert await scans(large.ledger, asked) == {}


async def test_a_look_at_what_is_wrong__reads_no_large_table_through(large: World) -> None:
    watch = Watch(large.ledger, CHRISTMAS, Limits(timedelta(minutes=5), 0.05, 0.001))
    with recorded(large.ledger) as asked:
        found = await watch.ledger(now())
        await watch.quota(NoPlan(), now())
        await note(large.ledger, found.findings, found.kinds, now())
        await Teller(large.ledger, None, "https://t.tidings.test").tell(now())

    assert len(asked) > 10
    assert any("generate_series" in statement for statement in asked)  # some source has a habit that was looked at
    assert await scans(large.ledger, asked) == {}


class NoPlan:
    async def allowances(self) -> list[Allowance]:
        return []


async def test_what_people_ask_for__reads_no_large_table_through(large: World) -> None:
    with recorded(large.ledger) as asked:
        async with large.ledger.reading() as connection:
            assert len(await mails.story(connection, "delivered+g17@resend.dev")) == 7
            assert len(await inbox.list_events(connection, source="christmas-signup", limit=50)) == 50
            assert len(await inbox.list_events(connection, state="handled", limit=50)) == 50
            assert await mirrored.waiting(connection, 100) == 0

    assert await scans(large.ledger, asked) == {}


async def test_what_has_no_run_yet__is_found_without_looking_at_what_has_one(large: World) -> None:
    with recorded(large.ledger) as asked:
        async with large.ledger.reading() as connection:
            assert await mails.unplanned_slots(connection, event_ids=None, due_after=now() - timedelta(days=1)) == []
    [(statement, values)] = asked.items()

    async with large.ledger.reading() as connection:
        plan = await connection.exec_driver_sql(f"EXPLAIN (ANALYZE) {statement}", tuple(values))
        said = "\n".join(plan.scalars())

    assert "ix_message_unplanned" in said
    assert "Rows Removed by Filter" not in said  # thousands wait, each with its run


async def test_a_missing_index__would_be_seen(large: World) -> None:
    """The check itself: without the index of what is due, a claim reads all messages."""
    with recorded(large.ledger) as asked:
        async with large.ledger.reading() as connection:
            await mails.count_due(connection, campaign="christmas", template="christmas_email_2", slot_until=now())
            await connection.exec_driver_sql("SELECT count(*) FROM message WHERE reason = 'x'")

    found = await scans(large.ledger, asked)

    assert list(found.values()) == [{"message"}]
    assert "reason = 'x'" in next(iter(found))
