"""Querying a data source: filter, sort, and pages of results behind opaque cursors."""

import uuid
from collections import OrderedDict
from typing import Any

from .notion_dates import moment_of
from .notion_errors import refused, wrong
from .notion_filters import TIMESTAMPS, compile_filter, simple
from .notion_schema import Schema, require
from .notion_tree import Node, Tree
from .notion_values import value_of

MAX_PAGE = 100
MAX_RESULTS = 10_000  # rows a query yields at most; then request_status says incomplete
SESSIONS_KEPT = 500


def page_size(given: Any, where: str = "body.page_size") -> int:
    if given is None:
        return MAX_PAGE
    if isinstance(given, bool) or not str(given).isdigit():
        raise wrong(where, "a number", given)
    if not 1 <= int(given) <= MAX_PAGE:
        bound = "≤ `100`" if int(given) > MAX_PAGE else "≥ `1`"
        raise refused(f"{where.split('.')[0]} failed validation: {where} should be {bound}, instead was `{given}`.")
    return int(given)


class Sessions:
    """What a cursor points into. Cursors do not outlive the process: on the live API they expire too."""

    def __init__(self) -> None:
        self._sessions: OrderedDict[str, list[str]] = OrderedDict()

    def begin(self, ids: list[str]) -> str:
        session = str(uuid.uuid4())
        self._sessions[session] = ids
        while len(self._sessions) > SESSIONS_KEPT:
            self._sessions.popitem(last=False)
        return session

    def resume(self, cursor: str) -> tuple[str, int]:
        kind, _, rest = cursor.partition(":")
        session, _, next_id = rest.partition(":")
        ids = self._sessions.get(session, [])
        if kind != "s" or next_id not in ids:
            raise refused(f"The start_cursor provided is invalid: {cursor}")
        return session, ids.index(next_id)

    def page(self, session: str, start: int, size: int) -> tuple[list[str], str | None]:
        ids = self._sessions[session]
        end = start + size
        return ids[start:end], f"s:{session}:{ids[end]}" if end < len(ids) else None


def find_rows(tree: Tree, source: Node, body: dict[str, Any]) -> list[Node]:
    """Rows in the order asked for; without sorts the newest comes first."""
    schema: Schema = source.data["schema"]
    wanted = compile_filter(body.get("filter"), schema, tree.clock())
    rows = [page for page in tree.below(source.id) if page.kind == "page" and wanted(page)]
    rows.sort(key=lambda page: page.seq, reverse=True)
    for sort in reversed(body.get("sorts") or []):
        rows = _sorted(rows, sort, schema)
    return rows


def _sorted(rows: list[Node], sort: dict[str, Any], schema: Schema) -> list[Node]:
    """Stable, with empty values last in either direction."""
    backwards = sort.get("direction", "ascending") == "descending"
    if "timestamp" in sort:
        name = sort["timestamp"]
        if name not in TIMESTAMPS:
            raise wrong("body.sorts[0].timestamp", '`"created_time"` or `"last_edited_time"`', name)
        return sorted(rows, key=lambda page: _stamp(page, name) // 60, reverse=backwards)
    property_id = require(schema, sort.get("property"))
    kind = schema[property_id]["type"]
    keyed = [(_key(page, property_id, kind), page) for page in rows]
    full = [pair for pair in keyed if pair[0] is not None]
    full.sort(key=lambda pair: pair[0], reverse=backwards)
    return [page for _, page in full] + [page for key, page in keyed if key is None]


def _stamp(page: Node, name: str) -> float:
    return page.created if name == "created_time" else page.edited


def _key(page: Node, property_id: str, kind: str) -> Any:
    value = simple(value_of(page, property_id, kind), kind)
    if kind in ("date", "created_time", "last_edited_time") and value:
        return moment_of(value)
    return value.lower() if isinstance(value, str) else value
