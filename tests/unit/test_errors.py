"""The tree of errors: what each says of trying again, and that each survives the way between processes."""

from __future__ import annotations

import pickle

import pytest

from tidings import errors
from tidings.adapters.notion import NotFound, PropertyMissing
from tidings.errors import (
    ConfigError,
    KeyReused,
    LedgerUnavailable,
    MessageRefused,
    OutcomeUnknown,
    QuotaExhausted,
    Refused,
    RetryLater,
    ServiceError,
    TidingsError,
)

SERVICE_ERRORS = [
    Refused,
    MessageRefused,
    KeyReused,
    RetryLater,
    QuotaExhausted,
    OutcomeUnknown,
    NotFound,
    PropertyMissing,
]
PLAIN_ERRORS = [
    kind
    for kind in vars(errors).values()
    if isinstance(kind, type) and issubclass(kind, TidingsError) and not issubclass(kind, (ServiceError, ConfigError))
]


@pytest.mark.parametrize("kind", SERVICE_ERRORS)
def test_a_service_error__survives_pickling(kind: type[ServiceError]) -> None:
    error = kind("Resend", "Too many", status=429, code="rate_limit_exceeded")

    again = pickle.loads(pickle.dumps(error))  # noqa: S301

    assert type(again) is kind
    assert str(again) == str(error) == "Resend: 429 rate_limit_exceeded: Too many"
    assert (again.service, again.detail, again.status, again.code) == ("Resend", "Too many", 429, "rate_limit_exceeded")


@pytest.mark.parametrize("kind", [RetryLater, QuotaExhausted])
def test_how_long_to_wait__survives_pickling(kind: type[RetryLater]) -> None:
    again = pickle.loads(pickle.dumps(kind("Notion", "later", retry_after=93.5)))  # noqa: S301

    assert again.retry_after == 93.5


@pytest.mark.parametrize("kind", PLAIN_ERRORS)
def test_an_error_of_ours__survives_pickling(kind: type[TidingsError]) -> None:
    again = pickle.loads(pickle.dumps(kind("what and why")))  # noqa: S301

    assert type(again) is kind
    assert str(again) == "what and why"


def test_a_config_error__survives_pickling_with_all_its_problems() -> None:
    error = ConfigError(["SENDER is missing; set SENDER", "NOTION_TOKEN is missing; set NOTION_TOKEN"])

    again = pickle.loads(pickle.dumps(error))  # noqa: S301

    assert again.problems == error.problems
    assert str(again) == str(error)


def test_trying_again__can_help_only_where_it_can() -> None:
    retryable = {kind for kind in [*PLAIN_ERRORS, *SERVICE_ERRORS, ConfigError] if kind.retryable}

    assert retryable == {LedgerUnavailable, RetryLater, QuotaExhausted, OutcomeUnknown}


def test_only_a_refused_message__is_the_messages_fault() -> None:
    assert {kind for kind in SERVICE_ERRORS if getattr(kind, "concerns_message", False)} == {MessageRefused}
