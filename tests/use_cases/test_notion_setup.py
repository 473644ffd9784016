"""`tidings notion init`: the databases in Notion, made once however often it is run."""

from __future__ import annotations

from pathlib import Path

import pytest
from dotenv import dotenv_values
from sandbox_process import Sandbox
from typer.testing import CliRunner, Result

from tidings.cli import app
from tidings.errors import OutcomeUnknown
from tidings.notion_schema import databases
from tidings.settings import Settings

SETTINGS = [d.setting for d in databases(7)]


@pytest.fixture
def folder(box: Sandbox, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A folder of an operator who has a token, and no settings besides."""
    for name in Settings.model_fields:
        monkeypatch.delenv(name.upper(), raising=False)
        monkeypatch.delenv(f"{name.upper()}_FILE", raising=False)
    monkeypatch.setenv("NOTION_TOKEN", "ntn_test")
    monkeypatch.setenv("NOTION_API_URL", f"{box.url}/notion")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def init(box: Sandbox, *more: str) -> Result:
    root = box.get("health")["notion_root_page_id"]
    return CliRunner().invoke(app, ["notion", "init", "--parent", root, *more])


def made(box: Sandbox) -> int:
    """How many databases were created."""
    asked = box.get("requests", service="notion", limit=1000)["data"]
    return sum(1 for r in asked if (r["method"], r["path"], r["status"]) == ("POST", "/v1/databases", 200))


def said(result: Result) -> dict[str, str]:
    """The ids that it printed, by setting."""
    return dict(line.split("  # ")[0].split("=") for line in result.stdout.splitlines())


def test_the_databases__are_made_once_however_often_it_is_run(box: Sandbox, folder: Path) -> None:
    first = init(box, "--write", "ids")
    again = init(box, "--write", "ids")

    assert (first.exit_code, again.exit_code, made(box)) == (0, 0, 5)
    assert list(said(first)) == SETTINGS
    assert said(first) == said(again) == dotenv_values("ids")
    assert first.stdout.count(": created") == again.stdout.count(": unchanged") == 5
    assert len((folder / "ids").read_text().splitlines()) == 5


def test_what_was_made_before_a_failure__is_told_and_kept_and_not_made_again(box: Sandbox, folder: Path) -> None:
    (folder / "ids").write_text("REPLY_TO=desk@clinic.ca")
    box.fault("status", service="notion", method="POST", path="^/v1/databases$", after=2, status=500)

    failed = init(box, "--write", "ids")
    known = dict(dotenv_values("ids"))
    done = init(box, "--write", "ids")

    assert isinstance(failed.exception, OutcomeUnknown)
    assert list(said(failed)) == SETTINGS[:2]
    assert known == {"REPLY_TO": "desk@clinic.ca", **said(failed)}
    assert (done.exit_code, made(box)) == (0, 5)
    assert said(failed).items() <= said(done).items()
    assert dotenv_values("ids") == {"REPLY_TO": "desk@clinic.ca", **said(done)}


def test_an_id_in_the_settings__wins_and_is_written_too(
    box: Sandbox, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mine = said(init(box))[SETTINGS[0]]
    (folder / "ids").write_text(f"{SETTINGS[0]}=11111111-1111-4111-8111-111111111111\n")
    monkeypatch.setenv(SETTINGS[0], mine)

    result = init(box, "--write", "ids")

    assert said(result)[SETTINGS[0]] == mine
    assert dotenv_values("ids") == said(result)
