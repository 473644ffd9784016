"""Rich text: what is accepted, and the full form in which it is served."""

import re
from typing import Any

from .notion_errors import refused, too_long, wrong
from .notion_ids import as_uuid

Rich = list[dict[str, Any]]

MAX_CONTENT = 2000
MAX_ITEMS = 100
MAX_URL = 2000
MAX_EQUATION = 1000
#: an unreplaced `{{booking_url}}` is no URL, and Notion refuses it (tryfabric/martian#41)
URL = re.compile(r"([a-z][a-z0-9+.-]*://[^\s/]\S*|(mailto|tel):\S+|/\S*|#\S*)", re.IGNORECASE)
PLAIN: dict[str, Any] = {
    "bold": False,
    "italic": False,
    "strikethrough": False,
    "underline": False,
    "code": False,
    "color": "default",
}


def utf16_length(text: str) -> int:
    """Notion counts as JavaScript does: an emoji is two."""
    return len(text.encode("utf-16-le", "surrogatepass")) // 2


def plain_text(rich: Rich) -> str:
    return "".join(item["plain_text"] for item in rich)


def read_rich(given: Any, where: str) -> Rich:
    if not isinstance(given, list):
        raise wrong(where, "an array", given)
    if len(given) > MAX_ITEMS:
        raise too_long(where, MAX_ITEMS, len(given))
    return [_read_item(item, f"{where}[{index}]") for index, item in enumerate(given)]


def _read_item(item: Any, where: str) -> dict[str, Any]:
    if not isinstance(item, dict):
        raise wrong(where, "an object", item)
    kind = item.get("type") or next((key for key in ("text", "mention", "equation") if key in item), "text")
    inner = item.get(kind)
    if not isinstance(inner, dict):
        raise wrong(f"{where}.{kind}", "defined", inner)
    readers = {"text": _read_text, "mention": _read_mention, "equation": _read_equation}
    if kind not in readers:
        raise wrong(f"{where}.type", '`"text"`, `"mention"` or `"equation"`', kind)
    content, plain, href = readers[kind](inner, f"{where}.{kind}")
    return {
        "type": kind,
        kind: content,
        "annotations": PLAIN | (item.get("annotations") or {}),
        "plain_text": plain,
        "href": href,
    }


Read = tuple[dict[str, Any], str, str | None]


def _read_text(inner: dict[str, Any], where: str) -> Read:
    content = inner.get("content")
    if not isinstance(content, str):
        raise wrong(f"{where}.content", "defined" if content is None else "a string", content)
    if utf16_length(content) > MAX_CONTENT:
        raise too_long(f"{where}.content", MAX_CONTENT, utf16_length(content))
    url = (inner.get("link") or {}).get("url")
    if url is not None:
        check_link(url, f"{where}.link.url")
    return {"content": content, "link": {"url": url} if url else None}, content, url


def check_link(url: Any, where: str) -> None:
    if isinstance(url, str) and utf16_length(url) > MAX_URL:
        raise too_long(where, MAX_URL, utf16_length(url))
    if not isinstance(url, str) or not URL.fullmatch(url):
        raise refused("Content creation Failed. Fix the following: \nInvalid URL for link.")


def _read_equation(inner: dict[str, Any], where: str) -> Read:
    expression = str(inner.get("expression", ""))
    if utf16_length(expression) > MAX_EQUATION:
        raise too_long(f"{where}.expression", MAX_EQUATION, utf16_length(expression))
    return {"expression": expression}, expression, None


def _read_mention(inner: dict[str, Any], where: str) -> Read:
    kind = inner.get("type") or next(iter(inner), "")
    target = inner.get(kind) or {}
    if kind == "date":
        return {"type": kind, kind: target}, str(target.get("start", "")), None
    if kind not in ("page", "database", "user") or not as_uuid(target.get("id")):
        raise wrong(where, "a page, database, user or date mention", inner)
    target_id = as_uuid(target["id"]) or ""
    href = None if kind == "user" else f"https://www.notion.so/{target_id.replace('-', '')}"
    return {"type": kind, kind: {"id": target_id}}, "@mention" if kind == "user" else "Untitled", href
