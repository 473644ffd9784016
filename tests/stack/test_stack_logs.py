"""From a webhook's log line to its run, from the run to its mails, and back; and what the figures say of all that."""

from __future__ import annotations

import json
import re

import pytest
from live_parts import Json, Live, address, until
from live_sequences import signup
from prometheus_client.parser import text_string_to_metric_families

pytestmark = pytest.mark.stack


def lines(live: Live, process: str, *words: str) -> list[dict[str, str]]:
    """The fields of a process's log lines with these words in them."""
    log = live.stack.folder.log(process).read_text(encoding="utf-8")
    found = [line for line in log.splitlines() if all(word in line for word in words)]
    return [dict(re.findall(r"(\w+)=(\S+)", line)) for line in found]


async def told(live: Live, run_id: str, *words: str) -> list[str]:
    """What a run's own logs in Prefect say, with these words in it."""

    async def there() -> list[str] | None:
        logs: list[Json] = await live.prefect.all("logs", logs={"flow_run_id": {"any_": [run_id]}})
        return [log["message"] for log in logs if all(word in log["message"] for word in words)]

    return await until(f"{words} in the logs of run {run_id}", there)


async def test_ids__lead_from_the_webhook_to_its_mails_and_back(live: Live) -> None:
    email = address("joined")
    answer = await live.accepted("christmas-signup", signup(email))
    await live.mails(email, 7)
    messages = await live.ledger.messages(email)
    first, last = messages[0], messages[-1]
    event_id = answer["event_id"]

    [accepted] = lines(live, "web", "webhook.accepted", event_id)
    assert accepted["run_id"] == answer["flow_run_id"]
    assert accepted["campaign"] == "christmas"

    [enrolled] = lines(live, "worker", "event.enrolled", event_id)
    assert enrolled["run_id"] == accepted["run_id"]
    assert enrolled["enrolment_id"] == str(first["enrolment_id"])
    [sent] = lines(live, "worker", "message.sent", str(first["id"]))
    assert (sent["run_id"], sent["enrolment_id"]) == (accepted["run_id"], enrolled["enrolment_id"])
    assert sent["template"] == "christmas_email_1"

    assert await told(live, accepted["run_id"], "event.enrolled", event_id)
    assert await told(live, accepted["run_id"], "message.sent", str(first["id"]))
    [later] = lines(live, "worker", "message.sent", str(last["id"]))
    assert await told(live, later["run_id"], "message.sent", str(last["id"]))
    assert lines(live, "web", "resend.reported", str(last["id"]))
    for process in ("web", "worker"):
        assert email not in live.stack.folder.log(process).read_text(encoding="utf-8")


async def test_what_runs_do__is_in_the_figures_of_the_server(live: Live) -> None:
    email = address("figures")
    before = await figures(live)
    await live.accepted("christmas-signup", signup(email))
    await live.mails(email, 7)

    async def counted() -> dict[str, float] | None:
        now = await figures(live)
        grown = {name: value - before.get(name, 0.0) for name, value in now.items()}
        ended = sum(v for k, v in grown.items() if k.startswith("tidings_run_duration_seconds_count"))
        return grown if ended >= 7 and grown.get(DELIVERED, 0) >= 7 else None

    grown = await until("the ends of the runs in the figures", counted)

    assert grown['tidings_webhooks_total{"result": "accepted", "source": "christmas-signup", "status": "200"}'] == 1
    assert grown['tidings_webhook_duration_seconds_count{"source": "christmas-signup"}'] == 1
    for n in range(1, 8):
        name = f'tidings_messages_sent_total{{"campaign": "christmas", "template": "christmas_email_{n}"}}'
        assert grown[name] == 1
    handled = '{"deployment": "christmas-signup-handler", "result": "completed"}'
    assert grown[f"tidings_run_duration_seconds_count{handled}"] == 1
    assert 0 < grown[f"tidings_run_duration_seconds_sum{handled}"] < 60
    assert grown['tidings_provider_requests_total{"service": "Resend", "status": "200"}'] >= 1
    assert grown['tidings_provider_requests_total{"service": "Notion", "status": "200"}'] >= 1
    assert grown['tidings_provider_requests_total{"service": "Prefect", "status": "200"}'] >= 1
    assert (await figures(live))["tidings_provider_rate_limit{" + '"service": "Resend"}'] > 0


DELIVERED = 'tidings_outcomes_total{"campaign": "christmas", "kind": "delivered"}'


async def figures(live: Live) -> dict[str, float]:
    answer = await live.http.get(f"{live.web}/metrics")
    assert answer.status_code == 200, answer.text
    return {
        sample.name + (json.dumps(sample.labels, sort_keys=True) if sample.labels else ""): sample.value
        for family in text_string_to_metric_families(answer.text)
        for sample in family.samples
    }


async def test_in_production__every_line_of_the_server_is_json(live: Live) -> None:
    async with live.web_server(LOG_JSON="true") as url:
        answer = await live.accepted("christmas-signup", signup(address("json")), web=url)
        assert (await live.http.get(f"{url}/nowhere")).status_code == 404
        log = live.stack.folder.log(f"web-{url.rpartition(':')[2]}")
        said = [json.loads(line) for line in log.read_text(encoding="utf-8").splitlines() if line.startswith("{")]

    [accepted] = [line for line in said if line["event"] == "webhook.accepted"]
    assert accepted["event_id"] == answer["event_id"]
    assert accepted["run_id"] == answer["flow_run_id"]
    plain = [line for line in log.read_text(encoding="utf-8").splitlines() if not line.startswith("{")]
    assert [
        line for line in plain if "Started server process" not in line and "Waiting for application" not in line
    ] == []
