"""Template variables from the results of the BusOS assessment. What was not answered stays unknown."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

from pydantic import BaseModel

from tidings.segment import READINESS_ZONE, Segment

#: One honest, general tip a system; chosen by the contact's own weakest systems.
TIPS = {
    "GPS": "Write down the three results that would make next year a good one, and one date for each.",
    "CREW": "Ask each person on your team which part of their week they would hand over first, and why.",
    "ENGINE": "Pick the job you do most often and write its steps on one page, as you did it last time.",
    "FUEL": "List what comes in and what goes out over the next thirteen weeks, one line a week.",
    "CABIN": "Call one recent client and ask what nearly made them not come back.",
    "COCKPIT": "Choose five numbers you would want to know on a Monday morning, and find out this week's.",
    "RADAR": "Look up where your last ten clients came from, and do more of the top one.",
    "AUTOPILOT": "Find one message you typed twice last week and turn it into a template.",
}


class AssessmentFacts(BaseModel):
    """What the assessment says; every field may be unknown."""

    assessment_score: float | None = None
    red_systems: int | None = None
    orange_systems: int | None = None
    yellow_systems: int | None = None
    green_systems: int | None = None
    gps_score: float | None = None
    money_score: float | None = None
    weakest_system_1: str | None = None
    weakest_system_2: str | None = None
    strongest_system: str | None = None
    revenue_leak_total: Decimal | None = None


def number(value: float | None) -> str | None:
    """A score without a needless decimal point."""
    return None if value is None else f"{value:g}"


def assessment_variables(facts: AssessmentFacts, segment: str | None) -> dict[str, Any]:
    """Every assessment variable that the facts make known."""
    scores = {"GPS": facts.gps_score, "FUEL": facts.money_score}
    weakest = [facts.weakest_system_1, facts.weakest_system_2]
    tips = [TIPS.get((name or "").strip().upper()) for name in weakest]
    return {
        "assessment_score": number(facts.assessment_score),
        "overall_score": number(facts.assessment_score),
        "segment": segment,
        "readiness_zone": READINESS_ZONE[Segment(segment)] if segment else None,
        "red_systems": facts.red_systems,
        "orange_systems": facts.orange_systems,
        "yellow_systems": facts.yellow_systems,
        "green_systems": facts.green_systems,
        "WeakestSystem1": weakest[0],
        "WeakestSystem2": weakest[1],
        "StrongestSystem": facts.strongest_system,
        "Score1": number(scores.get((weakest[0] or "").upper())),
        "Score2": number(scores.get((weakest[1] or "").upper())),
        "GPSScore": number(facts.gps_score),
        "MoneyScore": number(facts.money_score),
        "RevenueLeakSystem1": weakest[0] if facts.revenue_leak_total is not None else None,
        "RevenueLeakSystem2": weakest[1] if facts.revenue_leak_total is not None else None,
        "personalized_tip_1": tips[0],
        "personalized_tip_2": tips[1],
        "QuickWinAction": tips[0],
        **_leak(facts.revenue_leak_total),
    }


def _leak(monthly: Decimal | None) -> dict[str, str]:
    """The monthly amount that the contact named, in thousands and over twelve months. No currency is assumed."""
    if monthly is None:
        return {}
    return {
        "TotalRevenueLeak": f"{monthly:,.0f}",
        "TotalRevenueLeak_K": f"{monthly / 1000:,.1f}K",
        "AnnualRevenueLeak": f"{monthly * 12:,.0f}",
    }
