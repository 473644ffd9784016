"""The real application on a real ledger and the sandbox; Prefect's place is taken at the intake's door."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Iterator

import asyncpg
import httpx
import pytest
import resend as sdk
import signing
from asgi_lifespan import LifespanManager
from fakes import FakeRuns
from fastapi import FastAPI
from sandbox_process import Sandbox
from web_client import ADMIN, BEFORE, ORIGIN, PREFECT, SECRET, TOKEN, Web
from worlds import TABLES, now

from tidings import counts
from tidings.accept import Intake
from tidings.ledger import Ledger
from tidings.ledger.migrate import migrate
from tidings.notion_schema import databases
from tidings.settings import Settings, asyncpg_url
from tidings.web.app import create_app
from tidings.web.form import Form


@pytest.fixture(scope="session")
async def web_ledger(postgres: str) -> AsyncIterator[Ledger]:
    """A database apart: the application's keeper works in it all the time."""
    admin = await asyncpg.connect(postgres)
    await admin.execute("CREATE DATABASE web")
    await admin.execute("ALTER DATABASE web SET synchronous_commit = off")
    await admin.close()
    ledger = Ledger(asyncpg_url(postgres.rpartition("/")[0] + "/web"))
    await migrate(ledger.engine)
    yield ledger
    await ledger.close()


@pytest.fixture(scope="session")
def web_environment(
    postgres: str, shared_sandbox: Sandbox, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[dict[str, str]]:
    ids = {d.setting: "11111111-1111-4111-8111-111111111111" for d in databases(7)}
    environment = {
        "DATABASE_URL": postgres.rpartition("/")[0] + "/web",
        "PREFECT_API_URL": PREFECT,
        "NOTION_TOKEN": "ntn_test",
        "NOTION_API_URL": f"{shared_sandbox.url}/notion",
        "RESEND_API_KEY": "re_test",
        "RESEND_API_URL": f"{shared_sandbox.url}/resend",
        "RESEND_WEBHOOK_SECRET": f"{SECRET}, {BEFORE}",
        "SENDER": "Tidings <hello@tidings.test>",
        "POSTAL_ADDRESS": "1 Example Street",
        "SECRET_KEY": "s" * 32,
        "PUBLIC_URL": "https://t.tidings.test",
        "CORS_ORIGINS": f"{ORIGIN}, https://other.busos.test/",
        "WEBHOOK_TOKENS": f"{TOKEN}, token-that-is-being-replaced",
        **signing.environment(),
        "ADMIN_TOKEN": ADMIN,
        "MAX_BODY_BYTES": "20000",
        **ids,
    }
    with pytest.MonkeyPatch.context() as patch:
        for name in Settings.model_fields:
            patch.delenv(name.upper(), raising=False)
            patch.delenv(f"{name.upper()}_FILE", raising=False)
        for name, value in environment.items():
            patch.setenv(name, value)
        patch.chdir(tmp_path_factory.mktemp("no-dot-env"))
        yield dict(os.environ)


@pytest.fixture(scope="session")
async def application(web_environment: dict[str, str], web_ledger: Ledger) -> AsyncIterator[FastAPI]:
    app = create_app()
    async with LifespanManager(app, startup_timeout=30, shutdown_timeout=30):
        yield app


@pytest.fixture(autouse=True)
def resend_of_the_application(application: FastAPI, monkeypatch: pytest.MonkeyPatch) -> None:
    """The SDK keeps its settings in its module: a test that opens a second application leaves the first one its own."""
    for name in ("api_key", "api_url", "default_async_http_client"):
        monkeypatch.setattr(sdk, name, getattr(sdk, name))


@pytest.fixture
async def web(application: FastAPI, web_ledger: Ledger, box: Sandbox) -> AsyncIterator[Web]:
    """An empty ledger, and Prefect's fake at the intake's door."""
    counts.take()  # what tests before this one were counted for, and is not in the ledger yet
    async with web_ledger.transaction() as connection:
        for table in TABLES:
            await connection.exec_driver_sql(f"DELETE FROM {table}")
    runs = FakeRuns()
    parts = application.state.parts
    application.state.intake = Intake(parts.ledger, runs, now=now)
    application.state.form = Form(parts.ledger, parts.settings, captcha=None, now=now)
    transport = httpx.ASGITransport(app=application, raise_app_exceptions=False)
    async with httpx.AsyncClient(transport=transport, base_url="http://tidings.test") as http:
        yield Web(http, web_ledger, runs, application)
    await application.state.intake.drain()
