"""The locked packages against the known faults, by pip-audit and the public advisories (OSV)."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from tidings.settings import ROOT

COMMAND = (
    sys.executable, "-m", "pip_audit", "--vulnerability-service", "osv", "--disable-pip", "--require-hashes",
    "--progress-spinner", "off", "--format", "json", "--requirement", str(ROOT / "requirements.txt"),
)  # fmt: skip
#: What pip-audit's error says when there is no way to the advisories.
NO_NETWORK = ("ConnectionError", "ConnectTimeout", "ReadTimeout", "ServiceError")


class NotPossible(Exception):
    """It could not be checked here. Nothing is said of what was to be checked."""


def run(command: Sequence[str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, capture_output=True, text=True, timeout=600)


def problems(audit: Callable[[Sequence[str]], subprocess.CompletedProcess[str]] = run) -> list[str]:
    """Every known fault of a locked package. Raises NotPossible without a network."""
    done = audit(COMMAND)
    if not done.stdout.strip():
        last = done.stderr.strip().splitlines()[-1:] or ["it said nothing"]
        if any(word in last[0] for word in NO_NETWORK):
            raise NotPossible("the advisories cannot be reached from here; run it where there is a network")
        return [f"pip-audit failed: {last[0]}"]
    return list(_found(json.loads(done.stdout)))


def _found(report: Any) -> Iterator[str]:
    for package in report["dependencies"]:
        if "skip_reason" in package:  # which pip-audit itself takes for no fault
            yield f"{package['name']} was not audited: {package['skip_reason']}"
        for fault in package.get("vulns", []):
            fixed = ", ".join(fault.get("fix_versions") or []) or "no version yet"
            yield f"{package['name']} {package['version']} has {fault['id']}; fixed in {fixed}"
