"""What a drill shows at its end: one table, and everything that was not as it has to be."""

from __future__ import annotations

from collections.abc import Iterable

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from tidings.chaos.progress import show_list
from tidings.drill.run import SPEED, Outcome
from tidings.drill.verdict import Quiet, Result, Verdict, judge
from tidings.drill.ways import Way


def show(console: Console, outcome: Outcome) -> Verdict:
    verdict = judge(outcome.results, outcome.quiet)
    console.print()
    console.print(_table(outcome.results))
    show_list(console, "[red]Missing[/red]", verdict.missing)
    show_list(console, "[red]False[/red]", verdict.false)
    show_list(console, "[red]Not as it has to be[/red]", verdict.troubles)
    console.print(f"\n{_quiet(outcome.quiet)}", highlight=False, soft_wrap=True)
    console.print(_sentence(verdict, len(outcome.results)), highlight=False, soft_wrap=True)
    return verdict


def show_ways(console: Console, ways: Iterable[Way]) -> None:
    table = Table(box=None)
    for name in ("name", "what is broken", "the alert that has to come"):
        table.add_column(name, overflow="fold")
    for way in ways:
        table.add_row(way.name, escape(way.failure), escape(way.alert))
    console.print(table)


def _table(results: Iterable[Result]) -> Table:
    table = Table(title="Failure → alert → seconds, and seconds from the mending to the message that it is over")
    table.add_column("failure", overflow="fold")
    table.add_column("alert", overflow="fold")
    table.add_column("after s", justify="right")
    table.add_column("over after s", justify="right")
    for result in results:
        alert = escape(result.alert) if result.alert else "[bold red]none came[/]"
        table.add_row(escape(result.way.failure), alert, _seconds(result.seconds), _recovery(result))
    return table


def _recovery(result: Result) -> str:
    if not result.way.recovers:
        return "told once"
    return _seconds(result.recovery) if result.recovery is not None else "[bold red]never[/]"


def _seconds(value: float | None) -> str:
    return "-" if value is None else f"{value:.1f}"


def _quiet(quiet: Quiet) -> str:
    told = len(quiet.told)
    return (
        f"Quiet period: {quiet.minutes:g} min of the accelerated clock ({SPEED} times as fast: {quiet.seconds:.0f} s), "
        f"{quiet.webhooks} webhooks, {quiet.mails} mails delivered, {told or 'no'} message{'' if told == 1 else 's'}."
    )


def _sentence(verdict: Verdict, ways: int) -> str:
    if verdict.right:
        return f"[bold green]None missing, none false.[/] {ways} ways"
    counts = f"{len(verdict.missing)} missing, {len(verdict.false)} false, {len(verdict.troubles)} otherwise"
    return f"[bold red]{counts}.[/] {ways} ways"
