"""Notion as a person edits it in a test, who puts everything back at the end."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

from live_parts import Json, Live

TITLE, SUBJECT, BODY = "Template Name", "Subject Line", "Email Body HTML"
TEMPLATES = "NOTION_TEMPLATES_DB_ID"
ENROLMENTS = "NOTION_EMAIL_SEQUENCE_DB_ID"
CONTACTS = "NOTION_CONTACTS_DB_ID"
ANALYTICS = "NOTION_EMAIL_ANALYTICS_DB_ID"


def words(text: str) -> list[Json]:
    """Rich text, cut where Notion wants it cut."""
    return [{"type": "text", "text": {"content": text[i : i + 2000]}} for i in range(0, len(text), 2000)]


def plain(row: Json, name: str) -> str:
    value = row["properties"][name]
    return "".join(item["plain_text"] for item in value[value["type"]])


def value(row: Json, name: str) -> Any:
    """A property's value, as a person sees it."""
    prop = row["properties"][name]
    found = prop[prop["type"]]
    match prop["type"]:
        case "title" | "rich_text":
            return "".join(item["plain_text"] for item in found)
        case "select":
            return found["name"] if found else None
        case "date":
            return found["start"] if found else None
        case _:
            return found


class NotionDesk:
    def __init__(self, live: Live) -> None:
        self._live = live
        self._api = f"{live.stack.addresses.sandbox}/notion/v1"
        self._headers = {"Authorization": "Bearer ntn_person", "Notion-Version": "2026-03-11"}
        self._undo: list[Callable[[], Awaitable[Any]]] = []

    @classmethod
    @asynccontextmanager
    async def of(cls, live: Live) -> AsyncIterator[NotionDesk]:
        desk = cls(live)
        try:
            yield desk
        finally:
            await live.sandbox.heal()
            await desk.put_back()

    async def put_back(self) -> None:
        """Undo everything, the newest change first."""
        while self._undo:
            await self._undo.pop()()

    async def call(self, method: str, path: str, body: Any = None) -> Json:
        answer = await self._live.http.request(method, f"{self._api}/{path}", json=body, headers=self._headers)
        assert answer.status_code == 200, answer.text
        found: Json = answer.json()
        return found

    async def source(self, setting: str) -> str:
        database = await self.call("GET", f"databases/{self._live.stack.environment[setting]}")
        return str(database["data_sources"][0]["id"])

    async def rows(self, setting: str, where: Json | None = None) -> list[Json]:
        found: list[Json] = []
        source, cursor = await self.source(setting), {}
        while True:
            body = {**({"filter": where} if where else {}), **cursor}
            page = await self.call("POST", f"data_sources/{source}/query", body)
            found += page["results"]
            if not page["has_more"]:
                return found
            cursor = {"start_cursor": page["next_cursor"]}

    async def rows_of(self, setting: str, name: str, text: str) -> list[Json]:
        return [row for row in await self.rows(setting) if value(row, name) == text]

    async def template(self, name: str) -> Json:
        [row] = await self.rows(TEMPLATES, {"property": "title", "title": {"equals": name}})
        return row

    async def write(self, template: str, *, name: str | None = None, **texts: str) -> None:
        """Change a template's name, or its `subject` and `body`."""
        row = await self.template(template)
        await self._edit(row, name, texts)

    async def _edit(self, row: Json, name: str | None, texts: dict[str, str]) -> None:
        fields = {{"subject": SUBJECT, "body": BODY}[part]: text for part, text in texts.items()}
        before = {prop: {"rich_text": words(plain(row, prop))} for prop in fields}
        after: Json = {prop: {"rich_text": words(text)} for prop, text in fields.items()}
        if name is not None:
            before[TITLE] = {"title": words(plain(row, TITLE))}
            after[TITLE] = {"title": words(name)}
        page = f"pages/{row['id']}"
        self._undo.append(lambda: self.call("PATCH", page, {"properties": before}))
        await self.call("PATCH", page, {"properties": after})

    async def empty_all(self) -> None:
        for row in await self.rows(TEMPLATES):
            await self._edit(row, None, {"subject": "", "body": ""})

    async def copy_of(self, template: str) -> None:
        """A second page with the same name, as a person makes one with "Duplicate"."""
        row = await self.template(template)
        properties = {
            TITLE: {"title": words(template)},
            SUBJECT: {"rich_text": words(plain(row, SUBJECT))},
            BODY: {"rich_text": words(plain(row, BODY))},
        }
        parent = {"type": "data_source_id", "data_source_id": await self.source(TEMPLATES)}
        made = await self.call("POST", "pages", {"parent": parent, "properties": properties})
        self._undo.append(lambda: self.call("PATCH", f"pages/{made['id']}", {"in_trash": True}))

    async def rename_property(self, setting: str, old: str, new: str) -> None:
        source = await self.source(setting)
        await self.call("PATCH", f"data_sources/{source}", {"properties": {old: {"name": new}}})
        self._undo.append(lambda: self.call("PATCH", f"data_sources/{source}", {"properties": {new: {"name": old}}}))

    async def unshare(self, setting: str) -> None:
        await self._share(setting, shared=False)
        self._undo.append(lambda: self._share(setting, shared=True))

    async def _share(self, setting: str, *, shared: bool) -> None:
        answer = await self._live.http.post(
            f"{self._live.sandbox.url}/control/notion/{'share' if shared else 'unshare'}",
            json={"id": self._live.stack.environment[setting]},
        )
        assert answer.status_code == 200, answer.text
