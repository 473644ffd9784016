"""Resend through its SDK: every error classified once, batches read right, webhooks trusted only when signed."""

from __future__ import annotations

import base64
import json
import pickle
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import httpx
import pytest
import resend as sdk
from resend.exceptions import NoContentError, ResendError, raise_for_code_and_type
from sandbox_process import Sandbox
from svix.webhooks import Webhook
from worlds import IDENTITY, address

from tidings.adapters.resend import (
    InvalidSignature,
    Resend,
    _batch_results,
    _call,
    classify,
    understand,
    verify,
)
from tidings.errors import (
    KeyReused,
    MessageRefused,
    OutcomeUnknown,
    QuotaExhausted,
    Refused,
    RetryLater,
    ServiceError,
)
from tidings.model import MessageState
from tidings.redact import redact

OURS = UUID("0d5ad2a4-7d3b-4c0c-9f1e-0123456789ab")
NOW = datetime(2026, 12, 1, 15, tzinfo=UTC)
SECRET = "whsec_" + base64.b64encode(b"k" * 24).decode()


def mail(to: str | None = None, **given: Any) -> dict[str, Any]:
    values = {"from": IDENTITY.sender, "to": [to or address()], "subject": "Hi", "html": "<p>Hi</p>", "text": "Hi"}
    return {**values, **given}


# -- classification: every row of apis.md 2.3 ----------------------------------------------------------------

ROWS: list[tuple[int, str, str, type[ServiceError]]] = [
    (400, "invalid_idempotency_key", "The key must be between 1-256 chars.", Refused),
    (400, "validation_error", "Something is wrong", MessageRefused),
    (401, "missing_api_key", "Missing API key in the authorization header.", Refused),
    (401, "restricted_api_key", "This API key is restricted to only send emails", Refused),
    (403, "invalid_api_key", "API key is invalid", Refused),
    (403, "validation_error", "You can only send testing emails to your own email address (a@b.co).", Refused),
    (403, "validation_error", "The x.ca domain is not verified. Please, add and verify your domain", Refused),
    (403, "email_above_quota", "Above quota", Refused),
    (403, "invalid_permission", "No", Refused),
    (403, "suspended_api_key", "Suspended", Refused),
    (404, "not_found", "Email not found", Refused),
    (405, "method_not_allowed", "No", Refused),
    (409, "invalid_idempotent_request", "Same key, other payload", KeyReused),
    (409, "concurrent_idempotent_requests", "In progress", OutcomeUnknown),
    (409, "resource_locked", "Locked", RetryLater),
    (422, "missing_required_field", "Missing `to` field.", MessageRefused),
    (422, "missing_required_parameter", "Missing", MessageRefused),
    (422, "invalid_parameter", "Invalid", MessageRefused),
    (422, "invalid_attachment", "Invalid", MessageRefused),
    (422, "validation_error", "Invalid `to` field. The email address needs to follow …", MessageRefused),
    (422, "validation_error", "Invalid `to` field. Please use our testing email address", MessageRefused),
    (422, "validation_error", "Invalid `from` field. The email address needs to follow …", Refused),
    (422, "invalid_from_address", "Invalid from", Refused),
    (422, "invalid_access", "No", Refused),
    (422, "invalid_region", "No", Refused),
    (429, "rate_limit_exceeded", "Too many requests.", RetryLater),
    (429, "daily_quota_exceeded", "You have reached your daily email sending quota.", QuotaExhausted),
    (429, "monthly_quota_exceeded", "You have reached your monthly quota.", QuotaExhausted),
    (451, "security_error", "No", MessageRefused),
    (500, "application_error", "Oops", OutcomeUnknown),
    (500, "internal_server_error", "Oops", OutcomeUnknown),
    (503, "service_unavailable", "Away", OutcomeUnknown),
    (502, "application_error", "<html>", OutcomeUnknown),
    (504, "gateway_timeout", "Late", OutcomeUnknown),
    (408, "timeout", "Late", OutcomeUnknown),
]


def sdk_error(status: int, name: str, message: str, headers: dict[str, str] | None = None) -> ResendError:
    """The very exception that the SDK raises for this answer."""
    with pytest.raises(ResendError) as told:
        raise_for_code_and_type(code=status, error_type=name, message=message, headers=headers)
    return told.value


@pytest.mark.parametrize(("status", "name", "message", "kind"), ROWS)
def test_every_error__is_classified_once(status: int, name: str, message: str, kind: type[ServiceError]) -> None:
    error = classify(sdk_error(status, name, message))

    assert type(error) is kind
    assert (error.service, error.status, error.code, error.detail) == ("Resend", status, name, redact(message))
    assert pickle.loads(pickle.dumps(error)).args == error.args  # noqa: S301


@pytest.mark.parametrize(
    ("status", "name", "headers", "seconds"),
    [
        (429, "rate_limit_exceeded", {"retry-after": "7"}, 7.0),
        (429, "rate_limit_exceeded", {"Retry-After": "120"}, 120.0),
        (429, "rate_limit_exceeded", {}, 1.0),
        (429, "rate_limit_exceeded", {"retry-after": "soon"}, 1.0),
        (429, "rate_limit_exceeded", {"retry-after": "-5"}, 0.0),
        (429, "rate_limit_exceeded", {"retry-after": "Thu, 01 Jan 1970 00:00:00 GMT"}, 0.0),
        (429, "daily_quota_exceeded", {}, 3600.0),
        (429, "daily_quota_exceeded", {"retry-after": "40000"}, 40000.0),
    ],
)
def test_how_long_to_wait__is_what_resend_says(status: int, name: str, headers: dict[str, str], seconds: float) -> None:
    error = classify(sdk_error(status, name, "later", headers))

    assert isinstance(error, RetryLater)
    assert error.retry_after == seconds


async def test_a_retry_after_that_is_a_date__is_a_time_from_now() -> None:
    at = datetime.now(UTC) + timedelta(seconds=90)
    error = classify(sdk_error(429, "rate_limit_exceeded", "x", {"retry-after": f"{at:%a, %d %b %Y %H:%M:%S} GMT"}))

    assert isinstance(error, RetryLater)
    assert 85 < error.retry_after <= 90


@pytest.mark.parametrize(
    ("cause", "kind"),
    [
        (httpx.ConnectError("refused"), RetryLater),
        (httpx.ConnectTimeout("late"), RetryLater),
        (httpx.PoolTimeout("busy"), RetryLater),
        (httpx.ReadTimeout("late"), OutcomeUnknown),
        (httpx.ReadError("reset"), OutcomeUnknown),
        (httpx.WriteError("reset"), OutcomeUnknown),
        (httpx.RemoteProtocolError("closed"), OutcomeUnknown),
    ],
)
async def test_a_connection_that_was_never_made__did_nothing_and_any_other_may_have(
    resend: Resend, monkeypatch: pytest.MonkeyPatch, cause: Exception, kind: type[ServiceError]
) -> None:
    async def fail(*args: Any, **given: Any) -> Any:
        raise cause

    monkeypatch.setattr(resend._transport._client, "request", fail)

    with pytest.raises(kind):
        await resend.send([mail()], "k")


async def test_an_empty_answer__may_have_done_it() -> None:
    async def nothing() -> Any:
        raise NoContentError

    with pytest.raises(OutcomeUnknown, match="answered with nothing"):
        await _call(nothing())


# -- on the wire ---------------------------------------------------------------------------------------------


async def test_one_mail__is_one_call_with_its_key(resend: Resend, box: Sandbox) -> None:
    (sent,) = await resend.send([mail()], "tidings/one")

    (kept,) = box.inbox()
    assert (kept["id"], kept["idempotency_key"], kept["batch_id"]) == (sent, "tidings/one", None)


async def test_several_mails__come_back_in_order(resend: Resend, box: Sandbox) -> None:
    to = [address() for _ in range(5)]

    sent = await resend.send([mail(t) for t in to], "tidings/many")

    assert {m["id"]: m["to"][0] for m in box.inbox()} == dict(zip(sent, to, strict=True))


async def test_refused_mails_of_a_batch__stand_in_their_places(resend: Resend) -> None:
    to = ["a@example.com", address(), "not an address", address(), "b@test.com"]

    sent = await resend.send([mail(t) for t in to], "tidings/mixed")

    assert [type(s) for s in sent] == [MessageRefused, str, MessageRefused, str, MessageRefused]
    assert "testing email address" in str(sent[0])


async def test_a_batch_refused_for_our_domain__is_nobodys_own_fault(resend: Resend) -> None:
    sent = await resend.send([mail(**{"from": "x@other.test"}) for _ in range(2)], "tidings/domain")

    assert [type(s) for s in sent] == [Refused, Refused]


@pytest.mark.parametrize(
    "answer",
    [
        {},
        {"data": None},
        {"data": [{"id": "a"}]},
        {"data": [{"id": "a"}, {"id": None}]},
        {"data": [{"id": "a"}, {"id": ""}]},
        {"data": [{"id": "a"}, {"id": "b"}, {"id": "c"}]},
        {"data": [{"id": "a"}, {"id": "b"}], "errors": [{"index": 0, "message": "x"}]},
    ],
)
def test_an_answer_that_does_not_add_up__may_have_done_it(answer: dict[str, Any]) -> None:
    with pytest.raises(OutcomeUnknown):
        _batch_results(answer, 2)


async def test_a_repeat_under_the_same_key__is_the_same_mail(resend: Resend, box: Sandbox) -> None:
    payload = mail()

    assert await resend.send([payload], "k") == await resend.send([payload], "k")
    assert len(box.inbox()) == 1


async def test_the_rate_limit__is_learned_from_the_answers(resend: Resend, box: Sandbox) -> None:
    box.set(resend_rate=7)

    await resend.send([mail()], "k")

    assert resend.rate_limit == 7.0


async def test_resends_own_list__goes_back_to_a_moment(resend: Resend) -> None:
    (first,) = await resend.send([mail(subject="One")], "k1")
    (second,) = await resend.send([mail(subject="Two")], "k2")

    listed = await resend.sent_since(datetime.now(UTC) - timedelta(minutes=5))
    later = await resend.sent_since(datetime.now(UTC) + timedelta(minutes=5))

    assert [m["id"] for m in listed] == [second, first]
    assert later == []


async def test_domains__are_listed_with_their_status(resend: Resend) -> None:
    assert ("tidings.test", "verified") in [(d.name, d.status) for d in await resend.domains()]


async def test_the_sdk__is_pointed_at_the_sandbox(resend: Resend, box: Sandbox) -> None:
    assert sdk.api_url == f"{box.url}/resend"


# -- webhooks ------------------------------------------------------------------------------------------------


def signed(body: bytes, at: datetime | None = None, secret: str = SECRET) -> dict[str, str]:
    at = at or datetime.now(UTC)
    return {
        "svix-id": "msg_1",
        "svix-timestamp": str(int(at.timestamp())),
        "svix-signature": Webhook(secret).sign("msg_1", at, body.decode()),
    }


def test_a_signed_body__is_trusted() -> None:
    verify(b'{"type":"x"}', signed(b'{"type":"x"}'), [SECRET])


OTHER = "whsec_" + base64.b64encode(b"o" * 24).decode()
THIRD = "whsec_" + base64.b64encode(b"t" * 24).decode()


@pytest.mark.parametrize("secret", [SECRET, THIRD])
def test_any_of_several_secrets__is_enough_while_one_is_replaced(secret: str) -> None:
    verify(b"{}", signed(b"{}", secret=secret), [THIRD, SECRET])


def test_without_a_secret__nothing_is_trusted() -> None:
    with pytest.raises(InvalidSignature):
        verify(b"{}", signed(b"{}"), [])


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"svix-id": "msg_1"},
        {**signed(b"{}"), "svix-id": "msg_2"},
        {**signed(b"{}"), "svix-timestamp": "0"},
        {**signed(b"{}"), "svix-timestamp": "soon"},
        {**signed(b"{}"), "svix-signature": "v1,!!!"},
        {**signed(b"{}"), "svix-signature": ""},
        {**signed(b"{}"), "svix-signature": "v1"},
        {**signed(b"{}"), "svix-signature": "é"},
        signed(b"{}", secret=OTHER),
        signed(b"{ }"),
        signed(b"{}", at=datetime.now(UTC) - timedelta(hours=1)),
        signed(b"{}", at=datetime.now(UTC) + timedelta(hours=1)),
    ],
)
def test_a_forged_or_old_body__is_refused_with_the_setting(headers: dict[str, str]) -> None:
    with pytest.raises(InvalidSignature, match="check RESEND_WEBHOOK_SECRET"):
        verify(b"{}", headers, [SECRET, THIRD])


def event(kind: str, **data: Any) -> bytes:
    return json.dumps(
        {"type": kind, "created_at": "2026-12-01T14:59:00.000Z", "data": {"email_id": "e1", **data}}
    ).encode()


@pytest.mark.parametrize(
    ("kind", "data", "state"),
    [
        ("email.sent", {}, MessageState.SENT),
        ("email.delivered", {}, MessageState.DELIVERED),
        ("email.bounced", {"bounce": {"type": "Permanent"}}, MessageState.BOUNCED),
        ("email.bounced", {}, MessageState.BOUNCED),
        ("email.bounced", {"bounce": {"type": "Transient"}}, None),
        ("email.complained", {}, MessageState.COMPLAINED),
        ("email.failed", {"failed": {"reason": "reached_daily_quota"}}, MessageState.FAILED),
        ("email.suppressed", {}, MessageState.FAILED),
        ("email.opened", {}, None),
        ("email.clicked", {}, None),
        ("email.delivery_delayed", {}, None),
        ("email.scheduled", {}, None),
        ("contact.created", {}, None),
        ("something.new", {}, None),
    ],
)
def test_an_event__is_understood(kind: str, data: dict[str, Any], state: MessageState | None) -> None:
    report = understand("msg_1", event(kind, **data), NOW)

    assert (report.id, report.type, report.provider_id, report.state) == ("msg_1", kind, "e1", state)
    assert report.at == datetime(2026, 12, 1, 14, 59, tzinfo=UTC)


@pytest.mark.parametrize(
    "tags", [{"message": str(OURS)}, [{"name": "a", "value": "b"}, {"name": "message", "value": str(OURS)}]]
)
def test_our_message__is_found_in_either_form_of_tags(tags: Any) -> None:
    assert understand("x", event("email.sent", tags=tags), NOW).message_id == OURS


@pytest.mark.parametrize(
    "tags", [None, [], {}, "x", ["x"], {"message": ""}, {"message": "m1"}, [{"name": "other", "value": str(OURS)}]]
)
def test_tags_of_others__name_no_message(tags: Any) -> None:
    assert understand("x", event("email.sent", tags=tags), NOW).message_id is None


def test_a_reason__is_in_resends_words() -> None:
    bounce = {"type": "Permanent", "subType": "General", "message": "No such\x00 box"}

    assert (
        understand("x", event("email.bounced", bounce=bounce), NOW).reason == "Resend: Permanent, General, No such box"
    )


@pytest.mark.parametrize(
    ("written", "at"),
    [
        ("2026-07-04 22:13:42.674981+00", datetime(2026, 7, 4, 22, 13, 42, 674981, tzinfo=UTC)),
        ("2026-07-04T22:13:42.000Z", datetime(2026, 7, 4, 22, 13, 42, tzinfo=UTC)),
        ("2026-07-04T22:13:42", datetime(2026, 7, 4, 22, 13, 42, tzinfo=UTC)),
        ("yesterday", NOW),
        (None, NOW),
    ],
)
def test_a_time__is_read_in_both_of_resends_forms(written: Any, at: datetime) -> None:
    raw = json.dumps({"type": "email.sent", "created_at": written, "data": {}}).encode()

    assert understand("x", raw, NOW).at == at


@pytest.mark.parametrize("raw", [b"", b"{", b"[]", b"null", b'{"data": {}}', b'{"type": 5}', b"\xff"])
def test_a_body_that_is_no_event__is_a_value_error(raw: bytes) -> None:
    with pytest.raises(ValueError, match=r"."):
        understand("x", raw, NOW)


@pytest.mark.parametrize("data", [None, [], "x", {"email_id": None}])
def test_odd_data__names_no_mail(data: Any) -> None:
    raw = json.dumps({"type": "email.sent", "data": data}).encode()

    assert understand("x", raw, NOW).provider_id is None


@pytest.mark.parametrize("odd", [5, ["a"], {"a": 1}])
def test_an_id_that_is_no_text__names_no_mail(odd: Any) -> None:
    assert understand("x", event("email.sent", email_id=odd), NOW).provider_id is None
