"""Secrets, unsubscribe tokens and addresses are in no log line, whoever writes it."""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Iterator
from typing import Any

import pytest

from tidings import redact as redacting
from tidings.errors import RetryLater
from tidings.logs import JsonFormatter, PlainFormatter, redact_all_logs
from tidings.redact import hide, redact
from tidings.settings import Settings

SECRET = "re_marked/sec:ret=="


@pytest.fixture(autouse=True)
def hidden(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(redacting, "_secrets", set())
    monkeypatch.setattr(redacting, "_pattern", None)
    before = logging.getLogRecordFactory()
    hide([SECRET, "short"])
    redact_all_logs()
    yield
    logging.setLogRecordFactory(before)


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("to delivered+x@resend.dev, sam@b.co", "to d…@resend.dev, s…@b.co"),
        ("Key (email)=(sam@b.co) already exists", "Key (email)=(s…@b.co) already exists"),
        ("GET /api/contacts/delivered%2Bx%40resend.dev", "GET /api/contacts/d…%40resend.dev"),
        ("GET /x/%2Bsam%40resend.dev", "GET /x/%2B…%40resend.dev"),
        ("100%sam@b.co", "100%s…@b.co"),
        ('{"to": ["sam@b.co"]}', '{"to": ["s…@b.co"]}'),
        ("Sam <ä.é@exämple.ca>", "Sam <ä…@exämple.ca>"),
        ("postgresql://tidings:word@db.example.ca/x", "postgresql://tidings:w…@db.example.ca/x"),
        ("GET /unsubscribe/abc.DEF_-1?x=2 200", "GET /unsubscribe/[hidden]?x=2 200"),
        ("POST /confirm/abc.DEF_-1 200", "POST /confirm/[hidden] 200"),
        (f"key {SECRET} refused", "key [hidden] refused"),
        ("http://u:re_marked/sec%3Aret%3D%3D@h/", "http://u:[hidden]@h/"),
        ("a @ b, short, user@localhost, 5@2", "a @ b, short, user@localhost, 5@2"),
    ],
)
def test_what_is_hidden__is_so_wherever_it_stands(text: str, shown: str) -> None:
    assert redact(text) == shown


@pytest.mark.parametrize(
    "part",
    ["a", "a.", "%41", "a@", "@", "a@1.", "@a.1", "a@b.co ", "/unsubscribe/", "%40", "a%40", "-.", "ä"],
)
@pytest.mark.parametrize("end", ["", "?@", "@", "%40", "@x"])
def test_a_line_that_somebody_made_long__is_not_slow(part: str, end: str) -> None:
    began = time.process_time()

    redact(part * (64_000 // len(part)) + end)

    assert time.process_time() - began < 0.5


def record(logger: logging.Logger, *args: Any, **kwargs: Any) -> logging.LogRecord:
    found: list[logging.LogRecord] = []
    handler = logging.Handler()
    handler.emit = found.append  # type: ignore[method-assign]
    logger.addHandler(handler)
    try:
        logger.error(*args, **kwargs)
    finally:
        logger.removeHandler(handler)
    return found[0]


@pytest.mark.parametrize(
    ("args", "shown"),
    [
        (("sent to %s", "sam@b.co"), "sent to s…@b.co"),
        (("%s: %r", "x", ValueError(SECRET)), "x: ValueError('[hidden]')"),
        ((f"100% of {SECRET}",), "100% of [hidden]"),
        (("%d mails", 5), "5 mails"),
        (("%(a)s", {"a": "sam@b.co"}), "s…@b.co"),
    ],
)
def test_another_librarys_line__is_redacted_for_every_handler(args: Any, shown: str) -> None:
    made = record(logging.getLogger("somebody.else"), *args)

    assert made.getMessage() == shown
    assert logging.Formatter().format(made) == shown


def test_a_traceback__is_redacted_too() -> None:
    try:
        raise ValueError(f"{SECRET} of sam@b.co")
    except ValueError:
        made = record(logging.getLogger("somebody.else"), "failed", exc_info=True)

    for formatter in (logging.Formatter(), PlainFormatter(), JsonFormatter()):
        shown = formatter.format(made)
        assert "[hidden] of s…@b.co" in shown
        assert "sam@" not in shown
        assert SECRET not in shown


def test_uvicorns_access_line__keeps_its_five_parts() -> None:
    made = record(
        logging.getLogger("uvicorn.access"),
        '%s - "%s %s HTTP/%s" %d',
        "9.9.9.9:1",
        "GET",
        "/unsubscribe/t.o",
        "1.1",
        200,
    )

    assert made.args == ("9.9.9.9:1", "GET", "/unsubscribe/[hidden]", "1.1", 200)


@pytest.mark.parametrize("formatter", [PlainFormatter(), JsonFormatter()])
def test_our_lines_fields__are_redacted(formatter: logging.Formatter) -> None:
    made = record(logging.getLogger("tidings.x"), "something.happened", extra={"error": f"{SECRET} of sam@b.co"})

    assert "[hidden] of s…@b.co" in formatter.format(made)


def test_a_json_line__stays_json() -> None:
    made = record(logging.getLogger("tidings.x"), "it.happened", extra={"error": 'said "sam@b.co"\n', "n": 5})

    assert json.loads(JsonFormatter().format(made))["error"] == 'said "s…@b.co"\n'


def test_a_services_error__says_neither() -> None:
    error = RetryLater("Resend", f"Illegal header value b'Bearer {SECRET}' for sam@b.co", status=422)

    assert str(error) == "Resend: 422: Illegal header value b'Bearer [hidden]' for s…@b.co"
    assert error.detail == "Illegal header value b'Bearer [hidden]' for s…@b.co"


def test_every_secret_setting__is_known(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PREFECT_API_AUTH_STRING", "admin:prefect-word")
    secret = {n for n, f in Settings.model_fields.items() if "SecretStr" in str(f.annotation)}
    given: dict[str, Any] = {name: f"marked-{name}-000000" for name in secret - {"database_url", "hcaptcha_secret"}}
    required = {n: "1" for n, f in Settings.model_fields.items() if f.is_required() and n not in secret}
    required |= {"sender": "a@b.co", "prefect_api_url": "http://user:url-word@h/api"}
    given["standard_webhook_secrets"] = "whsec_bWFya2VkLXN0YW5kYXJkLXdlYmhvb2s="
    given["resend_webhook_secret"] = "whsec_bWFya2VkLXJlc2VuZC13ZWJob29rcw=="
    given |= {"webhook_tokens": "marked-one, marked-two", "database_url": "postgresql://u:marked-db@h/x"}

    found = Settings(**{**required, **given}, _env_file=None).secrets

    assert found >= {*given.values(), "marked-one", "marked-two", "marked-db", "admin:prefect-word", "url-word"}
