"""How urgent a business's situation is, by its count of red and orange systems. The one place of this rule."""

from __future__ import annotations

from enum import StrEnum


class Segment(StrEnum):
    CRITICAL = "CRITICAL"
    URGENT = "URGENT"
    OPTIMIZE = "OPTIMIZE"


READINESS_ZONE = {
    Segment.CRITICAL: "Crisis Zone",
    Segment.URGENT: "Warning Zone",
    Segment.OPTIMIZE: "Growth Zone",
}


def segment(red: int, orange: int) -> Segment:
    """CRITICAL from 2 red systems; URGENT with 1 red or from 2 orange; otherwise OPTIMIZE."""
    if red >= 2:
        return Segment.CRITICAL
    if red == 1 or orange >= 2:
        return Segment.URGENT
    return Segment.OPTIMIZE
