"""Property values on pages: reading what is written, showing what is kept."""

from collections.abc import Callable
from typing import Any

from .notion_dates import read_date
from .notion_errors import refused, too_long, wrong
from .notion_ids import body_id, encoded
from .notion_rich import plain_text, read_rich, utf16_length
from .notion_schema import TYPES, Schema, find, new_option
from .notion_tree import Node, minute

BOT_ID = "2b7c9d10-0000-4000-8000-0000000000b0"
MAX_MEMBERS = 100
REFERENCES_SHOWN = 25  # people and relations a page object shows at most (pages.retrieve, vendor docs)
EMPTY: dict[str, Any] = {
    "title": [],
    "rich_text": [],
    "multi_select": [],
    "people": [],
    "files": [],
    "relation": [],
    "checkbox": False,
    "formula": {"type": "string", "string": None},
    "rollup": {"type": "array", "array": [], "function": "show_original"},
    "button": {},
}
READ_ONLY = frozenset(
    {
        "rollup",
        "formula",
        "unique_id",
        "created_time",
        "last_edited_time",
        "created_by",
        "last_edited_by",
        "button",
    }
)
TEXT_LIMITS = {"email": 200, "phone_number": 200, "url": 2000}
Prop = dict[str, Any]


# -- reading -------------------------------------------------------------------------------------------


def read_values(given: Any, schema: Schema, where: str = "body.properties") -> dict[str, Any]:
    """Values by property id. Names that do not exist and wrong types are told all at once, as Notion does."""
    if not isinstance(given, dict):
        raise wrong(where, "an object", given)
    problems, found = [], {}
    for name, value in given.items():
        property_id = find(schema, name)
        if property_id is None:
            problems.append(f"{name} is not a property that exists.")
        elif _given_type(value) not in (None, schema[property_id]["type"]):
            problems.append(f"{name} is expected to be {schema[property_id]['type']}.")
        else:
            found[property_id] = (name, value)
    if problems:
        raise refused(" ".join(problems))
    return {
        property_id: _read_value(schema[property_id], value, f"{where}.{name}")
        for property_id, (name, value) in found.items()
    }


def _given_type(value: Any) -> str | None:
    """The type a value was written as; None for the bare forms (`"x"`, `[…]`, null) that name none."""
    if not isinstance(value, dict):
        return None
    kind = value.get("type")
    return kind if isinstance(kind, str) else next((key for key in value if key in TYPES), None)


def _read_value(prop: Prop, value: Any, where: str) -> Any:
    kind = prop["type"]
    if kind in READ_ONLY:
        raise refused(f"{prop['name']} cannot be written: {kind} is set by Notion.")
    if not isinstance(value, dict) or kind not in value:
        raise wrong(f"{where}.{kind}", "defined", None)
    reader = READERS[kind]
    return reader(prop, value[kind], f"{where}.{kind}")


def _read_rich(prop: Prop, value: Any, where: str) -> Any:
    return read_rich(value, where)


def _read_text(prop: Prop, value: Any, where: str) -> Any:
    if value is None:
        return None
    if not isinstance(value, str):
        raise wrong(where, "a string or `null`", value)
    if not value:
        raise wrong(where, "a populated string", value)
    limit = TEXT_LIMITS[prop["type"]]
    if utf16_length(value) > limit:
        raise too_long(where, limit, utf16_length(value))
    return value


def _read_number(prop: Prop, value: Any, where: str) -> Any:
    if value is not None and (isinstance(value, bool) or not isinstance(value, int | float)):
        raise wrong(where, "a number or `null`", value)
    return value


def _read_checkbox(prop: Prop, value: Any, where: str) -> Any:
    if not isinstance(value, bool):
        raise wrong(where, "a boolean", value)
    return value


def _read_date(prop: Prop, value: Any, where: str) -> Any:
    return None if value is None else read_date(value, where)


def _read_option(prop: Prop, value: Any, where: str) -> Any:
    """An unknown name makes a new option, except for status."""
    if value is None:
        return None
    if not isinstance(value, dict) or not (value.get("name") or value.get("id")):
        raise wrong(f"{where}.name", "a populated string", (value or {}).get("name"))
    options = prop["config"].setdefault("options", [])
    for option in options:
        if value.get("id") == option["id"] or value.get("name") == option["name"]:
            return _short(option)
    return _short(_made_option(prop, value, options))


def _made_option(prop: Prop, value: dict[str, Any], options: list[dict[str, Any]]) -> dict[str, Any]:
    name = value.get("name")
    if prop["type"] == "status" or not isinstance(name, str):
        raise refused(f'Invalid status option. Status option "{name}" does not exist".')
    if "," in name:
        raise refused(f"Invalid select option, commas not allowed: {name}")
    options.append(new_option(name, value.get("color")))
    return options[-1]


def _short(option: dict[str, Any]) -> dict[str, Any]:
    return {key: option[key] for key in ("id", "name", "color")}


def _read_options(prop: Prop, value: Any, where: str) -> Any:
    members = _members(value, where)
    return [_read_option(prop, one, f"{where}[{index}]") for index, one in enumerate(members)]


def _members(value: Any, where: str) -> list[Any]:
    if not isinstance(value, list):
        raise wrong(where, "an array", value)
    if len(value) > MAX_MEMBERS:
        raise too_long(where, MAX_MEMBERS, len(value))
    return value


def _read_references(prop: Prop, value: Any, where: str) -> Any:
    members = _members(value, where)
    return [{"id": body_id(f"{where}[{index}].id", one.get("id"))} for index, one in enumerate(members)]


def _read_files(prop: Prop, value: Any, where: str) -> Any:
    return [
        {"name": one.get("name", ""), "type": "external", "external": {"url": one["external"]["url"]}}
        for one in _members(value, where)
    ]


READERS: dict[str, Callable[[Prop, Any, str], Any]] = {
    "title": _read_rich,
    "rich_text": _read_rich,
    "email": _read_text,
    "url": _read_text,
    "phone_number": _read_text,
    "number": _read_number,
    "checkbox": _read_checkbox,
    "select": _read_option,
    "status": _read_option,
    "multi_select": _read_options,
    "date": _read_date,
    "people": _read_references,
    "relation": _read_references,
    "files": _read_files,
}


# -- showing -------------------------------------------------------------------------------------------


def value_of(page: Node, property_id: str, kind: str) -> Any:
    """The whole value, nothing cut."""
    match kind:
        case "created_time":
            return minute(page.created)
        case "last_edited_time":
            return minute(page.edited)
        case "created_by" | "last_edited_by":
            return {"object": "user", "id": BOT_ID}
        case "unique_id":
            return {"prefix": None, "number": page.seq}
    value = page.data["properties"].get(property_id)
    return EMPTY.get(kind) if value is None else value


def show_value(page: Node, property_id: str, prop: Prop, *, rich_limit: int) -> dict[str, Any]:
    """As in a page object, where long values are cut without a word."""
    kind = prop["type"]
    value = value_of(page, property_id, kind)
    shown = {"id": encoded(property_id), "type": kind}
    if kind in ("title", "rich_text") and rich_limit:
        value = value[:rich_limit]
    if kind in ("people", "relation"):
        has_more = len(value) > REFERENCES_SHOWN
        value = [_reference(kind, one) for one in value[:REFERENCES_SHOWN]]
        if kind == "relation":
            return shown | {kind: value, "has_more": has_more}
    return shown | {kind: value}


def _reference(kind: str, one: dict[str, Any]) -> dict[str, Any]:
    return {"object": "user", "id": one["id"]} if kind == "people" else one


def title_of(page: Node) -> str:
    return plain_text(page.data["properties"].get("title") or [])
