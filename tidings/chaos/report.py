"""The tables at the end of a run."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from tidings.chaos.progress import show_list
from tidings.chaos.recovery import Line
from tidings.chaos.run import Outcome

#: Findings of one kind that are shown in full; the rest are counted.
SHOWN = 10


def show(console: Console, outcome: Outcome) -> None:
    console.print()
    console.print(_recoveries(outcome.lines))
    _counts(console, "Answers to webhooks", outcome.statuses)
    _counts(console, "Handler and send runs in Prefect", outcome.runs)
    _counts(console, "What failed and crashed runs say (for information)", outcome.failures, shown=SHOWN)
    _counts(console, "Delivery webhooks", outcome.reports)
    show_list(console, "Processes that ended by themselves", outcome.deaths)
    _findings(console, outcome.verdict.findings)
    console.print()
    console.print(_totals(outcome))
    console.print(_sentence(outcome), highlight=False, soft_wrap=True)


def _totals(outcome: Outcome) -> Table:
    verdict = outcome.verdict
    table = Table(title="Mails", title_justify="left")
    for name in ("accepted", "enrolled", "due", "delivered", "duplicates", "lost", "unknown"):
        table.add_column(name, justify="right")
    counts = (verdict.accepted, verdict.enrolled, verdict.due, verdict.delivered)
    wrong = (verdict.duplicates, verdict.lost, verdict.unknown)
    table.add_row(*map(str, counts), *(f"[{'bold red' if n else 'green'}]{n}[/]" for n in wrong))
    return table


def _recoveries(lines: Iterable[Line]) -> Table:
    table = Table(title="Seconds to recover, counted from the beginning: median (worst)", title_justify="left")
    table.add_column("what", overflow="fold")
    for name in ("times", "struck", "first 2xx", "first mail", "backlog drained"):
        table.add_column(name, justify="right", no_wrap=True)
    for line in lines:
        times = [_seconds(line, what) for what in ("webhook", "mail", "drained")]
        table.add_row(escape(line.title), str(line.times), str(line.struck), *times)
    return table


def _seconds(line: Line, what: str) -> str:
    typical, worst = line.typical(what), line.worst(what)
    if typical is None:
        return "-"
    return f"{typical:.1f} ({'-' if worst is None else f'{worst:.1f}'})"


def _counts(console: Console, title: str, counts: Counter[str], *, shown: int | None = None) -> None:
    show_list(console, title, [f"{count} × {name}" for name, count in counts.most_common(shown)])


def _findings(console: Console, findings: tuple[str, ...]) -> None:
    kinds: dict[str, list[str]] = {}
    for finding in findings:
        kinds.setdefault(finding.partition(":")[0], []).append(finding)
    for kind, some in kinds.items():
        more = [f"… and {len(some) - SHOWN} more"] if len(some) > SHOWN else []
        show_list(console, f"[red]{len(some)} × {kind}[/red]", [*some[:SHOWN], *more])


def _sentence(outcome: Outcome) -> str:
    size = outcome.scenario.size
    what = (
        f"{size.rounds} rounds, {len(outcome.scenario.webhooks)} webhooks in {outcome.postings} requests, "
        f"{outcome.seconds:.0f} s, seed {outcome.scenario.seed}"
    )
    if outcome.quiet_after is None:
        return f"[bold red]Not everything was done in time.[/bold red] {what}"
    if not outcome.verdict.right:
        return f"[bold red]{len(outcome.verdict.findings)} findings.[/bold red] {what}"
    quiet = f"quiet {outcome.quiet_after:.0f} s after the last round"
    return f"[bold green]Nothing lost, nothing doubled.[/bold green] {what}; {quiet}"
