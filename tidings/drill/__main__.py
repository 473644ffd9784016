"""`python -m tidings.drill`: break a running stack in every way; exit 0 when no alert was missing or false."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from tidings.chaos.progress import Progress
from tidings.drill import report
from tidings.drill.run import Outcome
from tidings.drill.run import run as run_drill
from tidings.drill.ways import WAYS, Way, chosen
from tidings.local import entrance

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)
console = entrance.make_console()


@app.command()
def drill(
    only: Annotated[list[str] | None, typer.Option(help="Only this way; may be given several times.")] = None,
    quiet_minutes: Annotated[
        float, typer.Option(min=0.1, help="How long ordinary work has to raise no alert at the end, accelerated.")
    ] = 30,
    list_ways: Annotated[bool, typer.Option("--list", help="Show all ways, and do nothing.")] = False,
    keep: Annotated[Path | None, typer.Option(help="Keep data and logs in this folder.")] = None,
) -> None:
    """Break a running stack in every way that must raise an alert. Exit 0 when none was missing and none false."""
    ways = chosen(only or [])
    if list_ways:
        report.show_ways(console, WAYS)
        return
    raise typer.Exit(_run(ways, quiet_minutes, keep))


def _run(ways: tuple[Way, ...], minutes: float, keep: Path | None) -> int:
    found: list[Outcome] = []

    async def work(folder: Path) -> int:
        with Progress(console) as progress:
            found.append(await run_drill(ways, minutes, entrance.campaigns_of({}), folder, progress))
        return 0

    def drilled(folder: Path) -> int:
        return entrance.run(work(folder)) or (0 if report.show(console, found[0]).right else 1)

    return entrance.in_folder(keep, "tidings-drill-", console, drilled)


if __name__ == "__main__":
    sys.exit(entrance.main(app))
