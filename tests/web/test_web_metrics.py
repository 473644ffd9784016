"""`/metrics` over HTTP: for whom it is, what a webhook leaves there; and dashboard and rules name what there is."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

import pytest
import yaml
from prometheus_client.parser import text_string_to_metric_families
from pydantic import SecretStr
from web_client import TOKEN, Web
from worlds import address

from tidings import counts
from tidings.metrics import Board
from tidings.settings import ROOT

SIGNUP = "/webhook/christmas-signup"
RULES = yaml.safe_load((ROOT / "deploy/prometheus/tidings.rules.yml").read_text(encoding="utf-8"))
SCRAPE = yaml.safe_load((ROOT / "deploy/prometheus/prometheus.yml").read_text(encoding="utf-8"))
DASHBOARD = json.loads((ROOT / "deploy/grafana/tidings.json").read_text(encoding="utf-8"))


@pytest.fixture(autouse=True)
def asked_for_the_first_time(web: Web) -> None:
    """Nothing counted before, and no page remembered."""
    counts.take()
    web.app.state.board = Board(web.ledger, web.app.state.parts.campaigns, late=web.app.state.board._late)


async def scraped(web: Web) -> str:
    answer = await web.http.get("/metrics")
    assert answer.status_code == 200, answer.text
    return answer.text


def webhooks(page: str) -> dict[tuple[str, str, str], float]:
    return {
        (s.labels["source"], s.labels["result"], s.labels["status"]): s.value
        for family in text_string_to_metric_families(page)
        for s in family.samples
        if s.name == "tidings_webhooks_total" and s.value
    }


# -- what is counted -----------------------------------------------------------------------------------------


async def test_every_answer_to_a_webhook__is_counted_by_what_became_of_it(web: Web) -> None:
    body = {"email": address(), "consent": True}
    await web.post(SIGNUP, body)
    await web.post(SIGNUP, body)
    await web.post(SIGNUP, {"email": address(), "consent": False})
    await web.post(SIGNUP, {"email": address(), "consent": True, "form_trap": "x"})
    await web.post(SIGNUP, {"email": "nobody"})
    await web.post("/webhook/postcall-maybe", {"email": address()}, token="wrong")
    await web.post("/webhook/resend", {})
    web.runs.away = True
    await web.post(SIGNUP, {"email": address(), "consent": True})

    page = await scraped(web)

    assert webhooks(page) == {
        ("christmas-signup", "accepted", "200"): 1,
        ("christmas-signup", "duplicate", "200"): 1,
        ("christmas-signup", "ignored", "200"): 1,
        ("christmas-signup", "blocked", "200"): 1,
        ("christmas-signup", "refused", "422"): 1,
        ("postcall-maybe", "refused", "401"): 1,
        ("resend", "refused", "401"): 1,
        ("christmas-signup", "accepted", "202"): 1,
    }
    assert 'tidings_webhook_duration_seconds_count{source="christmas-signup"} 6.0' in page


async def test_a_fault_of_ours__is_a_500_in_the_figures(web: Web, monkeypatch: pytest.MonkeyPatch) -> None:
    async def broken(*_: object) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr(web.app.state.intake, "take", broken)
    assert (await web.post(SIGNUP, {"email": address(), "consent": True})).status_code == 500

    assert webhooks(await scraped(web)) == {("christmas-signup", "refused", "500"): 1}


async def test_labels__hold_routes_and_never_what_somebody_asked_for(web: Web) -> None:
    for path in ("/api/contacts/somebody@your-domain.example", "/webhook/nothing", "/etc/passwd", f"/{'x' * 500}"):
        await web.http.get(path)
        await web.http.post(path)

    page = await scraped(web)

    routes = set(re.findall(r'tidings_http_requests_total{route="([^"]+)"', page))
    assert routes == {"/api/contacts/{email}", "none"}
    assert "somebody" not in page
    assert TOKEN not in page


# -- for whom it is ------------------------------------------------------------------------------------------


def set_up(web: Web, monkeypatch: pytest.MonkeyPatch, **settings: Any) -> None:
    parts = web.app.state.parts
    monkeypatch.setattr(parts, "settings", parts.settings.model_copy(update=settings))


REAL = {"resend_api_url": "https://api.resend.com"}


async def test_in_production_without_a_token__there_is_nothing(web: Web, monkeypatch: pytest.MonkeyPatch) -> None:
    set_up(web, monkeypatch, **REAL, metrics_token=None)

    answer = await web.http.get("/metrics")

    assert answer.status_code == 404
    assert answer.json() == {"detail": "METRICS_TOKEN is not set, so there are no figures here; set it and restart"}


@pytest.mark.parametrize("settings", [REAL, {}])
async def test_a_token__is_asked_for_wherever_it_is_set(
    web: Web, monkeypatch: pytest.MonkeyPatch, settings: dict[str, str]
) -> None:
    set_up(web, monkeypatch, **settings, metrics_token=SecretStr("figures-for-prometheus"))

    async def get(**headers: str) -> int:
        answer = await web.http.get("/metrics", headers=headers)
        assert "figures-for-prometheus" not in answer.text
        return answer.status_code

    assert await get() == 401
    assert await get(authorization="Bearer wrong") == 401
    assert await get(authorization=f"Bearer {TOKEN}") == 401
    assert await get(authorization="Bearer figures-for-prometheus") == 200


async def test_a_page__is_kept_by_nobody(web: Web) -> None:
    assert (await web.http.get("/metrics")).headers["cache-control"] == "no-store"


# -- dashboard and rules -------------------------------------------------------------------------------------


def expressions() -> Iterator[tuple[str, str]]:
    for group in RULES["groups"]:
        for rule in group["rules"]:
            yield f"rule {rule['alert']}", rule["expr"]
    for panel in DASHBOARD["panels"]:
        for target in panel["targets"]:
            yield f"panel {panel['title']}", target["expr"]


async def test_every_figure_that_dashboard_and_rules_name__is_on_a_real_page(web: Web) -> None:
    await web.post(SIGNUP, {"email": address(), "consent": True})
    samples: set[str] = set()
    labels: dict[str, set[str]] = {}
    for family in text_string_to_metric_families(await scraped(web)):
        ends = {"histogram": ("_bucket", "_sum", "_count"), "counter": ("_total",)}.get(family.type, ("",))
        samples |= {family.name + end for end in ends}
        for sample in family.samples:
            labels.setdefault(sample.name, set()).update(sample.labels)

    named = [(where, name) for where, expr in expressions() for name in re.findall(r"\btidings_\w+", expr)]

    assert len(named) > 50
    assert [(where, name) for where, name in named if name not in samples] == []
    for where, expr in expressions():
        for name, chosen in re.findall(r"\b(tidings_\w+){([^}]*)}", expr):
            asked = set(re.findall(r"(\w+)=~?", chosen))
            assert asked <= labels.get(name, asked), where


async def test_every_family_of_the_page__is_on_the_dashboard(web: Web) -> None:
    shown = " ".join(expr for where, expr in expressions() if where.startswith("panel"))

    for family in text_string_to_metric_families(await scraped(web)):
        assert family.name in shown, family.name


def test_an_expression__is_closed_wherever_it_is_opened() -> None:
    for where, expr in expressions():
        for opening, closing in ("()", "{}", "[]"):
            assert expr.count(opening) == expr.count(closing), where
        assert expr.count('"') % 2 == 0, where


def test_every_rule__has_a_severity_and_says_what_to_do() -> None:
    rules = [rule for group in RULES["groups"] for rule in group["rules"]]

    assert len({rule["alert"] for rule in rules}) == len(rules) == 15
    assert {rule["labels"]["severity"] for rule in rules} == {"critical", "warning"}
    assert all(len(rule["annotations"]["description"]) > 20 for rule in rules)


def test_the_scrape__reads_the_rules_and_shows_the_token() -> None:
    (job,) = SCRAPE["scrape_configs"]

    assert SCRAPE["rule_files"] == ["tidings.rules.yml"]
    assert job["job_name"] == "tidings"  # which the rules ask for
    assert "credentials_file" in job["authorization"]


def test_panels__do_not_cover_each_other() -> None:
    taken: set[tuple[int, int]] = set()
    for panel in DASHBOARD["panels"]:
        at = panel["gridPos"]
        cells = {(x, y) for x in range(at["x"], at["x"] + at["w"]) for y in range(at["y"], at["y"] + at["h"])}
        assert not cells & taken, panel["title"]
        assert at["x"] + at["w"] <= 24
        taken |= cells
