"""Prefect's own client over answers that are not Prefect's: a proxy's page, a login page, another service."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from uuid import uuid4

import httpx
import pytest
from prefect.client.base import ServerType
from prefect.client.orchestration import PrefectClient

from tidings.adapters.deploy import live_workers
from tidings.adapters.prefect import PrefectRuns
from tidings.errors import OutcomeUnknown

NOW = datetime(2026, 12, 1, tzinfo=UTC)
ANSWERS = {
    "a login page": httpx.Response(200, html="<html>Log in</html>"),
    "nothing": httpx.Response(200),
    "JSON of another service": httpx.Response(200, json={"status": "ok"}),
    "bytes": httpx.Response(200, content=b"\xff\xfe", headers={"content-type": "application/json"}),
}
CALLS: dict[str, Callable[[PrefectRuns], Awaitable[object]]] = {
    "start a handler": lambda runs: runs.start_handler("winter-hello-handler", [uuid4()], uuid4()),
    "how runs ended": lambda runs: runs.ended([uuid4()]),
    "runs under way": lambda runs: runs.under_way(),
    "workers": lambda runs: live_workers(runs.client, "tidings", NOW),
    "ping": lambda runs: runs.ping(),
}


def speaking(answer: httpx.Response) -> PrefectClient:
    """Prefect's client, whose every question has this answer."""
    transport = httpx.MockTransport(
        lambda request: httpx.Response(answer.status_code, headers=answer.headers, content=answer.content)
    )
    return PrefectClient(
        "http://prefect.test/api", httpx_settings={"transport": transport}, server_type=ServerType.SERVER
    )


@pytest.mark.parametrize("answer", ANSWERS)
@pytest.mark.parametrize("call", CALLS)
async def test_an_answer_that_is_not_prefects__is_of_unknown_outcome_and_names_the_setting(
    call: str, answer: str
) -> None:
    async with speaking(ANSWERS[answer]) as client:
        with pytest.raises(OutcomeUnknown, match="PREFECT_API_URL"):
            await CALLS[call](PrefectRuns(client, {}))


async def test_prefects_own_greeting__is_known() -> None:
    async with speaking(httpx.Response(200, json="👋")) as client:
        await PrefectRuns(client, {}).ping()
