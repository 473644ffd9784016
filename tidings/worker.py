"""A Prefect process worker that is warm: runs are forked from a process that has everything imported.

It serves the same pool as `prefect worker start --type process` and keeps what that gives: one process a run,
Prefect's states, logs, cancellation and crash detection. Two things differ. A run starts in a fork instead of a new
interpreter (0.3 s instead of 2 s of CPU), and the worker is woken by PostgreSQL's NOTIFY instead of only polling.
"""

from __future__ import annotations

import asyncio
import logging
import multiprocessing
import os
import signal
import socket
import sys
from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from functools import cache
from multiprocessing.context import ForkServerContext
from multiprocessing.process import BaseProcess
from typing import Any
from uuid import UUID

import anyio
import anyio.abc
import httpx
from prefect.client.orchestration import PrefectClient
from prefect.client.schemas.filters import (
    DeploymentFilter,
    DeploymentFilterId,
    FlowRunFilter,
    FlowRunFilterId,
    FlowRunFilterState,
    FlowRunFilterStateType,
)
from prefect.client.schemas.objects import Flow, FlowRun, State, StateType
from prefect.client.schemas.responses import DeploymentResponse, WorkerFlowRunResponse
from prefect.exceptions import InfrastructureNotFound, ObjectNotFound
from prefect.states import Cancelled
from prefect.workers.process import ProcessJobConfiguration, ProcessWorker, ProcessWorkerResult

from tidings.adapters.prefect_api import PAGE
from tidings.campaign import load_campaigns
from tidings.code import TOLD, of_this_process
from tidings.errors import LedgerUnavailable
from tidings.ledger import Ledger
from tidings.ledger.memory import Memory
from tidings.logs import configure
from tidings.redact import hide
from tidings.settings import Settings

log = logging.getLogger("tidings.worker")

#: Imported once, in the process that runs are forked from.
PRELOAD = ["tidings.warm"]
#: How far ahead runs are looked for; more than the interval between two polls (10 s and its jitter).
PREFETCH_SECONDS = 30.0
#: How long before its time a run is forked: it takes about this long to be ready, and Prefect holds it till then.
LEAD_SECONDS = 0.3
#: How long runs under way may take to end when the worker is told to stop, and how long one may take to do so that
#: is told to stop itself. Docker and systemd give the worker the two together and a little more before they kill it.
LEAVE_SECONDS = 25.0
GRACE_SECONDS = 5.0
#: How often Prefect is asked whether a deployment is still as it was known.
LOOK_SECONDS = 60.0
#: How often Prefect is asked whether a person has cancelled a run that is at work.
CANCEL_SECONDS = 2.0
#: How soon a lost connection to PostgreSQL is made anew.
RECONNECT_SECONDS = 2.0
#: How often each worker tells of its code, and for how long that is kept.
TELL_SECONDS, TOLD_SECONDS = 3600.0, 86_400.0
#: After how long a telling that failed is tried again.
TELL_AGAIN_SECONDS = 15.0


class WarmConfiguration(ProcessJobConfiguration):
    """What a run is given."""

    @classmethod
    def _base_environment(cls) -> dict[str, str]:
        """Prefect's settings of this process, as variables. They do not change, and to write them takes 50 ms."""
        return dict(_settings_as_variables())


@cache
def _settings_as_variables() -> dict[str, str]:
    return ProcessJobConfiguration._base_environment()


class Known:
    """The deployments and flows that this worker has had runs of: Prefect's worker asks for them three times before
    each run, 60 ms in which a first mail waits. One look a minute at all of them finds what has changed."""

    def __init__(self) -> None:
        self._deployments: dict[UUID, DeploymentResponse] = {}
        self._flows: dict[UUID, Flow] = {}
        self._client: PrefectClient | None = None

    def of(self, client: PrefectClient) -> None:
        """Answer in the place of this client."""
        self._client = client
        ask_deployment, ask_flow = client.read_deployment, client.read_flow

        async def read_deployment(deployment_id: UUID | str) -> DeploymentResponse:
            key = UUID(str(deployment_id))
            if key not in self._deployments:
                self._deployments[key] = await ask_deployment(key)
            return self._deployments[key].model_copy(deep=True)  # Prefect writes a run's own variables into it

        async def read_flow(flow_id: UUID) -> Flow:
            if flow_id not in self._flows:
                self._flows[flow_id] = await ask_flow(flow_id)
            return self._flows[flow_id]

        client.read_deployment = read_deployment  # type: ignore[method-assign]
        client.read_flow = read_flow  # type: ignore[method-assign]

    async def look_always(self) -> None:
        """See what has become of the deployments, for ever."""
        while True:
            await asyncio.sleep(LOOK_SECONDS)
            try:
                await self.look()
            except (httpx.HTTPError, ValueError) as error:  # or a proxy's page
                log.warning("worker.deployments_unknown", extra={"error": str(error)})  # asked again

    async def look(self) -> None:
        """See what has become of the deployments. One that is gone is not known any more."""
        if not self._deployments or self._client is None:
            return
        ids = DeploymentFilterId(any_=list(self._deployments))
        found = await self._client.read_deployments(deployment_filter=DeploymentFilter(id=ids), limit=PAGE)
        self._deployments = {each.id: each for each in found}


class WarmProcessWorker(ProcessWorker):
    """Serves a pool of type "process" with forked runs."""

    type = "process"
    job_configuration = WarmConfiguration

    def __init__(self, *, wake: Wake, memory: Memory, **kwargs: Any) -> None:
        super().__init__(prefetch_seconds=PREFETCH_SECONDS, **kwargs)
        self._memory = memory
        self._wake = wake
        self._look = asyncio.Event()
        self._leaving = False
        self._processes: dict[UUID, BaseProcess] = {}
        self._known = Known()
        self._fork: ForkServerContext = multiprocessing.get_context("forkserver")
        self._fork.set_forkserver_preload(PRELOAD)  # for a fork server that is started anew

    @classmethod
    def __dispatch_key__(cls) -> str:
        """A name of its own in Prefect's registry of worker types, where "process" is taken."""
        return "tidings-warm"

    async def run(
        self,
        flow_run: FlowRun,
        configuration: ProcessJobConfiguration,
        task_status: anyio.abc.TaskStatus[int] | None = None,
    ) -> ProcessWorkerResult:
        """Fork a run and wait for its end."""
        environment = {k: v for k, v in configuration.env.items() if v is not None}
        environment |= await self._flow_entrypoint(flow_run)
        process = self._fork.Process(
            target=run_in_child, args=(str(flow_run.id), environment), name=f"run-{flow_run.id}", daemon=False
        )
        process.start()
        self._processes[flow_run.id] = process
        try:
            if task_status is not None:
                task_status.started(process.pid or 0)
            await exited(process)
            return ProcessWorkerResult(status_code=process.exitcode or 0, identifier=str(process.pid))
        except asyncio.CancelledError:
            with anyio.CancelScope(shield=True):
                await stop(process)
            raise
        finally:
            del self._processes[flow_run.id]
            self._look.set()  # a place is free: whoever waited for it need not wait for the next poll

    async def _flow_entrypoint(self, flow_run: FlowRun) -> dict[str, str]:
        """Tell the run which flow it is, so that it need not ask Prefect."""
        if flow_run.deployment_id is None:
            return {}
        entrypoint = (await self.client.read_deployment(flow_run.deployment_id)).entrypoint
        return {"PREFECT__FLOW_ENTRYPOINT": entrypoint} if entrypoint else {}

    async def setup(self) -> None:
        """As Prefect's own; what it asks before each run is then known already."""
        await super().setup()
        self._known.of(self.client)

    async def _worker_metadata(self) -> None:
        """Which of Prefect's integrations there are: none in requirements.txt. To look takes 2 MB and stays taken."""

    async def _propose_submitting_state(self, flow_run: FlowRun) -> None:
        """Prefect's name for the time in which infrastructure is started: a fork takes less than to say so."""

    async def _give_worker_labels_to_flow_run(self, flow_run_id: UUID) -> None:
        """By which the dashboard tells who ran it: said beside the run's start, not before it."""
        if self._runs_task_group is not None:
            self._runs_task_group.start_soon(self._label, flow_run_id)

    async def _label(self, flow_run_id: UUID) -> None:
        try:
            await super()._give_worker_labels_to_flow_run(flow_run_id)
        except (httpx.HTTPError, ObjectNotFound, ValueError, RuntimeError, OSError) as error:  # no run ends for that
            log.warning("worker.label_failed", extra={"flow_run_id": str(flow_run_id), "error": str(error)})

    async def kill_infrastructure(
        self, infrastructure_pid: str, configuration: ProcessJobConfiguration, grace_seconds: int = 30
    ) -> None:
        """Stop a run, first politely."""
        process = next((each for each in self._processes.values() if str(each.pid) == infrastructure_pid), None)
        if process is None:
            raise InfrastructureNotFound(f"process {infrastructure_pid} is not a run of this worker")
        await stop(process, grace_seconds)

    async def serve(self) -> None:
        """Poll and be woken until cancelled."""
        await self._warm_up()
        async with asyncio.TaskGroup() as group:
            beside = [
                group.create_task(task)
                for task in (
                    self._wake.call(self._look.set),
                    self._look_when_told(),
                    self._tell_always(),
                    self._cancel_always(),
                    self._known.look_always(),
                )
            ]
            try:
                await self.start()
            finally:
                for task in beside:
                    task.cancel()

    async def _warm_up(self) -> None:
        """Import everything now, in the process that runs are forked from, and not while the first mail waits."""
        process = self._fork.Process(target=nothing)
        process.start()
        await exited(process)

    async def _tell_always(self) -> None:
        """Write down which code the runs have: that of the process that they are forked from."""
        while True:
            process = self._fork.Process(target=tell_in_child, args=(self.name,))
            process.start()
            await exited(process)
            await asyncio.sleep(TELL_AGAIN_SECONDS if process.exitcode else TELL_SECONDS)

    async def _cancel_always(self) -> None:
        """End the runs that a person cancels while they work; Prefect leaves that to whoever started their process."""
        while True:
            await asyncio.sleep(CANCEL_SECONDS)
            try:
                await asyncio.gather(*[self._cancel(run) for run in await self._being_cancelled()])
            except (httpx.HTTPError, ObjectNotFound) as error:
                log.warning("worker.cancel_failed", extra={"error": str(error)})  # asked again

    async def _being_cancelled(self) -> list[FlowRun]:
        """Of the runs under way here, those that are to be cancelled. Costs nothing while there are none."""
        if not self._processes:
            return []
        ours = FlowRunFilter(
            id=FlowRunFilterId(any_=list(self._processes)),
            state=FlowRunFilterState(type=FlowRunFilterStateType(any_=[StateType.CANCELLING])),
        )
        return await self.client.read_flow_runs(flow_run_filter=ours)

    async def _cancel(self, run: FlowRun) -> None:
        if process := self._processes.get(run.id):
            process.kill()  # at SIGTERM, Prefect's engine would say that the run has crashed, and it would get another
        ended: State[Any] = Cancelled(message="Cancelled while it worked; its process has ended.")
        await self.client.set_flow_run_state(run.id, ended, force=True)

    async def _submit_run(self, flow_run: FlowRun) -> None:
        """Begin a run. Of what Prefect's own reads before it, one answer with an error would end the worker, and with
        it every run under way (Prefect 3.8, `BaseWorker._submit_run`): Prefect whose PostgreSQL is away has such."""
        try:
            await super()._submit_run(flow_run)
        except httpx.HTTPError as error:
            log.warning("worker.submit_failed", extra={"flow_run_id": str(flow_run.id), "error": str(error)})
            self._release_limit_slot(flow_run.id)
            self._submitting_flow_run_ids.discard(flow_run.id)  # it is still scheduled: the next poll finds it
            if self._cancelling_observer is not None:
                self._cancelling_observer.remove_in_flight_flow_run_id(flow_run.id)

    async def leave(self) -> None:
        """Take no new runs, and give those under way time to end."""
        self._leaving = True
        with suppress(LedgerUnavailable):  # Prefect takes it for alive a while longer: its code is nobody's any more
            await self._memory.forget(f"{TOLD}{self.name}")
        with anyio.move_on_after(LEAVE_SECONDS):
            while self._processes:
                await asyncio.sleep(0.1)

    async def _look_when_told(self) -> None:
        """Look for runs as soon as something has happened, beside the regular polling."""
        while True:
            await self._look.wait()
            self._look.clear()
            if self._runs_task_group is None or self._work_pool is None:
                await asyncio.sleep(0.2)
                self._look.set()
                continue
            try:
                await self.get_and_submit_flow_runs()
            except httpx.HTTPError as error:
                log.warning("worker.look_failed", extra={"error": str(error)})  # the regular polling goes on

    async def _get_scheduled_flow_runs(self) -> list[WorkerFlowRunResponse]:
        """Runs that are due. For those of the next half minute a look is planned at their very time, so that a
        process that only waits takes nobody's place."""
        if self._leaving:
            return []
        found = await super()._get_scheduled_flow_runs()
        limit = datetime.now(UTC) + timedelta(seconds=LEAD_SECONDS)
        due = [each for each in found if (at := each.flow_run.next_scheduled_start_time) is None or at <= limit]
        waiting = [each.flow_run.next_scheduled_start_time for each in found if each not in due]
        if waiting:
            soonest = min(at for at in waiting if at is not None)
            delay = soonest.timestamp() - datetime.now(UTC).timestamp() - LEAD_SECONDS
            asyncio.get_running_loop().call_later(max(0.0, delay), self._look.set)
        return due


async def exited(process: BaseProcess) -> None:
    """Wait for a process without a thread and without asyncio's child watcher (F6)."""
    loop = asyncio.get_running_loop()
    done = asyncio.Event()
    loop.add_reader(process.sentinel, done.set)
    try:
        await done.wait()
    finally:
        loop.remove_reader(process.sentinel)
    process.join()


async def stop(process: BaseProcess, grace_seconds: float = GRACE_SECONDS) -> None:
    """SIGTERM, and SIGKILL for what does not heed it."""
    with suppress(ProcessLookupError):
        process.terminate()
    with anyio.move_on_after(grace_seconds) as scope:
        while process.is_alive():
            await asyncio.sleep(0.05)
    if scope.cancelled_caught:
        process.kill()


def nothing() -> None:
    """What the first fork does."""


def tell_in_child(worker: str) -> None:
    """Write into the ledger which code this process has; it exits with 1 when the ledger does not take it."""
    from tidings.adapters.blocks import settings_of_this_process

    settings = settings_of_this_process()
    hide(settings.secrets)
    configure(as_json=settings.log_json)
    try:
        asyncio.run(_tell(worker, settings))
    except LedgerUnavailable as error:
        log.warning("worker.untold", extra={"error": str(error)})
        sys.exit(1)


async def _tell(worker: str, settings: Settings) -> None:
    from tidings.adapters.deploy import expected
    from tidings.adapters.deployed import signatures

    ledger = Ledger(settings.async_database_url, pool_size=1)
    try:
        memory = Memory(ledger)
        code = of_this_process(signatures(expected(load_campaigns(settings.campaign_folders))))
        await memory.remember(f"{TOLD}{worker}", code.to_json())
        await memory.forget_older(TOLD, TOLD_SECONDS)
    finally:
        await ledger.close()


def run_in_child(flow_run_id: str, environment: dict[str, str]) -> None:
    """The whole life of one flow run, in its own process."""
    from tidings.warm import run

    os.environ.clear()
    os.environ.update(environment)
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    sys.exit(run(UUID(flow_run_id)))


class Wake:
    """Calls back when PostgreSQL says that a run was created; silently falls back to polling without it."""

    CHANNEL = "tidings_run"

    def __init__(self, dsn: str) -> None:
        self._dsn = dsn

    async def call(self, callback: Callable[[], None]) -> None:
        """Listen for ever; a lost connection is made anew."""
        import asyncpg

        while True:
            try:
                connection = await asyncpg.connect(self._dsn, timeout=5)
                try:
                    await self._listen(connection, callback)
                finally:
                    connection.terminate()
            # asyncpg has two trees: what PostgreSQL says, and what it says itself of a connection that is gone.
            except (OSError, TimeoutError, asyncpg.PostgresError, asyncpg.InterfaceError) as error:
                log.warning("wake.unavailable", extra={"error": str(error)})
                await asyncio.sleep(RECONNECT_SECONDS)

    async def _listen(self, connection: Any, callback: Callable[[], None]) -> None:
        woken = asyncio.Event()
        connection.add_termination_listener(lambda _: woken.set())
        await connection.add_listener(self.CHANNEL, lambda *_: woken.set())
        callback()  # what was created while nobody listened
        while not connection.is_closed():
            await woken.wait()
            woken.clear()
            callback()


def serve(settings: Settings) -> None:
    """Run a worker until SIGINT or SIGTERM, with a grace time for runs under way."""
    hide(settings.secrets)
    configure(as_json=settings.log_json)
    dsn = settings.async_database_url.replace("postgresql+asyncpg://", "postgresql://", 1)
    memory = Memory(Ledger(settings.async_database_url, pool_size=1))
    asyncio.run(_serve(WarmProcessWorker(
        wake=Wake(dsn), memory=memory, work_pool_name=settings.work_pool, limit=settings.worker_concurrency,
        create_pool_if_not_found=False, name=f"tidings {socket.gethostname()} {os.getpid()}",
    )))  # fmt: skip


async def _serve(worker: WarmProcessWorker) -> None:
    serving = asyncio.ensure_future(worker.serve())
    told = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, told.set)
    telling = asyncio.ensure_future(told.wait())
    await asyncio.wait([serving, telling], return_when=asyncio.FIRST_COMPLETED)
    if not serving.done():
        await worker.leave()
        serving.cancel()
    telling.cancel()
    with suppress(asyncio.CancelledError):
        await serving
