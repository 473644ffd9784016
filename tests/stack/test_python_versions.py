"""F6: the first run after a worker's start, on every supported Python that this machine has, with uvloop installed.

`TIDINGS_TEST_RESTARTS` says how often each worker is started (20).
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from live_parts import Live, address, until

from tidings.settings import ROOT

pytestmark = [pytest.mark.stack, pytest.mark.slow]

VERSIONS = ("3.11", "3.12", "3.13")
RESTARTS = int(os.environ.get("TIDINGS_TEST_RESTARTS", "20"))
CACHE = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "tidings-tests"
LOCK = ROOT / "requirements.txt"


def interpreter(version: str) -> str | None:
    """A real interpreter of this version (not pyenv's shim, which may stand for none)."""
    candidates = [Path.home() / f".pyenv/versions/{p.name}/bin/python{version}" for p in _pyenv(version)]
    found = shutil.which(f"python{version}")
    for candidate in [*map(str, candidates), *([found] if found else [])]:
        asked = subprocess.run(
            [candidate, "-c", "import sys; print('%d.%d' % sys.version_info[:2])"], capture_output=True, text=True
        )
        if asked.returncode == 0 and asked.stdout.strip() == version:
            return candidate
    return None


def _pyenv(version: str) -> list[Path]:
    return sorted((Path.home() / ".pyenv/versions").glob(f"{version}.*"), reverse=True)


def locked_python(version: str) -> Path:
    """A python with the locked requirements; made once a lock and version, and kept outside of the checkout."""
    base = interpreter(version)
    if base is None:
        pytest.skip(f"this machine has no Python {version}")
    folder = CACHE / f"venv-{version}-{hashlib.sha256(LOCK.read_bytes()).hexdigest()[:12]}"
    python = folder / "bin" / "python"
    if not (folder / "complete").exists():
        uv = str(Path(sys.executable).parent / "uv")
        install = [uv, "pip", "install", "--quiet", "--python", str(python), "--require-hashes", "-r", str(LOCK)]
        for command in ([uv, "venv", "--quiet", "--clear", "--python", base, str(folder)], install):
            made = subprocess.run(command, capture_output=True, text=True)
            if made.returncode:
                pytest.skip(f"the locked requirements cannot be installed on Python {version}: {made.stderr[-800:]}")
        (folder / "complete").touch()
    return python


@pytest.mark.failure("F6", now="Flows are asynchronous: the first run after every start sends, on Python 3.11 to 3.13")
@pytest.mark.parametrize("version", VERSIONS)
async def test_f6_the_first_run_after_every_start__succeeds(live: Live, real_time: str, version: str) -> None:
    python = await asyncio.to_thread(locked_python, version)
    imported = subprocess.run(  # noqa: ASYNC221
        [python, "-c", "import json, sys, uvloop; print(json.dumps([sys.version_info[:2], uvloop.__version__]))"],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert json.loads(imported.stdout)[0] == [int(part) for part in version.split(".")]

    await live.stack.stop_one("worker")
    took: list[float] = []
    try:
        for number in range(RESTARTS):
            took.append(await _first_run(live, real_time, python, f"{version}-{number}"))
    finally:
        await live.stack.restart("worker")
    assert len(took) == RESTARTS
    print(f"Python {version}: {len(took)} of {RESTARTS}, the slowest after {max(took):.1f} s")


async def _first_run(live: Live, web: str, python: Path, label: str) -> float:
    """Start a worker, post right after, wait for the mail, end the worker."""
    email = address(f"f6-{label.replace('.', '')}")
    await live.ledger.forget_burst()
    async with live.process(f"worker-{label}", [str(python), "-m", "tidings", "worker"]) as worker:
        began = time.monotonic()
        answer = await live.accepted("christmas-signup", {"email": email, "consent": True}, web=web)

        async def arrived() -> bool:
            assert worker.alive, worker.tail(40)
            return bool(await live.sandbox.inbox(email, bodies=False))

        await until(f"the first mail of worker {label}", arrived)
        took = time.monotonic() - began
        run = await live.prefect.ended(answer["flow_run_id"])
        assert run["state_type"] == "COMPLETED"
        assert run["run_count"] == 1
        assert worker.popen is not None
        worker.popen.send_signal(signal.SIGTERM)
        code = await asyncio.to_thread(worker.popen.wait, 20)
        assert code == 0, worker.tail(40)
    return took
