"""Every secret and address is marked; good and bad requests and broken services are driven; no mark shows anywhere."""

from __future__ import annotations

import asyncio
import json
import logging
import re
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any
from uuid import uuid4

import httpx
import pytest
import uvicorn
from sandbox_process import Sandbox
from worlds import TABLES, now

from tidings import redact as redacting
from tidings.accept import Intake
from tidings.adapters.captcha import TURNSTILE, Captcha
from tidings.adapters.prefect import PrefectRuns, Run
from tidings.ledger import Ledger
from tidings.web.app import create_app
from tidings.web.form import Form

MARK = "MaRk3d"
TOKEN, ADMIN = f"token-{MARK}-1", f"admin-{MARK}-2"
SECRETS = {
    "NOTION_TOKEN": f"ntn_{MARK}-3",
    "RESEND_API_KEY": f"re_{MARK}-4",
    "RESEND_WEBHOOK_SECRET": "whsec_TWFSazNkTWFSazNkTWFSazNk",  # base64 of the mark, three times
    "SECRET_KEY": f"secret-key-{MARK}-5",
    "WEBHOOK_TOKENS": f"{TOKEN}, other-{MARK}-6",
    "ADMIN_TOKEN": ADMIN,
    "TURNSTILE_SECRET": f"captcha-{MARK}-7",
}
MARKS = (MARK, "TWFSazNk")
SIGNUP, NO_SHOW = "/webhook/christmas-signup", "/webhook/calendly-noshow"


def email() -> str:
    return f"delivered+{MARK}{uuid4().hex[:8]}@resend.dev"


@dataclass
class Watched:
    """A real uvicorn with its real access log, and everything that it says."""

    http: httpx.AsyncClient
    app: Any
    records: list[logging.LogRecord]
    prefect: list[dict[str, Any]] = field(default_factory=list)
    answers: list[str] = field(default_factory=list)

    async def ask(self, method: str, path: str, *, shows_people: bool = False, **given: Any) -> httpx.Response:
        answer = await self.http.request(method, path, **given)
        said = f"{answer.status_code} {dict(answer.headers)} {answer.text}"
        # What an operator asks for is shown to an operator.
        self.answers.append(re.sub(r"delivered\+MaRk3d\w+@resend\.dev", "", said) if shows_people else said)
        return answer


class Keep(logging.Handler):
    def __init__(self, records: list[logging.LogRecord]) -> None:
        super().__init__(logging.DEBUG)
        self._records = records

    def emit(self, record: logging.LogRecord) -> None:
        self._records.append(record)


#: As talkative as each can be made, but for SQLAlchemy's DEBUG, which is there to show rows.
LEVELS = {"": 10, "tidings": 10, "uvicorn.error": 10, "httpx": 10, "httpcore": 10, "prefect": 10, "sqlalchemy": 20}


@pytest.fixture
def kept(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[logging.LogRecord]]:
    """Every record of every logger."""
    records: list[logging.LogRecord] = []
    for name, level in LEVELS.items():
        monkeypatch.setattr(logging.getLogger(name), "level", level)
    handler = Keep(records)
    logging.getLogger().addHandler(handler)
    logging.getLogger().manager._clear_cache()  # type: ignore[attr-defined]
    yield records
    for name in ("", "tidings", "uvicorn", "uvicorn.access"):
        found = logging.getLogger(name)
        found.handlers = [each for each in found.handlers if not isinstance(each, Keep)]


@pytest.fixture
async def marked(web_environment: dict[str, str], web_ledger: Ledger, monkeypatch: pytest.MonkeyPatch) -> None:
    """The environment with every secret marked, and an empty ledger."""
    for name, value in SECRETS.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("PREFECT_API_AUTH_STRING", f"admin:{MARK}-8")
    monkeypatch.setattr(redacting, "_secrets", set())
    monkeypatch.setattr(redacting, "_pattern", None)
    async with web_ledger.transaction() as connection:
        for table in TABLES:
            await connection.exec_driver_sql(f"DELETE FROM {table}")


@asynccontextmanager
async def watching(kept: list[logging.LogRecord], monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Watched]:
    """The server, started as in production; in the test itself, for its log goes to the standard output of then."""
    factory = logging.getLogRecordFactory()
    app = create_app()
    server = uvicorn.Server(uvicorn.Config(app, port=0))
    started: list[dict[str, Any]] = []

    async def run(_: PrefectRuns, deployment: str, **given: Any) -> Run:
        started.append({"deployment": deployment, **given})
        return Run(uuid4())

    monkeypatch.setattr(PrefectRuns, "_run", run)
    serving = asyncio.create_task(server.serve())
    while not server.started:
        await asyncio.sleep(0.02)
    for name in ("tidings", "uvicorn", "uvicorn.access"):  # which hand nothing on to the root
        logging.getLogger(name).addHandler(Keep(kept))
    port = server.servers[0].sockets[0].getsockname()[1]
    async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", trust_env=False, timeout=30) as http:
        yield Watched(http, app, kept, started)
    server.should_exit = True
    await serving
    logging.setLogRecordFactory(factory)


def bearer(token: str) -> dict[str, str]:
    return {"authorization": f"Bearer {token}"}


async def good_and_bad_requests(watched: Watched) -> None:
    who = email()
    form = {"cf-turnstile-response": f"{MARK}-captcha-token"}
    person = {"email": who, "consent": True, "form_trap": "", "form_seconds": 9, **form}
    for path in ("/health", "/docs", "/openapi.json", f"/nothing/{who}", f"/health?token={ADMIN}"):
        await watched.ask("GET", path)
    for body in (
        person,
        person,
        {**person, "email": email(), "form_trap": MARK},
        {**person, "email": email(), "form_seconds": 0},
        {**person, "email": email(), "form_seconds": MARK},
        {**person, "email": f"{MARK}@"},
        {**person, "consent": MARK},
        {**person, "email": email(), "cf-turnstile-response": ""},
        {**person, "assessment_data": {"red_systems": MARK, "gps_score": [who]}},
        *[{**person, "name": f"{n} {MARK}"} for n in "abcdefg"],
    ):
        await watched.ask("POST", SIGNUP, json=body)
    for content in (f'{{"email": "{who}"'.encode(), f'{{"email": "{who}\\u0000"}}'.encode(), who.encode()):
        await watched.ask(
            "POST", NO_SHOW, content=content, headers={"content-type": "application/json", **bearer(TOKEN)}
        )
    for token in (f"wrong-{MARK}", TOKEN[:-1], ADMIN):
        await watched.ask("POST", NO_SHOW, json={"email": who}, headers=bearer(token))
    await watched.ask("POST", NO_SHOW, json={"email": who}, headers=bearer(TOKEN))
    report = {"type": "email.bounced", "data": {"to": [who], "bounce": {"message": f"no {who}"}}}
    await watched.ask("POST", "/webhook/resend", json=report)
    signed = {"svix-id": "1", "svix-timestamp": str(int(time.time())), "svix-signature": f"v1,{MARK}"}
    await watched.ask("POST", "/webhook/resend", json=report, headers=signed)
    await watched.ask("GET", f"/api/contacts/{who}", headers=bearer(TOKEN))
    await watched.ask("GET", f"/api/contacts/{who}", headers=bearer(ADMIN), shows_people=True)
    await watched.ask("GET", "/api/events", headers=bearer(ADMIN), shows_people=True)


async def people_who_leave(watched: Watched) -> list[str]:
    links = watched.app.state.parts.links
    paths = [links.unsubscribe(uuid4()).removeprefix("https://t.tidings.test"), f"/unsubscribe/{MARK}.forged"]
    for path in paths:
        for method in ("GET", "POST"):
            answer = await watched.http.request(method, path)
            watched.answers.append(f"{answer.status_code} {answer.text}")
    return [path.rpartition("/")[2] for path in paths]


async def broken_services(watched: Watched, monkeypatch: pytest.MonkeyPatch) -> None:
    parts = watched.app.state.parts
    who = email()
    await watched.ask("GET", "/health/ready")  # Notion's databases and Prefect are not there
    nowhere = Ledger(f"postgresql+asyncpg://tidings:{MARK}-8@127.0.0.1:1/tidings")
    watched.app.state.intake = Intake(nowhere, parts.runs, now=now)
    await watched.ask("POST", NO_SHOW, json={"email": who}, headers=bearer(TOKEN))
    intake = watched.app.state.intake = Intake(parts.ledger, parts.runs, now=now)

    async def fail(_: Any) -> Any:
        raise RuntimeError(f"cannot store {who} with {SECRETS['RESEND_API_KEY']}")

    with monkeypatch.context() as patch:
        patch.setattr(intake, "take", fail)
        answer = await watched.ask("POST", NO_SHOW, json={"email": who}, headers=bearer(TOKEN))
        assert answer.status_code == 500
    await nowhere.close()


async def test_no_mark__shows_in_logs_answers_or_prefect(
    marked: None,
    box: Sandbox,
    kept: list[logging.LogRecord],
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    async with watching(kept, monkeypatch) as watched:
        parts = watched.app.state.parts
        broken = httpx.MockTransport(lambda request: httpx.Response(500, text=request.content.decode()))
        captcha = Captcha(TURNSTILE, SECRETS["TURNSTILE_SECRET"], broken)
        watched.app.state.form = Form(parts.ledger, parts.settings, captcha=captcha, now=now)
        await good_and_bad_requests(watched)
        tokens = await people_who_leave(watched)
        await broken_services(watched, monkeypatch)

    out, err = capfd.readouterr()
    places = {
        "stdout": out,
        "stderr": err,
        "logs": "\n".join(map(logging.Formatter().format, watched.records)),
        "answers": "\n".join(watched.answers),
        "Prefect": json.dumps(watched.prefect, default=str),
    }
    assert len(watched.answers) > 30
    assert "webhook.accepted" in err
    assert "http.refused" in err
    assert "RuntimeError: cannot store d…@resend.dev with [hidden]" in err
    assert watched.prefect
    found = {
        name: [line for line in text.splitlines() if any(mark in line for mark in (*MARKS, *tokens))]
        for name, text in places.items()
    }
    assert found == {name: [] for name in places}
