"""Due times and slots: all gaps of product.md 3, testing minutes, and no guessing of time zones."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tidings.campaign import load_campaigns
from tidings.schedule import aware, due_times, slot, slot_length
from tidings.settings import ROOT

ANCHOR = datetime(2026, 12, 1, 15, 0, 30, tzinfo=UTC)
GAPS = {
    "nurture": [0, 24, 72, 120, 168, 216, 264],
    "noshow": [5 / 60, 24, 48],
    "postcall": [1, 72, 168],
    "onboarding": [1, 24, 72],
    "precall": [-72, -24, -2],
}
CHRISTMAS = load_campaigns([Path(ROOT / "campaigns")])["christmas"]

MOMENTS = st.datetimes(min_value=datetime(2020, 1, 1), max_value=datetime(2035, 1, 1), timezones=st.just(UTC))  # noqa: DTZ001
MINUTES = st.one_of(st.none(), st.floats(min_value=0.1, max_value=600, allow_nan=False))


def hours(*values: float) -> list[timedelta]:
    return [timedelta(hours=value) for value in values]


def test_f9_a_naive_moment__is_refused_with_what_to_write() -> None:
    with pytest.raises(ValueError, match=r"2026-12-01T15:00:00 has no time zone; write it with an offset"):
        aware(datetime(2026, 12, 1, 15))  # noqa: DTZ001


def test_f9_naive_anchors__are_refused_wherever_they_come_in() -> None:
    naive = datetime(2026, 12, 1, 15)  # noqa: DTZ001

    with pytest.raises(ValueError, match="no time zone"):
        due_times(naive, hours(0), testing_minute=None, started=ANCHOR)
    with pytest.raises(ValueError, match="no time zone"):
        due_times(ANCHOR, hours(0), testing_minute=60, started=naive)
    with pytest.raises(ValueError, match="no time zone"):
        slot(naive, None)


def test_an_offset__is_the_same_moment_in_utc() -> None:
    toronto = timezone(timedelta(hours=-5))

    assert aware(datetime(2026, 12, 1, 10, tzinfo=toronto)) == datetime(2026, 12, 1, 15, tzinfo=UTC)
    assert aware(datetime(2026, 12, 1, 10, tzinfo=toronto)).tzinfo is UTC


@pytest.mark.parametrize("sequence", GAPS)
def test_gaps__are_those_of_the_product(sequence: str) -> None:
    steps = [step.after for step in CHRISTMAS.sequence(sequence).steps]

    dues = due_times(ANCHOR, steps, testing_minute=None, started=ANCHOR)

    assert dues == [ANCHOR + gap for gap in hours(*GAPS[sequence])]


@pytest.mark.parametrize(
    ("sequence", "minutes"),
    [
        ("nurture", [0, 1, 2, 3, 4, 5, 6]),
        ("noshow", [1, 2, 3]),
        ("postcall", [1, 2, 3]),
        ("onboarding", [1, 2, 3]),
        ("precall", [1, 2, 3]),
    ],
)
def test_testing_mode__makes_every_gap_one_testing_minute(sequence: str, minutes: list[int]) -> None:
    steps = [step.after for step in CHRISTMAS.sequence(sequence).steps]
    meeting = ANCHOR + timedelta(days=30)

    dues = due_times(meeting, steps, testing_minute=4.0, started=ANCHOR)

    assert dues == [ANCHOR + timedelta(seconds=4 * n) for n in minutes]


@pytest.mark.parametrize(
    ("testing_minute", "length"), [(None, 60), (60.0, 15), (8.0, 2), (2.0, 1), (0.5, 1), (600.0, 60)]
)
def test_slots__are_a_minute_and_in_testing_a_quarter_of_one(testing_minute: float | None, length: float) -> None:
    assert slot_length(testing_minute) == length


def test_a_slot__ends_with_the_minute() -> None:
    assert slot(ANCHOR, None) == datetime(2026, 12, 1, 15, 1, tzinfo=UTC)


def test_a_slot__of_a_due_time_on_the_minute_is_that_minute() -> None:
    on_it = ANCHOR.replace(second=0)

    assert slot(on_it, None) == on_it


@given(due=MOMENTS, testing_minute=MINUTES)
def test_a_slot__is_never_early_and_at_most_one_slot_late(due: datetime, testing_minute: float | None) -> None:
    at = slot(due, testing_minute)

    assert timedelta(0) <= at - due < timedelta(seconds=slot_length(testing_minute))


@given(first=MOMENTS, later=st.floats(min_value=0, max_value=3600, allow_nan=False), testing_minute=MINUTES)
def test_slots__keep_the_order_of_due_times(first: datetime, later: float, testing_minute: float | None) -> None:
    assert slot(first, testing_minute) <= slot(first + timedelta(seconds=later), testing_minute)


@given(due=MOMENTS)
def test_a_slot__of_a_slot_is_itself(due: datetime) -> None:
    assert slot(slot(due, None), None) == slot(due, None)
