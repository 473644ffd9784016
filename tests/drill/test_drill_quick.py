"""A short drill: some ways, and a short quiet period."""

from __future__ import annotations

import subprocess
import sys

import pytest

from tidings.settings import ROOT

WAYS = {
    "hot-lead": "A CRITICAL contact has come in by christmas-signup",
    "template-missing": "Templates in Notion cannot be sent",
    "read-only": "the ledger (PostgreSQL) does not work",
}


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="stops processes as Linux does")
def test_a_short_drill__finds_every_alert_and_none_that_is_false() -> None:
    """In a process of its own, as `make drill` runs it."""
    only = [part for name in WAYS for part in ("--only", name)]
    done = subprocess.run(
        [sys.executable, "-m", "tidings.drill", *only, "--quiet-minutes", "4"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert done.returncode == 0, done.stdout[-12_000:] + done.stderr[-4_000:]
    assert "None missing, none false. 3 ways" in done.stdout
    table = done.stdout.partition("Failure → alert")[2]
    assert [title for title in WAYS.values() if title not in table] == []
