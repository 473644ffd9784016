"""What the documents say is so."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest
import typer.main
from dotenv import dotenv_values

from deploy.checks import compose, failures_table, settings_table
from tidings.campaign import Campaigns, load_campaigns
from tidings.cli import app
from tidings.errors import CampaignError
from tidings.model import Template
from tidings.render import check
from tidings.settings import ROOT, Settings

README = (ROOT / "README.md").read_text(encoding="utf-8")
DECISIONS = sorted((ROOT / "docs" / "decisions").glob("0*.md"))
DOCUMENTS = [
    ROOT / "README.md",
    ROOT / "CHANGELOG.md",
    *sorted((ROOT / "deploy").glob("*.md")),
    *sorted((ROOT / "docs").rglob("*.md")),
]
#: Variables of .env.example that are for docker compose and no settings of Tidings.
OF_COMPOSE = {"COMPOSE_FILE", "POSTGRES_PASSWORD", "PREFECT_AUTH_STRING"}
#: Where a message of the code is put together from parts.
GAP = re.compile(r"…|'[^']*'|`|\d+|[()]|[:;] | by$|\b[A-Z]+_[A-Z_]*|\b(?:deployment|domain|pool|body|SENDER)\b")
CAMPAIGN_FILE = re.compile(r"^`(campaigns/[^`]+)`\n\n```\w*\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def _id(path: Path) -> str:
    return str(path.relative_to(ROOT))


# -- settings ------------------------------------------------------------------------------------------------


def test_every_setting__is_described() -> None:
    assert settings_table.problems() == []
    table = settings_table.FILE.read_text(encoding="utf-8")
    assert [name for name in Settings.model_fields if f"`{name.upper()}`" not in table] == []


def test_the_example_env__names_settings_and_all_that_must_be_filled_in() -> None:
    named = set(dotenv_values(ROOT / ".env.example"))
    settings = {name.upper() for name in Settings.model_fields}
    required = {name.upper() for name, field in Settings.model_fields.items() if field.is_required()}
    asked_for = {match["name"] for match in compose.variables_of(compose.MAIN) if match["kind"] == "?"}

    assert named - settings == OF_COMPOSE
    assert required - named == {"DATABASE_URL", "PREFECT_API_URL"}  # which the compose file makes
    assert asked_for <= named


def test_every_failure_of_before__has_one_test_and_stands_in_its_table() -> None:
    assert failures_table.problems() == []


# -- README --------------------------------------------------------------------------------------------------


@pytest.fixture
def webinar(tmp_path: Path) -> Campaigns:
    """The campaign of README.md, as somebody who copies it has it."""
    files = dict(CAMPAIGN_FILE.findall(README))
    for name, content in files.items():
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content, encoding="utf-8")
    return load_campaigns([ROOT / "campaigns", tmp_path / "campaigns"])


def test_the_example_campaign__loads_beside_the_real_one(webinar: Campaigns) -> None:
    campaign = webinar["webinar"]

    assert campaign.templates == ("webinar_email_1", "webinar_email_2")
    assert len(webinar) > 1


def test_the_example_campaign__has_copy_that_can_be_sent(webinar: Campaigns) -> None:
    campaign = webinar["webinar"]
    (webhook,) = campaign.webhooks
    for body in webhook.examples.values():
        variables = webhook.payload.model_validate(body).variables({}, datetime.now(UTC))
        for name in campaign.templates:
            check(Template(name, *campaign.starter(name), "page", ""), variables)


def _curl_lines() -> Iterator[tuple[str, str]]:
    for line in README.splitlines():
        if line.startswith("curl ") and " -d " in line:
            words = shlex.split(line)
            url = next(word for word in words if word.startswith("http"))
            yield url.rpartition("/")[2], words[words.index("-d") + 1]


def test_each_webhook__has_a_curl_line_with_a_valid_body() -> None:
    webhooks = {webhook.path: webhook for _, webhook in load_campaigns([ROOT / "campaigns"]).for_people.webhooks}
    lines = dict(_curl_lines())

    assert lines.keys() == webhooks.keys()
    for path, body in lines.items():
        assert webhooks[path].payload.model_validate(json.loads(body)).contact() is not None


def _source() -> str:
    """The product's words, with strings that are written over several lines put together."""
    text = "\n".join(path.read_text(encoding="utf-8") for path in sorted((ROOT / "tidings").rglob("*.py")))
    return re.sub(r'"\s*\n\s*f?"', "", text)


def test_the_messages_of_troubleshooting__are_those_of_the_code() -> None:
    source = _source()
    section = README.partition("## Troubleshooting")[2].partition("\n## ")[0]
    rows = [line for line in section.splitlines() if line.startswith("| `")]
    unknown = []
    for row in rows:
        if "Docker's word" in row:
            continue
        message = row.split(" | ")[0].strip("| ")
        fragments = GAP.split(message)
        unknown += [f for part in fragments if len(f := part.strip(" .;:'")) > 9 and f not in source]

    assert len(rows) > 20
    assert unknown == []


# -- all documents -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("document", DOCUMENTS, ids=_id)
def test_links__lead_somewhere(document: Path) -> None:
    links = re.findall(r"\]\(([^)\s]+)\)", document.read_text(encoding="utf-8"))
    broken = []
    for link in links:
        file, _, anchor = link.partition("#")
        if "://" in link:
            continue
        target = (document.parent / file).resolve() if file else document
        if not target.exists() or (anchor and anchor not in _anchors(target)):
            broken.append(link)

    assert broken == []


def _anchors(document: Path) -> set[str]:
    headings = re.findall(r"^#+ (.+)$", document.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("document", DOCUMENTS, ids=_id)
def test_commands__exist(document: Path) -> None:
    commands = _commands()
    named = re.findall(
        r"(?:`|tidings |web |setup )tidings (\w+)(?: (init|push|check|list|replay|retry))?",
        document.read_text(encoding="utf-8"),
    )

    assert [pair for pair in named if " ".join(filter(None, pair)) not in commands] == []


def _commands() -> set[str]:
    group = typer.main.get_group(app)
    found = set(group.commands)
    for name, command in group.commands.items():
        found |= {f"{name} {each}" for each in getattr(command, "commands", {})}
    return found


@pytest.mark.parametrize("document", DOCUMENTS, ids=_id)
def test_make_targets__exist(document: Path) -> None:
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))
    named = set(re.findall(r"`make ([a-z-]+)", document.read_text(encoding="utf-8")))

    assert named <= targets


@pytest.mark.parametrize("decision", DECISIONS, ids=_id)
def test_a_decision__has_the_form_of_one(decision: Path) -> None:
    text = decision.read_text(encoding="utf-8")

    assert text.startswith(f"# {decision.name[:4]} ")
    assert re.findall(r"^## (.+)$", text, re.MULTILINE) == ["Context", "Decision", "Consequences", "Alternatives"]
    assert "**" in text.partition("## Decision")[2].partition("## ")[0]  # the line that people quote
    assert f"({decision.name})" in (decision.parent / "README.md").read_text(encoding="utf-8")


def test_an_example_that_is_half_copied__says_what_is_missing(tmp_path: Path) -> None:
    (name, content), *_ = CAMPAIGN_FILE.findall(README)
    path = tmp_path / name
    path.parent.mkdir(parents=True)
    path.write_text(content, encoding="utf-8")

    with pytest.raises(CampaignError, match="has no starter copy"):
        load_campaigns([path.parent])["webinar"].starter("webinar_email_1")
