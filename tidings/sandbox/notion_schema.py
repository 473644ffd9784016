"""The properties of a data source: their types, options and ids."""

import copy
import random
import uuid
from typing import Any
from urllib.parse import unquote

from .notion_errors import refused, unknown_property, wrong
from .notion_ids import encoded, new_property_id

#: property id → {"name", "type", "config", "description"}
Schema = dict[str, dict[str, Any]]

TYPES = (
    "title",
    "rich_text",
    "email",
    "url",
    "phone_number",
    "number",
    "checkbox",
    "select",
    "multi_select",
    "status",
    "date",
    "people",
    "files",
    "relation",
    "rollup",
    "formula",
    "unique_id",
    "created_time",
    "last_edited_time",
    "created_by",
    "last_edited_by",
    "button",
)
COLORS = ("default", "gray", "brown", "orange", "yellow", "green", "blue", "purple", "pink", "red")
STATUS_GROUPS = (("To-do", "gray", "Not started"), ("In progress", "blue", "In progress"))
STATUS_DONE = ("Complete", "green", "Done")


def new_option(name: str, color: str | None = None) -> dict[str, Any]:
    color = color or random.choice(COLORS)  # noqa: S311
    return {"id": str(uuid.uuid4()), "name": name, "color": color, "description": None}


def type_of(given: Any, where: str) -> str:
    if not isinstance(given, dict):
        raise wrong(where, "an object", given)
    kind = given.get("type") or next((key for key in given if key in TYPES), None)
    if kind not in TYPES:
        lines = (f"{where}.{known} should be defined, instead was `undefined`." for known in TYPES[:6])
        raise refused("body failed validation. Fix one:\n" + "\n".join(lines))
    return str(kind)


def _config(kind: str, given: dict[str, Any]) -> dict[str, Any]:
    config = given.get(kind) or {}
    if kind in ("select", "multi_select"):
        return {"options": [new_option(one["name"], one.get("color")) for one in config.get("options", ())]}
    if kind == "status":
        return _status_config(config)
    defaults: dict[str, dict[str, Any]] = {"number": {"format": "number"}, "unique_id": {"prefix": None}}
    return {**defaults.get(kind, {}), **config}


def _status_config(config: dict[str, Any]) -> dict[str, Any]:
    options = [new_option(one["name"], one.get("color", "default")) for one in config.get("options", ())]
    groups = (*STATUS_GROUPS, STATUS_DONE)
    if not options:
        options = [new_option(option, color) for _, color, option in groups]
        members = [[option["id"]] for option in options]
    else:
        members = [[option["id"] for option in options], [], []]
    return {
        "options": options,
        "groups": [
            {"id": str(uuid.uuid4()), "name": name, "color": color, "option_ids": ids}
            for (name, color, _), ids in zip(groups, members, strict=True)
        ],
    }


def new_schema(given: Any, where: str) -> Schema:
    if not isinstance(given, dict):
        raise wrong(where, "an object", given)
    schema: Schema = {}
    for name, definition in given.items():
        _add(schema, name, definition, f"{where}.{name}")
    titles = [prop for prop in schema.values() if prop["type"] == "title"]
    if len(titles) != 1:
        raise refused("Title is not provided" if not titles else "Only one title property is allowed.")
    return schema


def _add(schema: Schema, name: str, given: Any, where: str) -> None:
    kind = type_of(given, where)
    property_id = "title" if kind == "title" else new_property_id(schema)
    schema[property_id] = {
        "name": name,
        "type": kind,
        "config": _config(kind, given),
        "description": given.get("description"),
    }


def find(schema: Schema, name_or_id: str) -> str | None:
    """The property's id, by name or by id as it is or percent-encoded."""
    by_name = next((key for key, prop in schema.items() if prop["name"] == name_or_id), None)
    if by_name:
        return by_name
    return next((key for key in (name_or_id, unquote(name_or_id)) if key in schema), None)


def require(schema: Schema, name_or_id: Any) -> str:
    found = find(schema, str(name_or_id))
    if found is None:
        raise unknown_property(str(name_or_id))
    return found


def changed(schema: Schema, given: dict[str, Any], where: str) -> Schema:
    """The schema after a data source update: null removes, a name renames, a type adds or changes."""
    result = copy.deepcopy(schema)
    for name, definition in given.items():
        property_id = find(result, name)
        if property_id is None:
            _add(result, name, definition, f"{where}.{name}")
        elif definition is None:
            _remove(result, property_id)
        else:
            _alter(result[property_id], definition, f"{where}.{name}")
    return result


def _remove(schema: Schema, property_id: str) -> None:
    if schema[property_id]["type"] == "title":
        raise refused("Cannot delete the title property.")
    del schema[property_id]


def _alter(prop: dict[str, Any], given: dict[str, Any], where: str) -> None:
    prop["name"] = given.get("name", prop["name"])
    if set(given) <= {"name", "description"}:
        return
    kind = type_of(given, where)
    if kind == prop["type"] and kind in ("select", "multi_select"):
        known = {option["name"]: option for option in prop["config"]["options"]}
        wanted = (given.get(kind) or {}).get("options", ())
        fresh = [known.get(one["name"]) or new_option(one["name"], one.get("color")) for one in wanted]
        prop["config"] = {"options": fresh or prop["config"]["options"]}
    else:
        prop["type"], prop["config"] = kind, _config(kind, given)


def show(schema: Schema) -> dict[str, Any]:
    return {
        prop["name"]: {
            "id": encoded(property_id),
            "name": prop["name"],
            "description": prop["description"],
            "type": prop["type"],
            prop["type"]: prop["config"],
        }
        for property_id, prop in schema.items()
    }
