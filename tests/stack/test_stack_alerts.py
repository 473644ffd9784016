"""Alerts on a running stack of their own: who notices a failure, what people read of it, and of its end."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Iterator

import pytest
import pytest_asyncio
from live_notion import NotionDesk
from live_parts import Json, Live, in_time, until
from live_sequences import noshow, signup

from tidings.drill.receiver import Receiver, Told
from tidings.local.config import StackConfig
from tidings.local.stack import Stack

pytestmark = pytest.mark.stack

#: Twenty times as often as otherwise; a mail is late after six seconds.
WATCH = {"WATCH_SECONDS": "1", "LATE_AFTER_MINUTES": "0.1", "CANARY_HOURS": "0"}


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def receiver() -> AsyncIterator[Receiver]:
    with Receiver() as receiver:
        yield receiver


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def watched(receiver: Receiver, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Live]:
    config = StackConfig.apart(
        tmp_path_factory.mktemp("alerts") / "data",
        testing=True,
        testing_minute=1.0,
        sandbox_options={"notion-rate": "0"},
        env={"NOTION_REQUESTS_PER_SECOND": "1000", "ALERT_URLS": f"{receiver.url}/secret-of-the-team", **WATCH},
    )
    async with Stack(config) as stack, Live.of(stack) as live:
        yield live


@pytest.fixture
def told(receiver: Receiver) -> Iterator[Receiver]:
    """What is told from here on."""
    receiver.told.clear()
    yield receiver


async def message(told: Receiver, title: str, *, within: float = 60, also: str = "") -> Told:
    """The first message whose title begins so."""

    async def there() -> Told | None:
        return next((m for m in list(told.told) if m.title.startswith(f"Tidings: {title}") and also in m.message), None)

    try:
        return await until(f"the message {title!r}", there, within=within)
    except AssertionError as error:
        raise AssertionError(f"{error}; told: {told.titles()}") from None


async def test_a_stack_that_starts_and_works__tells_nothing(watched: Live, told: Receiver) -> None:
    email = "delivered+quiet@resend.dev"
    await watched.accepted("calendly-noshow", noshow(email))
    await watched.mails(email, 3)
    await asyncio.sleep(10)

    assert told.titles() == []
    assert (await watched.ready())[1] == {}


async def test_a_template_broken_in_notion__is_told_and_its_mending_too(watched: Live, told: Receiver) -> None:
    began = time.monotonic()
    async with NotionDesk.of(watched) as desk:
        await desk.write("noshow_recovery_email_3", body="<p>Your score: {{ Score9 }}</p>")
        alert = await message(told, "Templates in Notion cannot be sent")
        seconds = time.monotonic() - began
    over = await message(told, "over: Templates in Notion cannot be sent")

    assert seconds < in_time(30)  # checks are asked every 3 s here, every 60 s otherwise
    for words in ("noshow_recovery_email_3", "'Score9' is undefined", "Mend it in Notion", "tidings doctor"):
        assert words in alert.message
    assert (alert.type, over.type) == ("failure", "success")
    assert told.titles("failure") == [alert.title]


async def test_a_critical_signup__is_told_by_its_event_and_without_its_address(watched: Live, told: Receiver) -> None:
    answer = await watched.accepted("christmas-signup", signup("delivered+lead@resend.dev", red_systems=3))

    lead = await message(told, "A CRITICAL contact has come in by christmas-signup")

    assert lead.type == "info"
    assert str(answer["event_id"]) in lead.message
    assert "delivered+lead" not in lead.message
    said = await watched.cli("alerts", "--all")
    assert f"hot-lead:{answer['event_id']}" in said
    assert "0 alerts are open" in await watched.cli("alerts")


async def test_mails_that_resend_does_not_take__are_late_until_they_are_gone(watched: Live, told: Receiver) -> None:
    email = "delivered+late@resend.dev"
    await watched.sandbox.fault("status", status=500, service="resend", path="^/emails", times=None)
    await watched.accepted("calendly-noshow", noshow(email))

    alert = await message(told, "1 mail of noshow_recovery_email_1 is late")
    await watched.sandbox.mend()
    await watched.mails(email, 3, within=120)
    await message(told, "over: ", also="noshow_recovery_email_1 is late")

    assert "tidings doctor" in alert.message


async def test_prefect_away__is_told_by_the_web_server(watched: Live, told: Receiver) -> None:
    watched.stack.kill("prefect")
    alert = await message(told, "Prefect does not answer")
    await watched.stack.restart("prefect")
    await message(told, "over: Prefect does not answer")

    assert "Webhooks are still taken in" in alert.message
    assert not [title for title in told.titles("failure") if "deployments" in title]


async def test_a_ledger_that_takes_nothing__is_told_from_memory_once(watched: Live, told: Receiver) -> None:
    await watched.ledger.rows("ALTER SYSTEM SET default_transaction_read_only = on")
    await watched.ledger.rows("SELECT pg_reload_conf()")
    try:
        alert = await message(told, "the ledger (PostgreSQL) does not work")
        await asyncio.sleep(5)
    finally:
        await watched.ledger.rows("ALTER SYSTEM RESET default_transaction_read_only")
        await watched.ledger.rows("SELECT pg_reload_conf()")
    await message(told, "over: the ledger (PostgreSQL) does not work")

    assert "read-only" in alert.message
    assert told.titles("failure") == [alert.title]


async def test_a_web_server_that_is_gone__is_told_by_the_worker(watched: Live, told: Receiver) -> None:
    """Prefect misses its word, and starts a sweep at once."""
    watched.stack.kill("web")
    alert = await message(told, "Nobody reaches Tidings at")
    await watched.stack.restart("web")
    await watched.prefect.start("tidings-sweep")
    await message(told, "over: Nobody reaches Tidings at")

    assert watched.web in alert.title
    assert not [title for title in told.titles() if "nobody watches" in title]


async def test_when_neither_web_server_nor_worker_is_there__prefect_tells_itself(watched: Live, told: Receiver) -> None:
    watched.stack.kill("web")
    watched.stack.kill("worker")
    try:
        alert = await message(told, "nobody watches", within=120)
    finally:
        await watched.stack.restart("worker")
        await watched.stack.restart("web")

    assert "Start both" in alert.message
    assert alert.type == "failure"


async def automations(live: Live) -> dict[str, Json]:
    return {each["name"]: each for each in await live.prefect.all("automations")}


async def blocks(live: Live) -> list[str]:
    found = await live.prefect.all("block_documents", block_types={"slug": {"any_": ["slack-webhook"]}})
    return sorted(each["name"] for each in found)


async def test_automations__are_made_once_and_deleted_when_nobody_is_to_be_told(watched: Live) -> None:
    before = await automations(watched)

    await watched.cli("deploy")
    again = await automations(watched)
    await watched.cli("deploy", ALERT_URLS="")
    without = await automations(watched), await blocks(watched)
    said = await watched.cli("deploy")

    assert set(before) == {
        f"tidings: {what}" for what in ("watch from the worker", "nobody watches", "looking after fails")
    }
    assert {name: each["id"] for name, each in again.items()} == {name: each["id"] for name, each in before.items()}
    assert without == ({}, [])
    assert "deployed tidings: nobody watches" in said
    assert await blocks(watched) == ["tidings-alerts-1"]


async def test_three_runs_of_what_looks_after_things_that_fail__are_told_by_prefect(
    watched: Live, told: Receiver
) -> None:
    there = await watched.prefect.deployment("tidings-notion-mirror")
    assert there is not None
    for _ in range(3):
        body = {"state": {"type": "SCHEDULED", "state_details": {"scheduled_time": "2100-01-01T00:00:00Z"}}}
        run = (await watched.prefect.post(f"/deployments/{there['id']}/create_flow_run", body))["id"]
        state = {"type": "FAILED", "name": "Failed", "message": "Notion is away."}
        await watched.prefect.post(f"/flow_runs/{run}/set_state", {"state": state, "force": True})

    alert = await message(told, "tidings-notion-mirror fails again and again")

    assert "Notion is away." in alert.message


async def test_a_test_message__says_what_each_channel_said(watched: Live, told: Receiver) -> None:
    said = await watched.cli("alerts", "test")
    assert "address 1 of ALERT_URLS (json): took it" in said
    assert told.titles() == ["Tidings: a test"]

    told.refuses = True
    try:
        said = await watched.cli("alerts", "test", fails=True)
    finally:
        told.refuses = False
    assert "address 1 of ALERT_URLS (json): Failed to send JSON" in said
    assert "503" in said
    assert "secret-of-the-team" not in said
    await until("the check's word", lambda: _says(watched, "did not reach everybody"))
    await watched.cli("alerts", "test")


async def _says(live: Live, words: str) -> bool | None:
    return words in (await live.ready())[1].get("alerts", "") or None


async def test_a_wrong_address__keeps_everything_from_starting_and_is_named(watched: Live) -> None:
    wrong = {"ALERT_URLS": "json://127.0.0.1, nonsense://secret-of-the-team"}

    said = await watched.cli("deploy", fails=True, **wrong)
    with pytest.raises(Exception, match="web"):
        async with watched.web_server(**wrong):
            pass

    assert "address 2 of ALERT_URLS (nonsense)" in said
    assert "secret-of-the-team" not in said
