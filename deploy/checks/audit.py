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
    "--progress-spinner", "off", "--format", "json", "--requirement",
)  # fmt: skip
#: What runs in production, and what builds and tests it.
LOCKS = ("requirements.txt", "requirements-dev.txt")
#: What pip-audit's error says when there is no way to the advisories, and when their server does not do its work.
NO_NETWORK = ("ConnectionError", "ConnectTimeout")
OUTAGE = ("ServiceError", "ReadTimeout", "JSONDecodeError")


class NotPossible(Exception):
    """It could not be checked here. Nothing is said of what was to be checked."""


def run(command: Sequence[str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, capture_output=True, text=True, timeout=600)


def problems(audit: Callable[[Sequence[str]], subprocess.CompletedProcess[str]] = run) -> list[str]:
    """Every known fault of a locked package. Raises NotPossible when that could not be learned of all of them."""
    found: dict[str, None] = {}  # a package may be in both
    reason: NotPossible | None = None
    for lock in LOCKS:
        try:
            found |= dict.fromkeys(_of_lock(audit((*COMMAND, str(ROOT / lock)))))
        except NotPossible as error:
            reason = error
    if reason and not found:
        raise reason
    return list(found)


def _of_lock(done: subprocess.CompletedProcess[str]) -> list[str]:
    if done.stdout.strip():
        return list(_found(json.loads(done.stdout)))
    lines = done.stderr.strip().splitlines() or ["it said nothing"]
    if any(word in lines[-1] for word in NO_NETWORK):
        raise NotPossible("the advisories cannot be reached from here; run it where there is a network")
    if any(word in lines[-1] for word in OUTAGE):
        why = next((line for line in lines if "HTTPError" in line), lines[-1])
        raise NotPossible(f"the advisories' server does not do its work ({why}); run it again later")
    return [f"pip-audit failed: {lines[-1]}"]


def _found(report: Any) -> Iterator[str]:
    for package in report["dependencies"]:
        if "skip_reason" in package:  # which pip-audit itself takes for no fault
            yield f"{package['name']} was not audited: {package['skip_reason']}"
        for fault in package.get("vulns", []):
            fixed = ", ".join(fault.get("fix_versions") or []) or "no version yet"
            yield f"{package['name']} {package['version']} has {fault['id']}; fixed in {fixed}"
