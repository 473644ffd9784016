"""What Notion shows of a world's ledger."""

from __future__ import annotations

from typing import Any

from worlds import World

from tidings.mirror import Mirror
from tidings.notion_schema import KEY, Database, databases


class Shown:
    """Notion's side of the mirror."""

    def __init__(self, world: World, found: dict[str, tuple[Database, str]]) -> None:
        self.world = world
        self.databases = found
        self.mirror = Mirror(world.ledger, world.notion, found)

    async def rows(self, field: str) -> list[dict[str, Any]]:
        """Each row as plain values, with its page id."""
        database, given = self.databases[field]
        pages = await self.world.notion.query(database.setting, given)
        return [{"page": p["id"], **{n: value_of(v) for n, v in p["properties"].items()}} for p in pages]

    async def contact(self) -> dict[str, Any]:
        (row,) = await self.rows("notion_contacts_db_id")
        return row

    async def enrolment(self) -> dict[str, Any]:
        (row,) = await self.rows("notion_email_sequence_db_id")
        return row


def value_of(value: dict[str, Any]) -> Any:
    held = value[value["type"]]
    if isinstance(held, list):
        return "".join(item["plain_text"] for item in held)
    if isinstance(held, dict):
        return held.get("name") or held.get("start")
    return held


async def show(world: World) -> Shown:
    """New databases for a world's rows."""
    root = world.box.get("health")["notion_root_page_id"]
    found = {}
    for database in databases(3):
        if "templates" in database.field or not database.required:
            continue
        # F10: this workspace writes its properties in other cases than the code does.
        properties = {name.swapcase() if name != KEY else name: kind for name, kind in database.properties.items()}
        given, _ = await world.notion.create_database(root, database.title, properties)
        found[database.field] = (database, given)
    return Shown(world, found)
