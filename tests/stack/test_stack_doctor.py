"""`tidings doctor` and the canary on the running stack: what is broken is named, with its cure."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator

import pytest
from live_notion import CONTACTS, ENROLMENTS, NotionDesk
from live_parts import Json, Live, until

pytestmark = pytest.mark.stack

CHECKS = {
    "settings", "ledger", "clock", "prefect", "deployments", "worker", "notion", "templates", "resend",
    "resend-webhook", "public-url", "cors", "secrets", "subscriptions", "prefect-closed", "alerts",
}  # fmt: skip


async def examined(live: Live, *, fails: bool) -> dict[str, Json]:
    """What the doctor says, by check."""
    said = await live.cli("doctor", "--json", fails=fails)
    found = json.loads(said[said.index("{") :])
    assert found["ok"] is not fails
    checks: dict[str, Json] = found["checks"]
    return checks


async def wrong(live: Live) -> dict[str, str]:
    """What it finds broken, and nothing else."""
    found = await examined(live, fails=True)
    return {name: check["text"] for name, check in found.items() if check["state"] == "wrong"}


async def test_a_stack_that_is_well__is_well_in_every_part(live: Live) -> None:
    found = await examined(live, fails=False)

    assert {name: check for name, check in found.items() if check["state"] != "ok"} == {}
    assert set(found) == CHECKS
    assert "Prefect 3.8.8" in found["worker"]["text"]
    assert "5 databases" in found["notion"]["text"]


async def test_for_people__each_part_is_a_line(live: Live) -> None:
    said = await live.cli("doctor")

    lines = [line for line in said.splitlines() if line.startswith("✓ ")]
    assert {line.split()[1].rstrip(":") for line in lines} == CHECKS
    assert "16 ok, 0 wrong, 0 unknown" in said


async def test_f10_a_renamed_property__is_named(live: Live, desk: NotionDesk) -> None:
    await desk.rename_property(CONTACTS, "Segment", "Section")
    await desk.rename_property(ENROLMENTS, "Email 3 Sent", "Mail 3")

    found = await wrong(live)

    assert set(found) == {"notion"}
    assert "NOTION_CONTACTS_DB_ID has no property 'Segment'" in found["notion"]
    assert "NOTION_EMAIL_SEQUENCE_DB_ID has no property 'Email 3 Sent'" in found["notion"]


async def test_f2_an_empty_template__is_named(live: Live, desk: NotionDesk) -> None:
    await desk.write("tidings_canary", body="")

    found = await wrong(live)

    assert set(found) == {"templates"}
    assert "'tidings_canary' has an empty" in found["templates"]


@pytest.fixture
async def deployed_again(live: Live) -> AsyncIterator[None]:
    yield
    await live.cli("deploy")


@pytest.mark.usefixtures("deployed_again")
async def test_f4_f8_deployments_that_do_not_fit__are_named(live: Live) -> None:
    gone = await live.prefect.deployment("christmas-precall-handler")
    other = await live.prefect.deployment("christmas-send-email")
    assert gone is not None
    assert other is not None
    await live.prefect.delete(f"/deployments/{gone['id']}")
    schema = other["parameter_openapi_schema"]
    changed = {**schema, "required": ["template"]}
    await live.prefect.patch(f"/deployments/{other['id']}", {"parameter_openapi_schema": changed})

    found = await wrong(live)

    assert set(found) == {"deployments"}
    assert "deployment 'christmas-precall-handler' is missing in Prefect; run: tidings deploy" in found["deployments"]
    assert "deployment 'christmas-send-email' has other parameters than the code" in found["deployments"]


async def test_f6_f8_a_worker_with_other_code__is_named(live: Live) -> None:
    rows = await live.ledger.rows("SELECT key, value FROM memo WHERE key LIKE 'worker:%'")
    older = [{**json.loads(row["value"]), "python": "3.12.1", "flows": {}, "source": "older"} for row in rows]
    for row, code in zip(rows, older, strict=True):
        await live.ledger.rows("UPDATE memo SET value = $2 WHERE key = $1", row["key"], json.dumps(code))
    try:
        found = await wrong(live)
    finally:
        for row in rows:
            await live.ledger.rows("UPDATE memo SET value = $2 WHERE key = $1", row["key"], row["value"])

    assert set(found) == {"worker"}
    assert "Python 3.12.1 where here is 3.1" in found["worker"]
    assert "other parameters of canary-handler, " in found["worker"]
    assert "restart it" in found["worker"]


async def test_f6_a_dead_worker__is_noticed(live: Live) -> None:
    live.stack.kill("worker")
    pool = f"{live.prefect.api}/work_pools/tidings/workers"
    for worker in await live.prefect.post("/work_pools/tidings/workers/filter", {}):
        await live.prefect.http.delete(f"{pool}/{worker['name']}")  # what Prefect's forgetting takes 95 s for
    try:
        found = await wrong(live)
    finally:
        await live.stack.restart("worker")

    assert set(found) == {"worker"}
    assert found["worker"] == "no worker is polling the work pool 'tidings'; start one: tidings worker"


async def test_f11_an_unverified_domain__is_named_with_its_records(live: Live) -> None:
    await live.sandbox.change(domains={"tidings.test": "pending"})

    found = await wrong(live)

    assert set(found) == {"resend"}
    assert "SPF (TXT send: pending)" in found["resend"]


async def test_f21_with_the_ledger_and_prefect_away__the_rest_is_still_told(live: Live) -> None:
    live.stack.kill("postgres")
    try:
        found = await examined(live, fails=True)
    finally:
        await live.stack.restart("postgres")

    states = {name: check["state"] for name, check in found.items()}
    assert set(states) == CHECKS
    assert (states["ledger"], states["deployments"]) == ("wrong", "wrong")
    assert (states["resend"], states["resend-webhook"], states["clock"]) == ("ok", "ok", "ok")
    assert "another Tidings" not in found["public-url"]["text"]
    await live.stack.restart("prefect")


# -- the canary ----------------------------------------------------------------------------------------------


async def test_a_canary__goes_through_the_whole_chain(live: Live) -> None:
    said = await live.cli("canary")

    stations = [line.split(" after ")[0] for line in said.splitlines() if line.startswith("✓ ")]
    assert stations == [
        "✓ webhook accepted", "✓ handled by Prefect", "✓ sent by Resend", "✓ delivered", "✓ back",
    ]  # fmt: skip
    assert "the whole chain works" in said


async def test_the_canary_of_the_schedule__is_back_without_anybody_waiting(live: Live) -> None:
    run = await live.prefect.quick_run("tidings-canary")
    assert run["state_type"] == "COMPLETED", run["state"]["message"]
    assert run["total_run_time"] < 30

    async def back() -> Json | None:
        rows = await live.ledger.rows("SELECT * FROM canary ORDER BY started_at DESC LIMIT 1")
        return rows[0] if rows and rows[0]["returned_at"] else None

    row = await until("the canary to be back", back)
    assert row["problem"] is None


async def test_a_canary_whose_delivery_is_not_reported__is_lost_at_that_station(live: Live) -> None:
    await live.sandbox.change(webhook_drop=1.0)

    said = await live.cli("canary", "--wait", "6", fails=True)

    assert "✓ sent by Resend" in said
    assert "✓ delivered" not in said
    assert "reported no delivery: is the webhook at Resend registered and enabled?" in " ".join(said.split())


async def test_a_canary_without_its_template__fails_its_run_and_says_why(live: Live, desk: NotionDesk) -> None:
    await desk.write("tidings_canary", name="tidings_canary of last year")

    said = await live.cli("canary", "--wait", "30", fails=True)

    assert "its handler run failed: Template 'tidings_canary' is missing" in " ".join(said.split())
