"""Prefect's REST API on one client that is kept; what goes wrong becomes our errors here.

Not by Prefect's own client: to import that costs a process 36 MB and a second of CPU, and it asks two questions more
in each process that asks one (decision 0020). Only what deploys and runs flows imports Prefect.
"""

from __future__ import annotations

import asyncio
import base64
import ssl
import time
from collections.abc import AsyncIterator, Generator, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from typing import Any, TypeVar
from urllib.parse import quote
from uuid import uuid4

import httpx
from pydantic import TypeAdapter
from typing_extensions import TypedDict  # pydantic wants it on Python 3.11

from tidings.adapters.http import ServiceClient
from tidings.errors import OutcomeUnknown, Refused, RetryLater
from tidings.settings import PrefectAccess

T = TypeVar("T")

SERVICE = "Prefect"
#: A webhook waits no longer than this for Prefect; then it is answered 202 and dispatched later.
PATIENCE_SECONDS = 5.0
#: What a kept connection says when Prefect has ended since: on a new one it may well answer.
STALE = (httpx.ReadError, httpx.WriteError, httpx.RemoteProtocolError)
#: Answers of a server, or of a proxy before it, that is busy or about to be there again.
AWAY = frozenset({429, 502, 503})
#: The most that Prefect tells of at once; it refuses to be asked for more (PREFECT_SERVER_API_DEFAULT_LIMIT).
PAGE = 200
#: How long a run waits between its attempts to reach a Prefect that is away: it may be restarting.
PAUSES = (1.0, 2.0, 4.0, 8.0, 16.0)
#: As Prefect's own client has them: of more connections its server is said to become unsteady, and the balancer of its
#: cloud keeps one for 30 s (prefect/client/orchestration).
LIMITS = httpx.Limits(max_connections=16, max_keepalive_connections=8, keepalive_expiry=25.0)


class _Token(TypedDict):
    token: str


_TOKEN = TypeAdapter(_Token)


class Credentials(httpx.Auth):
    """Shows the password or key, and a token against forged requests where the server wants one.

    A server with PREFECT_SERVER_CSRF_PROTECTION_ENABLED answers 403 to a change without a token, or with one that is
    older than an hour (prefect/server/api/middleware.py). Others are not asked for one.
    """

    requires_response_body = True

    def __init__(self, access: PrefectAccess) -> None:
        self._url = access.prefect_api_url
        self._headers = {"authorization": said} if (said := _authorization(access)) else {}
        self._token: dict[str, str] = {}

    def auth_flow(self, request: httpx.Request) -> Generator[httpx.Request, httpx.Response, None]:
        """As httpx asks for it: what is yielded is sent, and its answer comes back."""
        request.headers.update(self._headers | self._token)
        answer = yield request
        if answer.status_code != httpx.codes.FORBIDDEN or "CSRF" not in answer.text:
            return
        # Of its own for each token: the server has one for each client, and who asks at the same time would void it.
        client = str(uuid4())
        answer = yield self._question(request, f"/csrf-token?client={client}")
        if answer.is_success:
            token = _TOKEN.validate_json(answer.content)["token"]
            self._token = {"prefect-csrf-token": token, "prefect-csrf-client": client}
            request.headers.update(self._token)
        yield request

    def _question(self, request: httpx.Request, path: str) -> httpx.Request:
        """With all that the client shows: a proxy may want to see it."""
        shown = {k: v for k, v in request.headers.items() if not k.startswith("content-")}
        return httpx.Request("GET", f"{self._url}{path}", headers=shown)


def _authorization(access: PrefectAccess) -> str | None:
    if access.prefect_api_key and not access.prefect_api_auth_string:
        return f"Bearer {access.prefect_api_key.get_secret_value()}"
    url = httpx.URL(access.prefect_api_url)
    word = access.prefect_api_auth_string.get_secret_value() if access.prefect_api_auth_string else ""
    word = word or (f"{url.username}:{url.password}" if url.userinfo else "")
    return f"Basic {base64.b64encode(word.encode()).decode()}" if word else None


def client_arguments(access: PrefectAccess) -> dict[str, Any]:
    """What any httpx client needs to speak with Prefect's API."""
    verify: ssl.SSLContext | bool = not access.prefect_api_tls_insecure_skip_verify
    if verify and access.prefect_api_ssl_cert_file:
        verify = ssl.create_default_context(cafile=str(access.prefect_api_ssl_cert_file))
    return {
        "base_url": access.prefect_api_url,
        "headers": access.prefect_client_custom_headers,
        "auth": Credentials(access),
        "verify": verify,
        "limits": LIMITS,
        "timeout": 60.0,
        "follow_redirects": True,
    }


class PrefectApi:
    """One client for the life of a process. Everything that is asked here may be asked twice."""

    def __init__(
        self,
        access: PrefectAccess,
        *,
        pauses: Sequence[float] = (),
        transport: httpx.AsyncBaseTransport | None = None,
    ) -> None:
        """`pauses`: seconds to wait before each further attempt while Prefect is away; without any, nobody waits."""
        self._http = ServiceClient(SERVICE, transport=transport, **client_arguments(access))
        self._pauses = pauses

    async def close(self) -> None:
        await self._http.aclose()

    async def get(self, path: str, kind: TypeAdapter[T], *, what: str, patience: float = PATIENCE_SECONDS) -> T:
        """What is there. `what` names it in errors; nothing here waits longer than `patience` seconds."""
        with translated(what):
            return kind.validate_python((await self._answer("GET", path, what, patience)).json())

    async def post(
        self, path: str, kind: TypeAdapter[T], *, what: str, json: Any, patience: float = PATIENCE_SECONDS
    ) -> T:
        """What Prefect answers to this."""
        with translated(what):
            return kind.validate_python((await self._answer("POST", path, what, patience, json=json)).json())

    async def tell(self, path: str, *, what: str, json: Any) -> None:
        """As `post`, where the answer says nothing."""
        with translated(what):
            await self._answer("POST", path, what, PATIENCE_SECONDS, json=json)

    async def _answer(self, method: str, path: str, what: str, patience: float, **given: Any) -> httpx.Response:
        async with within(patience, what):
            answer = await self._send(method, path, time.monotonic() + patience, **given)
        return answer.raise_for_status()

    async def _send(self, method: str, path: str, until: float, **given: Any) -> httpx.Response:
        """Ask; ask again, after the pauses, while Prefect is away and patience lasts."""
        for pause in self._pauses:
            try:
                answer = await self._once(method, path, **given)
            except httpx.TransportError:
                if time.monotonic() + pause >= until:
                    raise
            else:
                pause = max(pause, _asked(answer))
                if answer.status_code not in AWAY or time.monotonic() + pause >= until:
                    return answer
            await asyncio.sleep(pause)
        return await self._once(method, path, **given)

    async def _once(self, method: str, path: str, **given: Any) -> httpx.Response:
        try:
            return await self._http.request(method, path, **given)
        except STALE:
            return await self._http.request(method, path, **given)


def _asked(answer: httpx.Response) -> float:
    """How many seconds the answer asks to wait."""
    said = answer.headers.get("retry-after", "")
    return float(said) if said.isdecimal() else 0.0


@asynccontextmanager
async def within(seconds: float, what: str) -> AsyncIterator[None]:
    """Nothing in here takes longer. What was asked may have been done all the same."""
    try:
        async with asyncio.timeout(seconds):
            yield
    except TimeoutError as error:
        raise OutcomeUnknown(SERVICE, f"{what}: no answer within {seconds:g} s") from error


@contextmanager
def translated(what: str) -> Iterator[None]:
    """Errors of the wire and of Prefect become ours."""
    try:
        yield
    except httpx.HTTPStatusError as error:
        raise _refusal(what, error.response) from error
    except httpx.TransportError as error:
        raise RetryLater(SERVICE, f"{what}: cannot be reached: {error}", retry_after=2.0) from error
    except (ValueError, httpx.HTTPError) as error:  # no JSON, or not what Prefect says: a proxy's page, a login page
        raise OutcomeUnknown(SERVICE, f"{what}: the answer is not Prefect's; check PREFECT_API_URL") from error


def _refusal(what: str, answer: httpx.Response) -> Refused | RetryLater:
    status = answer.status_code
    if status == httpx.codes.NOT_FOUND:
        return Refused(SERVICE, f"{what} does not exist; run: tidings deploy", status=status)
    kind = RetryLater if status in {408, 425, 429} or status >= 500 else Refused
    return kind(SERVICE, f"{what}: {answer.reason_phrase}: {answer.text}"[:500], status=status)


def segment(text: str) -> str:
    """A name as a part of a path."""
    return quote(text, safe="")


@asynccontextmanager
async def open_api(access: PrefectAccess, *, pauses: Sequence[float] = ()) -> AsyncIterator[PrefectApi]:
    """A client that is closed at the end."""
    api = PrefectApi(access, pauses=pauses)
    try:
        yield api
    finally:
        await api.close()
