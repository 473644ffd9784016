"""`python -m tidings.bench`: measure, print one table, write JSON and a picture."""

from __future__ import annotations

import shutil
import tempfile
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

import asyncpg
import httpx
import typer

from tidings.bench import acceptance, burst, growth, idle, latency, load, show, wave
from tidings.bench.figures import Figure
from tidings.bench.site import Site
from tidings.errors import TidingsError
from tidings.local import entrance
from tidings.local.config import StackConfig
from tidings.local.stack import Stack
from tidings.settings import ROOT

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)
console = entrance.make_console(without_terminal=190)


@dataclass(frozen=True)
class Part:
    """One measurement, and its sizes; without a quick one it is left out then."""

    measure: Callable[[Site, Any], Awaitable[list[Figure]]]
    full: Any
    quick: Any | None


#: In the order in which they disturb the next ones least: for minutes after a signup Notion is brought up to date, and
#: what acceptance leaves behind takes minutes to work off.
PARTS = {
    idle.SECTION: Part(idle.measure, idle.Size(40, settle=30, beside=True), idle.Size(8, settle=6, beside=False)),
    latency.SECTION: Part(latency.measure, latency.Size(30, standard=5), latency.Size(3, standard=0)),
    wave.SECTION: Part(
        wave.measure, wave.Size(10_000, standard=20, rival=1000), wave.Size(3000, standard=0, rival=300)
    ),
    burst.SECTION: Part(burst.measure, burst.Size(60, 180), burst.Size(3, 180)),
    growth.SECTION: Part(growth.measure, growth.Size((10_000, 100_000, 1_000_000)), None),
    acceptance.SECTION: Part(acceptance.measure, acceptance.Size(8, rounds=3), acceptance.Size(3, rounds=1)),
}  # fmt: skip


@app.command()
def bench(
    quick: Annotated[
        bool,
        typer.Option("--quick", help="Two minutes: small sizes, rougher, without Prefect's own worker and growth."),
    ] = False,
    only: Annotated[list[str] | None, typer.Option(help=f"Only these: {', '.join(PARTS)}.")] = None,
    out: Annotated[Path, typer.Option(help="Where bench.json and bench.svg go.")] = ROOT / "bench-results",
    workers: Annotated[int, typer.Option(min=1, help="Tidings workers that share the waves.")] = 1,
) -> None:
    """Measure Tidings beside its baselines. Exit 1 when an aim was missed."""
    unknown = sorted(set(only or ()) - set(PARTS))
    if unknown:
        raise typer.BadParameter(f"{', '.join(unknown)} is none of {', '.join(PARTS)}", param_hint="--only")
    names = [name for name, part in PARTS.items() if name in (only or PARTS) and (part.quick or not quick)]
    if not names:
        raise typer.BadParameter(
            f"{', '.join(only or [])} takes minutes, so --quick leaves it out", param_hint="--only"
        )
    where = show.machine(datetime.now(UTC))
    folder = Path(tempfile.mkdtemp(prefix="tidings-bench-"))
    figures: list[Figure] = []
    try:
        load.require_wrk()
        code = entrance.run(_measure(figures, folder, names, quick, workers))
    except (TidingsError, httpx.HTTPError, asyncpg.PostgresError, OSError) as error:
        if figures:
            show.table(console, figures, where)  # what was measured by then was long to come by
        console.print(f"[red]{type(error).__name__}: {error}[/]\nNot all was measured. Logs are in {folder}")
        raise typer.Exit(1) from error
    shutil.rmtree(folder)
    if code:
        raise typer.Exit(code)
    show.table(console, figures, where)
    for path in show.write(out, figures, where):
        console.print(f"written: {path}")
    raise typer.Exit(1 if any(figure.met is False for figure in figures) else 0)


async def _measure(figures: list[Figure], folder: Path, names: list[str], quick: bool, workers: int) -> int:
    began, said = time.monotonic(), [""]

    def say(text: str) -> None:
        if text != said[0]:
            said[0] = text
            console.print(f"[dim]{time.monotonic() - began:6.1f} s[/]  {text}", highlight=False)

    say("starting PostgreSQL, Prefect, sandbox, worker and web server")
    config = StackConfig.apart(
        folder,
        workers=workers,
        testing=False,
        # One machine posts as many forms as a thousand visitors: they are counted, and not stopped.
        env={"FORM_LIMIT_PER_CLIENT": "100000000"},
    )
    # uvicorn closes a connection that has been idle for 5 s: one that is nearly as old may be gone when it is used.
    limits = httpx.Limits(max_connections=100, keepalive_expiry=2)
    async with (
        httpx.AsyncClient(timeout=30, trust_env=False, limits=limits) as http,
        Stack(config) as stack,
    ):
        site = Site(stack, folder, http, say)
        async with site.stay:
            for name in names:
                part = PARTS[name]
                figures += await part.measure(site, part.quick if quick else part.full)
    return 0


if __name__ == "__main__":
    app()
