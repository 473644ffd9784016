"""Prefect's API over answers that are not Prefect's, and over a Prefect that is away for a moment."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from datetime import UTC, datetime
from typing import Any
from uuid import uuid4

import httpx
import pytest
from prefect.client.schemas.objects import TERMINAL_STATES

from tidings.adapters import blocks
from tidings.adapters.deployed import live_workers
from tidings.adapters.prefect import TERMINAL, PrefectRuns, lets_anyone_in
from tidings.adapters.prefect_api import PrefectApi
from tidings.errors import OutcomeUnknown, Refused, RetryLater, ServiceError
from tidings.settings import PrefectAccess

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
    "workers": lambda runs: live_workers(runs.api, "tidings", NOW),
    "ping": lambda runs: runs.ping(),
}

Answer = httpx.Response | Exception


def speaking(*answers: Answer, pauses: tuple[float, ...] = (), **given: Any) -> tuple[PrefectApi, list[httpx.Request]]:
    """The API whose questions have these answers in turn, the last one for ever; and what it was asked."""
    asked: list[httpx.Request] = []
    left = list(answers)

    def answer(request: httpx.Request) -> httpx.Response:
        asked.append(httpx.Request(request.method, request.url, headers=request.headers, content=request.content))
        said = left.pop(0) if len(left) > 1 else left[0]
        if isinstance(said, Exception):
            raise said
        return httpx.Response(said.status_code, headers=said.headers, content=said.content)

    access = PrefectAccess.load(**{"prefect_api_url": "http://prefect.test/api", **given})
    return PrefectApi(access, pauses=pauses, transport=httpx.MockTransport(answer)), asked


@pytest.fixture(autouse=True)
def nothing_in_the_environment(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    for name in PrefectAccess.model_fields:
        monkeypatch.delenv(name.upper(), raising=False)
    yield


@pytest.mark.parametrize("answer", ANSWERS)
@pytest.mark.parametrize("call", CALLS)
async def test_an_answer_that_is_not_prefects__is_of_unknown_outcome_and_names_the_setting(
    call: str, answer: str
) -> None:
    api, _ = speaking(ANSWERS[answer])

    with pytest.raises(OutcomeUnknown, match="PREFECT_API_URL"):
        await CALLS[call](PrefectRuns(api, {}))


async def test_prefects_own_greeting__is_known() -> None:
    api, _ = speaking(httpx.Response(200, json="👋"))

    await PrefectRuns(api, {}).ping()


@pytest.mark.parametrize(
    ("answer", "kind", "words"),
    [
        (httpx.Response(401, json={"detail": "Unauthorized"}), Refused, "Prefect: 401: the API: Unauthorized"),
        (httpx.Response(404), Refused, "the API does not exist; run: tidings deploy"),
        (httpx.Response(409, json={"detail": "no such parameter"}), Refused, "no such parameter"),
        (httpx.Response(500, text="broken"), RetryLater, "500.*broken"),
        (httpx.Response(503), RetryLater, "503"),
        (httpx.ConnectError("refused"), RetryLater, "cannot be reached: refused"),
        (httpx.ReadTimeout("silence"), RetryLater, "cannot be reached: silence"),
        (httpx.TooManyRedirects("round and round"), OutcomeUnknown, "PREFECT_API_URL"),
    ],
)
async def test_what_goes_wrong__is_an_error_of_ours(answer: Answer, kind: type[ServiceError], words: str) -> None:
    api, _ = speaking(answer)

    with pytest.raises(kind, match=words):
        await PrefectRuns(api, {}).ping()


async def test_a_kept_connection_whose_server_has_ended__is_made_anew_at_once() -> None:
    api, asked = speaking(httpx.RemoteProtocolError("disconnected"), httpx.Response(200, json="👋"))

    await PrefectRuns(api, {}).ping()

    assert len(asked) == 2


@pytest.mark.parametrize("away", [httpx.ConnectError("refused"), httpx.Response(503), httpx.Response(429)])
async def test_a_run__waits_for_a_prefect_that_restarts_and_a_webhook_does_not(away: Answer) -> None:
    back = httpx.Response(200, json="👋")
    api, asked = speaking(away, away, back, pauses=(0.01, 0.01, 0.01))
    await PrefectRuns(api, {}).ping()
    assert len(asked) == 3

    api, asked = speaking(away, back)
    with pytest.raises(RetryLater):
        await PrefectRuns(api, {}).ping()
    assert len(asked) == 1


@pytest.mark.parametrize("away", [httpx.ConnectError("refused"), httpx.Response(429, headers={"retry-after": "60"})])
async def test_who_would_have_to_wait_too_long__is_told_at_once_why(away: Answer) -> None:
    api, asked = speaking(away, pauses=(60.0 if isinstance(away, Exception) else 0.01,))

    with pytest.raises(RetryLater):
        await PrefectRuns(api, {}).ping()

    assert len(asked) == 1


@pytest.mark.parametrize(
    ("given", "shown"),
    [
        ({}, None),
        ({"prefect_api_auth_string": "admin:word"}, "Basic YWRtaW46d29yZA=="),
        ({"prefect_api_key": "pnu_x"}, "Bearer pnu_x"),
        ({"prefect_api_key": "pnu_x", "prefect_api_auth_string": "admin:word"}, "Basic YWRtaW46d29yZA=="),
        ({"prefect_api_url": "http://admin:word@prefect.test/api"}, "Basic YWRtaW46d29yZA=="),
    ],
)
async def test_the_password_or_key__is_shown(given: dict[str, str], shown: str | None) -> None:
    api, asked = speaking(httpx.Response(200, json="👋"), prefect_client_custom_headers='{"x-a": "b"}', **given)

    await PrefectRuns(api, {}).ping()

    assert asked[0].headers.get("authorization") == shown
    assert asked[0].headers["x-a"] == "b"


class Guarded:
    """A server that wants a token against forged requests, and knows the last one of each client."""

    def __init__(self) -> None:
        self.tokens: dict[str, str] = {}
        self.asked: list[httpx.Request] = []

    async def __call__(self, request: httpx.Request) -> httpx.Response:
        self.asked.append(request)
        await asyncio.sleep(0.01)
        if request.url.path == "/api/csrf-token":
            client = request.url.params["client"]
            self.tokens[client] = f"t-{len(self.asked)}"
            return httpx.Response(200, json={"token": self.tokens[client], "client": client})
        client, token = request.headers.get("prefect-csrf-client", ""), request.headers.get("prefect-csrf-token")
        if request.method == "POST" and (token is None or self.tokens.get(client) != token):
            return httpx.Response(403, json={"detail": "Invalid CSRF token or client identifier."})
        return httpx.Response(200, json=[])


async def test_a_server_that_wants_a_token_against_forged_requests__gets_one_from_each_who_has_none() -> None:
    server = Guarded()
    access = PrefectAccess.load(
        prefect_api_url="http://prefect.test/api/", prefect_client_custom_headers='{"x-proxy": "word"}'
    )
    runs = PrefectRuns(PrefectApi(access, transport=httpx.MockTransport(server)), {})

    async def soon(seconds: float) -> None:
        await asyncio.sleep(seconds)
        await runs.under_way()

    await asyncio.gather(*(soon(0.005 * number) for number in range(5)))
    before = len(server.asked)
    await runs.under_way()

    assert len(server.asked) == before + 1  # with the token that it has
    assert {request.headers["x-proxy"] for request in server.asked} == {"word"}


async def test_a_server_that_refuses_a_token_too__is_refused_in_its_own_words() -> None:
    refused = httpx.Response(403, json={"detail": "Missing CSRF token."})
    api, _ = speaking(refused, httpx.Response(404), refused)

    with pytest.raises(Refused, match="Missing CSRF token"):
        await PrefectRuns(api, {}).under_way()


@pytest.mark.parametrize("status", [200, 401])
async def test_whether_anyone_is_let_in__is_asked_as_a_stranger(status: int) -> None:
    asked: list[httpx.Request] = []

    def answer(request: httpx.Request) -> httpx.Response:
        asked.append(request)
        return httpx.Response(status)

    found = await lets_anyone_in("http://admin:word@prefect.test/api", httpx.MockTransport(answer))

    assert found is (status == 200)
    assert "authorization" not in asked[0].headers
    assert asked[0].url == "http://prefect.test/api/admin/version"


def test_secret_blocks__are_asked_for_again_by_a_run_and_not_by_others(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PREFECT_API_URL", "http://prefect.test/api")
    value = {"name": "notion-token", "data": {"value": "ntn_block"}}
    answers = [httpx.Response(503), httpx.Response(200, json=[value])]
    transport = httpx.MockTransport(lambda _: answers.pop(0))
    arguments = blocks.client_arguments
    monkeypatch.setattr(blocks, "client_arguments", lambda access: {**arguments(access), "transport": transport})
    monkeypatch.setattr(blocks.time, "sleep", lambda _: None)
    blocks._all_blocks.cache_clear()

    assert blocks.secret_blocks(["notion-token"]) == {}
    answers.insert(0, httpx.Response(429))
    assert blocks.secret_blocks(["notion-token", "other"], pauses=(1.0,)) == {"notion-token": "ntn_block"}
    assert answers == []
    blocks._all_blocks.cache_clear()


def test_what_a_run_was_given__does_not_change_while_it_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    read = iter(["first", "second", "third"])
    monkeypatch.setattr(blocks, "_kept", [])
    monkeypatch.setattr(blocks, "load_settings", lambda _: next(read))

    assert blocks.settings_of_this_process() == "first"
    assert blocks.keep_settings() == "second"
    assert blocks.settings_of_this_process() == "second"


async def test_a_deployment_that_was_deleted_and_made_anew__is_looked_up_again() -> None:
    before, after = {"id": str(uuid4()), "name": "hello"}, {"id": str(uuid4()), "name": "hello"}
    run = httpx.Response(201, json={"id": str(uuid4())})
    gone = httpx.Response(404, json={"detail": "Deployment not found"})
    api, asked = speaking(httpx.Response(200, json=before), run, gone, httpx.Response(200, json=after), run)
    runs = PrefectRuns(api, {})

    for _ in range(2):
        await runs.start_handler("hello", [uuid4()], uuid4())

    places = [request.url.path.split("/")[3] for request in asked]
    assert places == ["name", before["id"], before["id"], "name", after["id"]]


async def test_a_deployment_that_does_not_exist__is_refused_with_the_cure() -> None:
    api, asked = speaking(httpx.Response(404, json={"detail": "Deployment not found"}))

    with pytest.raises(Refused, match="deployment 'hello' does not exist; run: tidings deploy"):
        await PrefectRuns(api, {}).start_handler("hello", [uuid4()], uuid4())

    assert len(asked) == 1


async def test_all_that_a_start_asks__takes_no_longer_than_its_patience() -> None:
    async def slow(_: httpx.Request) -> httpx.Response:
        await asyncio.sleep(0.15)
        return httpx.Response(200, json={"id": str(uuid4()), "name": "hello"})

    access = PrefectAccess.load(prefect_api_url="http://prefect.test/api")
    runs = PrefectRuns(PrefectApi(access, transport=httpx.MockTransport(slow)), {}, patience=0.2)

    with pytest.raises(OutcomeUnknown, match="no answer within"):
        await runs.start_handler("hello", [uuid4()], uuid4())


def test_a_run_has_ended__in_the_states_that_prefect_knows_as_final() -> None:
    assert set(TERMINAL) == {state.value for state in TERMINAL_STATES}
