"""Handlers for databases, data sources, pages and search."""

import copy
from typing import Any

from . import notion_schema
from .notion_blocks import Draft, read_children
from .notion_errors import archived, refused, unknown_property, wrong
from .notion_ids import body_id, encoded, path_id
from .notion_markdown import page_markdown
from .notion_query import MAX_RESULTS, Sessions, find_rows, page_size
from .notion_rich import plain_text, read_rich
from .notion_show import Shower, listing
from .notion_tree import Node, Tree
from .notion_values import read_values, title_of, value_of
from .wire import Call

LISTED_ITEMS = frozenset({"title", "rich_text", "people", "relation"})
UNSUPPORTED = ("markdown", "template", "content", "position")
Body = dict[str, Any]
Answer = dict[str, Any]


def trash_wish(body: Body) -> bool | None:
    """`in_trash`, or its older name."""
    for name in ("in_trash", "archived"):
        if body.get(name) is not None:
            return bool(body[name])
    return None


def decorate(node: Node, body: Body) -> None:
    """Icon, cover and lock are kept as given; null takes them away."""
    for name in ("icon", "cover", "is_locked", "is_inline"):
        if name in body:
            node.data[name] = body[name]


class Databases:
    """Databases, and the data sources in them."""

    def __init__(self, tree: Tree, sessions: Sessions) -> None:
        self._tree = tree
        self._sessions = sessions

    def _database(self, call: Call, database_id: str) -> Node:
        return self._tree.get(path_id("database_id", database_id), "database")

    def _source(self, data_source_id: str) -> Node:
        return self._tree.get(path_id("data_source_id", data_source_id), "data_source")

    def create(self, call: Call, show: Shower) -> Answer:
        body = call.json()
        parent = body.get("parent") or {}
        if "page_id" not in parent:
            raise wrong("body.parent.page_id", "defined", None)
        above = self._tree.get(body_id("body.parent.page_id", parent["page_id"]), "page")
        given = (body.get("initial_data_source") or {}).get("properties") or {"Name": {"title": {}}}
        schema = notion_schema.new_schema(given, "body.initial_data_source.properties")
        title = read_rich(body.get("title") or [], "body.title")
        description = read_rich(body.get("description") or [], "body.description")
        database = self._tree.new("database", above.id, {"title": title, "description": description})
        decorate(database, body)
        name = title or read_rich([{"text": {"content": "New database"}}], "body.title")
        source = self._tree.new("data_source", database.id, {"title": name, "schema": schema})
        self._tree.save(database, source)
        return show.database(database)

    def retrieve(self, call: Call, show: Shower, database_id: str) -> Answer:
        return show.database(self._database(call, database_id))

    def update(self, call: Call, show: Shower, database_id: str) -> Answer:
        database, body = self._database(call, database_id), call.json()
        for name in ("title", "description"):
            if body.get(name) is not None:
                database.data[name] = read_rich(body[name], f"body.{name}")
        decorate(database, body)
        wish = trash_wish(body)
        database.trashed = database.trashed if wish is None else wish
        self._tree.touch(database)
        return show.database(database)

    # -- data sources ------------------------------------------------------------------------------------

    def create_source(self, call: Call, show: Shower) -> Answer:
        body = call.json()
        parent = body.get("parent") or {}
        database = self._tree.get(body_id("body.parent.database_id", parent.get("database_id")), "database")
        schema = notion_schema.new_schema(body.get("properties"), "body.properties")
        title = read_rich(body.get("title") or [], "body.title")
        source = self._tree.new("data_source", database.id, {"title": title, "schema": schema})
        decorate(source, body)
        self._tree.save(source)
        return show.data_source(source)

    def retrieve_source(self, call: Call, show: Shower, data_source_id: str) -> Answer:
        return show.data_source(self._source(data_source_id))

    def update_source(self, call: Call, show: Shower, data_source_id: str) -> Answer:
        source, body = self._source(data_source_id), call.json()
        schema = notion_schema.changed(source.data["schema"], body.get("properties") or {}, "body.properties")
        if body.get("title") is not None:
            source.data["title"] = read_rich(body["title"], "body.title")
        source.data["schema"] = schema
        decorate(source, body)
        wish = trash_wish(body)
        source.trashed = source.trashed if wish is None else wish
        self._tree.touch(source)
        return show.data_source(source)

    def templates(self, call: Call, show: Shower, data_source_id: str) -> Answer:
        self._source(data_source_id)
        return {"templates": [], "has_more": False, "next_cursor": None}

    def query(self, call: Call, show: Shower, data_source_id: str) -> Answer:
        source, body = self._source(data_source_id), call.json()
        size = page_size(body.get("page_size"))
        only = call.every("filter_properties")
        for name in only:
            notion_schema.require(source.data["schema"], name)
        session, start, complete = self._begun(source, body)
        ids, cursor = self._sessions.page(session, start, size)
        pages = [node for node in map(self._tree.known, ids) if node is not None]
        more = {} if complete else {"request_status": INCOMPLETE}
        return listing([show.page(page, only) for page in pages], "page_or_data_source", cursor, **more)

    def _begun(self, source: Node, body: Body) -> tuple[str, int, bool]:
        if body.get("start_cursor"):
            return *self._sessions.resume(body["start_cursor"]), True
        rows = find_rows(self._tree, source, body)
        session = self._sessions.begin([row.id for row in rows[:MAX_RESULTS]])
        return session, 0, len(rows) <= MAX_RESULTS


INCOMPLETE = {"type": "incomplete", "incomplete_reason": "query_result_limit_reached"}


class Pages:
    """Pages and their properties."""

    def __init__(self, tree: Tree) -> None:
        self._tree = tree

    def _page(self, page_id: str) -> Node:
        return self._tree.get(path_id("page_id", page_id), "page")

    def create(self, call: Call, show: Shower) -> Answer:
        body = call.json()
        for name in UNSUPPORTED:
            if body.get(name) is not None:
                raise refused(f"The sandbox cannot create a page from body.{name}.")
        above = self._home(body.get("parent"))
        children = read_children(body["children"]) if body.get("children") else []
        page = self._tree.new("page", above.id, {"properties": {}})
        changed_source = self._write(page, show, body.get("properties") or {})
        decorate(page, body)
        self._tree.save(*changed_source, page, *self.planted(page, children))
        return show.page(page)

    def _home(self, parent: Any) -> Node:
        if not isinstance(parent, dict):
            raise wrong("body.parent", "defined", parent)
        if "data_source_id" in parent:
            source_id = body_id("body.parent.data_source_id", parent["data_source_id"])
            return self._tree.get(source_id, "data_source")
        if "database_id" in parent:
            return self._only_source(body_id("body.parent.database_id", parent["database_id"]))
        if "page_id" in parent:
            return self._tree.get(body_id("body.parent.page_id", parent["page_id"]), "page")
        raise wrong("body.parent.data_source_id", "defined", None)

    def _only_source(self, database_id: str) -> Node:
        database = self._tree.get(database_id, "database")
        sources = [node for node in self._tree.below(database.id) if node.kind == "data_source"]
        if len(sources) != 1:
            raise refused("Databases with multiple data sources are not supported in this API version.")
        return sources[0]

    def _write(self, page: Node, show: Shower, given: Any) -> list[Node]:
        """Sets the values; the data source comes back when new select options changed it."""
        schema = show.schema_of(page)
        draft = copy.deepcopy(schema)
        page.data["properties"] = page.data["properties"] | read_values(given, draft)
        above = self._tree.known(page.parent_id) if page.parent_id else None
        if draft == schema or above is None:
            return []
        above.data["schema"] = draft
        return [above]

    def planted(self, above: Node, drafts: list[Draft]) -> list[Node]:
        """New block nodes, parents before children, not saved yet."""
        nodes: list[Node] = []
        for kind, content, children in drafts:
            node = self._tree.new("block", above.id, {"type": kind, "content": content})
            nodes += [node, *self.planted(node, children)]
        return nodes

    def retrieve(self, call: Call, show: Shower, page_id: str) -> Answer:
        return show.page(self._page(page_id), call.every("filter_properties"))

    def update(self, call: Call, show: Shower, page_id: str) -> Answer:
        page, body = self._page(page_id), call.json()
        wish = trash_wish(body)
        if page.trashed and wish is not False:
            raise archived()
        changed_source = self._write(page, show, body.get("properties") or {})
        decorate(page, body)
        page.trashed = page.trashed if wish is None else wish
        page.edited = self._tree.now()
        self._tree.save(*changed_source, page)
        if body.get("erase_content"):
            self._erase(page)
        return show.page(page)

    def _erase(self, page: Node) -> None:
        blocks = [node for node in self._tree.below(page.id) if node.kind == "block"]
        for block in blocks:
            block.trashed = True
        self._tree.save(*blocks)

    def markdown(self, call: Call, show: Shower, page_id: str) -> Answer:
        page = self._page(page_id)
        text = page_markdown(self._tree, page)
        shape = {"object": "page_markdown", "id": page.id, "markdown": text}
        return shape | {"truncated": False, "unknown_block_ids": []}

    # -- property items ----------------------------------------------------------------------------------

    def retrieve_property(self, call: Call, show: Shower, page_id: str, property_id: str) -> Answer:
        page = self._page(page_id)
        schema = show.schema_of(page)
        key = notion_schema.find(schema, property_id)
        if key is None:
            raise unknown_property(property_id)
        kind = schema[key]["type"]
        value = value_of(page, key, kind)
        item = {"object": "property_item", "type": kind, "id": encoded(key)}
        if kind not in LISTED_ITEMS:
            return item | {kind: value}
        return self._items(call, item, kind, value)

    def _items(self, call: Call, item: Answer, kind: str, values: list[Any]) -> Answer:
        """Every item of a long value, a page at a time."""
        size = page_size(call.first("page_size"), "query.page_size")
        start = _item_cursor(call.first("start_cursor"), len(values))
        end = start + size
        cursor = f"item:{end}" if end < len(values) else None
        results = [item | {kind: value} for value in values[start:end]]
        about = {"id": item["id"], "next_url": None, "type": kind, kind: {}}
        return listing(results, "property_item", cursor) | {"property_item": about}


def _item_cursor(cursor: str | None, count: int) -> int:
    if cursor is None:
        return 0
    number = cursor.removeprefix("item:")
    if not number.isdigit() or int(number) >= count:
        raise refused(f"The start_cursor provided is invalid: {cursor}")
    return int(number)


class Search:
    """Titles only. The live index lags behind; this one does not."""

    def __init__(self, tree: Tree, sessions: Sessions) -> None:
        self._tree = tree
        self._sessions = sessions

    def search(self, call: Call, show: Shower) -> Answer:
        body = call.json()
        size = page_size(body.get("page_size"))
        if body.get("start_cursor"):
            session, start = self._sessions.resume(body["start_cursor"])
        else:
            session, start = self._sessions.begin([node.id for node in self._found(body)]), 0
        ids, cursor = self._sessions.page(session, start, size)
        nodes = [node for node in map(self._tree.known, ids) if node is not None]
        return listing([show.node(node) for node in nodes], "page_or_data_source", cursor)

    def _found(self, body: Body) -> list[Node]:
        wanted = str(body.get("query") or "").lower()
        kind = (body.get("filter") or {}).get("value")
        if kind not in (None, "page", "data_source"):
            raise wrong("body.filter.value", '`"page"` or `"data_source"`', kind)
        backwards = (body.get("sort") or {}).get("direction", "descending") == "descending"
        nodes = [
            node
            for node in self._tree.every("page", "data_source")
            if kind in (None, node.kind) and not node.trashed and wanted in _title(node).lower()
        ]
        return sorted(nodes, key=lambda node: node.edited, reverse=backwards)


def _title(node: Node) -> str:
    return title_of(node) if node.kind == "page" else plain_text(node.data["title"])
