"""Bring Notion's rows up to date from the ledger: after the mails, never in their way, catching up after an outage."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from datetime import UTC, date, datetime
from typing import Any, Protocol

from tidings.errors import Refused
from tidings.ledger import Ledger
from tidings.ledger import mirror as rows
from tidings.ledger.mirror import Row
from tidings.notion_schema import KEY, Database

log = logging.getLogger("tidings.mirror")

#: HTTP statuses of refusals that concern one row: a value, or a page that a person has deleted or put into the trash.
OF_ONE_ROW = frozenset({400, 404, 413})


class Workspace(Protocol):
    """Notion as the mirror needs it."""

    async def pace(self) -> None: ...
    async def property_name(self, setting: str, given: str, wanted: str) -> str: ...
    async def schema(self, setting: str, given: str, *, fresh: bool = False) -> dict[str, Any]: ...
    async def query(self, setting: str, given: str, **arguments: Any) -> list[dict[str, Any]]: ...
    async def create_row(self, setting: str, given: str, properties: Mapping[str, Any]) -> str: ...
    async def update_row(self, page_id: str, properties: Mapping[str, Any]) -> None: ...


class Mirror:
    """Writes rows that differ from the ledger, oldest change first."""

    def __init__(self, ledger: Ledger, workspace: Workspace, databases: Mapping[str, tuple[Database, str]]) -> None:
        self._ledger = ledger
        self._workspace = workspace
        self._databases = databases

    async def run(self, limit: int) -> dict[str, int]:
        """Write up to `limit` rows of each kind; returns how many of each were written.

        A row that Notion refuses does not keep the others; its refusal is raised when they are written.
        """
        written: dict[str, int] = {}
        refused: list[Refused] = []
        for kind in rows.KINDS:
            written[kind.name] = await self._kind(kind, limit, refused)
        if refused:
            raise refused[0]
        return written

    async def _kind(self, kind: rows.Kind, limit: int, refused: list[Refused]) -> int:
        async with self._ledger.reading() as connection:
            changed = await kind.changed(connection, limit)
        before = len(refused)
        for row in changed:
            try:
                await self._write(kind, row)
            except Refused as error:
                if error.status not in OF_ONE_ROW:
                    raise
                log.error("mirror.refused", extra={"kind": kind.name, "row_id": str(row.id), "error": str(error)})
                refused.append(error)
        return len(changed) - (len(refused) - before)

    async def _write(self, kind: rows.Kind, row: Row) -> None:
        """Write one row. The page's id is kept, and looked up by our key where an answer was lost."""
        database, given = self._databases[kind.field]
        values = await self._properties(database, given, {**row.values, KEY: str(row.id)})
        page = row.notion_page_id or await self._find(database, given, str(row.id))
        await self._workspace.pace()
        if page is None:
            page = await self._workspace.create_row(database.setting, given, values)
        else:
            await self._workspace.update_row(page, values)
        async with self._ledger.transaction() as connection:
            await kind.mirrored(connection, row.id, page, row.updated_at)

    async def _find(self, database: Database, given: str, key: str) -> str | None:
        name = await self._workspace.property_name(database.setting, given, KEY)
        await self._workspace.pace()
        found = await self._workspace.query(
            database.setting, given, filter={"property": name, "rich_text": {"equals": key}}, page_size=1
        )
        return str(found[0]["id"]) if found else None

    async def _properties(self, database: Database, given: str, values: Mapping[str, Any]) -> dict[str, Any]:
        """Values in the form of this database's own property types, under its own spelling of their names."""
        schema = await self._workspace.schema(database.setting, given)
        written = {}
        for wanted, value in values.items():
            name = await self._workspace.property_name(database.setting, given, wanted)
            written[name] = property_value(schema[name]["type"], value)
        return written


def property_value(kind: str, value: Any) -> dict[str, Any]:
    """A value as Notion writes that type of property; None empties it."""
    text = "" if value is None else str(value)
    # Notion counts UTF-16 units, at most 2,000 an item; a mirrored text that is longer is cut, not refused.
    short = text.encode("utf-16-le")[:4000].decode("utf-16-le", "ignore")
    items = [{"type": "text", "text": {"content": short}}] if short else []
    match kind:
        case "title" | "rich_text":
            return {kind: items}
        case "number":
            return {"number": None if value is None else float(value)}
        case "checkbox":
            return {"checkbox": bool(value)}
        case "select" | "status":
            return {kind: {"name": text.replace(",", " ")[:100]} if text else None}
        case "date":
            return {"date": {"start": _date(value)} if value else None}
        case _:  # email, url, phone_number
            return {kind: text or None}


def _date(value: Any) -> str:
    if isinstance(value, datetime):
        return value.astimezone(UTC).isoformat()
    return value.isoformat() if isinstance(value, date) else str(value)
