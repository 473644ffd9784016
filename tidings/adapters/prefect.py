"""Prefect: start runs, ask what became of them, deploy. Its words and errors become ours here."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

import httpx
from prefect.client.orchestration import PrefectClient, get_client
from prefect.client.schemas.filters import (
    DeploymentFilter,
    DeploymentFilterName,
    DeploymentFilterTags,
    FlowRunFilter,
    FlowRunFilterExpectedStartTime,
    FlowRunFilterId,
    FlowRunFilterState,
    FlowRunFilterStateName,
    FlowRunFilterStateType,
)
from prefect.client.schemas.objects import TERMINAL_STATES, FlowRun, State, StateType
from prefect.deployments import run_deployment
from prefect.exceptions import ObjectNotFound, PrefectHTTPStatusError
from prefect.states import Cancelled, Crashed

from tidings import counts
from tidings.errors import OutcomeUnknown, Refused, RetryLater
from tidings.model import Slot, Stuck, UnderWay

SERVICE = "Prefect"
#: A webhook waits no longer than this for Prefect; then it is answered 202 and dispatched later.
PATIENCE_SECONDS = 5.0
#: A run of Prefect's own waits longer before it gives up and goes red: nobody stands at the door.
RUNS_PATIENCE_SECONDS = 60.0
#: What a kept connection says when Prefect has ended since: on a new one it may well answer.
STALE = (httpx.ReadError, httpx.WriteError, httpx.RemoteProtocolError)
MIRROR_DEPLOYMENT = "tidings-notion-mirror"
CANARY_DEPLOYMENT = "tidings-canary"
#: A deployment's servers start after `tidings deploy`, and proxies learn of them later still.
AFTER_DEPLOYMENT = timedelta(minutes=2)
RECONCILE_DEPLOYMENT = "tidings-reconcile"
#: What Prefect's API answers to GET /hello (prefect/server/api/root.py).
HELLO = "👋"
#: The event by which whoever watches tells Prefect so.
WATCHED_EVENT = "tidings.watched"
#: Prefect's page size for run queries.
PAGE = 200
#: States of a run that a worker has taken.
UNDER_WAY = frozenset({StateType.PENDING, StateType.RUNNING, StateType.CANCELLING})


def watched_resource(pool: str) -> str:
    """What the event is about: the Tidings whose work this pool has."""
    return f"tidings.watch.{pool}"


class PrefectRuns:
    """The engine as the use cases see it. Keeps one client, so one TLS context and one connection pool."""

    def __init__(
        self, client: PrefectClient, campaign_deployments: dict[str, str], *, patience: float = PATIENCE_SECONDS
    ) -> None:
        """`patience` is how many seconds the creation of a run may take."""
        self.client = client
        self._patience = patience
        self._send_deployments = campaign_deployments

    async def start_handler(self, deployment: str, event_ids: Sequence[UUID], dispatch_id: UUID) -> UUID:
        """The handler run of a dispatch. The same dispatch id always answers with the same run."""
        many = f"{len(event_ids)} event" + ("s" if len(event_ids) != 1 else "")
        run = await self._run(
            deployment,
            parameters={"event_ids": [str(e) for e in event_ids]},
            idempotency_key=f"dispatch:{dispatch_id}",
            flow_run_name=f"{deployment} · {many}",
        )
        return run.id

    async def open_handler(self, deployment: str, dispatch_id: UUID, at: datetime) -> UUID:
        """The handler run of a dispatch that still gathers events."""
        run = await self._run(
            deployment,
            parameters={"dispatch_id": str(dispatch_id)},
            idempotency_key=f"dispatch:{dispatch_id}",
            flow_run_name=f"{deployment} · events until {at.astimezone(UTC):%H:%M:%S} UTC",
            scheduled_time=at,
        )
        return run.id

    async def start_send(self, slot: Slot, *, at: datetime, key: str) -> tuple[UUID, bool]:
        """The send run of a slot, and whether it has yet to begin."""
        run = await self._run(
            self._send_deployments[slot.campaign],
            parameters={"template": slot.template, "due": slot.at.isoformat()},
            idempotency_key=key,
            flow_run_name=f"{slot.template} · {slot.at.astimezone(UTC):%Y-%m-%d %H:%M:%S} UTC",
            scheduled_time=at,
            tags=[f"campaign:{slot.campaign}", f"sequence:{slot.sequence}", f"template:{slot.template}"],
        )
        waits = run.state is None or run.state.type in {StateType.SCHEDULED, StateType.PENDING}
        return run.id, waits

    async def start_later(self, deployment: str, seconds: float, now: datetime) -> tuple[datetime, UUID]:
        """A send run for whatever was left behind, after this long; one a deployment and minute at most."""
        at = now + timedelta(seconds=seconds)
        run = await self._run(
            deployment,
            parameters={},
            idempotency_key=f"left:{at:%Y-%m-%dT%H:%M}",
            flow_run_name=f"left behind · {at:%Y-%m-%d %H:%M:%S} UTC",
            scheduled_time=at,
        )
        return at, run.id

    async def _run(self, deployment: str, **arguments: Any) -> FlowRun:
        """Every run has an idempotency key, so asking twice makes one run."""
        async with prefect_errors(f"deployment {deployment!r}", self._patience):
            try:
                return await self._create(deployment, **arguments)
            except STALE:
                return await self._create(deployment, **arguments)

    async def _create(self, deployment: str, **arguments: Any) -> FlowRun:
        run: FlowRun = await run_deployment(  # type: ignore[misc]
            f"{deployment}/{deployment}", client=self.client, timeout=0, as_subflow=False, **arguments
        )
        return run

    async def ended(self, run_ids: Sequence[UUID]) -> dict[UUID, str]:
        """Of these runs, those that will not run any more, and how they ended; "gone" for deleted ones."""
        ended: dict[UUID, str] = {}
        for start in range(0, len(run_ids), PAGE):
            page = list(run_ids[start : start + PAGE])
            async with prefect_errors("flow runs"):
                runs = await self.client.read_flow_runs(
                    flow_run_filter=FlowRunFilter(id=FlowRunFilterId(any_=page)), limit=PAGE
                )
            ended |= {run.id: run.state.type.value.lower() for run in runs if run.state and run.state.is_final()}
            ended |= dict.fromkeys(set(page) - {run.id for run in runs}, "gone")
        return ended

    async def ended_lately(self, since: datetime) -> dict[UUID, str]:
        """Send runs planned for after `since` that will not run any more, and how they ended."""
        ended: dict[UUID, str] = {}
        deployments = DeploymentFilter(name=DeploymentFilterName(any_=sorted(self._send_deployments.values())))
        wanted = FlowRunFilter(
            state=FlowRunFilterState(type=FlowRunFilterStateType(any_=list(TERMINAL_STATES))),
            expected_start_time=FlowRunFilterExpectedStartTime(after_=since),
        )
        while True:
            async with prefect_errors("flow runs"):
                runs = await self.client.read_flow_runs(
                    flow_run_filter=wanted, deployment_filter=deployments, limit=PAGE, offset=len(ended)
                )
            ended |= {run.id: run.state.type.value.lower() for run in runs if run.state}
            if len(runs) < PAGE:
                return ended

    async def under_way(self) -> list[UnderWay]:
        """Runs of ours that a worker has taken and that have not ended, as far as Prefect knows."""
        wanted = FlowRunFilter(state=FlowRunFilterState(type=FlowRunFilterStateType(any_=list(UNDER_WAY))))
        ours = DeploymentFilter(tags=DeploymentFilterTags(all_=["tidings"]))
        async with prefect_errors("flow runs"):
            runs = await self.client.read_flow_runs(flow_run_filter=wanted, deployment_filter=ours, limit=PAGE)
        return [UnderWay(run.id, run.state.timestamp, run.state.type is StateType.PENDING) for run in runs if run.state]

    async def stuck(self, *, under_way_since: datetime, late_since: datetime) -> list[Stuck]:
        """Runs of ours that are under way since before then, or should have begun before then and wait for a worker."""
        late = FlowRunFilter(
            state=FlowRunFilterState(name=FlowRunFilterStateName(any_=["Late"])),
            expected_start_time=FlowRunFilterExpectedStartTime(before_=late_since),
        )
        taken = FlowRunFilter(state=FlowRunFilterState(type=FlowRunFilterStateType(any_=list(UNDER_WAY))))
        ours = DeploymentFilter(tags=DeploymentFilterTags(all_=["tidings"]))
        async with prefect_errors("flow runs"):
            waiting = await self.client.read_flow_runs(flow_run_filter=late, deployment_filter=ours, limit=PAGE)
            runs = await self.client.read_flow_runs(flow_run_filter=taken, deployment_filter=ours, limit=PAGE)
            names = {d.id: d.name for d in await self.client.read_deployments(deployment_filter=ours, limit=PAGE)}
        old = [(r, r.state.timestamp, False) for r in runs if r.state and r.state.timestamp < under_way_since]
        old += [(r, r.expected_start_time, True) for r in waiting if r.expected_start_time]
        return [Stuck(r.id, names[r.deployment_id], at, w) for r, at, w in old if r.deployment_id in names]

    async def bury(self, run_id: UUID) -> None:
        """Say for a run whose process is gone that it has ended. One that a person was cancelling is cancelled."""
        async with prefect_errors(f"flow run {run_id}"):
            run = await self.client.read_flow_run(run_id)
            if run.state is None or run.state.type not in UNDER_WAY:
                return
            words = "Its process is gone, and its worker did not say so. What it left undone gets a new run."
            state: State[Any] = (
                Cancelled(message=words) if run.state.type is StateType.CANCELLING else Crashed(message=words)
            )
            await self.client.set_flow_run_state(run_id, state)

    async def start_mirror(self, now: datetime, every: timedelta) -> UUID:
        """A run that brings Notion up to date; one in so long a while at most, whoever asks."""
        run = await self._run(
            MIRROR_DEPLOYMENT,
            parameters={},
            idempotency_key=f"mirror:{every.total_seconds():g}:{int(now.timestamp() // every.total_seconds())}",
            flow_run_name=f"Notion · {now:%Y-%m-%d %H:%M} UTC",
        )
        return run.id

    async def start_canary(self, now: datetime) -> datetime:
        """A canary after a deployment, when its servers are up; returns when it is sent."""
        at = now + AFTER_DEPLOYMENT
        await self._run(
            CANARY_DEPLOYMENT,
            parameters={},
            idempotency_key=f"canary:{at:%Y-%m-%dT%H:%M}",
            flow_run_name=f"canary after deployment · {at.astimezone(UTC):%Y-%m-%d %H:%M} UTC",
            scheduled_time=at,
        )
        return at

    async def start_reconcile(self, since: datetime | None, *, dry_run: bool, now: datetime) -> UUID:
        """A run that compares with the services' own lists; asked twice in a minute for the same, it is one."""
        run = await self._run(
            RECONCILE_DEPLOYMENT,
            parameters={"since": since.isoformat() if since else None, "dry_run": dry_run},
            idempotency_key=f"reconcile:{since}:{dry_run}:{now:%Y-%m-%dT%H:%M}",
            flow_run_name=f"reconciliation · {now:%Y-%m-%d %H:%M} UTC",
        )
        return run.id

    async def say_watched(self, pool: str, now: datetime) -> None:
        """Tell Prefect that somebody watches; its automations notice when nobody says so any more."""
        event = {
            "id": str(uuid4()),
            "occurred": now.isoformat(),
            "event": WATCHED_EVENT,
            "resource": {"prefect.resource.id": watched_resource(pool)},
        }
        async with prefect_errors("events"):
            await self.client.request("POST", "/events", json=[event])

    async def ping(self) -> None:
        """Raises RetryLater when Prefect's API does not answer, and OutcomeUnknown when it is something else."""
        async with prefect_errors("the API"):
            if (await self.client.hello()).json() != HELLO:
                raise ValueError("not Prefect's greeting")


async def lets_anyone_in(api_url: str, transport: httpx.AsyncBaseTransport | None = None) -> bool:
    """Whether Prefect's API answers who shows no password. Whoever reaches such an API can start and stop anything."""
    async with httpx.AsyncClient(timeout=PATIENCE_SECONDS, transport=transport) as client:
        try:
            answer = await client.get(f"{api_url}/admin/version")
        except httpx.HTTPError as error:
            raise RetryLater(
                SERVICE, f"the API: cannot be reached ({type(error).__name__})", retry_after=2.0
            ) from error
    return answer.is_success


@asynccontextmanager
async def open_client() -> AsyncIterator[PrefectClient]:
    """A client that is kept for the life of the process."""
    async with get_client() as client:
        yield client


@asynccontextmanager
async def prefect_errors(what: str, patience: float = PATIENCE_SECONDS) -> AsyncIterator[None]:
    """A call to Prefect: counted, its errors as ours; nothing here waits longer than `patience` seconds."""
    began, status = time.perf_counter(), None
    try:
        async with asyncio.timeout(patience):
            yield
        status = 200
    except TimeoutError as error:
        raise OutcomeUnknown(SERVICE, f"{what}: no answer within {patience:g} s") from error
    except ObjectNotFound as error:
        status = 404
        raise Refused(SERVICE, f"{what} does not exist; run: tidings deploy", status=404) from error
    except PrefectHTTPStatusError as error:
        status = error.response.status_code
        kind = RetryLater if status in {408, 425, 429} or status >= 500 else Refused
        raise kind(SERVICE, f"{what}: {error}"[:500], status=status) from error
    except httpx.TransportError as error:
        raise RetryLater(SERVICE, f"{what}: cannot be reached: {error}", retry_after=2.0) from error
    except ValueError as error:  # no JSON, or not what Prefect's client knows: a proxy's page, a login page
        raise OutcomeUnknown(SERVICE, f"{what}: the answer is not Prefect's; check PREFECT_API_URL") from error
    finally:
        counts.call(SERVICE, status, time.perf_counter() - began)
