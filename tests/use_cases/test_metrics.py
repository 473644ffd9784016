"""Figures of the ledger: of all processes together, each thing counted once, and nothing of canaries."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta
from uuid import uuid4

import pytest
from prometheus_client.parser import text_string_to_metric_families
from sqlalchemy.ext.asyncio import AsyncConnection
from test_outcome import report
from test_query_plans import large, recorded, scans
from winter import CAMPAIGNS, HELLO, WINTER
from worlds import World, now

from tidings import counts
from tidings.alerts import Finding, note
from tidings.campaign import Campaigns
from tidings.errors import LedgerUnavailable
from tidings.ledger import Ledger
from tidings.ledger import metrics as ledger_metrics
from tidings.metrics import Board, write
from tidings.outcome import take_reports

__all__ = ["large"]

LATE = timedelta(minutes=5)


@pytest.fixture(autouse=True)
def nothing_counted_yet() -> Iterator[None]:
    """What other tests of this process have counted is none of these."""
    counts.take()
    yield
    counts.take()


async def page(world: World, campaigns: Campaigns = CAMPAIGNS) -> dict[str, float]:
    """The figures as somebody reads them who has never asked before; those that are 0 are left out."""
    said, kind = await Board(world.ledger, campaigns, late=LATE).text("")
    assert kind.startswith("text/plain")
    return {
        sample.name + (json.dumps(sample.labels, sort_keys=True) if sample.labels else ""): sample.value
        for family in text_string_to_metric_families(said.decode())
        for sample in family.samples
        if sample.value
    }


def key(name: str, **labels: str) -> str:
    return f"tidings_{name}{json.dumps(labels, sort_keys=True)}"


SENT = key("messages_sent_total", campaign="winter", template=HELLO[0])


async def test_what_was_sent_and_reported__is_counted(world: World) -> None:
    await world.enrolled(3)
    await world.send()
    ids = [str(row.provider_id) for row in await world.messages()]
    reports = [report("email.delivered", ids[0]), report("email.delivered", ids[1]), report("email.bounced", ids[2])]
    await take_reports(world.ledger, [(each, "{}") for each in [*reports, reports[0]]], now())

    found = await page(world)

    assert found[SENT] == 3
    assert found[key("outcomes_total", campaign="winter", kind="delivered")] == 2
    assert found[key("outcomes_total", campaign="winter", kind="bounced")] == 1
    assert not any("@" in name for name in found)


async def test_sums__hold_whatever_is_summed_up_meanwhile(world: World) -> None:
    """Everything is counted once, however often and whenever the sums are brought up."""
    await world.enrolled(5)
    await world.send()
    sums = []
    for minutes in (0, 3, 30, 30, 300, 300):
        await world.run_sql("UPDATE message SET sent_at = sent_at - make_interval(mins => :m)", m=minutes)
        await world.run_sql(
            "UPDATE memo SET value = (CAST(value AS timestamptz) - make_interval(mins => :m))::text WHERE key = :k",
            m=minutes,
            k=ledger_metrics.SUMMED,
        )
        sums.append((await page(world))[SENT])

    assert sums == [5] * 6
    kept = await world.rows("SELECT value FROM metric WHERE name = 'tidings_messages_sent_total'")
    assert [row.value for row in kept] == [5]


async def test_two_who_sum_up_at_once__count_nothing_twice(world: World) -> None:
    await world.enrolled(4)
    await world.send()
    await world.run_sql("UPDATE message SET sent_at = sent_at - interval '1 hour'")

    pages = await asyncio.gather(*[page(world) for _ in range(6)])

    assert {found[SENT] for found in [*pages, await page(world)]} == {4}


async def test_what_waits__is_told_with_its_age(world: World) -> None:
    await world.accept(world.arrival(at=now() - timedelta(minutes=7)))
    waiting = await page(world)
    assert waiting[key("events", source="winter-hello", state="accepted")] == 1
    assert 419 < waiting["tidings_inbox_oldest_age_seconds"] < 440

    await world.enrolled(2, ago=timedelta(minutes=10))
    await world.enrolled(1, ago=timedelta(minutes=1))
    due = await page(world)
    assert due[key("messages_due", campaign="winter", template=HELLO[0])] == 3
    assert due[key("messages_late", campaign="winter", template=HELLO[0])] == 2
    assert 599 < due["tidings_messages_overdue_seconds"] < 620

    await world.send()
    sent = await page(world)
    assert not [name for name in sent if name.startswith(("tidings_messages_due", "tidings_messages_late"))]
    assert "tidings_messages_overdue_seconds" not in sent


async def test_a_mail_that_a_run_holds__is_still_due(world: World) -> None:
    await world.enrolled(1, ago=timedelta(minutes=10))
    await world.run_sql("INSERT INTO claim (id, campaign, created_at, lease_until) VALUES (:i, 'winter', now(), now())",
                        i=(claim := uuid4()))  # fmt: skip
    await world.run_sql("UPDATE message SET state = 'sending', claim_id = :c WHERE template = :t", c=claim, t=HELLO[0])

    assert (await page(world))[key("messages_late", campaign="winter", template=HELLO[0])] == 1


async def test_what_waits_for_a_person__is_told(world: World) -> None:
    await world.enrolled()
    await world.run_sql("UPDATE message SET state = 'failed' WHERE template = :t", t=HELLO[0])
    await world.edit_template(HELLO[0], body=" ")
    broken = world.arrival()
    await world.accept(broken)
    await world.enrol(broken.id)

    found = await page(world)

    assert found[key("messages_failed", campaign="winter", template=HELLO[0], state="failed")] == 1
    assert found[key("events", source="winter-hello", state="failed")] == 1


async def test_open_alerts_and_the_canary__are_told(world: World) -> None:
    findings = [Finding("late-mail", "late", "", subject=name) for name in ("a", "b")]
    await note(world.ledger, [*findings, Finding("canary", "lost", "")], ["late-mail", "canary"], now())
    await note(world.ledger, [], ["canary"], now())
    assert "tidings_canary_ok" not in await page(world)
    start = now() - timedelta(hours=2)
    await world.run_sql(
        "INSERT INTO canary (id, started_at, returned_at) VALUES (:id, :at, :back)",
        id=uuid4(), at=start, back=start + timedelta(seconds=9),
    )  # fmt: skip
    found = await page(world)
    assert found[key("alerts_open", kind="late-mail")] == 2
    assert key("alerts_open", kind="canary") not in found
    assert (found["tidings_canary_ok"], found["tidings_canary_duration_seconds"]) == (1, 9)
    assert found["tidings_canary_last_start_timestamp_seconds"] == pytest.approx(start.timestamp(), abs=1)

    await world.run_sql("INSERT INTO canary (id, started_at, problem) VALUES (:id, now(), 'lost')", id=uuid4())
    lost = await page(world)
    assert "tidings_canary_ok" not in lost  # 0, which is left out here
    assert "tidings_canary_duration_seconds" not in lost
    assert lost["tidings_canary_last_return_timestamp_seconds"] == pytest.approx(start.timestamp() + 9, abs=1)


async def test_what_is_tidings_own__is_in_no_figure(world: World) -> None:
    await world.enrolled(2, ago=timedelta(minutes=10))
    await world.accept(world.arrival())
    await world.send()
    await world.run_sql("UPDATE message SET state = 'failed' WHERE template <> :t", t=HELLO[0])

    found = await page(world, Campaigns([replace(WINTER, internal=True)]))

    assert not [name for name in found if name.startswith(("tidings_messages", "tidings_events", "tidings_outcomes"))]
    assert "tidings_inbox_oldest_age_seconds" not in found
    assert SENT in await page(world)


async def test_what_has_not_happened_yet__is_a_zero(world: World) -> None:
    """To Prometheus, a figure that was not there before has not grown: the first failure would be seen by nobody."""
    said, _ = await Board(world.ledger, CAMPAIGNS, late=LATE).text("")

    lines = said.decode().splitlines()
    for line in (
        'tidings_webhooks_total{result="refused",source="winter-hello",status="500"} 0.0',
        'tidings_webhooks_total{result="refused",source="resend",status="503"} 0.0',
        'tidings_outcomes_total{campaign="winter",kind="bounced"} 0.0',
        f'tidings_messages_failed{{campaign="winter",state="failed",template="{HELLO[0]}"}} 0.0',
        'tidings_events{source="winter-hello",state="failed"} 0.0',
    ):
        assert line in lines


# -- what processes count ------------------------------------------------------------------------------------


async def test_what_processes_count__is_added_up(world: World) -> None:
    for _ in range(3):  # as three processes that each write what they have counted
        counts.webhook("winter-hello", "accepted", 200, 0.02)
        counts.call("Resend", 429, 0.3)
        counts.call("Notion", None, 20.0)
        counts.limits("Resend", {"ratelimit-limit": "5", "ratelimit-remaining": "4", "x-resend-monthly-quota": "77"})
        await write(world.ledger)
    counts.limits("Resend", {"ratelimit-remaining": "0", "ratelimit-limit": "nonsense"})

    found = await page(world)

    assert found[key("webhooks_total", source="winter-hello", result="accepted", status="200")] == 3
    assert found[key("webhook_duration_seconds_bucket", source="winter-hello", le="0.025")] == 3
    assert found[key("webhook_duration_seconds_sum", source="winter-hello")] == pytest.approx(0.06)
    assert found[key("provider_requests_total", service="Resend", status="429")] == 3
    assert found[key("provider_requests_total", service="Notion", status="none")] == 3
    assert found[key("provider_rate_limit", service="Resend")] == 5
    assert key("provider_rate_limit_remaining", service="Resend") not in found  # 0
    assert found[key("provider_quota_used", service="Resend", period="monthly")] == 77


async def test_a_histogram__has_all_its_buckets_from_its_beginning(world: World) -> None:
    counts.webhook("bucketed", "accepted", 200, 3.0)

    said, _ = await Board(world.ledger, CAMPAIGNS, late=LATE).text("")

    buckets = [
        line for line in said.decode().splitlines() if "duration_seconds_bucket{le=" in line and "bucketed" in line
    ]
    assert [float(line.rpartition(" ")[2]) for line in buckets] == [0.0] * 11 + [1.0] * 3


async def test_a_run__is_counted_by_how_it_ended(world: World) -> None:
    deployment = f"handler-{uuid4()}"
    with counts.run(deployment):
        await asyncio.sleep(0.01)
    with pytest.raises(LedgerUnavailable), counts.run(deployment):
        raise LedgerUnavailable("away")

    found = await page(world)

    assert found[key("run_duration_seconds_count", deployment=deployment, result="completed")] == 1
    assert found[key("run_duration_seconds_count", deployment=deployment, result="failed")] == 1
    assert found[key("run_duration_seconds_sum", deployment=deployment, result="completed")] >= 0.01


async def test_while_the_ledger_is_away__nothing_counted_is_lost(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    counts.request("/somewhere", 200)

    async def away(connection: AsyncConnection, added: object) -> None:
        raise LedgerUnavailable("PostgreSQL did not take it")

    with monkeypatch.context() as patch:
        patch.setattr(ledger_metrics, "add", away)
        with pytest.raises(LedgerUnavailable):
            await write(world.ledger)
        counts.request("/somewhere", 200)

    assert (await page(world))[key("http_requests_total", route="/somewhere", status="200")] == 2


async def test_without_a_ledger__the_page_says_so_and_nothing_else(world: World) -> None:
    nowhere = Ledger("postgresql+asyncpg://nobody@127.0.0.1:9/nothing")

    said, _ = await Board(nowhere, CAMPAIGNS, late=LATE).text("")

    lines = [line for line in said.decode().splitlines() if not line.startswith("#")]
    assert lines == ["tidings_ledger_up 0.0"]
    await nowhere.close()


async def test_many_who_read__ask_the_ledger_once(world: World) -> None:
    board = Board(world.ledger, CAMPAIGNS, late=LATE)
    await board.text("")
    with recorded(world.ledger) as asked:
        await asyncio.gather(*[board.text("") for _ in range(20)])

    assert asked == {}


async def test_openmetrics__is_spoken_to_who_asks_for_it(world: World) -> None:
    accept = "application/openmetrics-text;version=1.0.0"

    said, kind = await Board(world.ledger, CAMPAIGNS, late=LATE).text(accept)

    assert kind.startswith("application/openmetrics-text")
    assert said.endswith(b"# EOF\n")


async def test_the_page__reads_no_large_table_through(large: World) -> None:
    await page(large)  # the very first time, everything is summed up
    with recorded(large.ledger) as asked:
        began = time.perf_counter()
        await page(large)
        took = time.perf_counter() - began

    assert len(asked) > 8
    assert await scans(large.ledger, asked) == {}
    assert took < 1
