"""`tidings notion init` and `templates push`: everything in Notion is made once, however often they are run."""

from __future__ import annotations

from pathlib import Path

import pytest
from dotenv import dotenv_values
from sandbox_process import Sandbox
from typer.testing import CliRunner, Result
from worlds import add_template, make_templates, now

from tidings.adapters.notion import BODY, SUBJECT, TEMPLATES, Notion, rich_text, title_of
from tidings.campaign import load_campaigns
from tidings.cli import app
from tidings.errors import OutcomeUnknown, TemplateDuplicated
from tidings.notion_schema import databases
from tidings.notion_setup import Pushed, check_templates, push_templates
from tidings.settings import ROOT, Settings

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


# -- the starter copy --------------------------------------------------------------------------------------------

CAMPAIGNS = load_campaigns([ROOT / "campaigns"])
NAMES = [name for campaign in CAMPAIGNS.values() for name in campaign.templates]
ONE = "christmas_email_1"


@pytest.fixture
async def database(notion: Notion, box: Sandbox) -> str:
    """An empty templates database."""
    return await make_templates(notion, box, {})


async def push(notion: Notion, database: str, *, overwrite: bool = False) -> dict[str, Pushed]:
    return {name: what async for name, what in push_templates(notion, database, CAMPAIGNS, overwrite=overwrite)}


async def written(notion: Notion, database: str) -> dict[str, tuple[str, str]]:
    """Subject and body of every row."""
    return {title_of(row): await notion.template_text(row) for row in await notion.query(TEMPLATES, database)}


async def edit(notion: Notion, database: str, **texts: str) -> None:
    """What a person does to one of them in Notion."""
    row = next(r for r in await notion.query(TEMPLATES, database) if title_of(r) == ONE)
    values = {{"subject": SUBJECT, "body": BODY}[name]: {"rich_text": rich_text(text)} for name, text in texts.items()}
    await notion.update_row(row["id"], values)


async def test_the_starter_copy__is_pushed_whole_and_once(notion: Notion, database: str) -> None:
    first = await push(notion, database)
    rows = len(await notion.query(TEMPLATES, database))
    again = await push(notion, database)

    assert first == dict.fromkeys(NAMES, Pushed.CREATED)
    assert again == dict.fromkeys(NAMES, Pushed.UNCHANGED)
    assert len(await notion.query(TEMPLATES, database)) == rows == len(NAMES)
    starter = {name: each.starter(name) for each in CAMPAIGNS.values() for name in each.templates}
    assert await written(notion, database) == starter


async def test_a_push_beside_servers_that_ask_notion_too__waits_for_its_turn(
    notion: Notion, database: str, box: Sandbox
) -> None:
    busy = {"service": "notion", "status": 429, "retry_after": 1}
    box.fault("status", method="POST", path="^/v1/pages$", after=3, **busy)
    box.fault("status", method="POST", path="/query$", **busy)

    assert await push(notion, database) == dict.fromkeys(NAMES, Pushed.CREATED)
    assert len(await notion.query(TEMPLATES, database)) == len(NAMES)


@pytest.mark.parametrize("edited", [{"subject": "Mine"}, {"body": "<p>Mine</p>"}, {"subject": ""}])
async def test_what_a_person_edited__is_left_alone_unless_told_otherwise(
    notion: Notion, database: str, edited: dict[str, str]
) -> None:
    await push(notion, database)
    await edit(notion, database, **edited)
    mine = (await written(notion, database))[ONE]

    left = await push(notion, database)
    kept = (await written(notion, database))[ONE]
    replaced = await push(notion, database, overwrite=True)

    others = dict.fromkeys(NAMES, Pushed.UNCHANGED)
    assert (left, kept) == ({**others, ONE: Pushed.EDITED}, mine)
    assert replaced == {**others, ONE: Pushed.OVERWRITTEN}
    assert (await written(notion, database))[ONE] == CAMPAIGNS["christmas"].starter(ONE)


async def test_a_row_that_a_person_made_and_left_empty__is_filled_in(notion: Notion, database: str) -> None:
    await add_template(notion, database, ONE, "", " ")

    pushed = await push(notion, database)

    assert pushed[ONE] is Pushed.OVERWRITTEN
    assert (await written(notion, database))[ONE] == CAMPAIGNS["christmas"].starter(ONE)


@pytest.mark.parametrize("overwrite", [False, True])
async def test_a_name_that_is_there_twice__stops_the_push_before_anything_is_changed(
    notion: Notion, database: str, overwrite: bool
) -> None:
    last = NAMES[-1]
    for name in (ONE, last, last):
        await add_template(notion, database, name, "Mine", "<p>Mine</p>")

    with pytest.raises(TemplateDuplicated, match=f"Template '{last}' exists 2 times in NOTION_TEMPLATES_DB_ID; delete"):
        await push(notion, database, overwrite=overwrite)

    assert await written(notion, database) == dict.fromkeys((ONE, last), ("Mine", "<p>Mine</p>"))
    assert len(await notion.query(TEMPLATES, database)) == 3


async def test_the_check__says_how_far_it_has_come(notion: Notion, database: str) -> None:
    await push(notion, database)
    heard: list[tuple[int, int]] = []

    results = await check_templates(
        notion, database, CAMPAIGNS, {}, now(), told=lambda done, of: heard.append((done, of))
    )

    assert [each.problem for each in results if each.problem] == []
    assert heard == [(n, len(NAMES)) for n in range(1, len(NAMES) + 1)]
