"""One sandbox for the whole folder, emptied before each test; the real SDKs pointed at it."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import resend
from notion_client import Client
from sandbox_process import Receiver, Sandbox, make_notion, make_source

MAIL: dict[str, Any] = {
    "from": "Tidings <hello@tidings.test>",
    "to": ["delivered+ada@resend.dev"],
    "subject": "Hello Ada",
    "html": "<p>Hello</p>",
    "text": "Hello",
}


@pytest.fixture(scope="session")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sandbox]:
    sandbox = Sandbox(tmp_path_factory.mktemp("sandbox"))
    yield sandbox
    sandbox.close()


@pytest.fixture
def sandbox(running: Sandbox) -> Sandbox:
    running.reset()
    return running


@pytest.fixture
def own_sandbox(tmp_path: Path) -> Iterator[Sandbox]:
    """One that the test may kill."""
    sandbox = Sandbox(tmp_path)
    yield sandbox
    sandbox.close()


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    receiver = Receiver()
    yield receiver
    receiver.close()


def point_resend_at(sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resend, "api_key", "re_test")
    monkeypatch.setattr(resend, "api_url", f"{sandbox.url}/resend")
    monkeypatch.setattr(resend, "default_http_client", resend.RequestsClient(timeout=5))


@pytest.fixture
def emails(sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch) -> type[resend.Emails]:
    point_resend_at(sandbox, monkeypatch)
    return resend.Emails


@pytest.fixture
def own_emails(own_sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch) -> type[resend.Emails]:
    point_resend_at(own_sandbox, monkeypatch)
    return resend.Emails


@pytest.fixture
def mail() -> dict[str, Any]:
    return dict(MAIL)


@pytest.fixture
def notion(sandbox: Sandbox) -> Iterator[Client]:
    client = make_notion(sandbox)
    yield client
    client.close()


@pytest.fixture
def source(notion: Client, sandbox: Sandbox) -> str:
    """A data source with one property of each common type."""
    return make_source(notion, sandbox)
