"""What only a bot does, who a sender is, and what is known of neither."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from pydantic import ValidationError

from tidings.form import Signals, client_of, quota, seconds_left, suspicion
from tidings.model import Over, Quota

THEN = datetime(2026, 12, 1, tzinfo=UTC)


def why(**given: Any) -> str | None:
    found = suspicion(Signals.model_validate(given), 2.0)
    return found and found[0]


@pytest.mark.parametrize("trap", ["x", "0", 1, True, ["a"], {"a": 1}, 0])
def test_a_hidden_field_with_anything_in_it__is_a_bots(trap: Any) -> None:
    assert why(form_trap=trap) == "hidden field filled in"


@pytest.mark.parametrize("trap", ["", "  ", None, False])
def test_an_empty_hidden_field__is_a_persons(trap: Any) -> None:
    assert why(form_trap=trap, form_seconds=20) is None


@pytest.mark.parametrize(
    ("seconds", "expected"),
    [(0, "sent too soon"), (1.99, "sent too soon"), ("0.4", "sent too soon"), (2, None), ("95.5", None), (1e9, None)],
)
def test_a_form_sent_sooner_than_anybody_fills_it_in__is_a_bots(seconds: Any, expected: str | None) -> None:
    assert why(form_seconds=seconds) == expected


@pytest.mark.parametrize("given", [{}, {"form_seconds": None}, {"form_seconds": ""}, {"form_trap": None}])
def test_a_website_that_sends_neither__is_believed(given: dict[str, Any]) -> None:
    assert why(**given) is None


@pytest.mark.parametrize("seconds", [-1, "soon", float("nan"), float("inf"), [2]])
def test_a_time_that_is_none__is_refused(seconds: Any) -> None:
    with pytest.raises(ValidationError, match="form_seconds"):
        Signals.model_validate({"form_seconds": seconds})


@pytest.mark.parametrize(
    ("given", "missing"),
    [
        ({}, ["form_trap", "form_seconds"]),
        ({"form_trap": ""}, ["form_seconds"]),
        ({"form_trap": "", "form_seconds": ""}, ["form_seconds"]),
        ({"form_seconds": 3}, ["form_trap"]),
        ({"form_trap": "", "form_seconds": 3}, []),
    ],
)
def test_what_is_missing__is_named(given: dict[str, Any], missing: list[str]) -> None:
    assert Signals.model_validate(given).missing == missing


@pytest.mark.parametrize(
    ("forwarded", "peer", "proxies", "client"),
    [
        ([], "9.9.9.9", 0, "9.9.9.9"),
        (["8.8.8.8"], "9.9.9.9", 0, "9.9.9.9"),
        (["8.8.8.8"], "172.18.0.2", 1, "8.8.8.8"),
        (["1.1.1.1", "8.8.8.8"], "172.18.0.2", 1, "8.8.8.8"),
        (["1.1.1.1", "8.8.8.8", "9.9.9.9"], "172.18.0.2", 2, "8.8.8.8"),
        ([], "9.9.9.9", 1, "9.9.9.9"),
        (["8.8.8.8:4711"], None, 1, "8.8.8.8"),
        (["[2606:4700:1:2:3:4:5:6]:443"], None, 1, "2606:4700:1:2::/64"),
        (["2606:4700:1:2:ffff::1"], None, 1, "2606:4700:1:2::/64"),
        (["::ffff:8.8.8.8"], None, 1, "8.8.8.8"),
    ],
)
def test_a_client__is_who_the_outermost_of_our_proxies_saw(
    forwarded: list[str], peer: str | None, proxies: int, client: str
) -> None:
    assert client_of(forwarded, peer, proxies) == client


@pytest.mark.parametrize(
    "peer",
    [None, "", "testclient", "127.0.0.1", "172.18.0.2", "10.1.2.3", "::1", "fe80::1", "fd00::1", "unknown", "[", ":"],
)
def test_an_address_that_is_not_of_the_internet__is_nobodys(peer: str | None) -> None:
    assert client_of([], peer, 0) is None


def test_a_count__tells_of_nobody_and_differs_by_kind_and_secret() -> None:
    found = {
        quota(kind, value, 5, secret).bucket
        for kind in ("a", "b")
        for value in ("8.8.8.8", "8.8.8.9")
        for secret in ("s" * 16, "t" * 100)
    }

    assert len(found) == 8
    assert quota("a", "8.8.8.8", 5, "s" * 16) == quota("a", "8.8.8.8", 5, "s" * 16)


@pytest.mark.parametrize(("left", "seconds"), [(0.2, 1), (1.0, 1), (1.1, 2), (600, 600), (-3, 1)])
def test_the_time_to_wait__is_rounded_up(left: float, seconds: int) -> None:
    assert seconds_left(Over(Quota("a", 1, 5), THEN + timedelta(seconds=left)), THEN) == seconds
