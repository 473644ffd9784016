"""How long it took after each disturbance until things went on. Pure."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median

from tidings.chaos.disturb import Disturbance
from tidings.chaos.observe import Backlog


@dataclass(frozen=True)
class Recovery:
    """Seconds since a disturbance began; None for what did not happen any more within the run."""

    #: The first 2xx to a webhook that was posted after it.
    webhook: float | None
    #: The first mail that Resend accepted after it.
    mail: float | None
    #: Everything that was accepted or due by its end was done.
    drained: float | None


@dataclass(frozen=True)
class Line:
    """All disturbances of one kind."""

    title: str
    times: int
    struck: int
    recoveries: tuple[Recovery, ...]

    def worst(self, what: str) -> float | None:
        """The longest; None when one of them never came."""
        values = [getattr(each, what) for each in self.recoveries]
        return max(values) if values and None not in values else None

    def typical(self, what: str) -> float | None:
        values = [value for each in self.recoveries if (value := getattr(each, what)) is not None]
        return median(values) if values else None


def recover(
    disturbance: Disturbance,
    answered: Sequence[tuple[float, float]],
    accepted: Sequence[float],
    looks: Sequence[Backlog],
) -> Recovery:
    """`answered`: (sent, answered) of each 2xx; `accepted`: when each mail was accepted, in order."""
    began, end = disturbance.began, disturbance.ended
    webhooks = [answer for sent, answer in answered if sent > began]
    mail = bisect_right(accepted, began)
    drained = [look.at for look in looks if look.at > end and look.since > end]
    return Recovery(
        webhook=min(webhooks) - began if webhooks else None,
        mail=accepted[mail] - began if mail < len(accepted) else None,
        drained=min(drained) - began if drained else None,
    )


def lines(
    done: Sequence[Disturbance],
    answered: Sequence[tuple[float, float]],
    accepted: Sequence[float],
    looks: Sequence[Backlog],
) -> list[Line]:
    """One line a kind, in the order of their first appearance."""
    kinds: dict[str, list[Disturbance]] = {}
    for each in sorted(done, key=lambda d: d.began):
        kinds.setdefault(each.title, []).append(each)
    return [
        Line(
            title,
            len(some),
            sum(each.struck for each in some),
            tuple(recover(each, answered, accepted, looks) for each in some),
        )
        for title, some in kinds.items()
    ]
