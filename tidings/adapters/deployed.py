"""What Prefect has of our deployments and workers, beside what the code needs. Without Prefect's imports."""

from __future__ import annotations

import asyncio
import hashlib
import json
import sys
from asyncio.subprocess import PIPE
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter

from tidings.adapters.prefect_api import PAGE, PrefectApi, segment
from tidings.errors import CampaignError, RetryLater
from tidings.settings import ROOT

#: A worker says every 30 s that it lives; after three missed words it counts as gone.
HEARTBEAT_SECONDS = 95.0
#: The longest that another process may take to import the flows, on a machine that is busy.
APART_SECONDS = 60.0
#: After how long it is worth to try that again.
PAUSE_SECONDS = 15.0
UNTOLD = "Which deployments the code needs"


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

Folders = tuple[Path, ...]
_known: dict[Folders, Mapping[str, Expected]] = {}
_asking: dict[Folders, asyncio.Task[Mapping[str, Expected]]] = {}


def signature(schema: Mapping[str, Any]) -> str:
    """A digest of what a run may be given: names, types, which of them must be there."""
    said = {"properties": schema.get("properties", {}), "required": sorted(schema.get("required", []))}
    return hashlib.sha256(json.dumps(said, sort_keys=True).encode()).hexdigest()[:12]


async def expected_of(folders: Sequence[Path]) -> Mapping[str, Expected]:
    """The deployments that these campaigns need, asked of another process: to know, one has to import the flows, and
    with them Prefect, of which the webhook server has no other use (36 MB).

    Asked once, whoever wants to know at the same time: code does not change while it runs. Raises CampaignError when
    the campaigns or flows cannot be imported, RetryLater when that process could not do its work.
    """
    key = tuple(folders)
    if key not in _known:
        if key not in _asking:
            _asking[key] = asyncio.create_task(_ask(key))
            _asking[key].add_done_callback(lambda task: _answered(key, task))
        return await asyncio.shield(_asking[key])
    return _known[key]


def _answered(key: Folders, task: asyncio.Task[Mapping[str, Expected]]) -> None:
    del _asking[key]
    if not task.cancelled() and task.exception() is None:
        _known[key] = task.result()


async def _ask(folders: Folders) -> Mapping[str, Expected]:
    command = [sys.executable, "-m", "tidings.adapters.deploy", *map(str, folders)]
    try:
        process = await asyncio.create_subprocess_exec(*command, cwd=ROOT, stdout=PIPE, stderr=PIPE)
    except OSError as error:
        raise RetryLater(UNTOLD, f"its process does not start: {error}", retry_after=PAUSE_SECONDS) from error
    try:
        async with asyncio.timeout(APART_SECONDS):
            said, complained = await process.communicate()
    except TimeoutError as error:
        raise RetryLater(UNTOLD, f"nothing within {APART_SECONDS:g} s", retry_after=PAUSE_SECONDS) from error
    finally:
        if process.returncode is None:
            process.kill()
    code = process.returncode or 0
    if code < 0:  # the system has killed it, mostly for want of memory
        raise RetryLater(UNTOLD, f"killed by signal {-code}", retry_after=PAUSE_SECONDS)
    if code:
        last = complained.decode(errors="replace").strip().rpartition("\n")[2]
        raise CampaignError(f"Which deployments the code needs cannot be told: {last}")
    return _EXPECTED.validate_json(said)


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
