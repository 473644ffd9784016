"""Whatever comes in: no 5xx, no hang, nobody let in who is not known. FUZZ_FACTOR raises the number of cases."""

from __future__ import annotations

import asyncio
import copy
import json
import os
import re
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import pytest
import schemathesis
from fastapi import HTTPException
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from schemathesis.checks import CHECKS
from signing import SECRETS, SIGNERS, signed
from web_client import ADMIN, TOKEN, Web

from tidings.accept import arrivals
from tidings.campaign import Known, NotYet, Payload, Webhook, load_campaigns
from tidings.model import Booking, BookingState, Milestone, MilestoneKind, Scheme
from tidings.settings import ROOT
from tidings.settings import SECRETS as SETTING_OF
from tidings.web.verify import VERIFIERS
from tidings.web.verify.scheme import Forged
from tidings.web.webhooks import parse

FACTOR = float(os.environ.get("FUZZ_FACTOR", "1"))
CHRISTMAS = load_campaigns([ROOT / "campaigns"])["christmas"]
SCHEME_OF = {name.upper(): scheme for scheme, name in SETTING_OF.items()}
NOW = datetime.now(UTC)
CASES: Counter[str] = Counter()


def cases(number: int) -> Any:
    """This many at FUZZ_FACTOR=1. Each run tries others, and shows what it fails with."""
    return settings(
        max_examples=max(1, int(number * FACTOR)),
        deadline=timedelta(seconds=2),
        database=None,
        suppress_health_check=list(HealthCheck),
    )


@pytest.fixture(scope="module", autouse=True)
def counted() -> Iterator[None]:
    yield
    tried = sum(number for what, number in CASES.items() if what != "understood")  # which are some of the others
    print(f"\nfuzz cases: {tried} {dict(CASES)}")


# -- verifiers: called as they are, with what an HTTP server may hand them -----------------------------------

#: What starlette makes of header bytes: any latin-1 text.
HEADER = st.text(st.characters(max_codepoint=255), max_size=200)
LIKELY = st.one_of(
    HEADER,
    st.from_regex(r"t=[0-9]{0,14},v1=[0-9a-f]{0,70}", fullmatch=True),
    st.from_regex(r"(v1a?,[A-Za-z0-9+/=]{0,60} ?){0,4}", fullmatch=True),
    st.builds(lambda ago: f"t={int(time.time()) - ago},v1={'0' * 64}", st.integers(-400, 400)),
)
NAMES = {
    "CALENDLY_SIGNING_KEYS": ["calendly-webhook-signature"],
    "CALCOM_WEBHOOK_SECRETS": ["x-cal-signature-256"],
    "STRIPE_WEBHOOK_SECRETS": ["stripe-signature"],
    "DOCUSIGN_HMAC_KEYS": ["x-docusign-signature-1", "x-docusign-signature-2", "x-docusign-signature-x"],
    "STANDARD_WEBHOOK_SECRETS": ["webhook-signature", "webhook-id", "webhook-timestamp"],
    "WEBHOOK_TOKENS": ["authorization"],
}


def lets_in(name: str, raw: bytes, headers: dict[str, str]) -> bool:
    """Whether a sender is let in; anything but a plain no fails the test."""
    secrets = (TOKEN,) if name == "WEBHOOK_TOKENS" else SECRETS[name]
    verifier = VERIFIERS[SCHEME_OF[name]]
    if not verifier.shown(headers):
        return False
    try:
        verifier.check(raw, headers, secrets, datetime.now(UTC))
    except Forged as refusal:
        assert not any(secret in str(refusal) for secret in secrets)
        return False
    return True


@pytest.mark.parametrize("name", list(NAMES))
def test_f20_whoever_does_not_know_the_secret__is_never_let_in(name: str) -> None:
    @cases(150)
    @given(raw=st.binary(max_size=300), values=st.lists(LIKELY, min_size=3, max_size=3))
    def forge(raw: bytes, values: list[str]) -> None:
        CASES["forged"] += 1
        assert not lets_in(name, raw, dict(zip(NAMES[name], values, strict=False)))

    forge()


@pytest.mark.parametrize("name", list(SIGNERS))
def test_f20_a_signature__is_of_one_body_only(name: str) -> None:
    @cases(100)
    @given(raw=st.binary(max_size=200).filter(_utf8), other=st.binary(max_size=200), which=st.integers(0, 1))
    def swap(raw: bytes, other: bytes, which: int) -> None:
        CASES["swapped"] += 1
        headers = {n.lower(): v for n, v in signed(name, raw, which=which).items()}
        assert lets_in(name, raw, headers)
        assert lets_in(name, other, headers) is (other == raw)

    swap()


def _utf8(raw: bytes) -> bool:
    try:
        raw.decode()
    except UnicodeDecodeError:
        return False
    return True


#: The last characters of a right signature: 32 bytes are at least as many in base64.
RIGHT = 43


def essence(value: str) -> str:
    """What of a header base64 and hexadecimal decoders look at; they pass over the rest."""
    return re.sub(r"[^A-Za-z0-9+/]", "", value)


@pytest.mark.parametrize("name", list(SIGNERS))
def test_f20_a_signature_that_is_bent__lets_nobody_in_unless_the_right_one_is_still_there(name: str) -> None:
    @cases(100)
    @given(data=st.data(), raw=st.binary(max_size=50).filter(_utf8))
    def bend(data: st.DataObject, raw: bytes) -> None:
        CASES["bent"] += 1
        headers = {n.lower(): v for n, v in signed(name, raw).items() if n.lower() != "content-type"}
        header = data.draw(st.sampled_from(sorted(headers)))
        start, end = sorted(data.draw(st.tuples(*[st.integers(0, len(headers[header]))] * 2)))
        bent = headers[header][:start] + data.draw(HEADER) + headers[header][end:]
        if lets_in(name, raw, {**headers, header: bent}):
            there = "".join(essence(value) for value in {**headers, header: bent}.values())
            assert any(essence(value)[-RIGHT:-1] in there for value in headers.values() if len(value) > RIGHT)

    bend()


# -- parsers: bodies that are nearly right -------------------------------------------------------------------

JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(10**15), 10**15) | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=20) | st.datetimes().map(str) | st.datetimes(timezones=st.just(UTC)).map(datetime.isoformat)
    | st.sampled_from(["0001-01-01T00:00:00+14:00", "9999-12-31T23:59:59-14:00", "1" * 400, "a@b.co", "https://é.test",
                       "America/Toronto", "../etc/passwd", "/", "\x00", "\ud7ff", "{{ 7*7 }}", "'; DROP TABLE event"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=5,
)  # fmt: skip
BODIES: list[tuple[Webhook, Scheme | None, Any]] = [
    *[(w, None, body) for w in CHRISTMAS.webhooks for body in w.examples.values()],
    *[(w, n.scheme, body) for w in CHRISTMAS.webhooks for n in w.natives for body in n.examples.values()],
]
KINDS = (
    "BOOKING_CREATED", "BOOKING_RESCHEDULED", "BOOKING_CANCELLED", "BOOKING_NO_SHOW_UPDATED", "PING",
    "invitee.created", "invitee.canceled", "invitee_no_show.created", "invitee_no_show.deleted",
    "checkout.session.completed", "checkout.session.async_payment_succeeded", "invoice.paid",
    "envelope-completed", "envelope-voided",
)  # fmt: skip


def places(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Every place in a body, as the keys that lead there."""
    if path:
        yield path
    pairs = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, inner in pairs:
        yield from places(inner, (*path, key))


@st.composite
def nearly_right(draw: st.DrawFn) -> tuple[Webhook, Scheme | None, Any]:
    """A documented body with a few of its values replaced, removed, or of another kind of event."""
    webhook, scheme, original = draw(st.sampled_from(BODIES))
    body = copy.deepcopy(dict(original))
    for name in ("triggerEvent", "event", "type"):
        if isinstance(body.get(name), str) and draw(st.booleans()):
            body[name] = draw(st.sampled_from(KINDS))
    for _ in range(draw(st.integers(0, 3))):
        known = list(places(body))
        if not known:
            break
        *way, last = draw(st.sampled_from(known))
        inner = body
        for key in way:
            inner = inner[key]
        if draw(st.booleans()) or not isinstance(inner, dict):
            inner[last] = draw(JSON)
        else:
            del inner[last]
    return webhook, scheme, body


KNOWN = Known(
    Booking("calcom:x", BookingState.BOOKED, NOW, NOW, {"first_name": "Ana", "zone": "Nowhere/Land"}),
    (
        Milestone(MilestoneKind.PAID, "a", NOW, {"payment_amount": "1.00"}, None),
        Milestone(MilestoneKind.SIGNED, "b", NOW, {}, None),
    ),
)


def exercise(webhook: Webhook, payload: Payload, body: str) -> None:
    """All that the product will ever ask of a body."""
    found = arrivals(CHRISTMAS, webhook, payload, key=None, body=body, now=NOW, testing_minute=None)
    for arrival, part in zip(found, payload.parts(), strict=True):
        assert len(arrival.key) < 1500  # what an index row can hold
        email = arrival.contact.email if arrival.contact else None
        again = webhook.read_part(body, email)
        if arrival.ignored_because is None:
            assert email
            assert part.booking() is None or any(f.key == part.booking() for f in arrival.facts)
            try:
                joined = again.joined(KNOWN)
            except NotYet:
                continue
            assert len(joined.enrolment_key()) < 1500
            CHRISTMAS.started_by(webhook, joined)
            json.dumps(joined.variables({"calendly_link": "https://c.test"}, NOW))
            joined.anchor(NOW).astimezone(UTC)
            joined.consented_at(NOW)
            joined.follows(), joined.looks_up(), joined.segment(), joined.sent_elsewhere()


def understood(webhook: Webhook, scheme: Scheme | None, raw: bytes) -> None:
    try:
        payload = parse(webhook, raw, scheme)
    except HTTPException as refusal:
        assert refusal.status_code in {400, 422}
        assert refusal.detail
        return
    CASES["understood"] += 1
    exercise(webhook, payload, raw.decode())


def test_a_body_that_is_nearly_right__is_understood_or_refused() -> None:
    @cases(600)
    @given(one=nearly_right())
    def read(one: tuple[Webhook, Scheme | None, Any]) -> None:
        CASES["nearly right"] += 1
        webhook, scheme, body = one
        understood(webhook, scheme, json.dumps(body).encode())

    read()


@pytest.mark.parametrize("path", [w.path for w in CHRISTMAS.webhooks])
def test_any_bytes__are_understood_or_refused(path: str) -> None:
    webhook = CHRISTMAS.webhook(path)

    @cases(150)
    @given(raw=st.binary(max_size=200) | JSON.map(json.dumps).map(str.encode), data=st.data())
    def read(raw: bytes, data: st.DataObject) -> None:
        CASES["any bytes"] += 1
        understood(webhook, data.draw(st.sampled_from([None, *webhook.schemes])), raw)

    read()


# -- the whole application -----------------------------------------------------------------------------------

Ask = Callable[..., httpx.Response]


async def in_a_thread(work: Callable[[Ask], None], web: Web) -> None:
    """Hypothesis is not asynchronous, so it works in a thread and asks through this loop. 10 s without an answer is a
    hang."""
    loop = asyncio.get_running_loop()

    def ask(**request: Any) -> httpx.Response:
        asking: Awaitable[httpx.Response] = web.http.request(**request)
        return asyncio.run_coroutine_threadsafe(asking, loop).result(timeout=10)  # type: ignore[arg-type]

    await asyncio.to_thread(work, ask)


async def test_signed_bodies_that_are_nearly_right__are_stored_or_refused(web: Web) -> None:
    def work(ask: Ask) -> None:
        @cases(120)
        @given(one=nearly_right(), wrong=st.booleans())
        def post(one: tuple[Webhook, Scheme | None, Any], wrong: bool) -> None:
            CASES["posted"] += 1
            webhook, scheme, body = one
            raw = json.dumps(body).encode()
            name = SETTING_OF[scheme or Scheme.STANDARD].upper()
            headers = signed(name, raw, secret="whsec_bm90LW9uZS1vZi1vdXJzLWF0LWFsbA==" if wrong else None)
            answer = ask(method="POST", url=f"/webhook/{webhook.path}", content=raw, headers=headers)
            if wrong and not webhook.public:
                assert answer.status_code == 401
            else:
                assert answer.status_code in {200, 202, 400, 409, 422, 429}, answer.text

        post()

    await in_a_thread(work, web)
    assert not await web.rows("SELECT 1 FROM event WHERE state = 'failed'")


#: A browser's preflight answers OPTIONS, and methods that are not described are 405: other checks' business.
CHECKED = ["not_a_server_error", "status_code_conformance", "response_schema_conformance", "content_type_conformance"]
#: Answered 503 by design while a part of the chain is away, as Prefect is here.
MAY_BE_503 = {"/health/ready", "/api/reconcile"}


async def test_every_route_of_the_openapi_file__keeps_its_word(web: Web) -> None:
    described = (await web.http.get("/openapi.json")).json()
    schema = schemathesis.openapi.from_dict(described)
    checks = CHECKS.get_by_names(CHECKED)
    checks_of_503 = CHECKS.get_by_names(CHECKED[1:])

    def work(ask: Ask) -> None:
        for each in schema.get_all_operations():
            operation = each.ok()
            for shown in (None, TOKEN, ADMIN):

                @cases(5)
                @given(case=operation.as_strategy(), token=st.just(shown))
                def call(case: schemathesis.Case, token: str | None) -> None:
                    CASES["openapi"] += 1
                    request = case.as_transport_kwargs(base_url="http://tidings.test")
                    kept = {k: v for k, v in request.items() if k in {"method", "url", "json", "data", "params"}}
                    headers = {n.lower(): v for n, v in dict(request.get("headers") or {}).items() if n.isascii()}
                    if token:
                        headers["authorization"] = f"Bearer {token}"
                    answer = ask(**kept, headers=headers)
                    away = case.path in MAY_BE_503 and answer.status_code == 503
                    assert away or answer.status_code < 500, answer.text
                    case.validate_response(answer, checks=checks_of_503 if away else checks)

                call()

    await in_a_thread(work, web)
