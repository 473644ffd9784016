"""What the worker knows without asking, and what runs are forked from has ready."""

from __future__ import annotations

import importlib
import inspect
from collections import Counter
from uuid import UUID, uuid4

import pytest
from prefect.client.orchestration import PrefectClient
from prefect.client.schemas.filters import DeploymentFilter
from prefect.client.schemas.objects import Flow
from prefect.client.schemas.responses import DeploymentResponse
from prefect.workers.base import BaseWorker
from prefect.workers.process import ProcessJobConfiguration

from tidings import warm
from tidings.worker import Known, WarmConfiguration, WarmProcessWorker


def deployment(name: str, **given: object) -> DeploymentResponse:
    return DeploymentResponse.model_validate({"id": uuid4(), "name": name, "flow_id": uuid4(), **given})


class Prefect:
    """What Prefect's server has, and how often it was asked, in the place of a client's questions."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, client: PrefectClient, *there: DeploymentResponse) -> None:
        self.deployments = {each.id: each for each in there}
        self.asked: Counter[str] = Counter()
        monkeypatch.setattr(client, "read_deployment", self.read_deployment)
        monkeypatch.setattr(client, "read_deployments", self.read_deployments)
        monkeypatch.setattr(client, "read_flow", self.read_flow)

    async def read_deployment(self, deployment_id: UUID) -> DeploymentResponse:
        self.asked["deployment"] += 1
        return self.deployments[deployment_id]

    async def read_deployments(self, *, deployment_filter: DeploymentFilter, limit: int) -> list[DeploymentResponse]:
        self.asked["deployments"] += 1
        assert deployment_filter.id is not None
        return [each for each in self.deployments.values() if each.id in (deployment_filter.id.any_ or [])]

    async def read_flow(self, flow_id: UUID) -> Flow:
        self.asked["flow"] += 1
        return Flow(id=flow_id, name="hello")


@pytest.fixture
def client() -> PrefectClient:
    return PrefectClient("http://prefect.test/api")


async def test_a_deployment_and_its_flow__are_asked_for_once(
    client: PrefectClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = deployment("one", job_variables={"env": {"A": "1"}})
    prefect = Prefect(monkeypatch, client, one)
    Known().of(client)

    first = await client.read_deployment(one.id)
    first.job_variables["env"]["A"] = "a run's own"
    second = await client.read_deployment(str(one.id))
    flows = [await client.read_flow(one.flow_id) for _ in range(2)]

    assert second.job_variables == {"env": {"A": "1"}}
    assert [flow.name for flow in flows] == ["hello", "hello"]
    assert prefect.asked == {"deployment": 1, "flow": 1}


async def test_a_deployment_that_has_changed_or_gone__is_noticed_by_the_next_look(
    client: PrefectClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    one, two = deployment("one", entrypoint="flows.a.b"), deployment("two")
    prefect = Prefect(monkeypatch, client, one, two)
    known = Known()
    known.of(client)
    await known.look()
    for each in (one, two):
        await client.read_deployment(each.id)
    prefect.deployments = {one.id: one.model_copy(update={"entrypoint": "flows.c.d"})}

    await known.look()

    assert (await client.read_deployment(one.id)).entrypoint == "flows.c.d"
    with pytest.raises(KeyError):  # it is asked for again, and Prefect does not know it
        await client.read_deployment(two.id)
    assert prefect.asked == {"deployment": 3, "deployments": 1}


def test_what_a_run_is_given__is_what_prefects_own_worker_gives() -> None:
    assert WarmConfiguration._base_environment() == ProcessJobConfiguration._base_environment()

    WarmConfiguration._base_environment()["A"] = "a run's own"

    assert "A" not in WarmConfiguration._base_environment()


@pytest.mark.parametrize("name", ["_give_worker_labels_to_flow_run", "_propose_submitting_state", "_worker_metadata"])
def test_what_is_left_out_of_prefects_worker__is_still_called_so(name: str) -> None:
    assert name in vars(WarmProcessWorker)
    assert f"self.{name}" in inspect.getsource(BaseWorker)


@pytest.mark.parametrize("path", warm.INCOMPLETE)
def test_a_model_that_runs_use__is_known_to_this_prefect_and_complete_before_them(path: str) -> None:
    module, _, name = path.rpartition(".")

    warm.prepare()

    assert getattr(importlib.import_module(module), name).__pydantic_complete__


@pytest.mark.parametrize("name", warm.LATE)
def test_what_prefect_imports_late__is_there(name: str) -> None:
    importlib.import_module(name)
