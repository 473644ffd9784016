"""What a measurement is: a figure, its baseline from the same run, and what was aimed at."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True, kw_only=True)
class Figure:
    """One line of the table. `better` says which way is good; `aim` is a limit for the ratio or for the value."""

    section: str
    name: str
    value: float
    unit: str
    baseline_name: str = ""
    baseline: float | None = None
    better: str = "more"
    aim_ratio: float | None = None
    aim_value: float | None = None
    note: str = ""

    @property
    def ratio(self) -> float | None:
        """The figure as a part of its baseline."""
        return self.value / self.baseline if self.baseline else None

    @property
    def met(self) -> bool | None:
        """Whether the aim was met; None without one."""
        aims = [
            (self.ratio, self.aim_ratio) if self.aim_ratio is not None else None,
            (self.value, self.aim_value) if self.aim_value is not None else None,
        ]
        known = [pair for pair in aims if pair is not None]
        if not known:
            return None
        sign = 1 if self.better == "more" else -1
        return all(value is not None and sign * value >= sign * aim for value, aim in known)

    def as_json(self) -> dict[str, Any]:
        return {**asdict(self), "ratio": self.ratio, "met": self.met}


def percentile(values: Sequence[float], share: float) -> float:
    """The value below which this share of them lies, by the nearest-rank method."""
    ordered = sorted(values)
    return ordered[max(0, math.ceil(share * len(ordered)) - 1)]
