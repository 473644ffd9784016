"""What Prefect has of our deployments and workers, beside what the code needs. Without Prefect's imports."""

from __future__ import annotations

import asyncio
import hashlib
import json
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import cache
from pathlib import Path
from threading import Lock
from typing import Any

from pydantic import TypeAdapter

from tidings.adapters.prefect_api import PrefectApi, segment
from tidings.errors import CampaignError
from tidings.settings import ROOT

#: A worker says every 30 s that it lives; after three missed words it counts as gone.
HEARTBEAT_SECONDS = 95.0
#: Prefect's largest page.
PAGE = 200
#: The longest that another process may take to import the flows, on a machine that is busy.
APART_SECONDS = 60.0


@dataclass(frozen=True, slots=True)
class Expected:
    """A deployment as the code needs it: which flow it runs, and a digest of the parameters that this takes."""

    entrypoint: str
    signature: str


@dataclass(frozen=True, slots=True)
class Deployed:
    """A deployment as Prefect has it."""

    name: str
    entrypoint: str | None = None
    work_pool_name: str | None = None
    paused: bool = False
    parameter_openapi_schema: dict[str, Any] | None = None


@dataclass(frozen=True, slots=True)
class Worker:
    name: str
    last_heartbeat_time: datetime | None = None


_EXPECTED = TypeAdapter(dict[str, Expected])
_DEPLOYED, _WORKERS = TypeAdapter(list[Deployed]), TypeAdapter(list[Worker])
_ONE_AT_A_TIME = Lock()


def signature(schema: Mapping[str, Any]) -> str:
    """A digest of what a run may be given: names, types, which of them must be there."""
    said = {"properties": schema.get("properties", {}), "required": sorted(schema.get("required", []))}
    return hashlib.sha256(json.dumps(said, sort_keys=True).encode()).hexdigest()[:12]


async def expected_of(folders: Sequence[Path]) -> Mapping[str, Expected]:
    """The deployments that these campaigns need, asked of another process: to know, one has to import the flows, and
    with them Prefect, of which the webhook server has no other use (36 MB). Asked once: code does not change while it
    runs. Raises CampaignError."""
    return await asyncio.to_thread(_expected_once, tuple(folders))


def _expected_once(folders: tuple[Path, ...]) -> Mapping[str, Expected]:
    with _ONE_AT_A_TIME:
        return _expected(folders)


@cache
def _expected(folders: tuple[Path, ...]) -> Mapping[str, Expected]:
    command = [sys.executable, "-m", "tidings.adapters.deploy", *map(str, folders)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=APART_SECONDS, check=False)
    if done.returncode != 0:
        last = done.stderr.strip().rpartition("\n")[2]
        raise CampaignError(f"Which deployments the code needs cannot be told: {last or 'its process said nothing'}")
    return _EXPECTED.validate_json(done.stdout)


def signatures(expected: Mapping[str, Expected]) -> dict[str, str]:
    """By deployment, the digest of its parameters."""
    return {name: each.signature for name, each in expected.items()}


async def problems(api: PrefectApi, expected: Mapping[str, Expected], pool: str) -> dict[str, str]:
    """By deployment, what differs between Prefect and the code: missing, other parameters (F4, F8), or stopped."""
    there: dict[str, Deployed] = {}
    names = sorted(expected)
    for start in range(0, len(names), PAGE):
        question = {"deployments": {"name": {"any_": names[start : start + PAGE]}}, "limit": PAGE}
        found = await api.post("/deployments/filter", _DEPLOYED, what="deployments", json=question)
        there |= {each.name: each for each in found}
    told = {name: _problem(name, each, there.get(name), pool) for name, each in expected.items()}
    return {name: problem for name, problem in told.items() if problem}


def _problem(name: str, expected: Expected, deployed: Deployed | None, pool: str) -> str | None:
    what = f"deployment {name!r}"
    if deployed is None:
        return f"{what} is missing in Prefect; run: tidings deploy"
    if signature(deployed.parameter_openapi_schema or {}) != expected.signature:
        return f"{what} has other parameters than the code; run: tidings deploy, and restart the worker"
    if deployed.entrypoint != expected.entrypoint:
        return f"{what} runs {deployed.entrypoint} and not {expected.entrypoint}; run: tidings deploy"
    if deployed.work_pool_name != pool:
        return f"{what} runs in the work pool {deployed.work_pool_name!r}, not {pool!r}; run: tidings deploy"
    return f"{what} is paused in Prefect; resume it there" if deployed.paused else None


async def live_workers(api: PrefectApi, pool: str, now: datetime) -> list[str]:
    """The names of workers that have polled the pool lately."""
    path = f"/work_pools/{segment(pool)}/workers/filter"
    workers = await api.post(path, _WORKERS, what=f"work pool {pool!r}", json={"limit": PAGE})
    return [
        w.name
        for w in workers
        if w.last_heartbeat_time and now - w.last_heartbeat_time < timedelta(seconds=HEARTBEAT_SECONDS)
    ]
