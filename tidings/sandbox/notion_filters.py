"""Filters of a data source query, with the live API's meanings (recordings of June–July 2026)."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

from .notion_dates import is_day, moment_of
from .notion_errors import refused, wrong
from .notion_rich import plain_text
from .notion_schema import Schema, require
from .notion_tree import Node, minute
from .notion_values import value_of

TEXT_TYPES = frozenset({"title", "rich_text", "email", "url", "phone_number"})
TIMESTAMPS = ("created_time", "last_edited_time")
MAX_DEPTH = 2

Test = Callable[[Node], bool]
Check = Callable[[Any], bool]


def compile_filter(given: Any, schema: Schema, now: datetime, depth: int = 0) -> Test:
    """A page in, true or false out. Mistakes are told before the first page is looked at."""
    if not given:
        return lambda page: True
    if not isinstance(given, dict):
        raise wrong("body.filter", "an object", given)
    for word, join in (("and", all), ("or", any)):
        if word in given:
            if depth >= MAX_DEPTH:
                raise refused("body failed validation: body.filter is nested too deeply.")
            parts = [compile_filter(part, schema, now, depth + 1) for part in given[word]]
            return lambda page: join(part(page) for part in parts)
    if "timestamp" in given:
        return _timestamp_filter(given, now)
    return _property_filter(given, schema, now)


def _timestamp_filter(given: dict[str, Any], now: datetime) -> Test:
    name = given["timestamp"]
    if name not in TIMESTAMPS or name not in given:
        raise wrong("body.filter.timestamp", '`"created_time"` or `"last_edited_time"`', name)
    check = _one_check("date", given[name], now)
    return lambda page: check(minute(page.created if name == "created_time" else page.edited))


def _property_filter(given: dict[str, Any], schema: Schema, now: datetime) -> Test:
    if "property" not in given:
        raise wrong("body.filter.property", "defined", None)
    property_id = require(schema, given["property"])
    kind = schema[property_id]["type"]
    named = next((key for key in given if key not in ("property", "type")), None)
    if named is None:
        raise wrong(f"body.filter.{kind}", "defined", None)
    if named != kind and not (named == "rich_text" and kind in TEXT_TYPES):
        raise refused(f"database property {kind} does not match filter {named}")
    check = _one_check(kind, given[named], now)
    return lambda page: check(simple(value_of(page, property_id, kind), kind))


def simple(value: Any, kind: str) -> Any:
    """What filters and sorts compare: text for rich text, names for options, None for empty."""
    if value is None or value == []:
        return None
    if kind in ("title", "rich_text"):
        return plain_text(value) or None
    if kind in ("select", "status"):
        return value["name"]
    if kind == "multi_select":
        return [option["name"] for option in value]
    if kind in ("people", "relation"):
        return [one["id"] for one in value]
    if kind == "date":
        return value["start"]
    if kind == "unique_id":
        return value["number"]
    return value


def _one_check(kind: str, condition: Any, now: datetime) -> Check:
    if not isinstance(condition, dict) or not condition:
        raise wrong(f"body.filter.{kind}", "defined", None)
    checks = [_check(kind, operator, operand, now) for operator, operand in condition.items()]
    return lambda value: all(check(value) for check in checks)


def _check(kind: str, operator: str, operand: Any, now: datetime) -> Check:
    if operator == "is_empty":
        return lambda value: value is None
    if operator == "is_not_empty":
        return lambda value: value is not None
    family = FAMILIES.get(kind, _text_check)
    return family(operator, operand, now)


def _no_operator(operator: str) -> Exception:
    return refused(f"body failed validation: body.filter has no condition {operator} for this property.")


def _text_check(operator: str, operand: Any, now: datetime) -> Check:
    """`contains` and its like ignore case; whether `equals` does is not established, so here it does not."""
    low = str(operand).lower()
    checks: dict[str, Check] = {
        "equals": lambda value: (value or "") == operand,
        "does_not_equal": lambda value: (value or "") != operand,
        "contains": lambda value: low in (value or "").lower(),
        "does_not_contain": lambda value: low not in (value or "").lower(),
        "starts_with": lambda value: (value or "").lower().startswith(low),
        "ends_with": lambda value: (value or "").lower().endswith(low),
    }
    if operator not in checks:
        raise _no_operator(operator)
    return checks[operator]


def _number_check(operator: str, operand: Any, now: datetime) -> Check:
    if isinstance(operand, bool) or not isinstance(operand, int | float):
        raise wrong(f"body.filter.number.{operator}", "a number", operand)
    checks: dict[str, Check] = {
        "equals": lambda value: value == operand,
        "does_not_equal": lambda value: value != operand,
        "greater_than": lambda value: value is not None and value > operand,
        "less_than": lambda value: value is not None and value < operand,
        "greater_than_or_equal_to": lambda value: value is not None and value >= operand,
        "less_than_or_equal_to": lambda value: value is not None and value <= operand,
    }
    if operator not in checks:
        raise _no_operator(operator)
    return checks[operator]


def _option_check(operator: str, operand: Any, now: datetime) -> Check:
    wanted = operand if isinstance(operand, list) else [operand]
    if operator == "equals":
        return lambda value: value in wanted
    if operator == "does_not_equal":
        return lambda value: value not in wanted
    raise _no_operator(operator)


def _checkbox_check(operator: str, operand: Any, now: datetime) -> Check:
    if not isinstance(operand, bool):
        raise wrong(f"body.filter.checkbox.{operator}", "a boolean", operand)
    if operator == "equals":
        return lambda value: bool(value) is operand
    if operator == "does_not_equal":
        return lambda value: bool(value) is not operand
    raise _no_operator(operator)


def _members_check(operator: str, operand: Any, now: datetime) -> Check:
    if operator == "contains":
        return lambda value: operand in (value or ())
    if operator == "does_not_contain":
        return lambda value: operand not in (value or ())
    raise _no_operator(operator)


RELATIVE = {
    "today": 0,
    "tomorrow": 1,
    "yesterday": -1,
    "one_week_ago": -7,
    "one_week_from_now": 7,
    "one_month_ago": -30,
    "one_month_from_now": 30,
}
PERIODS = {
    "past_week": (-7, 0),
    "past_month": (-30, 0),
    "past_year": (-365, 0),
    "next_week": (0, 7),
    "next_month": (0, 30),
    "next_year": (0, 365),
}


def _date_check(operator: str, operand: Any, now: datetime) -> Check:
    if operator == "this_week":
        monday = (now - timedelta(days=now.weekday())).date()
        return lambda value: value is not None and 0 <= (moment_of(value).date() - monday).days < 7
    if operator in PERIODS:
        first, last = (now.astimezone(UTC) + timedelta(days=days) for days in PERIODS[operator])
        return lambda value: value is not None and first <= moment_of(value) <= last
    return _date_comparison(operator, _operand(operator, operand, now))


def _operand(operator: str, operand: Any, now: datetime) -> str:
    if operand in RELATIVE:
        return (now + timedelta(days=RELATIVE[operand])).date().isoformat()
    try:
        datetime.fromisoformat(operand)
    except (TypeError, ValueError) as error:
        raise wrong(f"body.filter.date.{operator}", "a valid ISO 8601 date string", operand) from error
    return str(operand)


def _date_comparison(operator: str, wanted: str) -> Check:
    """A day as operand compares days, a time compares to the minute."""
    whole_day = is_day(wanted)

    def key(text: str) -> Any:
        return moment_of(text).date() if whole_day else moment_of(text)

    edge = key(wanted)
    checks: dict[str, Check] = {
        "equals": lambda value: value is not None and key(value) == edge,
        "before": lambda value: value is not None and key(value) < edge,
        "after": lambda value: value is not None and key(value) > edge,
        "on_or_before": lambda value: value is not None and key(value) <= edge,
        "on_or_after": lambda value: value is not None and key(value) >= edge,
    }
    if operator not in checks:
        raise _no_operator(operator)
    return checks[operator]


FAMILIES: dict[str, Callable[[str, Any, datetime], Check]] = {
    "number": _number_check,
    "unique_id": _number_check,
    "select": _option_check,
    "status": _option_check,
    "checkbox": _checkbox_check,
    "multi_select": _members_check,
    "people": _members_check,
    "relation": _members_check,
    "date": _date_check,
    "created_time": _date_check,
    "last_edited_time": _date_check,
}
