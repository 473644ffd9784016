"""The systemd units, by systemd's own word."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from tidings.settings import ROOT

FOLDER = ROOT / "deploy" / "systemd"


def problems() -> list[str]:
    """What is wrong with the units: by our own rule for Prefect, and by systemd's word."""
    return [*private_problems((FOLDER / "tidings-prefect.service").read_text(encoding="utf-8")), *_verified()]


def private_problems(unit: str) -> list[str]:
    """Prefect listens on this machine only, and does not start without a password."""
    found = []
    if "--host 127.0.0.1 " not in unit:
        found.append("tidings-prefect: must listen on 127.0.0.1 only")
    if not re.search(r"^ExecStartPre=.*test -n .*PREFECT_SERVER_API_AUTH_STRING", unit, re.MULTILINE):
        found.append("tidings-prefect: must not start without PREFECT_SERVER_API_AUTH_STRING")
    return found


def _verified() -> list[str]:
    """What `systemd-analyze verify` says of the units, as if this checkout were installed."""
    analyze = shutil.which("systemd-analyze")
    if analyze is None:
        return ["systemd-analyze is not installed here, so the units were not checked"]
    with tempfile.TemporaryDirectory() as folder:
        copies = [_copy(unit, Path(folder)) for unit in sorted(FOLDER.iterdir())]
        done = subprocess.run([analyze, "verify", *copies], capture_output=True, text=True)
    said = [line for line in done.stderr.splitlines() if "tidings" in line]
    return said or ([] if done.returncode == 0 else done.stderr.splitlines())


def _copy(unit: Path, folder: Path) -> str:
    """The unit with programs that exist on this machine."""
    here = str(Path(sys.executable).parent)
    copy = folder / unit.name
    copy.write_text(unit.read_text().replace("/opt/tidings/.venv/bin", here))
    return str(copy)
