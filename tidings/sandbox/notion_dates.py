"""Dates as Notion keeps them: to the minute, with the zone folded into the offset."""

import re
from datetime import UTC, date, datetime
from typing import Any
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from .notion_errors import wrong

DATE_ONLY = re.compile(r"\d{4}-\d{2}-\d{2}")


def is_day(text: str) -> bool:
    return DATE_ONLY.fullmatch(text) is not None


def read_date(given: Any, where: str) -> dict[str, Any]:
    if not isinstance(given, dict):
        raise wrong(where, "an object or `null`", given)
    zone = _zone(given.get("time_zone"), where)
    end = given.get("end")
    return {
        "start": _read_one(given.get("start"), zone, f"{where}.start"),
        "end": None if end is None else _read_one(end, zone, f"{where}.end"),
        "time_zone": None,
    }


def _zone(name: Any, where: str) -> ZoneInfo | None:
    if name is None:
        return None
    try:
        return ZoneInfo(str(name))
    except (ZoneInfoNotFoundError, ValueError) as error:
        raise wrong(f"{where}.time_zone", "a valid IANA time zone", name) from error


def _read_one(given: Any, zone: ZoneInfo | None, where: str) -> str:
    try:
        if is_day(str(given)):
            return date.fromisoformat(given).isoformat()
        moment = datetime.fromisoformat(given)
    except (TypeError, ValueError) as error:
        raise wrong(where, "a valid ISO 8601 date string", given) from error
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=zone or UTC)
    return moment.replace(second=0, microsecond=0).isoformat(timespec="milliseconds")


def moment_of(text: str) -> datetime:
    """To the minute and in UTC; a day counts from its midnight."""
    moment = datetime.fromisoformat(text)
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=UTC)
    return moment.astimezone(UTC).replace(second=0, microsecond=0)
