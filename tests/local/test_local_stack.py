"""Whole stacks: beside each other, without their supervisor, and with nothing of the user's in them."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import httpx
import pytest
from local_stacks import MakeConfig, eventually

from tidings.local import environment, procfs
from tidings.local.config import Part, StackConfig
from tidings.local.environment import Addresses
from tidings.local.errors import PartFailed
from tidings.local.folder import DataFolder
from tidings.local.stack import Stack
from tidings.settings import ROOT

SUPERVISOR = """
import asyncio, json, sys
from pathlib import Path
from tidings.local.config import Part, StackConfig
from tidings.local.stack import Stack

async def main():
    parts = frozenset({Part.POSTGRES, Part.SANDBOX})
    config = StackConfig(data=Path(sys.argv[1]), sandbox_port=0, parts=parts, steps=frozenset())
    async with Stack(config) as stack:
        print(json.dumps([stack.pid(name) for name in stack.names]), flush=True)
        await asyncio.sleep(60)

asyncio.run(main())
"""


def _children(pid: int) -> list[int]:
    return [int(p) for p in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
async def test_no_process__outlives_a_supervisor_that_was_killed(tmp_path: Path) -> None:
    supervisor = subprocess.Popen(  # noqa: ASYNC220  # it is only read from
        [sys.executable, "-c", SUPERVISOR, str(tmp_path / "data")], stdout=subprocess.PIPE, cwd=ROOT, text=True
    )
    assert supervisor.stdout
    line = await asyncio.to_thread(supervisor.stdout.readline)
    pids = [*json.loads(line), *_children(supervisor.pid)]
    pids += [grandchild for pid in pids for grandchild in _children(pid)]
    assert len(set(pids)) > 5  # PostgreSQL alone has that many

    supervisor.send_signal(signal.SIGKILL)
    supervisor.wait()

    assert await eventually(lambda: not any(procfs.exists(pid) for pid in pids))


async def test_a_part_that_cannot_start__takes_down_the_rest(make_config: MakeConfig) -> None:
    config = make_config(Part.POSTGRES, Part.SANDBOX, sandbox_options={"no-such-option": "1"})
    stack = Stack(config)

    with pytest.raises(PartFailed, match=r"sandbox ended early with exit code 2(.|\n)*no-such-option"):
        await stack.start()

    assert not any(stack.alive(name) for name in stack.names)
    async with Stack(make_config(Part.POSTGRES)):  # the folder is free again
        pass


@pytest.mark.slow
async def test_two_stacks__work_beside_each_other(make_config: MakeConfig, tmp_path: Path) -> None:
    parts = (Part.POSTGRES, Part.PREFECT)
    one = Stack(make_config(*parts, data=tmp_path / "one"))
    two = Stack(make_config(*parts, data=tmp_path / "two"))

    async with one, two:
        for stack, name in ((one, "first"), (two, "second")):
            await _make_pool(stack, name)

        assert await _pools(one) == {"first"}
        assert await _pools(two) == {"second"}


async def _make_pool(stack: Stack, name: str) -> None:
    async with httpx.AsyncClient(trust_env=False) as client:
        url = f"{stack.addresses.prefect_api}/work_pools/"
        (await client.post(url, json={"name": name, "type": "process"})).raise_for_status()


async def _pools(stack: Stack) -> set[str]:
    async with httpx.AsyncClient(trust_env=False) as client:
        answer = await client.post(f"{stack.addresses.prefect_api}/work_pools/filter", json={})
    return {pool["name"] for pool in answer.json()}


# -- what the processes see ----------------------------------------------------------------------------------


@pytest.fixture
def folder(tmp_path: Path) -> DataFolder:
    folder = DataFolder(tmp_path)
    folder.sandbox.mkdir()
    return folder


def test_the_users_prefect_settings__do_not_leak_in() -> None:
    users = {"PREFECT_API_KEY": "pnu_x", "PREFECT_PROFILE": "cloud", "NO_PROXY": "intra", "PATH": "/bin"}

    made = environment.base_environment(users, "mark", without=())

    assert not [name for name in made if name.startswith("PREFECT_")]
    assert made["NO_PROXY"] == "intra,127.0.0.1,localhost"
    assert made["PATH"] == "/bin"


def test_the_sandbox__replaces_real_keys_and_addresses(folder: DataFolder) -> None:
    made = environment.product(Addresses(StackConfig(), "secret"), folder)

    assert made["NOTION_TOKEN"] == "ntn_sandbox"
    assert made["RESEND_API_KEY"] == "re_sandbox"
    assert made["RESEND_API_URL"] == "http://127.0.0.1:8025/resend"
    assert "NOTION_API_URL" in made


def test_real_services__keep_the_users_keys(folder: DataFolder) -> None:
    made = environment.product(Addresses(StackConfig(real_services=True), "secret"), folder)

    assert not {"NOTION_TOKEN", "RESEND_API_KEY", "NOTION_API_URL", "SENDER"} & made.keys()


def test_what_a_caller_sets__wins(folder: DataFolder) -> None:
    made = environment.product(Addresses(StackConfig(env={"SENDER": "a@b.c"}, testing=True), "s"), folder)

    assert made["SENDER"] == "a@b.c"
    assert made["TESTING_MODE"] == "true"


def test_secrets__stay_the_same_and_private(folder: DataFolder) -> None:
    first = environment.webhook_secret(folder)

    assert first.startswith("whsec_")
    assert environment.webhook_secret(DataFolder(folder.path)) == first
    assert (folder.path / "secrets.json").stat().st_mode & 0o077 == 0


def test_notion_ids_of_a_sandbox_that_is_gone__are_forgotten(folder: DataFolder) -> None:
    folder.notion_env.write_text("NOTION_CONTACTS_DB_ID=1\n")
    assert folder.notion_ids() == {"NOTION_CONTACTS_DB_ID": "1"}

    folder.sandbox.rmdir()

    assert folder.notion_ids() == {}


def test_the_stack_file__is_read_back_by_a_shell() -> None:
    lines = environment.shell_lines({"SENDER": "Tom's <a@b.c>"})

    said = subprocess.run(["sh", "-c", f'{lines} printf %s "$SENDER"'], capture_output=True, text=True, check=True)
    assert said.stdout == "Tom's <a@b.c>"
    assert os.environ.get("SENDER") != said.stdout
