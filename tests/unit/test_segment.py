"""The one rule of segments."""

from __future__ import annotations

import pytest

from tidings.segment import READINESS_ZONE, Segment, segment


@pytest.mark.parametrize("orange", range(9))
@pytest.mark.parametrize("red", range(9))
def test_segment__follows_the_rule_for_every_count(red: int, orange: int) -> None:
    expected = "CRITICAL" if red >= 2 else "URGENT" if red == 1 or orange >= 2 else "OPTIMIZE"

    assert segment(red, orange) == expected


@pytest.mark.parametrize(
    ("red", "orange", "expected"),
    [
        (2, 0, Segment.CRITICAL),
        (1, 8, Segment.URGENT),
        (0, 2, Segment.URGENT),
        (0, 1, Segment.OPTIMIZE),
        (0, 0, Segment.OPTIMIZE),
    ],
)
def test_segment__at_its_edges(red: int, orange: int, expected: Segment) -> None:
    assert segment(red, orange) is expected


def test_every_segment__has_a_zone() -> None:
    assert {s: READINESS_ZONE[s] for s in Segment} == {
        "CRITICAL": "Crisis Zone",
        "URGENT": "Warning Zone",
        "OPTIMIZE": "Growth Zone",
    }
