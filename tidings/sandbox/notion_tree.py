"""The workspace: pages, databases, data sources and blocks, in memory and written through to the store."""

import json
import uuid
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from typing import Any, Literal

from .clock import Clock
from .notion_errors import not_found
from .store import Store

ROOT_ID = "71d1a650-5a2d-4b0c-8000-000000000001"
Kind = Literal["page", "database", "data_source", "block"]
NOUNS = {"page": "page", "database": "database", "data_source": "data source", "block": "block"}


@dataclass
class Node:
    """One object. `position` orders blocks and pages below the same parent."""

    id: str
    kind: Kind
    parent_id: str | None
    seq: int
    position: float
    created: float
    edited: float
    data: dict[str, Any] = field(default_factory=dict)
    trashed: bool = False
    shared: bool = True


def minute(moment: float) -> str:
    """Pages, blocks and data sources give times cut to the minute."""
    cut = datetime.fromtimestamp(moment, UTC).replace(second=0, microsecond=0)
    return cut.isoformat(timespec="milliseconds").replace("+00:00", "Z")


class Tree:
    """Finds and keeps nodes. A change counts once `save` has been called."""

    def __init__(self, store: Store, clock: Clock) -> None:
        self._store = store
        self.clock = clock
        self.load()

    def load(self) -> None:
        self._nodes: dict[str, Node] = {}
        self._below: dict[str, list[Node]] = defaultdict(list)
        rows = self._store.rows("SELECT node FROM notion")
        nodes = [Node(**json.loads(row["node"])) for row in rows]
        for node in sorted(nodes, key=lambda node: (node.position, node.seq)):
            self._hold(node)
        self._last_seq = max((node.seq for node in nodes), default=0)
        if ROOT_ID not in self._nodes:
            self._plant_root()

    def _plant_root(self) -> None:
        title = "Tidings sandbox"
        text = {"type": "text", "text": {"content": title, "link": None}, "plain_text": title, "href": None}
        plain = {"bold": False, "italic": False, "strikethrough": False, "underline": False, "code": False}
        rich = [text | {"annotations": plain | {"color": "default"}}]
        self.save(self.new("page", None, {"properties": {"title": rich}}, node_id=ROOT_ID))

    def _hold(self, node: Node) -> None:
        self._nodes[node.id] = node
        if node.parent_id:
            self._below[node.parent_id].append(node)

    def now(self) -> float:
        return self.clock().timestamp()

    def new(self, kind: Kind, parent_id: str | None, data: dict[str, Any], *, node_id: str = "") -> Node:
        self._last_seq += 1
        now = self.now()
        return Node(
            id=node_id or str(uuid.uuid4()),
            kind=kind,
            parent_id=parent_id,
            seq=self._last_seq,
            position=float(self._last_seq),
            created=now,
            edited=now,
            data=data,
        )

    def save(self, *nodes: Node) -> None:
        with self._store.transaction():
            self._store.run_many(
                "INSERT OR REPLACE INTO notion VALUES (?, ?)",
                [(node.id, json.dumps(asdict(node))) for node in nodes],
            )
        for node in nodes:
            if node.id not in self._nodes:
                self._hold(node)

    def order(self, parent_id: str) -> None:
        self._below[parent_id].sort(key=lambda node: (node.position, node.seq))

    def get(self, node_id: str, *kinds: Kind) -> Node:
        """The object, or Notion's 404: for what does not exist and for what is not shared alike."""
        node = self._nodes.get(node_id)
        if node is None or node.kind not in kinds or not self._visible(node):
            raise not_found(NOUNS[kinds[0]], node_id)
        return node

    def known(self, node_id: str) -> Node | None:
        return self._nodes.get(node_id)

    def _visible(self, node: Node) -> bool:
        return node.shared and all(above.shared for above in self.above(node))

    def above(self, node: Node) -> Iterator[Node]:
        while node.parent_id and (parent := self._nodes.get(node.parent_id)):
            yield parent
            node = parent

    def below(self, node_id: str) -> list[Node]:
        """What hangs below it and is not in the trash, in order."""
        return [node for node in self._below.get(node_id, ()) if not node.trashed]

    def every(self, *kinds: Kind) -> list[Node]:
        return [node for node in self._nodes.values() if node.kind in kinds and self._visible(node)]

    def touch(self, node: Node) -> None:
        """Content edits show on the block and on the page around it."""
        now = self.now()
        changed = [node]
        for above in self.above(node):
            changed.append(above)
            if above.kind != "block":
                break
        for one in changed:
            one.edited = now
        self.save(*changed)

    def counts(self) -> dict[str, int]:
        counts: dict[str, int] = defaultdict(int)
        for node in self._nodes.values():
            counts[node.kind] += not node.trashed
        return dict(counts)
