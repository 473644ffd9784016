"""Blocks: what is accepted as one, and how it is kept."""

from typing import Any

from .notion_errors import refused, too_long, wrong
from .notion_rich import check_link, read_rich

MAX_CHILDREN = 100
MAX_BLOCKS = 1000
MAX_DEPTH = 2  # levels of children one request may bring

TEXT_COLOR: dict[str, Any] = {"rich_text": [], "color": "default"}
CAPTION: dict[str, Any] = {"caption": []}
#: type → the inner object with its defaults
DEFAULTS: dict[str, dict[str, Any]] = {
    "paragraph": TEXT_COLOR | {"icon": None},
    "heading_1": TEXT_COLOR | {"is_toggleable": False},
    "heading_2": TEXT_COLOR | {"is_toggleable": False},
    "heading_3": TEXT_COLOR | {"is_toggleable": False},
    "heading_4": TEXT_COLOR | {"is_toggleable": False},
    "bulleted_list_item": TEXT_COLOR,
    "numbered_list_item": TEXT_COLOR,
    "to_do": TEXT_COLOR | {"checked": False},
    "toggle": TEXT_COLOR,
    "quote": TEXT_COLOR,
    "callout": TEXT_COLOR | {"icon": None},
    "code": {"caption": [], "rich_text": [], "language": "plain text"},
    "divider": {},
    "breadcrumb": {},
    "column_list": {},
    "column": {},
    "equation": {"expression": ""},
    "image": CAPTION,
    "video": CAPTION,
    "pdf": CAPTION,
    "audio": CAPTION,
    "file": CAPTION | {"name": ""},
    "bookmark": CAPTION | {"url": ""},
    "embed": CAPTION | {"url": ""},
    "link_to_page": {},
    "table": {"table_width": 1, "has_column_header": False, "has_row_header": False},
    "table_row": {"cells": []},
    "table_of_contents": {"color": "default"},
    "synced_block": {"synced_from": None},
}
MEDIA = ("image", "video", "pdf", "audio", "file")
PARENTS = frozenset(
    {
        "paragraph",
        "heading_1",
        "heading_2",
        "heading_3",
        "heading_4",
        "bulleted_list_item",
        "numbered_list_item",
        "to_do",
        "toggle",
        "quote",
        "callout",
        "table",
        "column_list",
        "column",
        "synced_block",
    }
)

#: a checked block: type, inner object, children
Draft = tuple[str, dict[str, Any], list[Any]]


def read_children(given: Any, where: str = "body.children", depth: int = 1) -> list[Draft]:
    if not isinstance(given, list):
        raise wrong(where, "defined" if given is None else "an array", given)
    if len(given) > MAX_CHILDREN:
        raise too_long(where, MAX_CHILDREN, len(given))
    drafts = [_read_block(block, f"{where}[{index}]", depth) for index, block in enumerate(given)]
    if depth == 1 and _count(drafts) > MAX_BLOCKS:
        raise too_long(where, MAX_BLOCKS, _count(drafts))
    return drafts


def _count(drafts: list[Draft]) -> int:
    return sum(1 + _count(children) for _, _, children in drafts)


def block_type(block: Any, where: str) -> str:
    if not isinstance(block, dict):
        raise wrong(where, "an object", block)
    kind = block.get("type") or next((key for key in block if key in DEFAULTS), None)
    if kind not in DEFAULTS or kind not in block:
        lines = (f"{where}.{known} should be defined, instead was `undefined`." for known in DEFAULTS)
        raise refused("body failed validation. Fix one:\n" + "\n".join(lines))
    return str(kind)


def _read_block(block: Any, where: str, depth: int) -> Draft:
    kind = block_type(block, where)
    if "archived" in block:  # since 2026-03 (tryfabric and others)
        raise wrong(f"{where}.archived", "not present", block["archived"])
    inner = dict(block[kind] or {})
    below = inner.pop("children", None) or block.get("children") or []
    if below and depth >= MAX_DEPTH + (kind in ("table", "column_list", "column")):
        raise wrong(f"{where}.{kind}.children", "not present", below)
    if below and kind not in PARENTS:
        raise wrong(f"{where}.{kind}.children", "not present", below)
    children = read_children(below, f"{where}.{kind}.children", depth + 1) if below else []
    return kind, read_inner(kind, inner, f"{where}.{kind}"), children


def read_inner(kind: str, inner: dict[str, Any], where: str) -> dict[str, Any]:
    """The inner object made whole; what Notion does not know of is refused."""
    known = {*DEFAULTS[kind], "external", "type", "page_id", "database_id", "icon", "width_ratio"}
    for stranger in set(inner) - known:
        raise wrong(f"{where}.{stranger}", "not present", inner[stranger])
    content = {**DEFAULTS[kind], **inner}
    for name in ("rich_text", "caption"):
        if name in content:
            content[name] = read_rich(content[name], f"{where}.{name}")
    if kind in ("bookmark", "embed"):
        check_link(content["url"], f"{where}.url")
    if kind in MEDIA:
        content |= {"type": "external", "external": {"url": _external(inner, where)}}
    if kind == "table_row":
        content["cells"] = [read_rich(cell, f"{where}.cells[{i}]") for i, cell in enumerate(content["cells"])]
    return content


def _external(inner: dict[str, Any], where: str) -> str:
    url = (inner.get("external") or {}).get("url")
    if not url:
        raise wrong(f"{where}.external", "defined", None)
    check_link(url, f"{where}.external.url")
    return str(url)
