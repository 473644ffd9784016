"""Create Notion's databases, put the starter copy there, and check what is there."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from functools import partial
from typing import Any, TypeVar

from pydantic import ValidationError

from tidings.adapters.notion import BODY, SUBJECT, TEMPLATES, TITLE, Notion, rich_text, spelled, title_of
from tidings.campaign import Campaigns
from tidings.errors import CopyError, Refused, RetryLater, TemplateDuplicated
from tidings.model import Template
from tidings.notion_schema import KEY, Database
from tidings.ports import Told, nobody_told
from tidings.render import check, check_asking

T = TypeVar("T")

#: How Notion says that too much is asked of it (apis.md 1.3).
SLOW_DOWN = {429, 529}
#: Between one try and the next, in seconds, also where Notion names less.
SHORTEST_PAUSE = 1.0
#: Seconds that a command waits for its turns in all, before it gives up.
PATIENCE = 120.0


async def _patiently(work: Callable[[], Awaitable[T]]) -> T:
    """Do it again when Notion asks to come again: the servers, which watch the templates, share its limit with us."""
    left = PATIENCE
    while True:
        try:
            return await work()
        except RetryLater as error:
            if error.status not in SLOW_DOWN:
                raise
            pause = max(error.retry_after, SHORTEST_PAUSE)
            left -= pause
            if left < 0:
                raise
            await asyncio.sleep(pause)


async def create_databases(
    notion: Notion, parent: str, databases: Sequence[tuple[Database, str | None]]
) -> AsyncIterator[tuple[Database, str, str]]:
    """Create the databases that have no id yet, and add missing properties to those that have one.

    Yields each as soon as it is there, with its id and what was done: created, completed, or unchanged.
    """
    for database, given in databases:
        if given is None:
            make = partial(notion.create_database, parent, database.title, database.properties)
            yield database, (await _patiently(make))[0], "created"
        else:
            yield database, given, await _patiently(partial(_complete, notion, database, given))


async def _complete(notion: Notion, database: Database, given: str) -> str:
    there = {name.lower() for name in await notion.schema(database.setting, given, fresh=True)}
    missing = {n: p for n, p in database.properties.items() if n.lower() not in there and "title" not in p}
    if missing:
        await notion.add_properties(database.setting, given, missing)
        return "completed: " + ", ".join(missing)
    return "unchanged"


#: The database whose properties are read as text.
_TEMPLATES_FIELD = "notion_templates_db_id"
#: Kinds of properties that Notion lets nobody write, or that the mirror cannot.
_UNWRITABLE = frozenset(
    {"formula", "rollup", "people", "files", "relation", "created_time", "created_by", "last_edited_time",
     "last_edited_by", "unique_id", "button", "verification", "multi_select"}
)  # fmt: skip
#: Rows are looked up by it, and by how the code asks it must be text.
_ASKED_AS_TEXT = frozenset({KEY})


async def property_problems(notion: Notion, database: Database, given: str) -> list[str]:
    """Properties that the code needs and the database lacks or has of another kind, each with the cure (F10)."""
    schema = await notion.schema(database.setting, given, fresh=True)
    problems = []
    for name, wanted in database.properties.items():
        try:
            spelling = spelled(schema, name, database.setting)
        except Refused as error:
            problems.append(str(error))
            continue
        kind, needed = schema[spelling]["type"], next(iter(wanted))
        if kind in _UNWRITABLE or (kind != needed and (name in _ASKED_AS_TEXT or database.field == _TEMPLATES_FIELD)):
            problems.append(
                f"the property {spelling!r} of {database.setting} is of the kind {kind!r}, and has to be {needed!r}; "
                f"change it in Notion"
            )
    return problems


class Pushed(StrEnum):
    CREATED = "created"
    UNCHANGED = "unchanged"
    #: A person has changed it; it was left alone.
    EDITED = "edited in Notion, left alone"
    OVERWRITTEN = "overwritten"


async def push_templates(
    notion: Notion, database: str, campaigns: Campaigns, *, overwrite: bool
) -> AsyncIterator[tuple[str, Pushed]]:
    """Put the starter copy into Notion. What is there already stays, unless `overwrite` says otherwise.

    Yields each template as soon as it is there. Raises TemplateDuplicated, before anything is changed.
    """
    by_name: dict[str, list[dict[str, Any]]] = {}
    for row in await _patiently(partial(notion.query, TEMPLATES, database)):
        by_name.setdefault(title_of(row), []).append(row)
    wanted = {name: campaign.starter(name) for campaign in campaigns.values() for name in campaign.templates}
    twice = [f"Template {n!r} exists {len(by_name[n])} times" for n in wanted if len(by_name.get(n, [])) > 1]
    if twice:
        raise TemplateDuplicated(f"{'; '.join(twice)} in {TEMPLATES}; delete all but one")
    for name, (subject, body) in wanted.items():
        push = partial(_push, notion, database, by_name.get(name, []), name, subject, body, overwrite)
        yield name, await _patiently(push)


async def _push(
    notion: Notion,
    database: str,
    rows: list[dict[str, Any]],
    name: str,
    subject: str,
    body: str,
    overwrite: bool,
) -> Pushed:
    properties = {
        await notion.property_name(TEMPLATES, database, SUBJECT): {"rich_text": rich_text(subject)},
        await notion.property_name(TEMPLATES, database, BODY): {"rich_text": rich_text(body)},
    }
    await notion.pace()
    if not rows:
        title = await notion.property_name(TEMPLATES, database, TITLE)
        await notion.create_row(TEMPLATES, database, {title: {"title": rich_text(name)}, **properties})
        return Pushed.CREATED
    there_subject, there_body = await notion.template_text(rows[0])
    if (there_subject, there_body) == (subject, body):
        return Pushed.UNCHANGED
    if not overwrite and (there_subject.strip() or there_body.strip()):
        return Pushed.EDITED
    await notion.update_row(str(rows[0]["id"]), properties)
    return Pushed.OVERWRITTEN


@dataclass(frozen=True)
class Checked:
    """A template and what is wrong with it; nothing when `problem` is None."""

    campaign: str
    sequence: str
    template: str
    problem: str | None


async def check_templates(
    notion: Notion,
    database: str,
    campaigns: Campaigns,
    facts: Mapping[str, Any],
    now: datetime,
    *,
    told: Told = nobody_told,
) -> list[Checked]:
    """Every template that any campaign names: present, once, filled in, and renderable for every kind of contact."""
    found = await _patiently(partial(notion.try_templates, database, campaigns.templates, told=told))
    results = []
    for campaign in campaigns.values():
        for sequence in campaign.sequences:
            contexts = sample_contexts(campaigns, campaign.name, sequence.name, facts, now)
            for name in sequence.templates:
                trying = check_asking if name == sequence.confirmation else check
                problem = _problem(found[name], contexts, trying)
                results.append(Checked(campaign.name, sequence.name, name, problem))
    return results


def _problem(
    template: Template | CopyError, contexts: Mapping[str, Mapping[str, Any]], trying: Callable[..., None]
) -> str | None:
    if isinstance(template, CopyError):
        return str(template)
    for who, values in contexts.items():
        try:
            trying(template, values)
        except CopyError as error:
            return f"For {who}: {error}"
    return None


def sample_contexts(
    campaigns: Campaigns, campaign: str, sequence: str, facts: Mapping[str, Any], now: datetime
) -> dict[str, dict[str, Any]]:
    """Variables of each sample contact of a sequence."""
    webhook = next(w for w in campaigns[campaign].webhooks if w.sequence == sequence)
    samples = campaigns[campaign].samples.get(sequence) or webhook.examples
    contexts = {}
    for who, body in samples.items():
        try:
            contexts[who] = webhook.payload.model_validate(body).variables(facts, now)
        except ValidationError as error:
            raise CopyError(f"The sample {who!r} of {campaign}/{sequence} is not a valid body: {error}") from error
    return contexts
