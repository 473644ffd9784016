"""The examination as a person or a script sees it."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Sequence
from typing import Any

from tidings.adapters.blocks import settings_of_this_process
from tidings.commands.console import err, out, say
from tidings.doctor.check import State, Word, ok, unknown, wrong
from tidings.doctor.run import Finding, examine
from tidings.errors import CampaignError, ConfigError
from tidings.readiness import all_checks
from tidings.wiring import open_app

MARKS = {State.OK: ("✓", "green"), State.WRONG: ("✗", "red"), State.UNKNOWN: ("?", "yellow")}


def examine_and_show(*, as_json: bool) -> bool:
    """Ask everything and show it, each part as soon as it is known; returns whether nothing is wrong."""
    findings = asyncio.run(_examine((lambda _: None) if as_json else _show))
    told = _told(findings)
    if as_json:
        out.print_json(json.dumps(told))
    else:
        count = {state: sum(f.word.state is state for f in findings) for state in State}
        say(", ".join(f"{number} {state}" for state, number in count.items()))
    return bool(told["ok"])


async def _examine(say: Callable[[Finding], None]) -> list[Finding]:
    findings: list[Finding] = []

    def found(finding: Finding) -> None:
        findings.append(finding)
        say(finding)

    try:
        settings = await asyncio.to_thread(settings_of_this_process)
        async with open_app(settings) as parts:
            found(Finding("settings", ok(), 0.0))
            left = {check.name for check in all_checks()}
            with err.status(_asking(left)) as status:
                async for finding in examine(parts, all_checks()):
                    found(finding)
                    left.discard(finding.name)
                    status.update(_asking(left))
    except (ConfigError, CampaignError) as error:
        for finding in _without_settings(error):
            found(finding)
    return findings


def _without_settings(error: ConfigError | CampaignError) -> Sequence[Finding]:
    """Nothing else can be asked."""
    said = "; ".join(error.problems) if isinstance(error, ConfigError) else str(error)
    words: dict[str, Word] = {"settings": wrong(said)}
    words |= {check.name: unknown("the settings come first") for check in all_checks()}
    return [Finding(name, word, 0.0) for name, word in words.items()]


def _asking(left: set[str]) -> str:
    return f"asking {', '.join(sorted(left))}"


def _show(finding: Finding) -> None:
    text = f": {finding.word.text}" if finding.word.text else ""
    took = f" ({finding.seconds:.1f} s)" if finding.seconds >= 1 else ""
    say(MARKS[finding.word.state], f" {finding.name}{text}{took}")


def _told(findings: Sequence[Finding]) -> dict[str, Any]:
    return {
        "ok": not any(f.word.state is State.WRONG for f in findings),
        "checks": {
            f.name: {"state": f.word.state.value, "text": f.word.text, "seconds": round(f.seconds, 3)} for f in findings
        },
    }
