"""wrk as the load generator: it costs a tenth of what a client in Python would, on the cores that are measured."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import uuid
from dataclasses import dataclass
from pathlib import Path

from tidings.errors import TidingsError

SCRIPT = Path(__file__).with_name("signups.lua")


class NoLoadGenerator(TidingsError):
    """wrk is not installed."""


@dataclass(frozen=True)
class Load:
    """What wrk saw."""

    seconds: float
    requests: int
    #: Answers other than 2xx and 3xx, and requests without an answer.
    refused: int
    lost: int
    p50_ms: float
    p99_ms: float

    @property
    def rate(self) -> float:
        """Answered requests a second."""
        return (self.requests - self.refused) / self.seconds


def require_wrk() -> None:
    """Raises NoLoadGenerator, with the cure, where there is none."""
    if shutil.which("wrk") is None:
        raise NoLoadGenerator("wrk is not installed; on Debian: apt-get install wrk. Then run it again.")


async def signups(url: str, *, seconds: float, connections: int, rate: float | None = None) -> Load:
    """Post signups, each of another contact; as fast as it goes, or at about this many a second."""
    # Each connection waits between an answer and its next request, for the gap less the answer's own time.
    pause = 0 if rate is None else max(1, round(1000 * connections / rate))
    process = await asyncio.create_subprocess_exec(
        "wrk", "-t1", f"-c{connections}", f"-d{seconds:g}s", "--timeout", "20s", "-s", str(SCRIPT), url,
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT,
        env={**os.environ, "TAG": uuid.uuid4().hex[:10], "PAUSE_MS": str(pause)},
    )  # fmt: skip
    output = (await process.communicate())[0].decode()
    line = next((part for part in output.splitlines() if part.startswith("RESULT ")), None)
    if line is None:
        raise TidingsError(f"wrk ended with {process.returncode}: {output[-500:]}")
    return Load(**json.loads(line.removeprefix("RESULT ")))
