"""Handlers for blocks: reading a level, appending, changing and deleting."""

from typing import Any

from .notion_blocks import DEFAULTS, read_children, read_inner
from .notion_errors import archived, not_found, refused, wrong
from .notion_ids import as_uuid, path_id
from .notion_objects import Answer, Body, Pages, trash_wish
from .notion_query import page_size
from .notion_show import NEWEST, Shower, listing
from .notion_tree import Node, Tree
from .wire import Call


class Blocks:
    """/v1/blocks."""

    def __init__(self, tree: Tree, pages: Pages) -> None:
        self._tree = tree
        self._pages = pages

    def _block(self, block_id: str) -> Node:
        return self._tree.get(path_id("block_id", block_id), "block", "page", "database")

    def retrieve(self, call: Call, show: Shower, block_id: str) -> Answer:
        return show.block(self._block(block_id))

    def children(self, call: Call, show: Shower, block_id: str) -> Answer:
        """The cursor is the id of the next page's first block."""
        block = self._block(block_id)
        size = page_size(call.first("page_size"), "query.page_size")
        below = [node for node in self._tree.below(block.id) if node.kind != "data_source"]
        start = self._start(below, call.first("start_cursor"))
        rest = below[start + size :]
        results = [show.block(node) for node in below[start : start + size]]
        return listing(results, "block", rest[0].id if rest else None)

    def _start(self, below: list[Node], cursor: str | None) -> int:
        if cursor is None:
            return 0
        ids = [node.id for node in below]
        if cursor not in ids:
            raise refused(f"The start_cursor provided is invalid: {cursor}")
        return ids.index(cursor)

    def append(self, call: Call, show: Shower, block_id: str) -> Answer:
        block, body = self._block(block_id), call.json()
        self._check_editable(block)
        drafts = read_children(body.get("children"))
        place = self._place(block, body, show.version)
        nodes = self._pages.planted(block, drafts)
        top = [node for node in nodes if node.parent_id == block.id]
        if place is not None:
            self._squeeze_in(top, *place)
        self._tree.save(*nodes)
        self._tree.order(block.id)
        self._tree.touch(block)
        return listing([show.block(node) for node in top], "block", None)

    def _check_editable(self, block: Node) -> None:
        if block.trashed or any(above.trashed for above in self._tree.above(block)):
            raise archived()

    def _place(self, block: Node, body: Body, version: str) -> tuple[float, float] | None:
        """The positions between which new blocks go; None appends them."""
        if body.get("after") is not None and version == NEWEST:
            raise wrong("body.after", "not present", body["after"])
        position = body.get("position") or {}
        below = self._tree.below(block.id)
        if position.get("type") == "start":
            return (below[0].position - 1, below[0].position) if below else None
        after = (position.get("after_block") or {}).get("id") or body.get("after")
        return self._after(below, after) if after else None

    def _after(self, below: list[Node], after: Any) -> tuple[float, float] | None:
        ids = [node.id for node in below]
        wanted = as_uuid(after)
        if wanted not in ids:
            raise not_found("block", str(after))
        index = ids.index(wanted)
        return (below[index].position, below[index + 1].position) if index + 1 < len(ids) else None

    def _squeeze_in(self, nodes: list[Node], low: float, high: float) -> None:
        step = (high - low) / (len(nodes) + 1)
        for number, node in enumerate(nodes, 1):
            node.position = low + number * step

    def update(self, call: Call, show: Shower, block_id: str) -> Answer:
        block, body = self._block(block_id), call.json()
        wish = trash_wish(body)
        if wish is not False:
            self._check_editable(block)
        kind = block.data.get("type", "")
        given = next((key for key in body if key in DEFAULTS), None)
        if given is not None and given != kind:
            raise refused(f"body failed validation: body.{given} does not match the block's type {kind}.")
        if given is not None:
            inner = {**_plain(block.data["content"]), **body[kind]}
            block.data["content"] = read_inner(kind, inner, f"body.{kind}")
        block.trashed = block.trashed if wish is None else wish
        self._tree.touch(block)
        return show.block(block)

    def delete(self, call: Call, show: Shower, block_id: str) -> Answer:
        block = self._block(block_id)
        self._check_editable(block)
        block.trashed = True
        self._tree.touch(block)
        return show.block(block)


def _plain(content: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in content.items() if key != "type"}
