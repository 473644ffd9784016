"""The public form over HTTP: a bot is answered kindly and starts nothing, a person is never lost."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import httpx
import pytest
from web_client import ADMIN, ORIGIN, Web
from worlds import address, now

from tidings.accept import Intake
from tidings.adapters.captcha import HCAPTCHA, TURNSTILE, Captcha, Service
from tidings.ledger import Ledger
from tidings.web.form import Form

SIGNUP = "/webhook/christmas-signup"
NO_SHOW = "/webhook/calendly-noshow"
PERSON = {"form_trap": "", "form_seconds": 42.5}


def signup(**given: Any) -> dict[str, Any]:
    return {"email": address(), "consent": True, **given}


def door(web: Web, *, captcha: Captcha | None = None, clock: Callable[[], datetime] = now, **settings: Any) -> Form:
    """Another door, with these settings."""
    parts = web.app.state.parts
    form = Form(parts.ledger, parts.settings.model_copy(update=settings), captcha=captcha, now=clock)
    web.app.state.form = form
    return form


async def post(web: Web, body: dict[str, Any], *, client: str | None = None) -> httpx.Response:
    return await web.post(SIGNUP, body, token=None, headers={"x-forwarded-for": client} if client else {})


async def tally(web: Web) -> dict[str, int]:
    await web.app.state.form.write_tally()
    return {row.reason: row.times for row in await web.rows("SELECT * FROM form_tally")}


async def nothing_came_of_it(web: Web) -> None:
    assert web.runs.calls == []
    assert await web.rows("SELECT * FROM contact") == []
    assert await web.rows("SELECT * FROM enrolment") == []


# -- bots ----------------------------------------------------------------------------------------------------

BOTS = [
    ({"form_trap": "https://spam.test"}, "hidden field filled in", "the hidden field form_trap was filled in"),
    ({"form_trap": "", "form_seconds": 0.3}, "sent too soon", "sent 0.3 s after the form was shown"),
]


@pytest.mark.parametrize(("signals", "reason", "words"), BOTS)
async def test_a_bot__is_answered_kindly_counted_and_starts_nothing(
    web: Web, signals: dict[str, Any], reason: str, words: str
) -> None:
    answer = await post(web, signup(**signals))

    (event,) = await web.rows("SELECT * FROM event")
    assert answer.status_code == 200
    assert answer.json() == {
        "message": "Signup received",
        "event_id": str(event.id),
        "flow_run_id": None,
        "contact_created": False,
        "status_url": f"https://t.tidings.test/webhook/status/{event.id}",
    }
    assert event.state == "blocked"
    assert words in event.reason
    assert await tally(web) == {reason: 1}
    await nothing_came_of_it(web)


async def test_a_bot_that_comes_again__is_counted_again_and_kept_once(web: Web) -> None:
    body = signup(form_trap="x")

    answers = [await post(web, body) for _ in range(3)]

    assert {answer.json()["event_id"] for answer in answers} == {
        str(e.id) for e in await web.rows("SELECT id FROM event")
    }
    assert await tally(web) == {"hidden field filled in": 3}


async def test_a_person_taken_for_a_bot__gets_in_with_the_same_answers(web: Web) -> None:
    body = signup()
    await post(web, {**body, "form_seconds": 0.5})

    answer = await post(web, {**body, "form_seconds": 9})

    assert "duplicate" not in answer.json()
    assert UUID(answer.json()["flow_run_id"])


async def test_a_person_taken_for_a_bot__is_taken_in_by_an_operator_who_names_the_event(web: Web) -> None:
    email = address()
    blocked = (await post(web, signup(email=email, form_trap="x"))).json()["event_id"]
    operator = {"authorization": f"Bearer {ADMIN}"}

    swept = await web.http.post(
        "/api/events/replay", json={"since": (now() - timedelta(hours=1)).isoformat()}, headers=operator
    )
    await nothing_came_of_it(web)
    named = await web.http.post("/api/events/replay", json={"ids": [blocked]}, headers=operator)

    assert swept.json() == {blocked: "was taken for a bot's; name it to take it in"}
    assert named.json()[blocked].startswith("taken in as ")
    states = {
        row.state: row.email
        for row in await web.rows("SELECT e.state, c.email FROM event e LEFT JOIN contact c ON c.id = contact_id")
    }
    assert states == {"ignored": None, "accepted": email}  # Prefect is not there in these tests; the keeper goes on


async def test_a_flood_of_bots__is_limited_too(web: Web) -> None:
    door(web, trusted_proxies=1, form_limit_per_client=3)

    answers = [await post(web, signup(form_trap="x"), client="9.9.9.9") for _ in range(5)]

    assert [answer.status_code for answer in answers] == [200, 200, 200, 429, 429]
    assert len(await web.rows("SELECT id FROM event")) == 3


# -- people --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("signals", [{}, PERSON, {"form_trap": None, "form_seconds": "3"}, {"form_seconds": ""}])
async def test_a_person__gets_in(web: Web, signals: dict[str, Any]) -> None:
    answer = await post(web, signup(**signals))

    assert answer.status_code == 200
    assert UUID(answer.json()["flow_run_id"])
    assert await tally(web) == {}


async def test_who_sends_again_after_a_reload__has_sent_the_same(web: Web) -> None:
    body = signup()
    await post(web, {**body, **PERSON})

    assert (await post(web, {**body, "form_trap": "", "form_seconds": 99})).json()["duplicate"] is True


@pytest.mark.parametrize("seconds", ["soon", -1, [1]])
async def test_a_time_that_is_none__is_a_422_that_names_it(web: Web, seconds: Any) -> None:
    answer = await post(web, signup(form_seconds=seconds))

    assert answer.status_code == 422
    assert answer.json()["detail"][0]["field"] == "form_seconds"


@pytest.mark.parametrize(("signals", "field"), [({}, "form_trap"), ({"form_trap": ""}, "form_seconds")])
async def test_fields_that_are_required__are_asked_for(web: Web, signals: dict[str, Any], field: str) -> None:
    door(web, form_fields_required=True)

    answer = await post(web, signup(**signals))

    assert answer.status_code == 422
    assert answer.json()["detail"][0]["field"] == field
    assert "FORM_FIELDS_REQUIRED" in answer.json()["detail"][0]["msg"]
    assert (await post(web, signup(**PERSON))).status_code == 200


async def test_a_sender_with_a_token__is_not_taken_for_a_bot(web: Web) -> None:
    door(web, form_limit_per_email=1, form_fields_required=True)
    email = address()

    answers = [
        await web.post(NO_SHOW, {"email": email, "form_trap": "x", "scheduled_time": f"2026-12-0{n}T10:00:00Z"})
        for n in range(1, 5)
    ]

    assert [answer.status_code for answer in answers] == [200] * 4


# -- limits --------------------------------------------------------------------------------------------------


async def test_too_many_of_one_email__are_told_to_wait(web: Web) -> None:
    door(web, form_limit_per_email=2)
    email = address()

    answers = [await post(web, signup(email=email, name=f"Ada {n}")) for n in "abcd"]

    assert [answer.status_code for answer in answers] == [200, 200, 429, 429]
    seconds = int(answers[2].headers["retry-after"])
    assert 590 <= seconds <= 600
    assert (
        f"came from this email address, so this one was not taken in. Please send it again in {seconds} seconds"
        in answers[2].json()["detail"]
    )
    assert email not in answers[2].text
    assert len(await web.rows("SELECT id FROM event")) == 2
    assert await tally(web) == {"too many of one email address": 2}
    assert (await post(web, signup())).status_code == 200


async def test_a_website__can_read_how_long_to_wait(web: Web) -> None:
    door(web, form_limit_per_email=1)
    body = signup()
    await post(web, body)

    answer = await web.post(SIGNUP, {**body, "name": "x"}, token=None, headers={"origin": ORIGIN})

    assert answer.status_code == 429
    assert answer.headers["access-control-allow-origin"] == ORIGIN
    assert "retry-after" in answer.headers["access-control-expose-headers"].lower()


async def test_who_waits__gets_in(web: Web) -> None:
    clock = [datetime(2027, 1, 1, tzinfo=UTC)]
    door(web, clock=lambda: clock[0], form_limit_per_email=1)
    web.app.state.intake = Intake(web.app.state.parts.ledger, web.runs, now=now)
    email = address()
    await post(web, signup(email=email))
    refused = await post(web, signup(email=email, name="x"))
    (row,) = await web.rows("SELECT until FROM form_limit")

    clock[0] = row.until - timedelta(seconds=1)
    still = await post(web, signup(email=email, name="x"))
    # The window ends by the clock of who counts; the row is made older instead of the test waiting.
    async with web.ledger.transaction() as connection:
        await connection.exec_driver_sql("UPDATE form_limit SET until = now()")
    clock[0] = row.until + timedelta(seconds=1)
    answer = await post(web, signup(email=email, name="x"))

    assert (refused.status_code, still.status_code, answer.status_code) == (429, 429, 200)


async def test_a_repeat__is_answered_whatever_the_limit(web: Web) -> None:
    door(web, form_limit_per_email=1)
    body = signup()

    answers = [await post(web, body) for _ in range(4)]

    assert [answer.json().get("duplicate", False) for answer in answers] == [False, True, True, True]


async def test_too_many_of_one_client__are_told_to_wait_whatever_they_claim(web: Web) -> None:
    door(web, trusted_proxies=1, form_limit_per_client=3)

    answers = [await post(web, signup(), client=f"8.8.{n}.8, 9.9.9.9") for n in range(6)]

    assert [answer.status_code for answer in answers] == [200] * 3 + [429] * 3
    assert (await post(web, signup(), client="9.9.9.10")).status_code == 200
    assert await tally(web) == {"too many of one client address": 3}


async def test_without_a_trusted_proxy__the_header_is_not_believed(web: Web) -> None:
    door(web, form_limit_per_client=1)

    answers = [await post(web, signup(), client="9.9.9.9") for _ in range(3)]

    assert [answer.status_code for answer in answers] == [200] * 3
    assert len(await web.rows("SELECT * FROM form_limit")) == 3  # each its email


async def test_a_limit_of_zero__is_none(web: Web) -> None:
    door(web, trusted_proxies=1, form_limit_per_client=0, form_limit_per_email=0)

    answers = [
        await post(web, signup(email="delivered+zero@resend.dev", name=str(n)), client="9.9.9.9") for n in range(9)
    ]

    assert {answer.status_code for answer in answers} == {200}
    assert await web.rows("SELECT * FROM form_limit") == []


async def test_a_limit__holds_across_servers(web: Web) -> None:
    """Four servers with a door and an intake each, as four uvicorn workers have."""
    parts = web.app.state.parts
    settings = parts.settings.model_copy(update={"trusted_proxies": 1, "form_limit_per_client": 10})
    ledgers = [Ledger(parts.settings.async_database_url) for _ in range(4)]
    servers = [(Form(each, settings, captcha=None, now=now), Intake(each, web.runs, now=now)) for each in ledgers]

    async def one(n: int) -> int:
        web.app.state.form, web.app.state.intake = servers[n % 4]
        return (await post(web, signup(), client="9.9.9.9")).status_code

    found = await asyncio.gather(*[one(n) for n in range(80)])

    assert sorted(found) == [200] * 10 + [429] * 70
    assert len(await web.rows("SELECT id FROM event")) == 10
    for _, intake in servers:
        await intake.drain()
    for ledger in ledgers:
        await ledger.close()


async def test_what_the_count_knows__names_nobody(web: Web) -> None:
    door(web, trusted_proxies=1)
    email = address()

    await post(web, signup(email=email), client="9.9.9.9")

    kept = str(await web.rows("SELECT * FROM form_limit"))
    assert "9.9.9.9" not in kept
    assert email not in kept


# -- captcha -------------------------------------------------------------------------------------------------


class Verifier:
    """Turnstile's and hCaptcha's answer, and what they were asked."""

    def __init__(self, service: Service, answer: httpx.Response | Exception) -> None:
        self.asked: list[dict[str, str]] = []
        self._answer = answer
        self.captcha = Captcha(service, "captcha-secret", httpx.MockTransport(self._handle))

    def _handle(self, request: httpx.Request) -> httpx.Response:
        self.asked.append(dict(httpx.QueryParams(request.content.decode())))
        if isinstance(self._answer, Exception):
            raise self._answer
        return self._answer


def says(success: bool, *codes: str, status: int = 200) -> httpx.Response:
    return httpx.Response(status, json={"success": success, "error-codes": list(codes)})


@pytest.mark.parametrize("service", [TURNSTILE, HCAPTCHA])
async def test_a_solved_captcha__gets_in(web: Web, service: Service) -> None:
    verifier = Verifier(service, says(True))
    door(web, captcha=verifier.captcha)

    answer = await post(web, signup(**{service.field: "a-token"}))

    assert answer.status_code == 200
    assert UUID(answer.json()["flow_run_id"])
    assert (verifier.asked[0]["secret"], verifier.asked[0]["response"]) == ("captcha-secret", "a-token")


@pytest.mark.parametrize("given", [{}, {"h-captcha-response": "of another service"}, {"cf-turnstile-response": " "}])
async def test_without_a_captcha__the_visitor_is_told(web: Web, given: dict[str, str]) -> None:
    verifier = Verifier(TURNSTILE, says(True))
    door(web, captcha=verifier.captcha)

    answer = await post(web, signup(**given))

    assert answer.status_code == 422
    assert answer.json()["detail"][0]["field"] == "cf-turnstile-response"
    assert verifier.asked == []
    assert await tally(web) == {"captcha missing": 1}
    await nothing_came_of_it(web)


@pytest.mark.parametrize("code", ["timeout-or-duplicate", "invalid-input-response"])
async def test_a_captcha_that_is_not_solved__is_told_and_counted(web: Web, code: str) -> None:
    door(web, captcha=Verifier(TURNSTILE, says(False, code)).captcha)

    answer = await post(web, signup(**{"cf-turnstile-response": "forged"}))

    assert answer.status_code == 422
    assert "please try it again" in answer.json()["detail"][0]["msg"]
    assert await tally(web) == {"captcha not passed": 1}
    await nothing_came_of_it(web)


@pytest.mark.parametrize(
    "answer",
    [
        httpx.ConnectError("no route"),
        httpx.ReadTimeout("slow"),
        httpx.Response(500, text="oops"),
        httpx.Response(200, text="<html>"),
        httpx.Response(200, json=[]),
        httpx.Response(200, json={}),
        says(False, status=503),
        says(False, "invalid-input-secret"),
        says(False, "internal-error"),
    ],
)
async def test_a_captcha_that_cannot_be_asked__keeps_no_person_out(
    web: Web, answer: httpx.Response | Exception, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tidings.web.form.log.parent.propagate", True)
    door(web, captcha=Verifier(TURNSTILE, answer).captcha)

    got = await post(web, signup(**{"cf-turnstile-response": "a-token"}))

    assert UUID(got.json()["flow_run_id"])
    assert await tally(web) == {"let in although the captcha could not be asked": 1}
    said = [record for record in caplog.records if record.message == "form.captcha_unavailable"]
    assert {record.levelname for record in said} == {"ERROR"}
    assert "Turnstile" in vars(said[0])["error"]
    assert "captcha-secret" not in str(vars(said[0]))


async def test_a_form_that_is_sent_twice__shows_turnstile_the_same_key(web: Web) -> None:
    verifier = Verifier(TURNSTILE, says(True))
    door(web, captcha=verifier.captcha)
    body = signup(**{"cf-turnstile-response": "a-token"})

    answers = [await post(web, body) for _ in range(2)]

    assert answers[1].json()["duplicate"] is True
    assert verifier.asked[0]["idempotency_key"] == verifier.asked[1]["idempotency_key"]
    assert UUID(verifier.asked[0]["idempotency_key"])


async def test_a_bot__costs_no_captcha(web: Web) -> None:
    verifier = Verifier(TURNSTILE, says(True))
    door(web, captcha=verifier.captcha)

    assert (await post(web, signup(form_trap="x"))).json()["message"] == "Signup received"
    assert verifier.asked == []
