"""Prefect: start runs, ask what became of them. Its words become ours here, and its errors in `prefect_api`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Literal
from uuid import UUID, uuid4

import httpx
from pydantic import TypeAdapter

from tidings.adapters.prefect_api import PAGE, PATIENCE_SECONDS, SERVICE, PrefectApi, client_arguments, segment, within
from tidings.errors import Refused, RetryLater
from tidings.model import Slot, Stuck, UnderWay
from tidings.settings import PrefectAccess

#: A run of Prefect's own waits longer before it gives up and goes red: nobody stands at the door.
RUNS_PATIENCE_SECONDS = 60.0
MIRROR_DEPLOYMENT = "tidings-notion-mirror"
CANARY_DEPLOYMENT = "tidings-canary"
#: A deployment's servers start after `tidings deploy`, and proxies learn of them later still.
AFTER_DEPLOYMENT = timedelta(minutes=2)
RECONCILE_DEPLOYMENT = "tidings-reconcile"
#: The event by which whoever watches tells Prefect so.
WATCHED_EVENT = "tidings.watched"
#: Types of a run's state (prefect/client/schemas/objects.py): it will not run any more; a worker has taken it; it has
#: yet to begin.
TERMINAL = ("CANCELLED", "COMPLETED", "CRASHED", "FAILED")
UNDER_WAY = ("CANCELLING", "PENDING", "RUNNING")
NOT_BEGUN = ("PENDING", "SCHEDULED")


@dataclass(frozen=True, slots=True)
class RunState:
    type: str
    timestamp: datetime


@dataclass(frozen=True, slots=True)
class Run:
    """Of a flow run what is looked at here."""

    id: UUID
    deployment_id: UUID | None = None
    expected_start_time: datetime | None = None
    state: RunState | None = None


@dataclass(frozen=True, slots=True)
class Named:
    id: UUID
    name: str


_RUN, _RUNS = TypeAdapter(Run), TypeAdapter(list[Run])
_NAMED, _MANY_NAMED = TypeAdapter(Named), TypeAdapter(list[Named])
#: What Prefect's API answers to GET /hello (prefect/server/api/root.py).
_GREETING: TypeAdapter[str] = TypeAdapter(Literal["👋"])
Filter = dict[str, Any]
_OURS: Filter = {"tags": {"all_": ["tidings"]}}


def watched_resource(pool: str) -> str:
    """What the event is about: the Tidings whose work this pool has."""
    return f"tidings.watch.{pool}"


class PrefectRuns:
    """The engine as the use cases see it."""

    def __init__(
        self, api: PrefectApi, campaign_deployments: dict[str, str], *, patience: float = PATIENCE_SECONDS
    ) -> None:
        """`patience` is how many seconds the creation of a run may take."""
        self.api = api
        self._patience = patience
        self._send_deployments = campaign_deployments
        #: Ids of deployments by name.
        self._ids: dict[str, UUID] = {}

    async def start_handler(self, deployment: str, event_ids: Sequence[UUID], dispatch_id: UUID) -> UUID:
        """The handler run of a dispatch. The same dispatch id always answers with the same run."""
        many = f"{len(event_ids)} event" + ("s" if len(event_ids) != 1 else "")
        run = await self._run(
            deployment,
            parameters={"event_ids": [str(e) for e in event_ids]},
            idempotency_key=f"dispatch:{dispatch_id}",
            name=f"{deployment} · {many}",
        )
        return run.id

    async def open_handler(self, deployment: str, dispatch_id: UUID, at: datetime) -> UUID:
        """The handler run of a dispatch that still gathers events."""
        run = await self._run(
            deployment,
            parameters={"dispatch_id": str(dispatch_id)},
            idempotency_key=f"dispatch:{dispatch_id}",
            name=f"{deployment} · events until {at.astimezone(UTC):%H:%M:%S} UTC",
            at=at,
        )
        return run.id

    async def start_send(self, slot: Slot, *, at: datetime, key: str) -> tuple[UUID, bool]:
        """The send run of a slot, and whether it has yet to begin."""
        run = await self._run(
            self._send_deployments[slot.campaign],
            parameters={"template": slot.template, "due": slot.at.isoformat()},
            idempotency_key=key,
            name=f"{slot.template} · {slot.at.astimezone(UTC):%Y-%m-%d %H:%M:%S} UTC",
            at=at,
            tags=[f"campaign:{slot.campaign}", f"sequence:{slot.sequence}", f"template:{slot.template}"],
        )
        waits = run.state is None or run.state.type in NOT_BEGUN
        return run.id, waits

    async def start_later(self, deployment: str, seconds: float, now: datetime) -> tuple[datetime, UUID]:
        """A send run for whatever was left behind, after this long; one a deployment and minute at most."""
        at = now + timedelta(seconds=seconds)
        run = await self._run(
            deployment,
            parameters={},
            idempotency_key=f"left:{at:%Y-%m-%dT%H:%M}",
            name=f"left behind · {at:%Y-%m-%d %H:%M:%S} UTC",
            at=at,
        )
        return at, run.id

    async def _run(self, deployment: str, *, at: datetime | None = None, **given: Any) -> Run:
        """A run of a deployment, now or at some time. Each has an idempotency key, so asking twice makes one run."""
        if at is not None:
            given["state"] = {"type": "SCHEDULED", "state_details": {"scheduled_time": at.isoformat()}}
        async with within(self._patience, f"deployment {deployment!r}"):
            if deployment in self._ids:
                try:
                    return await self._create(deployment, given)
                except Refused as error:
                    if error.status != httpx.codes.NOT_FOUND:
                        raise
            await self._look_up(deployment)  # for the first time, or somebody has deleted it and made it anew
            return await self._create(deployment, given)

    async def _look_up(self, deployment: str) -> None:
        path = f"/deployments/name/{segment(deployment)}/{segment(deployment)}"
        found = await self.api.get(path, _NAMED, what=f"deployment {deployment!r}", patience=self._patience)
        self._ids[deployment] = found.id

    async def _create(self, deployment: str, given: dict[str, Any]) -> Run:
        path = f"/deployments/{self._ids[deployment]}/create_flow_run"
        what = f"deployment {deployment!r}"
        return await self.api.post(path, _RUN, what=what, json=given, patience=self._patience)

    async def _runs(self, wanted: Filter, deployments: Filter | None = None, offset: int = 0) -> list[Run]:
        question = {"flow_runs": wanted, "deployments": deployments, "limit": PAGE, "offset": offset}
        return await self.api.post("/flow_runs/filter", _RUNS, what="flow runs", json=question)

    async def ended(self, run_ids: Sequence[UUID]) -> dict[UUID, str]:
        """Of these runs, those that will not run any more, and how they ended; "gone" for deleted ones."""
        ended: dict[UUID, str] = {}
        for start in range(0, len(run_ids), PAGE):
            page = run_ids[start : start + PAGE]
            runs = await self._runs({"id": {"any_": [str(each) for each in page]}})
            ended |= {run.id: run.state.type.lower() for run in runs if run.state and run.state.type in TERMINAL}
            ended |= dict.fromkeys(set(page) - {run.id for run in runs}, "gone")
        return ended

    async def ended_lately(self, since: datetime) -> dict[UUID, str]:
        """Send runs planned for after `since` that will not run any more, and how they ended."""
        ended: dict[UUID, str] = {}
        deployments = {"name": {"any_": sorted(self._send_deployments.values())}}
        wanted = {"state": {"type": {"any_": TERMINAL}}, "expected_start_time": {"after_": since.isoformat()}}
        while True:
            runs = await self._runs(wanted, deployments, offset=len(ended))
            ended |= {run.id: run.state.type.lower() for run in runs if run.state}
            if len(runs) < PAGE:
                return ended

    async def under_way(self) -> list[UnderWay]:
        """Runs of ours that a worker has taken and that have not ended, as far as Prefect knows."""
        runs = await self._runs({"state": {"type": {"any_": UNDER_WAY}}}, _OURS)
        return [UnderWay(run.id, run.state.timestamp, run.state.type == "PENDING") for run in runs if run.state]

    async def stuck(self, *, under_way_since: datetime, late_since: datetime) -> list[Stuck]:
        """Runs of ours that are under way since before then, or should have begun before then and wait for a worker."""
        late = {"state": {"name": {"any_": ["Late"]}}, "expected_start_time": {"before_": late_since.isoformat()}}
        waiting = await self._runs(late, _OURS)
        runs = await self._runs({"state": {"type": {"any_": UNDER_WAY}}}, _OURS)
        old = [(r, r.state.timestamp, False) for r in runs if r.state and r.state.timestamp < under_way_since]
        old += [(r, r.expected_start_time, True) for r in waiting if r.expected_start_time]
        names = await self._names_of([r.deployment_id for r, _, _ in old if r.deployment_id])
        return [Stuck(r.id, names[r.deployment_id], at, w) for r, at, w in old if r.deployment_id in names]

    async def _names_of(self, deployments: Sequence[UUID]) -> dict[UUID, str]:
        if not deployments:
            return {}
        question = {"deployments": {"id": {"any_": sorted({str(each) for each in deployments})}}, "limit": PAGE}
        found = await self.api.post("/deployments/filter", _MANY_NAMED, what="deployments", json=question)
        return {each.id: each.name for each in found}

    async def bury(self, run_id: UUID) -> None:
        """Say for a run whose process is gone that it has ended. One that a person was cancelling is cancelled."""
        what = f"flow run {run_id}"
        run = await self.api.get(f"/flow_runs/{run_id}", _RUN, what=what)
        if run.state is None or run.state.type not in UNDER_WAY:
            return
        words = "Its process is gone, and its worker did not say so. What it left undone gets a new run."
        ended = "CANCELLED" if run.state.type == "CANCELLING" else "CRASHED"
        state = {"type": ended, "message": words}
        await self.api.tell(f"/flow_runs/{run_id}/set_state", what=what, json={"state": state, "force": False})

    async def start_mirror(self, now: datetime, every: timedelta) -> UUID:
        """A run that brings Notion up to date; one in so long a while at most, whoever asks."""
        run = await self._run(
            MIRROR_DEPLOYMENT,
            parameters={},
            idempotency_key=f"mirror:{every.total_seconds():g}:{int(now.timestamp() // every.total_seconds())}",
            name=f"Notion · {now:%Y-%m-%d %H:%M} UTC",
        )
        return run.id

    async def start_canary(self, now: datetime) -> datetime:
        """A canary after a deployment, when its servers are up; returns when it is sent."""
        at = now + AFTER_DEPLOYMENT
        await self._run(
            CANARY_DEPLOYMENT,
            parameters={},
            idempotency_key=f"canary:{at:%Y-%m-%dT%H:%M}",
            name=f"canary after deployment · {at.astimezone(UTC):%Y-%m-%d %H:%M} UTC",
            at=at,
        )
        return at

    async def start_reconcile(self, since: datetime | None, *, dry_run: bool, now: datetime) -> UUID:
        """A run that compares with the services' own lists; asked twice in a minute for the same, it is one."""
        run = await self._run(
            RECONCILE_DEPLOYMENT,
            parameters={"since": since.isoformat() if since else None, "dry_run": dry_run},
            idempotency_key=f"reconcile:{since}:{dry_run}:{now:%Y-%m-%dT%H:%M}",
            name=f"reconciliation · {now:%Y-%m-%d %H:%M} UTC",
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
        await self.api.tell("/events", what="events", json=[event])

    async def ping(self) -> None:
        """Raises RetryLater when Prefect's API does not answer, and OutcomeUnknown when it is something else."""
        await self.api.get("/hello", _GREETING, what="the API")


async def lets_anyone_in(api_url: str, transport: httpx.AsyncBaseTransport | None = None) -> bool:
    """Whether Prefect's API answers who shows no password. Whoever reaches such an API can start and stop anything."""
    access = PrefectAccess.load(prefect_api_url=api_url)
    stranger = client_arguments(access) | {
        "base_url": httpx.URL(access.prefect_api_url).copy_with(userinfo=b""),
        "auth": None,
        "timeout": PATIENCE_SECONDS,
    }
    async with httpx.AsyncClient(transport=transport, **stranger) as client:
        try:
            answer = await client.get("/admin/version")
        except httpx.HTTPError as error:
            raise RetryLater(
                SERVICE, f"the API: cannot be reached ({type(error).__name__})", retry_after=2.0
            ) from error
    return answer.is_success
