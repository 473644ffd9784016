"""What the tests share: one PostgreSQL and one sandbox a session, and a world of real parts on them."""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import asyncpg
import pytest

sys.path.insert(0, str(Path(__file__).parent / "sandbox"))

import resend as sdk
from evidence import evidence as evidence
from fakes import FakeRuns
from sandbox_process import Sandbox
from worlds import COPY, TABLES, Clients, World, make_templates, open_clients

from tidings.adapters.notion import Notion
from tidings.adapters.resend import Resend
from tidings.ledger import Ledger
from tidings.ledger.migrate import migrate
from tidings.local.config import Part, StackConfig
from tidings.local.stack import Stack
from tidings.settings import asyncpg_url

#: Tests that share a running stack, or start stacks of their own, stay together when tests run in several processes.
TOGETHER = {
    "stack": "stack",
    "browser": "stack",
    "chaos": "chaos",
    "drill": "chaos",
    "local": "local",
    "deploy": "deploy",
}


def pytest_configure(config: pytest.Config) -> None:
    """A folder of this run's own: every run closes the common one to others, also to PostgreSQL, which is no root."""
    if not hasattr(config, "workerinput") and "PYTEST_DEBUG_TEMPROOT" not in os.environ:
        own = os.environ["PYTEST_DEBUG_TEMPROOT"] = tempfile.mkdtemp(prefix="tidings-tests-")
        config.add_cleanup(lambda: shutil.rmtree(own, ignore_errors=True))


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        group = TOGETHER.get(item.path.relative_to(Path(__file__).parent).parts[0])
        if item.path.name == "test_python_versions.py":
            group = "versions"
        if group:
            item.add_marker(pytest.mark.xdist_group(group))


@pytest.fixture(scope="session")
async def postgres(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[str]:
    """The address of a migrated ledger on a PostgreSQL of this session's own."""
    config = StackConfig.apart(
        tmp_path_factory.mktemp("ledger") / "data",
        parts=frozenset({Part.POSTGRES}),
        steps=frozenset(),
    )
    async with Stack(config) as stack:
        address = stack.addresses.database()
        connection = await asyncpg.connect(address)
        await connection.execute("ALTER DATABASE tidings SET synchronous_commit = off")  # faster; nothing is killed
        await connection.close()
        ledger = Ledger(asyncpg_url(address))
        await migrate(ledger.engine)
        await ledger.close()
        yield address


@pytest.fixture(scope="session")
async def session_ledger(postgres: str) -> AsyncIterator[Ledger]:
    ledger = Ledger(asyncpg_url(postgres), pool_size=20)
    yield ledger
    await ledger.close()


@pytest.fixture
async def ledger(session_ledger: Ledger) -> Ledger:
    """An empty ledger."""
    async with session_ledger.transaction() as connection:
        for table in TABLES:  # for so few rows five times as fast as TRUNCATE
            await connection.exec_driver_sql(f"DELETE FROM {table}")
    return session_ledger


@pytest.fixture(scope="session")
def shared_sandbox(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sandbox]:
    sandbox = Sandbox(tmp_path_factory.mktemp("shared-sandbox"))
    yield sandbox
    sandbox.close()


@pytest.fixture
def box(shared_sandbox: Sandbox) -> Iterator[Sandbox]:
    """Notion and Resend, emptied, without faults and limits."""
    shared_sandbox.reset()
    yield shared_sandbox


@pytest.fixture(scope="session")
async def clients(shared_sandbox: Sandbox) -> AsyncIterator[Clients]:
    """One of each for the session: making a TLS context takes longer than most tests."""
    async with open_clients(shared_sandbox) as clients:
        yield clients


@pytest.fixture
def notion(clients: Clients, box: Sandbox) -> Notion:
    return clients.notion


@pytest.fixture
def resend(clients: Clients, box: Sandbox, monkeypatch: pytest.MonkeyPatch) -> Resend:
    """The SDK keeps its settings in module globals, so they are set for each test anew."""
    for name, value in clients.resend_settings.items():
        monkeypatch.setattr(sdk, name, value)
    return clients.resend


@pytest.fixture
async def world(ledger: Ledger, box: Sandbox, notion: Notion, resend: Resend) -> World:
    """The winter campaign on real parts, with its templates in Notion."""
    return World(ledger, box, notion, resend, FakeRuns(), await make_templates(notion, box, COPY))
