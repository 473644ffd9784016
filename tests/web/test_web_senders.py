"""Who is let in: each service by its own signature over the body as it came, and nobody else."""

from __future__ import annotations

import asyncio
import copy
import json
import time
from collections.abc import Iterator
from typing import Any

import pytest
import signing
from pydantic import SecretStr
from signing import SECRETS, TIMELESS, signed
from web_client import TOKEN, Web
from worlds import address

from tidings.campaign import load_campaigns
from tidings.settings import ROOT

CHRISTMAS = load_campaigns([ROOT / "campaigns"])["christmas"]
NO_SHOW, ONBOARDING, BOOKING = "/webhook/calendly-noshow", "/webhook/onboarding-start", "/webhook/calcom-booking"
#: Where each kind of sender posts, and what.
BODIES: dict[str, tuple[str, dict[str, Any]]] = {
    "STANDARD_WEBHOOK_SECRETS": (NO_SHOW, {"email": "delivered+standard@resend.dev"}),
    "CALENDLY_SIGNING_KEYS": (NO_SHOW, CHRISTMAS.webhook("calendly-noshow").natives[0].examples),
    "STRIPE_WEBHOOK_SECRETS": (ONBOARDING, CHRISTMAS.webhook("onboarding-start").natives[0].examples),
    "DOCUSIGN_HMAC_KEYS": (ONBOARDING, CHRISTMAS.webhook("onboarding-start").natives[1].examples),
    "CALCOM_WEBHOOK_SECRETS": (BOOKING, CHRISTMAS.webhook("calcom-booking").examples),
}  # type: ignore[dict-item]
SCHEMES = list(SECRETS)


def path_and_raw(name: str) -> tuple[str, bytes]:
    path, body = BODIES[name]
    one = next(iter(body.values()))
    return path, json.dumps(one if isinstance(one, dict) else body).encode()


async def send(web: Web, name: str, headers: dict[str, str], raw: bytes | None = None) -> Any:
    path, own = path_and_raw(name)
    return await web.http.post(path, content=own if raw is None else raw, headers=headers)


async def events(web: Web) -> list[Any]:
    return await web.rows("SELECT * FROM event ORDER BY received_at")


@pytest.mark.parametrize("which", [0, 1])
@pytest.mark.parametrize("name", SCHEMES)
async def test_each_service__is_known_by_its_own_signature_with_any_of_its_secrets(
    web: Web, name: str, which: int
) -> None:
    _, raw = path_and_raw(name)

    answer = await send(web, name, signed(name, raw, which=which))

    assert answer.status_code == 200, answer.text
    assert answer.json()["flow_run_id"]
    assert len(await events(web)) == 1


@pytest.mark.parametrize("name", SCHEMES)
async def test_a_body_that_was_changed__is_a_401_and_nothing_is_stored(web: Web, name: str) -> None:
    _, raw = path_and_raw(name)

    answer = await send(web, name, signed(name, raw), raw + b" ")

    assert answer.status_code == 401
    assert name in answer.json()["detail"]
    assert await events(web) == []


@pytest.mark.parametrize("name", SCHEMES)
async def test_another_secret__is_a_401(web: Web, name: str) -> None:
    _, raw = path_and_raw(name)

    answer = await send(web, name, signed(name, raw, secret="whsec_bm90LW9uZS1vZi1vdXJzLWF0LWFsbA=="))

    assert answer.status_code == 401
    assert await events(web) == []


@pytest.mark.parametrize("name", [n for n in SCHEMES if n not in TIMELESS])
async def test_a_signature_that_is_too_old__is_a_401(web: Web, name: str) -> None:
    _, raw = path_and_raw(name)

    fresh = await send(web, name, signed(name, raw, ago=100))
    stale = await send(web, name, signed(name, raw, ago=400))

    assert (fresh.status_code, stale.status_code) == (200, 401)


@pytest.mark.parametrize("name", ["CALENDLY_SIGNING_KEYS", "STANDARD_WEBHOOK_SECRETS"])
async def test_a_signature_from_the_future__is_a_401(web: Web, name: str) -> None:
    _, raw = path_and_raw(name)

    assert (await send(web, name, signed(name, raw, ago=-400))).status_code == 401


@pytest.mark.parametrize("name", SCHEMES)
@pytest.mark.parametrize("trick", [{}, {"idempotency-key": "another"}, {"svix-id": "another"}])
async def test_a_replay__is_the_same_event_whatever_id_a_forger_puts_beside_it(
    web: Web, name: str, trick: dict[str, str]
) -> None:
    _, raw = path_and_raw(name)
    headers = signed(name, raw)
    first = await send(web, name, headers)

    again = await send(web, name, {**headers, **trick})

    assert again.json() == {**first.json(), "duplicate": True}
    assert len(web.runs.handlers) == len(await events(web)) == 1


MAYBE = "/webhook/postcall-maybe"


async def test_a_replay_on_another_route__is_a_409_and_starts_nothing(web: Web) -> None:
    _, raw = path_and_raw("STANDARD_WEBHOOK_SECRETS")
    headers = signed("STANDARD_WEBHOOK_SECRETS", raw)
    first = await web.http.post(NO_SHOW, content=raw, headers=headers)

    elsewhere = await web.http.post(MAYBE, content=raw, headers=headers)
    again = await web.http.post(NO_SHOW, content=raw, headers=headers)

    assert (first.status_code, elsewhere.status_code, again.status_code) == (200, 409, 200)
    assert "/webhook/calendly-noshow" in elsewhere.json()["detail"]
    assert [e.source for e in await events(web)] == ["calendly-noshow"]
    assert len(web.runs.handlers) == 1


async def test_a_replay_of_what_was_refused_on_its_own_route__is_a_409_on_another(web: Web) -> None:
    raw = json.dumps({"email": address(), "scheduled_time": "soon"}).encode()
    headers = signed("STANDARD_WEBHOOK_SECRETS", raw)
    assert (await web.http.post(NO_SHOW, content=raw, headers=headers)).status_code == 422

    elsewhere = await web.http.post(MAYBE, content=raw, headers=headers)

    assert elsewhere.status_code == 409
    assert [(e.source, e.state) for e in await events(web)] == [("calendly-noshow", "quarantined")]


async def test_replays_on_several_routes_at_the_same_moment__are_one_event(web: Web) -> None:
    _, raw = path_and_raw("STANDARD_WEBHOOK_SECRETS")
    headers = signed("STANDARD_WEBHOOK_SECRETS", raw)

    answers = await asyncio.gather(*[
        web.http.post(path, content=raw, headers=headers) for path in (NO_SHOW, MAYBE, MAYBE) * 5
    ])  # fmt: skip

    (event,) = await events(web)
    assert {a.status_code for a in answers} <= {200, 409}
    assert {a.json()["event_id"] for a in answers if a.status_code == 200} == {str(event.id)}


async def test_the_same_id_with_a_token__is_the_senders_own_affair(web: Web) -> None:
    _, raw = path_and_raw("STANDARD_WEBHOOK_SECRETS")
    headers = {"content-type": "application/json", "authorization": f"Bearer {TOKEN}", "webhook-id": "msg_1"}

    answers = [await web.http.post(path, content=raw, headers=headers) for path in (NO_SHOW, MAYBE)]

    assert [a.status_code for a in answers] == [200, 200]


async def test_a_replay_with_an_id_that_was_not_signed__is_a_401(web: Web) -> None:
    _, raw = path_and_raw("STANDARD_WEBHOOK_SECRETS")

    answer = await send(
        web, "STANDARD_WEBHOOK_SECRETS", {**signed("STANDARD_WEBHOOK_SECRETS", raw), "webhook-id": "other"}
    )

    assert answer.status_code == 401


@pytest.mark.parametrize("path", [NO_SHOW, ONBOARDING, BOOKING, "/webhook/postcall-maybe"])
@pytest.mark.parametrize("name", SCHEMES)
async def test_a_signature_of_a_service_that_does_not_post_here__opens_nothing(web: Web, path: str, name: str) -> None:
    home, raw = path_and_raw(name)
    if path == home or name == "STANDARD_WEBHOOK_SECRETS":
        return

    answer = await web.http.post(path, content=raw, headers=signed(name, raw))

    assert answer.status_code == 401


async def test_what_a_service_signed__is_read_as_that_services_body(web: Web) -> None:
    raw = json.dumps({"email": address(), "payment_confirmed": True}).encode()

    answer = await web.http.post(ONBOARDING, content=raw, headers=signed("STRIPE_WEBHOOK_SECRETS", raw))

    (event,) = await events(web)
    assert (answer.status_code, event.state) == (422, "quarantined")


async def test_a_token__vouches_for_any_body(web: Web) -> None:
    _, raw = path_and_raw("CALENDLY_SIGNING_KEYS")

    answer = await web.http.post(
        NO_SHOW, content=raw, headers={"content-type": "application/json", "authorization": f"Bearer {TOKEN}"}
    )

    assert answer.status_code == 200
    assert [r.state for r in await web.rows("SELECT state FROM booking")] == ["missed"]


HEADERS = {
    "CALENDLY_SIGNING_KEYS": "calendly-webhook-signature",
    "CALCOM_WEBHOOK_SECRETS": "x-cal-signature-256",
    "STRIPE_WEBHOOK_SECRETS": "stripe-signature",
    "DOCUSIGN_HMAC_KEYS": "x-docusign-signature-1",
    "STANDARD_WEBHOOK_SECRETS": "webhook-signature",
}
ODD = [
    "", "=", ",", "t=,v1=", "t=1", "v1=abc", "t=1,v1", "t=x,v1=abc", f"t={'9' * 5000},v1=a", "t=1,t=2,v1=a",
    "t=٣,v1=a", "v1,", "v1,=", "v1,a,b", "v1,é", "no-secret-provided", "a" * 8000, "\xff\xfe", "v1," + "A" * 4001,
    "t=-1,v1=a", "t=1e999,v1=a", "t=nan,v1=a",
]  # fmt: skip


@pytest.mark.parametrize("odd", ODD)
@pytest.mark.parametrize("name", SCHEMES)
async def test_a_signature_that_is_none__is_a_401(web: Web, name: str, odd: str) -> None:
    path, raw = path_and_raw(name)
    value = odd.encode("utf-8" if "٣" in odd else "latin-1")
    headers = [(b"content-type", b"application/json"), (HEADERS[name].encode(), value)]
    if name == "STANDARD_WEBHOOK_SECRETS":
        headers += [(b"webhook-id", b"msg_1"), (b"webhook-timestamp", str(int(time.time())).encode())]

    answer = await web.http.post(path, content=raw, headers=headers)

    assert answer.status_code == 401, answer.text
    assert await events(web) == []


@pytest.mark.parametrize("stamp", ["", "x", "-1", "nan", "9" * 400, "1.5", "٣"])
async def test_a_standard_webhook_with_an_odd_time__is_a_401(web: Web, stamp: str) -> None:
    path, raw = path_and_raw("STANDARD_WEBHOOK_SECRETS")
    headers = {**signed("STANDARD_WEBHOOK_SECRETS", raw), "webhook-timestamp": stamp}

    answer = await web.http.post(path, content=raw, headers={n: v.encode() for n, v in headers.items()})

    assert answer.status_code == 401


async def test_a_standard_webhook_whose_id_has_a_dot__is_a_401(web: Web) -> None:
    path, raw = path_and_raw("STANDARD_WEBHOOK_SECRETS")
    headers = signed("STANDARD_WEBHOOK_SECRETS", raw)

    assert (await web.http.post(path, content=raw, headers={**headers, "webhook-id": "msg.1"})).status_code == 401


# -- what is set ---------------------------------------------------------------------------------------------

NONE: dict[str, Any] = dict.fromkeys([*(n.lower() for n in SECRETS), "webhook_tokens"])


@pytest.fixture
def settings(web: Web) -> Iterator[Any]:
    """Change settings for one test."""
    parts = web.app.state.parts
    before = copy.copy(parts.settings)

    def change(**given: Any) -> None:
        parts.settings = before.model_copy(update=given)

    yield change
    parts.settings = before


@pytest.mark.parametrize(("path", "names"), [
    (NO_SHOW, "WEBHOOK_TOKENS or STANDARD_WEBHOOK_SECRETS or CALENDLY_SIGNING_KEYS"),
    (ONBOARDING, "WEBHOOK_TOKENS or STANDARD_WEBHOOK_SECRETS or STRIPE_WEBHOOK_SECRETS or DOCUSIGN_HMAC_KEYS"),
    (BOOKING, "WEBHOOK_TOKENS or STANDARD_WEBHOOK_SECRETS or CALCOM_WEBHOOK_SECRETS"),
])  # fmt: skip
async def test_f20_with_real_keys_and_no_secret__a_route_refuses_and_says_which_setting(
    web: Web, settings: Any, path: str, names: str
) -> None:
    settings(**NONE, resend_api_url="https://api.resend.com")

    answer = await web.post(path, {"email": address()})

    assert answer.status_code == 503
    assert answer.json()["detail"].startswith(f"{names} is not set")
    assert await events(web) == []


async def test_in_the_sandbox_without_any_secret__whoever_posts_is_let_in(web: Web, settings: Any) -> None:
    settings(**NONE)

    assert (await web.post(NO_SHOW, {"email": address()}, token=None)).status_code == 200


@pytest.mark.parametrize("name", SCHEMES)
async def test_a_signature_that_nobody_can_check__is_a_503_that_names_the_setting(
    web: Web, settings: Any, name: str
) -> None:
    settings(**{name.lower(): None})
    _, raw = path_and_raw(name)

    answer = await send(web, name, signed(name, raw))

    assert answer.status_code == 503
    assert answer.json()["detail"].startswith(f"{name} is not set")
    assert await events(web) == []


async def test_calcoms_word_for_no_secret__is_no_signature(web: Web, settings: Any) -> None:
    settings(webhook_tokens=SecretStr(TOKEN), calcom_webhook_secrets=None)
    headers = {"content-type": "application/json", "x-cal-signature-256": "no-secret-provided"}

    assert (await send(web, "CALCOM_WEBHOOK_SECRETS", headers)).status_code == 401
    assert (
        await send(web, "CALCOM_WEBHOOK_SECRETS", {**headers, "authorization": f"Bearer {TOKEN}"})
    ).status_code == 200


async def test_a_refusal__says_how_to_be_let_in_and_holds_no_secret(web: Web) -> None:
    answer = await web.post(ONBOARDING, {"email": address()}, token="wrong")

    told = answer.json()["detail"]
    assert "Stripe-Signature" in told
    assert "WEBHOOK_TOKENS" in told
    assert not any(secret in answer.text for secrets in signing.SECRETS.values() for secret in secrets)
    assert TOKEN not in answer.text


async def test_several_people_in_one_body__are_several_events_with_one_answer(web: Web) -> None:
    body = {
        "triggerEvent": "BOOKING_NO_SHOW_UPDATED",
        "createdAt": "2026-12-01T12:00:00Z",
        "payload": {"bookingUid": "one", "attendees": [{"email": address(), "noShow": True} for _ in range(3)]},
    }
    raw = json.dumps(body).encode()

    answer = await web.http.post(BOOKING, content=raw, headers=signed("CALCOM_WEBHOOK_SECRETS", raw))
    again = await web.http.post(BOOKING, content=raw, headers=signed("CALCOM_WEBHOOK_SECRETS", raw))

    stored = await events(web)
    assert (answer.status_code, len(stored)) == (200, 3)
    assert {e.deployment for e in stored} == {"christmas-noshow-recovery-handler"}
    assert all(e.flow_run_id for e in stored)
    assert again.json()["duplicate"] is True
