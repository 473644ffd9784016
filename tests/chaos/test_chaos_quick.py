"""The short chaos run: nothing is lost and nothing doubled, whatever is killed."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from tidings.settings import ROOT


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_a_quick_run_loses_nothing_and_doubles_nothing() -> None:
    """In a process of its own, as `make chaos-quick` runs it. The seed of a failed run is in its output."""
    # One plan for every run of the tests, so that a failure is the code's; `make chaos-quick` draws a new one.
    seed = os.environ.get("CHAOS_SEED", "5")
    done = subprocess.run(
        [sys.executable, "-m", "tidings.chaos", "--quick", "--seed", seed],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=900,
    )
    assert done.returncode == 0, done.stdout[-12_000:] + done.stderr[-4_000:]
    assert "Nothing lost, nothing doubled." in done.stdout
