"""Is it well? Each check on the real application, ledger and sandbox; Prefect is away."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass, replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest
from pydantic import SecretStr
from sandbox_process import Sandbox
from sqlalchemy import text
from web_client import ORIGIN, SECRET, Web
from worlds import make_templates, now

from tidings.accept import Intake
from tidings.adapters import public
from tidings.adapters.notion import BODY, SUBJECT, TITLE, Notion
from tidings.adapters.prefect_api import PrefectApi
from tidings.code import Code, of_this_process
from tidings.doctor import engine, senders, store
from tidings.doctor.check import Check, State, Word, wrong
from tidings.doctor.run import examine
from tidings.errors import LedgerUnavailable, Refused, RetryLater
from tidings.instance import LEDGER_ID
from tidings.ledger import Ledger
from tidings.ledger.memory import Memory
from tidings.model import Scheme
from tidings.readiness import CHECKS, all_checks
from tidings.settings import ROOT, PrefectAccess
from tidings.settings import SECRETS as SECRETS_OF
from tidings.web.health import Instance, Readiness

#: Where the application's settings say that it is.
OURS = "https://t.tidings.test/webhook/resend"
Ask = Callable[..., Awaitable[Word]]


@pytest.fixture
def ask(web: Web) -> Ask:
    """One check's word, with settings changed for it."""

    async def ask(name: str, **settings: Any) -> Word:
        parts = web.app.state.parts
        changed = replace(parts, settings=parts.settings.model_copy(update=settings))
        return await next(c for c in all_checks() if c.name == name).word(changed, now())

    return ask


@pytest.fixture
def in_the_world(web: Web, monkeypatch: pytest.MonkeyPatch) -> list[httpx.Request]:
    """The application answers at its public address; returns what it was asked there."""
    asked: list[httpx.Request] = []
    inside = httpx.ASGITransport(app=web.app, raise_app_exceptions=False)

    class World(httpx.AsyncBaseTransport):
        async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
            asked.append(request)
            return await inside.handle_async_request(request)

    made = public.PublicSide.__init__
    monkeypatch.setattr(public.PublicSide, "__init__", lambda self, url: made(self, url, World()))
    web.app.state.instance = Instance(web.app.state.parts)  # the ledger's id was deleted with everything else
    return asked


# -- health --------------------------------------------------------------------------------------------------


async def test_health__says_that_the_process_lives_and_which_tidings_it_is(web: Web) -> None:
    web.app.state.instance = Instance(web.app.state.parts)

    answers = [await web.http.get("/health") for _ in range(2)]

    assert [a.status_code for a in answers] == [200, 200]
    assert answers[0].json()["status"] == "ok"
    assert answers[0].json()["instance"] == answers[1].json()["instance"]
    assert len(answers[0].json()["instance"]) == 16


async def test_health__lives_while_the_ledger_is_away(web: Web, monkeypatch: pytest.MonkeyPatch) -> None:
    async def away(*_: object) -> str:
        raise LedgerUnavailable("PostgreSQL did not answer")

    monkeypatch.setattr("tidings.web.health.instance_of", away)
    web.app.state.instance = Instance(web.app.state.parts)

    answer = await web.http.get("/health")

    assert (answer.status_code, answer.json()) == (200, {"status": "ok", "instance": None})


async def test_f21_readiness__names_each_part_that_does_not_work(web: Web) -> None:
    answer = await web.http.get("/health/ready")

    checks = answer.json()["checks"]
    assert (answer.status_code, answer.json()["ready"]) == (503, False)
    assert checks["ledger"] == "ok"
    assert checks["clock"] == "ok"
    assert checks["resend"] == "ok"
    assert "Prefect" in checks["prefect"]
    assert "does not exist or is not shared" in checks["templates"]
    assert list(checks) == [check.name for check in CHECKS]


@pytest.fixture
def first_look(web: Web) -> Iterator[None]:
    """A server that has looked at nothing yet; whoever watches keeps what it knows."""
    before = web.app.state.readiness
    web.app.state.readiness = Readiness(web.app.state.parts)
    yield
    web.app.state.readiness = before


@pytest.mark.usefixtures("first_look")
async def test_readiness__does_not_take_the_unknown_for_broken(web: Web, monkeypatch: pytest.MonkeyPatch) -> None:
    async def cannot_tell(*_: object) -> Word:
        return Word(State.UNKNOWN, "the key may only send")

    monkeypatch.setattr("tidings.web.health.CHECKS", (Check("resend", cannot_tell, 5.0),))

    answer = await web.http.get("/health/ready")

    assert (answer.status_code, answer.json()["checks"]) == (200, {"resend": "unknown: the key may only send"})


@pytest.mark.usefixtures("first_look")
async def test_a_check_that_breaks__is_wrong_and_hides_no_other(web: Web, monkeypatch: pytest.MonkeyPatch) -> None:
    async def breaks(*_: object) -> Word:
        raise KeyError("nobody foresaw this")

    async def works(*_: object) -> Word:
        return Word(State.OK, "")

    monkeypatch.setattr("tidings.web.health.CHECKS", (Check("resend", breaks, 5.0), Check("clock", works, 5.0)))

    answer = await web.http.get("/health/ready")

    assert answer.status_code == 503
    assert answer.json()["checks"]["clock"] == "ok"
    assert "the check itself broke: KeyError" in answer.json()["checks"]["resend"]


# -- F1: the public address ----------------------------------------------------------------------------------


async def test_f1_an_address_that_nobody_answers_at__is_wrong(ask: Ask) -> None:
    word = await ask("public-url", public_url="http://127.0.0.1:9")

    assert word.state is State.WRONG
    assert "http://127.0.0.1:9/health cannot be reached" in word.text
    assert "DNS name" in word.text


async def test_f1_our_own_address__is_known_by_its_instance(ask: Ask, in_the_world: list[httpx.Request]) -> None:
    assert (await ask("public-url")).state is State.OK


@pytest.mark.parametrize("difference", ["secret", "ledger"])
async def test_f1_another_tidings_at_our_address__is_noticed(
    web: Web, ask: Ask, in_the_world: list[httpx.Request], difference: str
) -> None:
    settings = {"secret_key": SecretStr("another-secret-key-than-theirs")} if difference == "secret" else {}
    await web.http.get("/health")
    if difference == "ledger":
        async with web.ledger.transaction() as connection:
            await connection.execute(text("UPDATE memo SET value = 'another' WHERE key = :k"), {"k": LEDGER_ID})

    word = await ask("public-url", **settings)

    assert word.state is State.WRONG
    assert "another Tidings answers at https://t.tidings.test" in word.text


async def test_f1_another_site_at_our_address__is_noticed(ask: Ask, box: Sandbox) -> None:
    word = await ask("public-url", public_url=f"{box.url}/control")

    assert word.state is State.WRONG
    assert "/control/health answers 200, and not as Tidings does" in word.text


@pytest.mark.parametrize("url", ["http://mail.busos.test", "https://127.0.0.1:8000"])
async def test_f1_an_address_that_the_world_cannot_use__is_wrong_in_production(ask: Ask, url: str) -> None:
    word = await ask("public-url", public_url=url, resend_api_url="https://api.resend.com")

    assert word.state is State.WRONG
    assert "nobody else reaches safely" in word.text


# -- F20: CORS, and Prefect's API ----------------------------------------------------------------------------


async def test_f20_the_websites_of_the_settings__may_post(ask: Ask, in_the_world: list[httpx.Request]) -> None:
    word = await ask("cors")

    assert word == Word(State.OK, f"{ORIGIN}, https://other.busos.test")
    assert {r.url.path for r in in_the_world if r.method == "OPTIONS"} == {"/webhook/christmas-signup"}


async def test_f20_a_website_that_the_server_does_not_know__is_told(
    ask: Ask, in_the_world: list[httpx.Request]
) -> None:
    word = await ask("cors", cors_origins=f"{ORIGIN}, https://new.busos.test")

    assert word.state is State.WRONG
    assert "a page of https://new.busos.test may not post" in word.text
    assert ORIGIN not in word.text


async def test_f20_no_website_at_all__is_said(ask: Ask) -> None:
    word = await ask("cors", cors_origins="")

    assert word.state is State.UNKNOWN
    assert "CORS_ORIGINS is empty" in word.text


async def test_f20_prefect_at_our_public_address__is_told(
    ask: Ask, in_the_world: list[httpx.Request], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert (await ask("prefect-closed")).state is State.OK

    async def version(self: public.PublicSide, path: str) -> public.Answer:
        assert path == "/api/admin/version"
        return public.Answer(200, "3.8.8", {})

    monkeypatch.setattr(public.PublicSide, "get", version)
    word = await ask("prefect-closed")

    assert word.state is State.WRONG
    assert "https://t.tidings.test/api/ is Prefect's API, open to the world" in word.text


@pytest.mark.parametrize(
    ("url", "told"),
    [("http://1.1.1.1:4200/api", True), ("https://1.1.1.1/api", False), ("http://10.0.0.7:4200/api", False)],
)
async def test_f20_a_password_that_crosses_the_internet_in_the_clear__is_told(
    ask: Ask, in_the_world: list[httpx.Request], url: str, told: bool
) -> None:
    word = await ask("prefect-closed", prefect_api_url=url)

    assert (word.state is State.WRONG) is told
    assert ("in the clear" in word.text) is told


@pytest.mark.parametrize(
    ("resend", "prefect", "told"),
    [
        ("https://api.resend.com", "http://prefect:4200/api", True),
        ("https://api.resend.com", "http://127.0.0.1:4200/api", False),
        ("http://localhost:8025", "http://prefect:4200/api", False),
    ],
)
async def test_f20_a_prefect_that_lets_anyone_in__is_not_ready(
    web: Web, ask: Ask, monkeypatch: pytest.MonkeyPatch, resend: str, prefect: str, told: bool
) -> None:
    async def answers(*_: object) -> bool:
        return True

    monkeypatch.setattr(engine, "lets_anyone_in", answers)
    monkeypatch.setattr(type(web.app.state.parts.runs), "ping", answers)

    word = await ask("prefect", resend_api_url=resend, prefect_api_url=prefect)

    assert (word.state is State.WRONG) is told
    assert ("lets anyone in without a password" in word.text) is told


# -- F6, F8: the worker's code -------------------------------------------------------------------------------

HERE = Code("3.11.7", {"prefect": "3.8.8", "httpx": "0.28.1"}, "abc", {"signup": "1", "noshow": "2"})


@pytest.mark.parametrize(
    ("other", "told"),
    [
        (HERE, []),
        (replace(HERE, python="3.11.9"), []),
        (replace(HERE, python="3.12.1"), ["Python 3.12.1 where here is 3.11.7"]),
        (replace(HERE, packages={"prefect": "3.9.0"}), ["prefect 3.9.0 where here", "httpx not installed where here"]),
        (replace(HERE, flows={"signup": "9", "noshow": "2"}, source="x"), ["other parameters of signup"]),
        (replace(HERE, flows={"signup": "1"}, source="x"), ["other parameters of noshow"]),
        (replace(HERE, source="x"), ["other code (x) than here (abc)"]),
    ],
)
def test_f6_f8_what_a_worker_has_otherwise__is_told(other: Code, told: list[str]) -> None:
    found = Code.from_json(other.to_json()).differences(HERE)

    assert len(found) == len(told)
    assert all(what in said for what, said in zip(told, found, strict=True))


def test_a_process__knows_its_own_code() -> None:
    code = of_this_process({"signup": "1"})

    assert code.packages["prefect"] == "3.8.8"
    assert code.differences(of_this_process({"signup": "1"})) == []


# -- clocks --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("seconds", "told"), [(0, None), (-45, None), (90, "ahead of"), (-90, "behind")])
async def test_a_clock_that_signatures_would_not_survive__is_told(
    ask: Ask, monkeypatch: pytest.MonkeyPatch, seconds: int, told: str | None
) -> None:
    monkeypatch.setattr(store, "utc_now", lambda: now() + timedelta(seconds=seconds))

    word = await ask("clock")

    assert (word.state is State.WRONG) is (told is not None)
    if told:
        assert all(f" s {told} that of {who}" in word.text for who in ("the ledger", "Notion", "Resend"))


async def test_clocks__are_compared_with_whoever_answers(ask: Ask) -> None:
    word = await ask("clock", notion_api_url="http://127.0.0.1:9")

    assert word.state is State.OK
    assert "Resend" in word.text
    assert "Notion" not in word.text


# -- F10: properties ----------------------------------------------------------------------------------------

RICH: dict[str, Any] = {"rich_text": {}}


@pytest.mark.parametrize(
    ("properties", "told"),
    [
        ({TITLE: {"title": {}}, SUBJECT: RICH, BODY: RICH}, None),
        ({TITLE: {"title": {}}, SUBJECT.lower(): RICH, BODY.upper(): RICH}, None),
        ({TITLE: {"title": {}}, "Subject": RICH, BODY: RICH}, f"has no property {SUBJECT!r}"),
        ({TITLE: {"title": {}}, SUBJECT: {"select": {"options": []}}, BODY: RICH}, "is of the kind 'select'"),
    ],
)
async def test_f10_properties__are_compared_with_what_the_code_needs(
    ask: Ask, notion: Notion, box: Sandbox, properties: dict[str, Any], told: str | None
) -> None:
    database = await make_templates(notion, box, {}, properties)
    others = ("notion_email_sequence_db_id", "notion_contacts_db_id", "notion_email_analytics_db_id")

    word = await ask(
        "notion",
        notion_templates_db_id=database,
        notion_customer_projects_db_id=None,
        **dict.fromkeys(others),
    )

    assert (word.state is State.WRONG) is (told is not None)
    assert (told or "1 databases") in word.text


# -- F11: Resend ---------------------------------------------------------------------------------------------


async def test_f11_a_verified_domain__is_told_with_its_records(ask: Ask) -> None:
    assert await ask("resend") == Word(State.OK, "tidings.test: DKIM, SPF")


async def test_f11_a_domain_that_is_not_verified__is_told_with_what_it_lacks(ask: Ask, box: Sandbox) -> None:
    box.set(domains={"tidings.test": "pending"})

    word = await ask("resend")

    assert word.state is State.WRONG
    assert "tidings.test of SENDER is 'pending'" in word.text
    assert "SPF (TXT send: pending)" in word.text
    assert "DKIM (TXT resend._domainkey: pending)" in word.text


async def test_f11_a_domain_that_is_not_there__is_told(ask: Ask) -> None:
    word = await ask("resend", sender="Clinic <hello@other.test>")

    assert "other.test of SENDER is not among its domains" in word.text


@pytest.mark.parametrize("name", ["resend", "resend-webhook"])
async def test_a_key_that_may_only_send__leaves_it_unknown(
    ask: Ask, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setattr("resend.api_key", "re_restricted_key")

    word = await ask(name)

    assert word.state is State.UNKNOWN
    assert "may only send" in word.text


@pytest.mark.parametrize(
    ("registered", "settings", "told"),
    [
        ({"webhook_url": OURS}, {}, None),
        ({}, {}, f"knows no webhook {OURS}"),
        ({"webhook_url": "https://elsewhere.test/webhook/resend"}, {}, f"knows no webhook {OURS}"),
        ({"webhook_url": OURS, "webhook_events": ["email.delivered"]}, {}, "email.bounced, email.complained"),
        ({"webhook_url": OURS}, {"resend_webhook_secret": SecretStr("whsec_b3RoZXI=")}, "is not the signing secret"),
        ({"webhook_url": OURS}, {"resend_webhook_secret": None}, "RESEND_WEBHOOK_SECRET is not set"),
    ],
)
async def test_the_webhook_at_resend__is_registered_for_us(
    ask: Ask, box: Sandbox, registered: dict[str, Any], settings: dict[str, Any], told: str | None
) -> None:
    box.set(webhook_secret=SECRET, **registered)

    word = await ask("resend-webhook", **settings)

    assert (word.state is State.WRONG) is (told is not None)
    assert (told or "registered and enabled") in word.text


async def test_a_webhook_that_resend_has_disabled__is_told(ask: Ask, box: Sandbox) -> None:
    box.set(webhook_secret=SECRET, webhook_url=OURS)
    key = {"authorization": "Bearer re_test"}
    (there,) = box.http.get(f"{box.url}/resend/webhooks", headers=key).json()["data"]
    box.http.patch(f"{box.url}/resend/webhooks/{there['id']}", json={"status": "disabled"}, headers=key)

    assert "is disabled at Resend" in (await ask("resend-webhook")).text


# -- refusals come with their cure ---------------------------------------------------------------------------


async def test_a_resend_key_that_is_not_valid__is_told_with_its_cure(ask: Ask, box: Sandbox) -> None:
    box.set(resend_tokens=["re_another"])

    word = await ask("resend")

    assert word.state is State.WRONG
    assert "403 invalid_api_key" in word.text
    assert "set RESEND_API_KEY" in word.text


async def test_a_notion_token_that_is_not_valid__is_told_with_its_cure(ask: Ask, box: Sandbox) -> None:
    box.set(notion_tokens=["ntn_another"])

    word = await ask("notion")

    assert word.state is State.WRONG
    assert "401 unauthorized" in word.text
    assert "set NOTION_TOKEN" in word.text


async def test_a_prefect_that_does_not_take_our_password__is_told_with_the_cure(
    web: Web, ask: Ask, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def refuses(*_: object) -> None:
        raise Refused("Prefect", "the API: 401 Unauthorized", status=401)

    monkeypatch.setattr(type(web.app.state.parts.runs), "ping", refuses)

    assert "set PREFECT_API_AUTH_STRING" in (await ask("prefect")).text


async def test_a_page_in_prefects_place__is_told_with_the_cure(
    web: Web, ask: Ask, monkeypatch: pytest.MonkeyPatch
) -> None:
    page = httpx.MockTransport(lambda _: httpx.Response(200, html="<html>Log in</html>"))
    monkeypatch.setattr(web.app.state.parts.runs, "api", PrefectApi(PrefectAccess.load(), transport=page))
    web.app.state.intake = Intake(web.ledger, web.app.state.parts.runs, now=now)

    words = {name: await ask(name) for name in ("prefect", "deployments", "worker")}
    answer = await web.post("/webhook/christmas-signup", {"email": "delivered+page@resend.dev", "consent": True})

    assert {word.state for word in words.values()} == {State.WRONG}
    assert all("check PREFECT_API_URL" in word.text for word in words.values())
    assert answer.status_code == 202
    assert answer.json()["flow_run_id"] is None


async def test_without_the_ledger__the_others_are_unknown_and_not_broken(web: Web, ask: Ask) -> None:
    parts = web.app.state.parts
    away = Ledger("postgresql+asyncpg://nobody@127.0.0.1:9/nothing")
    notion = Notion(token="ntn_test", api_url=parts.settings.notion_api_url, memory=Memory(away))
    alone = replace(parts, ledger=away, notion=notion)
    found = {f.name: f.word async for f in examine(alone, [c for c in all_checks() if c.name in {"ledger", "notion"}])}

    assert found["ledger"].state is State.WRONG
    assert "DATABASE_URL" in found["ledger"].text
    assert found["notion"].state is State.UNKNOWN
    assert "the ledger comes first" in found["notion"].text


# -- the examination -----------------------------------------------------------------------------------------


async def test_the_examination__asks_all_and_lets_none_hold_up_the_others(
    web: Web, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tidings.doctor.run.LIMIT_SECONDS", 0.3)
    asked = 0

    async def hangs(*_: object) -> Word:
        await asyncio.sleep(60)
        raise AssertionError

    async def is_busy(*_: object) -> Word:
        nonlocal asked
        asked += 1
        if asked == 1:
            raise RetryLater("Notion", "rate limited", status=429, retry_after=0.05)
        return wrong("the token is not valid")

    checks = [Check("hangs", hangs, 5), Check("busy", is_busy, 5), next(c for c in CHECKS if c.name == "ledger")]
    found = {f.name: f.word async for f in examine(web.app.state.parts, checks)}

    assert found["hangs"] == wrong("no answer within 0.3 s")
    assert found["busy"] == wrong("the token is not valid")
    assert found["ledger"].state is State.OK


def test_settings_that_are_wrong__are_told_and_nothing_else_is_claimed(tmp_path: Path) -> None:
    given = {"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT), "POSTAL_ADDRESS": " ", "COLUMNS": "250"}

    done = subprocess.run(
        [sys.executable, "-m", "tidings", "doctor", "--json"], env=given, cwd=tmp_path, capture_output=True, text=True
    )

    found = json.loads(done.stdout)
    assert (done.returncode, found["ok"]) == (1, False)
    assert "POSTAL_ADDRESS must be the postal address of the business" in found["checks"]["settings"]["text"]
    assert "NOTION_TOKEN is missing" in found["checks"]["settings"]["text"]
    others = {name: check["state"] for name, check in found["checks"].items() if name != "settings"}
    assert others == dict.fromkeys((c.name for c in all_checks()), "unknown")


# -- senders -------------------------------------------------------------------------------------------------


@dataclass
class Subscribed:
    url: str
    active: bool = True
    events: frozenset[str] = frozenset({"invitee.created", "invitee.canceled", "invitee_no_show.created"})


CALENDLYS = "https://t.tidings.test/webhook/calendly-noshow"


@pytest.mark.parametrize(
    ("there", "told"),
    [
        ([Subscribed(CALENDLYS)], None),
        ([Subscribed(CALENDLYS, active=False), Subscribed(f"{CALENDLYS}/")], None),
        ([], f"calendly has no webhook subscription that posts to {CALENDLYS}"),
        ([Subscribed("https://other.test/x")], "has no webhook subscription that posts to"),
        ([Subscribed(CALENDLYS, active=False)], "has switched off the subscription"),
        ([Subscribed(CALENDLYS, events=frozenset({"invitee.created"}))], "invitee.canceled, invitee_no_show.created"),
    ],
)
async def test_f22_a_senders_subscription__is_there_and_switched_on(
    web: Web, there: list[Subscribed], told: str | None
) -> None:
    class Service:
        async def subscriptions(self) -> list[Subscribed]:
            return there

    proof = senders.subscriptions(lambda parts: {Scheme.CALENDLY: Service()})

    word = await proof(web.app.state.parts, now())

    assert (word.state is State.WRONG) is (told is not None)
    assert (told or "calendly") in word.text


async def test_f20_a_webhook_that_lets_nobody_in__is_told_in_production(ask: Ask) -> None:
    real = {"resend_api_url": "https://api.resend.com"}
    assert (await ask("secrets", **real)).state is State.OK

    none = dict.fromkeys(SECRETS_OF.values())
    word = await ask("secrets", **real, **none)

    assert word.state is State.WRONG
    assert "/webhook/postcall-maybe lets nobody in: set WEBHOOK_TOKENS or STANDARD_WEBHOOK_SECRETS" in word.text
    assert "christmas-signup" not in word.text
    assert (await ask("secrets", **none)).state is State.OK
