"""The audit: a known fault fails, and what could not be looked up is never taken for good."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from subprocess import CompletedProcess
from typing import Any

import pytest

from deploy.checks import __main__ as checks
from deploy.checks import audit

CLEAN = {"name": "jinja2", "version": "3.1.6", "vulns": []}
FAULTY = {"name": "jinja2", "version": "2.4.1", "vulns": [{"id": "PYSEC-2014-8", "fix_versions": ["2.7.2"]}]}
SKIPPED = {"name": "own", "skip_reason": "not found"}


def says(*packages: Any, error: str = "") -> Callable[[Sequence[str]], CompletedProcess[str]]:
    told = json.dumps({"dependencies": packages}) if packages else ""
    return lambda command: CompletedProcess(list(command), 1 if error else 0, told, error)


@pytest.mark.parametrize(
    ("packages", "found"),
    [
        ([CLEAN], []),
        ([CLEAN, FAULTY], ["jinja2 2.4.1 has PYSEC-2014-8; fixed in 2.7.2"]),
        ([SKIPPED], ["own was not audited: not found"]),
    ],
)
def test_a_known_fault__is_named(packages: list[Any], found: list[str]) -> None:
    assert audit.problems(says(*packages)) == found


def test_without_a_network__it_says_that_it_is_not_done(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    silent = says(error="Traceback\nrequests.exceptions.ConnectionError: no way")
    monkeypatch.setitem(checks.CHECKS, "audit", lambda: audit.problems(silent))  # type: ignore[arg-type]

    assert checks.main(["audit"]) == 3
    assert checks.main(["audit", "settings"]) == 3
    assert "audit: NOT DONE: the advisories cannot be reached" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (
            "requests.exceptions.HTTPError: 503 Server Error: Unavailable\n\nThe above exception was the direct cause"
            "\n\nTraceback\npip_audit._service.interface.ServiceError",
            "503 Server Error",
        ),
        ("Traceback\nrequests.exceptions.ReadTimeout: read timed out", "read timed out"),
        ("Traceback\nrequests.exceptions.JSONDecodeError: Expecting value", "Expecting value"),
    ],
)
def test_an_outage_of_the_advisories_server__is_said_and_is_not_taken_for_good(error: str, said: str) -> None:
    with pytest.raises(audit.NotPossible, match=f"the advisories' server does not do its work .*{said}"):
        audit.problems(says(error=error))


def test_both_locks__are_audited_and_what_is_known_counts_whatever_the_other_says() -> None:
    asked: list[str] = []

    def second_is_lost(command: Sequence[str]) -> CompletedProcess[str]:
        asked.append(command[-1].rpartition("/")[2])
        return says(FAULTY)(command) if len(asked) == 1 else says(error="ConnectionError: no way")(command)

    assert audit.problems(second_is_lost) == ["jinja2 2.4.1 has PYSEC-2014-8; fixed in 2.7.2"]
    assert asked == ["requirements.txt", "requirements-dev.txt"]


def test_any_other_failure__is_one(monkeypatch: pytest.MonkeyPatch) -> None:
    assert audit.problems(says(error="bad requirement")) == ["pip-audit failed: bad requirement"]
