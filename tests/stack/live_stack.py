"""One running stack for every test of the session that wants it, and what each test takes from it.

A plugin and not a conftest: tests/stack and tests/browser both register it, and a session has one stack then.
Tests run one after the other and each has addresses of its own, so that none disturbs another.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio
import signing
from live_notion import NotionDesk
from live_parts import Json, Live
from live_sequences import Posted, post_all, post_bare

from tidings.local.config import StackConfig
from tidings.local.stack import Stack

#: Seconds between one mail and the next.
MINUTE = 1.0


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def running(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Live]:
    """PostgreSQL, Prefect, sandbox, worker and web server; all in testing mode."""
    config = StackConfig.apart(
        tmp_path_factory.mktemp("stack") / "data",
        testing=True,
        testing_minute=MINUTE,
        sandbox_options={"notion-rate": "0"},
        # the sandbox has no limit, so the mirror needs none; its pace is tested with the adapter
        env={"NOTION_REQUESTS_PER_SECOND": "1000", **signing.environment()},
    )
    async with Stack(config) as stack, Live.of(stack) as live:
        yield live


@pytest_asyncio.fixture(loop_scope="session")
async def live(running: Live) -> AsyncIterator[Live]:
    """The stack as every test finds it: all parts up, no faults, nothing changed at the providers."""
    await running.ledger.forget_burst()
    yield running
    await running.sandbox.mend()
    for name in running.stack.names:
        if not running.stack.alive(name):
            await running.stack.restart(name)


@pytest_asyncio.fixture(loop_scope="session")
async def desk(live: Live) -> AsyncIterator[NotionDesk]:
    """Notion as a person edits it; put back at the end, and events that failed meanwhile are set aside."""
    async with NotionDesk.of(live) as opened:
        yield opened
    await live.ledger.set_aside_failures()


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def real_time(running: Live) -> AsyncIterator[str]:
    """A second web server on the same ledger, without testing mode: what it takes in is due over days."""
    async with running.web_server(TESTING_MODE="false") as url:
        yield url


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def posted(running: Live) -> tuple[dict[str, Posted], list[Json]]:
    """Everything that is posted once for all tests that only look, at the same time."""
    return await asyncio.gather(post_all(running), post_bare(running))


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def five(posted: tuple[dict[str, Posted], list[Json]]) -> dict[str, Posted]:
    """All five webhooks posted once, and every mail of theirs delivered."""
    return posted[0]


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def bare(posted: tuple[dict[str, Posted], list[Json]]) -> list[Json]:
    """The mails of a signup with nothing but an address."""
    return posted[1]
