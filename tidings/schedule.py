"""When each mail of a sequence is due. Pure: the clock comes in as an argument, always UTC-aware."""

from __future__ import annotations

import math
from datetime import UTC, datetime, timedelta

MINUTE = 60.0  # seconds


def aware(moment: datetime) -> datetime:
    """The same moment in UTC; refuses a naive datetime, since guessing its zone is how F9 happened."""
    if moment.tzinfo is None:
        raise ValueError(f"{moment.isoformat()} has no time zone; write it with an offset, such as Z or +01:00")
    return moment.astimezone(UTC)


def due_times(
    anchor: datetime, gaps: list[timedelta], *, testing_minute: float | None, started: datetime
) -> list[datetime]:
    """The due time of each step.

    `gaps` count from `anchor` and are negative for mails before a meeting. In testing, every gap
    between one mail and the next is one testing minute (in seconds), counted from `started`; a step
    due at its anchor stays due at once.
    """
    anchor = aware(anchor)
    if testing_minute is None:
        return [anchor + gap for gap in gaps]
    first = 0 if gaps and gaps[0] == timedelta(0) else 1
    return [aware(started) + timedelta(seconds=testing_minute * (first + n)) for n in range(len(gaps))]


def slot_length(testing_minute: float | None) -> float:
    """How wide a slot is, in seconds: a minute, and in testing a quarter of a testing minute (at least 1 s)."""
    if testing_minute is None:
        return MINUTE
    return min(MINUTE, max(1.0, testing_minute / 4))


def slot(due_at: datetime, testing_minute: float | None) -> datetime:
    """The end of the slot that `due_at` falls in: a mail never leaves early, and at most one slot late."""
    length = slot_length(testing_minute)
    return datetime.fromtimestamp(math.ceil(aware(due_at).timestamp() / length) * length, UTC)
