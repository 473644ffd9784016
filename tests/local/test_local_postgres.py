"""PostgreSQL below the stack: ends of every kind, and data that is still there afterwards."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from pathlib import Path

import asyncpg
import pytest
from local_stacks import MakeConfig, eventually

from tidings.errors import ConfigError
from tidings.local import procfs
from tidings.local.config import Part
from tidings.local.stack import Stack


async def _run(stack: Stack, statement: str) -> object:
    connection = await asyncpg.connect(stack.addresses.database())
    try:
        return await connection.fetchval(statement)
    finally:
        await connection.close()


async def test_killed__comes_back_on_the_same_port_with_its_data(make_config: MakeConfig) -> None:
    async with Stack(make_config(Part.POSTGRES)) as stack:
        before = stack.addresses.database()
        await _run(stack, "CREATE TABLE kept AS SELECT 42 AS answer")

        stack.kill("postgres")
        assert not stack.alive("postgres")
        await stack.restart("postgres")

        assert stack.addresses.database() == before
        assert await _run(stack, "SELECT answer FROM kept") == 42


async def test_stopped__keeps_its_data_for_the_next_start(make_config: MakeConfig) -> None:
    config = make_config(Part.POSTGRES)
    async with Stack(config) as stack:
        await _run(stack, "CREATE TABLE kept AS SELECT 42 AS answer")
    async with Stack(config) as stack:
        assert await _run(stack, "SELECT answer FROM kept") == 42


async def test_both_databases__are_there_with_durability_on(make_config: MakeConfig) -> None:
    async with Stack(make_config(Part.POSTGRES)) as stack:
        assert await _run(stack, "SHOW fsync") == "on"
        assert await _run(stack, "SELECT count(*) FROM pg_database WHERE datname IN ('tidings', 'prefect')") == 2


async def test_without_its_password__nobody_gets_in(make_config: MakeConfig) -> None:
    async with Stack(make_config(Part.POSTGRES)) as stack:
        port = stack.config.postgres_port
        with pytest.raises(asyncpg.InvalidPasswordError):
            await asyncpg.connect(f"postgresql://postgres:guess@127.0.0.1:{port}/tidings")


async def test_a_pid_file_that_names_an_unrelated_process__is_cleared(make_config: MakeConfig) -> None:
    """PostgreSQL by itself refuses to start then; in a container, where pids begin anew, that is the rule."""
    config = make_config(Part.POSTGRES)
    async with Stack(config):
        pass
    (config.data / "postgres/postmaster.pid").write_text(f"{os.getpid()}\n/elsewhere\n0\n5432\n\n\n\nready\n")

    async with Stack(config) as stack:
        assert stack.alive("postgres")


async def test_a_folder_that_another_stack_uses__is_refused_with_its_pid(make_config: MakeConfig) -> None:
    config = make_config(Part.POSTGRES)
    async with Stack(config) as first:
        with pytest.raises(ConfigError, match=f"in use by process {os.getpid()}, another stack"):
            await Stack(config).start()
        assert first.alive("postgres")


@pytest.mark.skipif(sys.platform != "linux", reason="needs /proc")
async def test_a_server_that_runs_on_the_folder_without_its_stack__is_named(
    make_config: MakeConfig, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("tidings.local.postgres.KEEPER_TIME", 0.2)
    config = make_config(Part.POSTGRES)
    async with Stack(config) as stack:
        pid = stack.pid("postgres")
        stack.folder.close()  # as if another program had started this PostgreSQL
        with pytest.raises(ConfigError, match=f"in use by process {pid}, another PostgreSQL"):
            await Stack(config).start()


async def test_data_of_another_version__is_refused_with_what_to_do(make_config: MakeConfig) -> None:
    config = make_config(Part.POSTGRES)
    (config.data / "postgres").mkdir(parents=True)
    (config.data / "postgres/PG_VERSION").write_text("15\n")

    with pytest.raises(ConfigError, match=r"PostgreSQL 15, and PostgreSQL 18(.|\n)*remove the folder"):
        await Stack(config).start()


async def test_a_first_start_that_was_interrupted__leaves_nothing_in_the_way(make_config: MakeConfig) -> None:
    config = make_config(Part.POSTGRES)
    (config.data / "postgres.new/base").mkdir(parents=True)
    (config.data / "postgres.pw").write_text("old")

    async with Stack(config) as stack:
        assert stack.alive("postgres")


def _owner(pid: int | None) -> int:
    return Path(f"/proc/{pid}").stat().st_uid


@pytest.mark.skipif(os.geteuid() != 0, reason="only root has someone else to run it as")
async def test_below_root__it_runs_as_someone_without_rights(make_config: MakeConfig) -> None:
    async with Stack(make_config(Part.POSTGRES)) as stack:
        assert _owner(stack.pid("postgres")) != 0


async def test_supervised__is_restarted_and_said_so(make_config: MakeConfig) -> None:
    said: list[str] = []
    async with Stack(make_config(Part.POSTGRES), say=said.append) as stack:
        supervision = asyncio.create_task(stack.supervise())
        before = stack.pid("postgres")
        assert before
        os.kill(before, signal.SIGKILL)

        assert await eventually(lambda: stack.alive("postgres") and stack.pid("postgres") != before)
        supervision.cancel()

    assert any("postgres ended with signal SIGKILL" in line for line in said)
    assert not procfs.exists(before)
