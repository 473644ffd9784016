"""Notion: where copy is written and the ledger is mirrored. Speaks through `notion-client`; its errors become ours."""

from __future__ import annotations

import asyncio
import json
import logging
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, Protocol, TypeVar

import httpx
from notion_client import AsyncClient
from notion_client.errors import HTTPResponseError, InvalidPathParameterError, RequestTimeoutError

from tidings.adapters.http import ServiceClient
from tidings.errors import (
    ConfigError,
    CopyError,
    OutcomeUnknown,
    Refused,
    RetryLater,
    ServiceError,
    TemplateDuplicated,
    TemplateEmpty,
    TemplateMissing,
)
from tidings.model import Template
from tidings.ports import Told, nobody_told

T = TypeVar("T")

SERVICE = "Notion"
#: The newest version known (apis.md 1.1): databases hold data sources, `archived` is gone.
API_VERSION = "2026-03-11"
#: Page objects may show only this many items of a long text; the rest is behind the property's own endpoint.
SHORT_LIST = 25
TEXT_LIMIT = 2000  # UTF-16 code units a rich-text object
ITEMS_LIMIT = 100  # rich-text objects a property

FILTERS_LIMIT = 100  # conditions a query

TEMPLATES = "NOTION_TEMPLATES_DB_ID"
TITLE, SUBJECT, BODY = "Template Name", "Subject Line", "Email Body HTML"


class Memory(Protocol):
    """Keeps what an id in the settings stands for, beyond the life of a process."""

    async def recall(self, key: str) -> str | None: ...
    async def remember(self, key: str, value: str) -> None: ...
    async def forget(self, key: str) -> None: ...


class NotFound(Refused):
    """The object does not exist, or is not shared with the integration: Notion does not tell which."""


class PropertyMissing(Refused):
    """A database lacks a property that is needed."""


class Notion:
    """A workspace as the integration sees it. Retries are off here: one layer retries, and that is Prefect."""

    def __init__(
        self,
        *,
        token: str,
        api_url: str,
        memory: Memory | None = None,
        requests_per_second: float = 2.0,
        timeout: float = 20.0,
    ) -> None:
        self._http = ServiceClient(SERVICE)
        self._client = AsyncClient(
            auth=token,
            base_url=api_url,
            notion_version=API_VERSION,
            timeout_ms=int(timeout * 1000),
            retry=False,
            log_level=logging.CRITICAL,
            logger=_sdk_log(),
            client=self._http,
        )
        self._memory = memory
        self._sources: dict[str, str] = {}
        self._schemas: dict[str, dict[str, Any]] = {}
        self._gap = 1.0 / requests_per_second
        self._next = 0.0

    async def close(self) -> None:
        await self._client.aclose()

    # -- databases ------------------------------------------------------------------------------------------

    async def whoami(self) -> str:
        """The integration's name; raises Refused when the token is not valid."""
        user = await _call(self._client.users.me)
        return str(user.get("name") or user["id"])

    async def source_id(self, setting: str, given: str) -> str:
        """The data source behind an id from the settings, which may name a database or a data source."""
        if given not in self._sources:
            self._sources[given] = await self._recalled(given) or await self._learned(setting, given)
        return self._sources[given]

    async def _recalled(self, given: str) -> str | None:
        return await self._memory.recall(f"notion-source:{given}") if self._memory else None

    async def _learned(self, setting: str, given: str) -> str:
        source = await self._resolve(setting, given)
        if self._memory:
            await self._memory.remember(f"notion-source:{given}", source)
        return source

    async def _forget(self, given: str) -> None:
        self._sources.pop(given, None)
        if self._memory:
            await self._memory.forget(f"notion-source:{given}")

    async def _resolve(self, setting: str, given: str) -> str:
        try:
            database = await _call(self._client.databases.retrieve, database_id=given)
        except NotFound:
            return await self._resolve_source(setting, given)
        sources = database.get("data_sources", [])
        if len(sources) != 1:
            names = ", ".join(f"{s['name']} ({s['id']})" for s in sources) or "none"
            raise ConfigError(
                [f"{setting} names a Notion database with {len(sources)} data sources ({names}); "
                 f"set {setting} to the id of the one that is meant"]
            )  # fmt: skip
        return str(sources[0]["id"])

    async def _resolve_source(self, setting: str, given: str) -> str:
        try:
            source = await _call(self._client.data_sources.retrieve, data_source_id=given)
        except NotFound as error:
            raise NotFound(
                SERVICE,
                f"the database {given} ({setting}) does not exist or is not shared with the integration. "
                f"In Notion open it, choose ••• → Connections, and add the integration; or correct {setting}",
                status=error.status,
                code=error.code,
            ) from error
        return str(source["id"])

    async def schema(self, setting: str, given: str, *, fresh: bool = False) -> dict[str, Any]:
        """The properties of a database, by name."""
        if fresh or given not in self._schemas:
            answer = await self._at_source(setting, given, self._retrieve)
            self._schemas[given] = dict(answer["properties"])
        return self._schemas[given]

    async def _retrieve(self, source: str) -> dict[str, Any]:
        return await _call(self._client.data_sources.retrieve, data_source_id=source)

    async def _at_source(self, setting: str, given: str, work: Callable[[str], Awaitable[T]]) -> T:
        """Work on a data source. A remembered id that is wrong by now is looked up anew, which names the setting."""
        try:
            return await work(await self.source_id(setting, given))
        except NotFound:
            await self._forget(given)
            return await work(await self.source_id(setting, given))

    async def property_name(self, setting: str, given: str, wanted: str) -> str:
        """How this database spells a property: exact, else without regard to case (F10), else an error."""
        return spelled(await self.schema(setting, given), wanted, setting)

    async def create_database(self, parent: str, title: str, properties: Mapping[str, Any]) -> tuple[str, str]:
        """A new database under a page; returns its id and its data source's id."""
        answer = await _call(
            self._client.databases.create,
            parent={"type": "page_id", "page_id": parent},
            title=[{"type": "text", "text": {"content": title}}],
            initial_data_source={"properties": properties},
        )
        return str(answer["id"]), str(answer["data_sources"][0]["id"])

    async def add_properties(self, setting: str, given: str, properties: Mapping[str, Any]) -> None:
        """Add properties to a database that lacks them."""
        source = await self.source_id(setting, given)
        await _call(self._client.data_sources.update, data_source_id=source, properties=dict(properties))
        self._schemas.pop(given, None)

    # -- rows -----------------------------------------------------------------------------------------------

    async def query(self, setting: str, given: str, **arguments: Any) -> list[dict[str, Any]]:
        """All rows that a query finds, page by page."""
        return await self._at_source(setting, given, lambda source: self._query(source, **arguments))

    async def _query(self, source: str, **arguments: Any) -> list[dict[str, Any]]:
        rows: list[dict[str, Any]] = []
        cursor: dict[str, Any] = {}
        while True:
            answer = await _call(self._client.data_sources.query, data_source_id=source, **arguments, **cursor)
            rows += answer["results"]
            if not answer.get("has_more"):
                return rows
            cursor = {"start_cursor": answer["next_cursor"]}

    async def create_row(self, setting: str, given: str, properties: Mapping[str, Any]) -> str:
        """A new row; returns its page id."""
        source = await self.source_id(setting, given)
        parent = {"type": "data_source_id", "data_source_id": source}
        answer = await _call(self._client.pages.create, parent=parent, properties=dict(properties))
        return str(answer["id"])

    async def update_row(self, page_id: str, properties: Mapping[str, Any]) -> None:
        """Change properties of a row."""
        await _call(self._client.pages.update, page_id=page_id, properties=dict(properties))

    async def pace(self) -> None:
        """Wait until the next call fits the mirror's part of Notion's rate. Copy for a mail never waits for this."""
        now = time.monotonic()
        wait = self._next - now
        self._next = max(now, self._next) + self._gap
        if wait > 0:
            await asyncio.sleep(wait)

    # -- templates ------------------------------------------------------------------------------------------

    async def templates(self, given: str, names: Sequence[str]) -> dict[str, Template]:
        """These templates as they stand now, or an error that names the first one that cannot be used."""
        found = await self.try_templates(given, names)
        for each in found.values():
            if isinstance(each, CopyError):
                raise each
        return {name: each for name, each in found.items() if isinstance(each, Template)}

    async def try_templates(
        self, given: str, names: Sequence[str], *, told: Told = nobody_told
    ) -> dict[str, Template | CopyError]:
        """Each of these templates, or what is wrong with it; one query for up to a hundred of them.

        `told` hears how many have been read: a long one takes calls of its own.
        """
        rows: list[dict[str, Any]] = []
        for start in range(0, len(names), FILTERS_LIMIT):
            # Every database's title property answers to the id "title", however it is called (apis.md 1.6).
            some = [{"property": "title", "title": {"equals": name}} for name in names[start : start + FILTERS_LIMIT]]
            rows += await self.query(TEMPLATES, given, filter={"or": some} if len(some) > 1 else some[0])
        found: dict[str, Template | CopyError] = {}
        for name in names:
            found[name] = await self._template(name, [r for r in rows if title_of(r) == name])
            told(len(found), len(names))
        return found

    async def template_text(self, row: Mapping[str, Any]) -> tuple[str, str]:
        """Subject and body of a template's row, in full."""
        return await self._whole_text(row, SUBJECT), await self._whole_text(row, BODY)

    async def _template(self, name: str, rows: list[dict[str, Any]]) -> Template | CopyError:
        where = f"the templates database ({TEMPLATES})"
        if not rows:
            return TemplateMissing(
                f"Template {name!r} is missing in {where}. Add a page with exactly this {TITLE!r}, or run: "
                f"tidings templates push. Then replay."
            )
        if len(rows) > 1:
            return TemplateDuplicated(
                f"Template {name!r} exists {len(rows)} times in {where}; which one is meant is not known. "
                f"Rename or delete all but one, then replay."
            )
        subject, body = await self.template_text(rows[0])
        for part, value in ((SUBJECT, subject), (BODY, body)):
            if not value.strip():
                return TemplateEmpty(
                    f"Template {name!r} has an empty {part!r} in {where}. Fill it in in Notion, then replay."
                )
        return Template(name, subject, body, str(rows[0]["id"]), str(rows[0].get("last_edited_time", "")))

    async def _whole_text(self, row: Mapping[str, Any], wanted: str) -> str:
        """A text property in full, however many rich-text items it has (F16)."""
        name = spelled(row["properties"], wanted, TEMPLATES)
        value = row["properties"][name]
        if len(value[value["type"]]) < SHORT_LIST:
            return plain(row, name)
        parts: list[str] = []
        cursor: dict[str, Any] = {}
        while True:
            answer = await _call(
                self._client.pages.properties.retrieve,
                page_id=row["id"],
                property_id=value["id"],  # as returned, percent-encoded: some ids hold ? or / (apis.md 1.2)
                page_size=100,
                **cursor,
            )
            parts += [item[item["type"]]["plain_text"] for item in answer["results"]]
            if not answer.get("has_more"):
                return "".join(parts)
            cursor = {"start_cursor": answer["next_cursor"]}


def spelled(properties: Mapping[str, Any], wanted: str, setting: str) -> str:
    """How a database spells a property: exact, else without regard to case (F10), else an error."""
    if wanted in properties:
        return wanted
    alike = [name for name in properties if name.lower() == wanted.lower()]
    if len(alike) == 1:
        return alike[0]
    raise PropertyMissing(
        SERVICE,
        f"the database of {setting} has no property {wanted!r}; it has {', '.join(sorted(properties))}. "
        f"Add it in Notion, or run: tidings notion init",
    )


def title_of(row: Mapping[str, Any]) -> str:
    """A row's title, under whatever name."""
    return plain(row, next(name for name, value in row["properties"].items() if value["type"] == "title"))


def plain(row: Mapping[str, Any], name: str) -> str:
    """The words of a title or text property: one sentence is often several items, so they are joined."""
    value = row["properties"][name]
    return "".join(item["plain_text"] for item in value[value["type"]])


def rich_text(words: str) -> list[dict[str, Any]]:
    """Words as rich text, cut into items of at most 2,000 UTF-16 units, never inside a character."""
    items, start, units = [], 0, 0
    for index, character in enumerate(words):
        width = 2 if ord(character) > 0xFFFF else 1
        if units + width > TEXT_LIMIT:
            items.append(words[start:index])
            start, units = index, 0
        units += width
    if words[start:]:
        items.append(words[start:])
    if len(items) > ITEMS_LIMIT:
        raise Refused(SERVICE, f"a text of {len(words)} characters is longer than a property holds (200,000)")
    return [{"type": "text", "text": {"content": part}} for part in items]


def _sdk_log() -> logging.Logger:
    """The SDK tells of every error on its own; here each is raised, and told by whoever handles it."""
    return logging.getLogger("tidings.notion.sdk")


async def _call(method: Callable[..., Awaitable[Any]], **arguments: Any) -> dict[str, Any]:
    try:
        answer = await method(**arguments)
    except HTTPResponseError as error:
        raise classify(error) from error
    except RequestTimeoutError as error:
        raise OutcomeUnknown(SERVICE, "did not answer in time") from error
    except InvalidPathParameterError as error:
        raise Refused(SERVICE, f"an id in the settings is not an id: {error}") from error
    except (httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout) as error:
        raise RetryLater(SERVICE, f"cannot be reached: {error}", retry_after=2.0) from error
    except httpx.TransportError as error:
        raise OutcomeUnknown(SERVICE, f"the answer was lost: {error or type(error).__name__}") from error
    except json.JSONDecodeError as error:
        raise OutcomeUnknown(SERVICE, "answered with something that is not JSON", status=200) from error
    if not isinstance(answer, dict):
        raise OutcomeUnknown(SERVICE, "answered with something that is not an object", status=200)
    return answer


def classify(error: HTTPResponseError) -> ServiceError:
    """The one place that says what each of Notion's errors means for us (table in apis.md 1.3 and 1.4)."""
    status, code, message = error.status, str(getattr(error.code, "value", error.code)), str(error)
    known: dict[str, Any] = {"status": status, "code": code}
    if status in {429, 529}:
        return RetryLater(SERVICE, message, retry_after=_retry_after(error.headers), **known)
    if status == 409:
        return RetryLater(SERVICE, message, **known)
    if status == 404:
        return NotFound(SERVICE, message, **known)
    if 400 <= status < 500 and status != 408:
        return Refused(SERVICE, message, **known)
    return OutcomeUnknown(SERVICE, message[:300], **known)


def _retry_after(headers: Mapping[str, str]) -> float:
    """Seconds to wait. Since 2026 this can be more than a minute; the SDK would cut it to 60 (apis.md 1.3)."""
    try:
        return max(0.0, float(headers.get("retry-after", "")))
    except ValueError:
        return 2.0
