"""`python -m tidings.drill`: break a running stack in every way; exit 0 when no alert was missing or false."""

from __future__ import annotations

import shutil
import sys
import tempfile
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from tidings.chaos.progress import Progress
from tidings.drill import report
from tidings.drill.run import Outcome
from tidings.drill.run import run as run_drill
from tidings.drill.ways import WAYS, Way, chosen
from tidings.errors import TidingsError
from tidings.local import entrance

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)
console = Console()
if not console.is_terminal:  # a log has no width: room for the table
    console = Console(width=160)


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
    folder = keep or Path(tempfile.mkdtemp(prefix="tidings-drill-"))
    found: list[Outcome] = []

    async def work() -> int:
        with Progress(console) as progress:
            found.append(await run_drill(ways, minutes, entrance.campaigns_of({}), folder, progress))
        return 0

    code = entrance.run(work())
    if code == 0:
        code = 0 if report.show(console, found[0]).right else 1
    if keep is None and code == 0:
        shutil.rmtree(folder)
    else:
        console.print(f"Data and logs are in {folder}", highlight=False)
    return code


def main() -> int:
    try:
        app()
    except TidingsError as error:
        Console(stderr=True).print(str(error), highlight=False, markup=False, soft_wrap=True)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
