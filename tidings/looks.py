"""From what the checks of `/health/ready` say, look after look, to findings: nobody is woken by a moment."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from tidings.alerts import Finding
from tidings.findings import Found, cut

#: What a check can only tell when another is well.
BEHIND: Mapping[str, str] = {
    "deployments": "prefect",
    "worker": "prefect",
    "templates": "notion",
    "resend-webhook": "resend",
}
#: So many looks in a row have to agree.
LOOKS = 2
#: A check that has never been well since this process began is given so many seconds: everything is starting.
START_SECONDS = 90.0
#: How the check of Prefect begins when it answers, to everybody; and that of the worker when there is none.
OPEN_PREFECT, NO_WORKER = "Prefect's API lets anyone in", "no worker"
PLAIN = {
    "ledger": "The ledger (PostgreSQL) is not as this code needs it",
    "prefect": "Prefect is not as it must be",
    "deployments": "Prefect's deployments do not fit the code: webhooks start nothing",
    "worker": "The worker runs another code than the web server",
    "notion": "Notion cannot be read as it is",
    "templates": "Templates in Notion cannot be sent",
    "resend": "Resend is not ready to send",
    "resend-webhook": "Resend's reports do not arrive",
    "clock": "A clock is wrong",
    "alerts": "Not everybody can be told of alerts",
}


@dataclass(frozen=True, slots=True)
class Look:
    """What a check said, and at which second of any clock: the same look seen twice counts once."""

    at: float
    #: What is wrong; None when nothing is, or when nobody can tell.
    problem: str | None


class Checks:
    """Which checks fail: twice in a row before somebody is told, and well twice before it is over."""

    def __init__(self, *, starting: bool) -> None:
        """`starting`: everything may be starting together with this process, so the first looks say little."""
        self._looks: dict[str, list[Look]] = {}
        self._was_well: set[str] = set()
        self._patience = START_SECONDS if starting else 0.0
        self._began: float | None = None

    def judge(self, looks: Mapping[str, Look]) -> Found:
        found = Found(kinds={"not-ready", "prefect-down"})
        failing = {name for name, look in looks.items() if look.problem}
        for name, look in looks.items():
            if BEHIND.get(name) in failing:
                found.unknown |= _keys(name)
                continue
            self._remember(name, look)
            self._decide(name, look, found)
        return found

    def _remember(self, name: str, look: Look) -> None:
        known = self._looks.setdefault(name, [])
        if not known or known[-1].at != look.at:
            known.append(look)
        del known[:-LOOKS]
        self._began = look.at if self._began is None else self._began
        if look.problem is None:
            self._was_well.add(name)

    def _decide(self, name: str, look: Look, found: Found) -> None:
        last = self._looks[name]
        agreed = len(last) == LOOKS and len({each.problem is None for each in last}) == 1
        if not agreed or (look.problem and name not in self._was_well and self._starting(look.at)):
            found.unknown |= _keys(name)
        elif look.problem:
            found.findings.append(_failing(name, look.problem))

    def _starting(self, at: float) -> bool:
        return self._began is None or at - self._began < self._patience


def _keys(name: str) -> set[str]:
    return {f"not-ready:{name}", *(["prefect-down"] if name == "prefect" else [])}


def _failing(name: str, problem: str) -> Finding:
    if name == "prefect" and not problem.startswith(OPEN_PREFECT):
        then = "Webhooks are still taken in; their mails leave when Prefect is back. Start it, and look at its log."
        return Finding("prefect-down", "Prefect does not answer", f"{problem}\n{then}\nMore: tidings doctor")
    title = PLAIN.get(name, f"The check {name!r} fails")
    if name == "worker" and problem.startswith(NO_WORKER):
        title = "No worker is there: mails do not leave"
    return Finding("not-ready", title, f"{cut(problem)}\nMore: tidings doctor, or /health/ready", subject=name)
