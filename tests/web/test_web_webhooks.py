"""The webhooks over HTTP: what is right is stored and answered, what is wrong is told, and nothing ever breaks."""

from __future__ import annotations

import asyncio
import json
import re
from base64 import b64encode
from hashlib import sha256
from types import SimpleNamespace
from typing import Any
from uuid import UUID

import httpx
import pytest
from jsonschema import Draft202012Validator
from web_client import ORIGIN, TOKEN, Web
from worlds import address, now

from tidings.accept import Intake
from tidings.campaign import load_campaigns
from tidings.ledger import Ledger
from tidings.settings import ROOT
from tidings.web.middleware import security_headers

CHRISTMAS = load_campaigns([ROOT / "campaigns"])["christmas"]
EXAMPLES = [(w.path, name) for w in CHRISTMAS.webhooks for name in w.examples]
PATHS = [w.path for w in CHRISTMAS.webhooks]
SIGNUP = "/webhook/christmas-signup"
NO_SHOW = "/webhook/calendly-noshow"
JSON = {"content-type": "application/json"}


def signup(**given: Any) -> dict[str, Any]:
    return {"email": address(), "consent": True, **given}


async def events(web: Web) -> list[Any]:
    return await web.rows("SELECT * FROM event")


# -- what is right -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("path", "example"), EXAMPLES)
async def test_every_documented_example__is_answered_with_its_run(web: Web, path: str, example: str) -> None:
    webhook = CHRISTMAS.webhook(path)

    answer = await web.post(f"/webhook/{path}", dict(webhook.examples[example]))

    (run,) = web.runs.handlers
    (event,) = await events(web)
    assert answer.status_code == 200, answer.text
    assert answer.json() == {
        "message": f"{webhook.noun} processed successfully",
        "event_id": str(event.id),
        "flow_run_id": str(run.id),
        "contact_created": True,
        "status_url": f"https://t.tidings.test/webhook/status/{event.id}",
    }
    assert (run.deployment, event.state, event.flow_run_id) == (webhook.deployment, "dispatched", run.id)


@pytest.mark.parametrize("path", PATHS)
async def test_prefect_away__is_a_202_and_the_event_is_kept(web: Web, path: str) -> None:
    web.runs.away = True

    answer = await web.post(f"/webhook/{path}", dict(next(iter(CHRISTMAS.webhook(path).examples.values()))))

    (event,) = await events(web)
    assert (answer.status_code, answer.json()["flow_run_id"]) == (202, None)
    assert (event.state, event.flow_run_id) == ("accepted", None)


async def test_prefect_itself_not_there__is_a_202_within_a_moment(web: Web) -> None:
    parts = web.app.state.parts
    web.app.state.intake = Intake(parts.ledger, parts.runs, now=now)

    answer = await asyncio.wait_for(web.post(SIGNUP, signup()), 8)

    assert (answer.status_code, answer.json()["flow_run_id"]) == (202, None)
    assert answer.json()["contact_created"] is True


async def test_f15_a_repeat__answers_the_same_with_duplicate_and_starts_nothing(web: Web) -> None:
    body = signup(name="Ada King")
    first = await web.post(SIGNUP, body)

    second = await web.post(SIGNUP, dict(reversed(body.items())))

    assert second.status_code == 200
    assert second.json() == {**first.json(), "duplicate": True}
    assert len(web.runs.handlers) == 1
    assert len(await events(web)) == 1


async def test_f15_parallel_repeats__are_one_event_and_one_run(web: Web) -> None:
    body = signup()

    answers = await asyncio.gather(*[web.post(SIGNUP, body) for _ in range(20)])

    assert {a.status_code for a in answers} == {200}
    assert len({a.json()["flow_run_id"] for a in answers}) == 1
    assert sum("duplicate" not in a.json() for a in answers) == 1
    assert len(await events(web)) == len(web.runs.handlers) == 1


@pytest.mark.parametrize("header", ["webhook-id", "svix-id", "idempotency-key", "Idempotency-Key"])
async def test_the_senders_own_id__makes_it_the_same_event(web: Web, header: str) -> None:
    first = await web.post(SIGNUP, signup(), headers={header: "evt_1"})

    second = await web.post(SIGNUP, signup(), headers={header: "evt_1"})
    third = await web.post(SIGNUP, signup(), headers={header: "evt_2"})

    assert second.json()["event_id"] == first.json()["event_id"]
    assert third.json()["event_id"] != first.json()["event_id"]


@pytest.mark.parametrize("odd", ["", " ", "x" * 201])
async def test_an_id_that_cannot_be_kept__is_as_if_there_were_none(web: Web, odd: str) -> None:
    body = signup()

    await web.post(SIGNUP, body, headers={"webhook-id": odd})
    second = await web.post(SIGNUP, body)

    assert second.json()["duplicate"] is True


async def test_no_consent__is_stored_and_said_so(web: Web) -> None:
    answer = await web.post(SIGNUP, signup(consent=False))

    assert answer.status_code == 200
    assert answer.json()["flow_run_id"] is None
    assert "no email will be sent because the contact gave no consent" in answer.json()["message"]
    assert web.runs.calls == []


async def test_unpaid_onboarding__starts_nothing(web: Web) -> None:
    answer = await web.post("/webhook/onboarding-start", {"email": address(), "payment_confirmed": False})

    assert (answer.status_code, answer.json()["flow_run_id"]) == (200, None)
    assert web.runs.calls == []


@pytest.mark.parametrize("trigger", ["PING", "BOOKING_CANCELLED"])
async def test_a_trigger_that_means_nothing_here__is_fine(web: Web, trigger: str) -> None:
    answer = await web.post("/webhook/calcom-booking", {"triggerEvent": trigger, "payload": {}})

    assert (answer.status_code, answer.json()["contact_created"]) == (200, False)


async def test_the_body__is_kept_as_it_was_sent(web: Web) -> None:
    raw = f'{{"email": "{address()}",\n "consent": true, "utm": "ä🎄"}}'

    await web.http.post(SIGNUP, content=raw.encode(), headers={"content-type": "application/json; charset=utf-8"})

    assert (await events(web))[0].body == raw


# -- what is wrong -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({}, "email"),
        ({"email": "nobody"}, "email"),
        ({"email": None}, "email"),
        ({"email": "a@b.co", "red_systems": 9}, "assessment_data.red_systems"),
        ({"email": "a@b.co", "assessment_data": {"red_systems": "many"}}, "assessment_data.red_systems"),
        ({"email": "a@b.co", "assessment_data": [1]}, "assessment_data"),
        ({"email": "a@b.co", "email_1_sent_at": "2026-12-01T10:00:00"}, "email_1_sent_at"),
        ({"email": "a@b.co", "first_name": "A\r\nBcc: x@y.z"}, "first_name"),
        ({"email": "a@b.co", "consent": "perhaps"}, "consent"),
        ([], ""),
        ("text", ""),
        (5, ""),
    ],
)
async def test_a_wrong_field__is_a_422_that_names_it(web: Web, body: Any, field: str) -> None:
    answer = await web.post(SIGNUP, body)

    assert answer.status_code == 422
    assert [item["field"] for item in answer.json()["detail"]] == [field]
    assert all(item["msg"] for item in answer.json()["detail"])
    assert await events(web) == []


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"{",
        b"{'email': 1}",
        b'{"email": "a@b.co",}',
        b"\xff\xfe",
        b"[" * 100_000,
        b'{"a": 1' + b"0" * 5000 + b"}",
        b"nul",
    ],
)
async def test_what_is_no_json__is_a_400(web: Web, raw: bytes) -> None:
    raw = raw[:19_000]

    answer = await web.http.post(SIGNUP, content=raw, headers=JSON)

    assert answer.status_code == 400
    assert "not valid JSON" in answer.json()["detail"]


@pytest.mark.parametrize(
    "raw",
    [
        b'{"email": "a@b.co", "first_name": "A\\u0000B"}',
        b'{"email": "a@b.co", "x": "\\ud800"}',
        b'{"email": "a@b.co", "assessment_score": NaN}',
        b'{"email": "a@b.co", "assessment_score": 1e999}',
        b'{"email": "a@b.co", "revenue_leak_total": Infinity}',
        '{"email": "a@b.co"}'.encode("utf-16"),
        b'\xef\xbb\xbf{"email": 5}',
        b'{"email": "a@b.co", "assessment_data": ' + b'{"a":' * 500 + b"1" + b"}" * 500 + b"}",
    ],
)
async def test_nasty_json__is_a_4xx_and_nothing_is_stored(web: Web, raw: bytes) -> None:
    answer = await web.http.post(SIGNUP, content=raw, headers=JSON)

    assert answer.status_code in {400, 422}
    assert answer.json()["detail"]
    assert await events(web) == []


@pytest.mark.parametrize("kind", [None, "text/plain", "application/x-www-form-urlencoded", "application/jsonp", ""])
async def test_another_content_type__is_a_415(web: Web, kind: str | None) -> None:
    headers = {} if kind is None else {"content-type": kind}

    answer = await web.http.post(SIGNUP, content=json.dumps(signup()).encode(), headers=headers)

    assert answer.status_code == 415
    assert "Content-Type: application/json" in answer.json()["detail"]


async def chunks(size: int) -> Any:
    for _ in range(size // 1000):
        yield b"x" * 1000


@pytest.mark.parametrize("streamed", [True, False])
async def test_a_body_that_is_too_large__is_a_413(web: Web, streamed: bool) -> None:
    content = chunks(30_000) if streamed else b"x" * 20_001

    answer = await web.http.post(SIGNUP, content=content, headers=JSON)

    assert answer.status_code == 413
    assert "larger than 20000 bytes (setting MAX_BODY_BYTES)" in answer.json()["detail"]


async def test_a_body_of_just_the_limit__is_read(web: Web) -> None:
    body = signup(padding="")
    body["padding"] = "x" * (20_000 - len(json.dumps(body)))

    answer = await web.http.post(SIGNUP, content=json.dumps(body).encode(), headers=JSON)

    assert answer.status_code == 200


@pytest.mark.parametrize(
    "path", ["/webhook", "/webhook/", "/webhook/nothing", "/nothing", "/webhook/christmas-signup/x"]
)
async def test_an_unknown_route__is_a_404(web: Web, path: str) -> None:
    assert (await web.post(path, signup())).status_code == 404


@pytest.mark.parametrize("method", ["GET", "PUT", "DELETE", "PATCH"])
async def test_another_method__is_a_405(web: Web, method: str) -> None:
    answer = await web.http.request(method, SIGNUP)

    assert answer.status_code == 405
    assert answer.headers["allow"] == "POST"


async def test_a_ledger_that_is_away__is_a_503_with_a_time_and_nothing_is_accepted(web: Web) -> None:
    nowhere = Ledger("postgresql+asyncpg://postgres@127.0.0.1:1/tidings")
    web.app.state.intake = Intake(nowhere, web.runs, now=now)

    answer = await web.post(SIGNUP, signup(consent=False))

    assert (answer.status_code, answer.headers["retry-after"]) == (503, "5")
    assert "nothing was accepted" in answer.json()["detail"]
    await nowhere.close()


# -- who may post --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("header", [None, "Bearer wrong", "Bearer ", f"Basic {TOKEN}", TOKEN, "Bearer é"])
async def test_f20_a_sender_without_a_right_token__is_a_401_and_nothing_is_stored(web: Web, header: str | None) -> None:
    headers = [(b"authorization", header.encode("latin-1"))] if header is not None else []

    answer = await web.http.post(NO_SHOW, json={"email": address()}, headers=headers)

    assert answer.status_code == 401
    assert answer.headers["www-authenticate"] == "Bearer"
    assert await events(web) == []


@pytest.mark.parametrize("token", [TOKEN, "token-that-is-being-replaced"])
async def test_a_sender_with_a_token__gets_in(web: Web, token: str) -> None:
    assert (await web.post(NO_SHOW, {"email": address()}, token=token)).status_code == 200


async def test_the_public_form__needs_no_token(web: Web) -> None:
    assert (await web.post(SIGNUP, signup(), token=None)).status_code == 200


@pytest.mark.parametrize("raw", [b'{"email": 5}', b"{", b"\xff\x00"])
async def test_what_a_known_sender_sent_wrong__is_kept_in_quarantine(web: Web, raw: bytes) -> None:
    headers = {**JSON, "authorization": f"Bearer {TOKEN}"}

    answers = [await web.http.post(NO_SHOW, content=raw, headers=headers) for _ in range(2)]

    (event,) = await events(web)
    assert all(a.status_code in {400, 422} for a in answers)
    assert (event.state, event.source) == ("quarantined", "calendly-noshow")
    assert event.reason


# -- what every answer carries -------------------------------------------------------------------------------

ORIGINS = [ORIGIN, "https://other.busos.test"]


@pytest.mark.parametrize("origin", ORIGINS)
async def test_f20_a_listed_website__may_post_from_a_browser(web: Web, origin: str) -> None:
    asked = {
        "origin": origin,
        "access-control-request-method": "POST",
        "access-control-request-headers": "content-type",
    }

    preflight = await web.http.options(SIGNUP, headers=asked)
    answer = await web.post(SIGNUP, signup(), headers={"origin": origin})

    assert preflight.status_code == 200
    assert preflight.headers["access-control-allow-origin"] == origin
    assert answer.headers["access-control-allow-origin"] == origin
    assert "access-control-allow-credentials" not in answer.headers


@pytest.mark.parametrize(
    "origin", ["https://evil.test", "https://www.busos.test.evil.test", "http://www.busos.test", "null"]
)
async def test_f20_any_other_website__may_not(web: Web, origin: str) -> None:
    asked = {"origin": origin, "access-control-request-method": "POST"}

    preflight = await web.http.options(SIGNUP, headers=asked)
    answer = await web.post(SIGNUP, signup(), headers={"origin": origin})

    assert preflight.status_code == 400
    assert "access-control-allow-origin" not in preflight.headers
    assert "access-control-allow-origin" not in answer.headers


@pytest.mark.parametrize(
    ("method", "path"),
    [("GET", "/health"), ("POST", SIGNUP), ("GET", "/nothing"), ("GET", "/unsubscribe/x"), ("GET", "/docs")],
)
async def test_every_answer__carries_the_security_headers(web: Web, method: str, path: str) -> None:
    answer = await web.http.request(method, path)

    assert answer.headers["x-content-type-options"] == "nosniff"
    assert answer.headers["x-frame-options"] == "DENY"
    assert answer.headers["referrer-policy"] == "no-referrer"
    assert answer.headers["strict-transport-security"] == "max-age=31536000"  # PUBLIC_URL is https here
    policy = answer.headers["content-security-policy"]
    assert policy.startswith("default-src 'none'; ")
    for part in ("frame-ancestors 'none'", "base-uri 'none'"):
        assert part in policy
    assert "script-src" not in policy or path == "/docs"


async def test_an_unforeseen_error__carries_them_too_and_says_what_to_do(
    web: Web, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def fail(arrival: Any) -> Any:
        raise RuntimeError("nobody foresaw this")

    monkeypatch.setattr(web.app.state.intake, "take", fail)

    answer = await web.post(SIGNUP, signup())

    assert answer.status_code == 500
    assert "Send it again" in answer.json()["detail"]
    assert "foresaw" not in answer.text
    assert answer.headers["content-security-policy"].startswith("default-src 'none'")
    assert answer.headers["x-content-type-options"] == "nosniff"


async def test_the_api_page__runs_no_script_but_its_own(web: Web) -> None:
    page = await web.http.get("/docs")
    policy = page.headers["content-security-policy"]
    inline = re.findall(r"<script>(.*?)</script>", page.text, re.DOTALL)
    allowed = re.findall(r"'sha256-([^']+)'", policy)

    assert [b64encode(sha256(script.encode()).digest()).decode() for script in inline] == allowed
    script_part = next(part for part in policy.split("; ") if part.startswith("script-src"))
    assert "unsafe" not in script_part
    for link in re.findall(r'(?:src|href)="([^"]+)"', page.text):
        assert link.startswith("/docs/files/")
        assert (await web.http.get(link)).status_code == 200


def test_hsts__is_for_https_alone() -> None:
    for url, sent in (("https://a.b", True), ("http://127.0.0.1:8000", False)):
        parts = SimpleNamespace(settings=SimpleNamespace(public_url=url))
        scope = {"app": SimpleNamespace(state=SimpleNamespace(parts=parts))}
        assert ("Strict-Transport-Security" in security_headers(scope)) is sent


# -- OpenAPI -------------------------------------------------------------------------------------------------


async def openapi(web: Web) -> dict[str, Any]:
    answer: httpx.Response = await web.http.get("/openapi.json")
    return dict(answer.json())


async def test_openapi__shows_every_webhook_and_its_answers(web: Web) -> None:
    paths = (await openapi(web))["paths"]

    for path in PATHS:
        shown = paths[f"/webhook/{path}"]["post"]
        assert set(shown["responses"]) >= {"200", "202", "400", "413", "415", "422", "503"}
        assert shown["requestBody"]["content"]["application/json"]["examples"]


@pytest.mark.parametrize(("path", "example"), EXAMPLES)
async def test_openapis_examples__fit_their_own_schema(web: Web, path: str, example: str) -> None:
    content = (await openapi(web))["paths"][f"/webhook/{path}"]["post"]["requestBody"]["content"]["application/json"]

    Draft202012Validator.check_schema(content["schema"])
    Draft202012Validator(content["schema"]).validate(content["examples"][example]["value"])


@pytest.mark.parametrize(("path", "example"), EXAMPLES)
async def test_openapis_examples__succeed_as_shown(web: Web, path: str, example: str) -> None:
    shown = (await openapi(web))["paths"][f"/webhook/{path}"]["post"]["requestBody"]["content"]["application/json"]

    answer = await web.post(f"/webhook/{path}", shown["examples"][example]["value"])

    assert answer.status_code == 200
    assert UUID(answer.json()["flow_run_id"])


@pytest.mark.parametrize("depth", [100, 400, 700, 950, 5000])
async def test_a_body_of_any_depth__is_no_fault_of_ours(web: Web, depth: int) -> None:
    lists = "[" * depth + "]" * depth
    raw = f'{{"email": "{address()}", "x": {lists}, "y": "\\u0000"}}'

    answer = await web.http.post("/webhook/christmas-signup", content=raw, headers={"content-type": "application/json"})

    assert answer.status_code in {400, 422}
