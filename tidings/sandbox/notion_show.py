"""Objects as the wire shows them, for the version the client asked for."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from . import notion_schema
from .config import Settings
from .notion_rich import plain_text
from .notion_tree import Node, Tree, minute
from .notion_values import BOT_ID, show_value, title_of

NEWEST = "2026-03-11"
VERSIONS = ("2025-09-03", NEWEST)
BOT = {"object": "user", "id": BOT_ID}


def slug(title: str, object_id: str) -> str:
    words = "-".join("".join(sign if sign.isalnum() else " " for sign in title).split())
    return f"https://app.notion.com/p/{words + '-' if words else ''}{object_id.replace('-', '')}"


def precise(moment: float) -> str:
    """Databases alone give milliseconds and an offset."""
    return datetime.fromtimestamp(moment, UTC).isoformat(timespec="milliseconds")


def listing(results: list[Any], kind: str, cursor: str | None, **more: Any) -> dict[str, Any]:
    return {
        "object": "list",
        "results": results,
        "next_cursor": cursor,
        "has_more": cursor is not None,
        "type": kind,
        kind: {},
    } | more


@dataclass(frozen=True)
class Shower:
    """Turns nodes into JSON."""

    tree: Tree
    settings: Callable[[], Settings]
    version: str

    def node(self, node: Node) -> dict[str, Any]:
        shapes: dict[str, Callable[[Node], dict[str, Any]]] = {
            "page": self.page,
            "database": self.database,
            "data_source": self.data_source,
            "block": self.block,
        }
        return shapes[node.kind](node)

    def _archived(self, node: Node) -> dict[str, Any]:
        return {} if self.version == NEWEST else {"archived": node.trashed}

    def _times(self, node: Node) -> dict[str, Any]:
        return {
            "created_time": minute(node.created),
            "last_edited_time": minute(node.edited),
            "created_by": BOT,
            "last_edited_by": BOT,
        }

    def parent(self, node: Node) -> dict[str, Any]:
        above = self.tree.known(node.parent_id) if node.parent_id else None
        if above is None:
            return {"type": "workspace", "workspace": True}
        if above.kind == "data_source":
            ids = {"data_source_id": above.id, "database_id": above.parent_id}
            return {"type": "data_source_id"} | ids
        return {"type": f"{above.kind}_id", f"{above.kind}_id": above.id}

    def schema_of(self, page: Node) -> notion_schema.Schema:
        """A page outside a data source has a title and nothing else."""
        above = self.tree.known(page.parent_id) if page.parent_id else None
        if above is not None and above.kind == "data_source":
            schema: notion_schema.Schema = above.data["schema"]
            return schema
        return {"title": {"name": "title", "type": "title", "config": {}, "description": None}}

    def page(self, page: Node, only: Iterable[str] = ()) -> dict[str, Any]:
        schema, limit = self.schema_of(page), self.settings().truncate_rich_text_at
        wanted = {notion_schema.require(schema, name) for name in only} or schema.keys()
        return {
            "object": "page",
            "id": page.id,
            **self._times(page),
            "cover": page.data.get("cover"),
            "icon": page.data.get("icon"),
            "parent": self.parent(page),
            "in_trash": page.trashed,
            "is_archived": False,
            "is_locked": False,
            "properties": {
                prop["name"]: show_value(page, key, prop, rich_limit=limit)
                for key, prop in schema.items()
                if key in wanted
            },
            "url": slug(title_of(page), page.id),
            "public_url": None,
        } | self._archived(page)

    def database(self, database: Node) -> dict[str, Any]:
        sources = [node for node in self.tree.below(database.id) if node.kind == "data_source"]
        return {
            "object": "database",
            "id": database.id,
            "title": database.data["title"],
            "description": database.data.get("description", []),
            "parent": self.parent(database),
            "is_inline": database.data.get("is_inline", False),
            "in_trash": database.trashed,
            "is_locked": database.data.get("is_locked", False),
            "created_time": precise(database.created),
            "last_edited_time": precise(database.edited),
            "data_sources": [{"id": one.id, "name": plain_text(one.data["title"])} for one in sources],
            "icon": database.data.get("icon"),
            "cover": database.data.get("cover"),
            "url": slug(plain_text(database.data["title"]), database.id),
            "public_url": None,
        } | self._archived(database)

    def data_source(self, source: Node) -> dict[str, Any]:
        database = self.tree.known(source.parent_id or "")
        assert database is not None, source
        return {
            "object": "data_source",
            "id": source.id,
            "cover": None,
            "icon": source.data.get("icon"),
            **self._times(source),
            "title": source.data["title"],
            "description": [],
            "is_inline": database.data.get("is_inline", False),
            "properties": notion_schema.show(source.data["schema"]),
            "parent": {"type": "database_id", "database_id": database.id},
            "database_parent": self.parent(database),
            "url": slug(plain_text(source.data["title"]), database.id),
            "public_url": None,
            "in_trash": source.trashed or database.trashed,
        } | self._archived(source)

    def block(self, node: Node) -> dict[str, Any]:
        """Pages and databases are blocks too, seen from their parents."""
        if node.kind == "block":
            kind, content = node.data["type"], node.data["content"]
        else:
            kind = f"child_{node.kind}"
            title = title_of(node) if node.kind == "page" else plain_text(node.data["title"])
            content = {"title": title}
        return {
            "object": "block",
            "id": node.id,
            "parent": self.parent(node),
            **self._times(node),
            "has_children": node.kind != "database" and bool(self.tree.below(node.id)),
            "in_trash": node.trashed,
            **self._archived(node),
            "type": kind,
            kind: content,
        }
