"""`python -m tidings.chaos`: kill, break and repeat at random; exit 0 when no mail was lost and none was doubled."""

from __future__ import annotations

import random
import sys
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer

from tidings.chaos import report, scenario
from tidings.chaos.mutants import run_mutant
from tidings.chaos.mutations import MUTATIONS
from tidings.chaos.progress import Progress
from tidings.chaos.run import Outcome
from tidings.chaos.run import run as run_chaos
from tidings.local import entrance

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)
console = entrance.make_console()


@app.command()
def chaos(
    rounds: Annotated[int | None, typer.Option(min=1, help="Rounds, each with a kill and several faults.")] = None,
    webhooks: Annotated[int | None, typer.Option(min=1, help="Distinct webhooks; repeats come on top.")] = None,
    seed: Annotated[int | None, typer.Option(help="The randomness of an earlier run.")] = None,
    quick: Annotated[bool, typer.Option("--quick", help="3 rounds, 150 webhooks, short gaps.")] = False,
    keep: Annotated[Path | None, typer.Option(help="Keep data and logs in this folder.")] = None,
    mutate: Annotated[
        str | None,
        typer.Option(help=f"Prove the harness: break a copy of the product first ({', '.join(MUTATIONS)}, or all)."),
    ] = None,
) -> None:
    """Kill, break and repeat at random; then count. Exit 0 when no mail was lost and none was doubled."""
    if mutate is not None and not (quick or rounds or webhooks):
        quick, rounds, webhooks = True, 6, 250  # enough trouble for each mutation to be met
    size = scenario.QUICK if quick else scenario.FULL
    size = replace(size, rounds=rounds or size.rounds, webhooks=webhooks or size.webhooks)
    seed = random.randrange(1_000_000) if seed is None else seed  # noqa: S311
    if mutate is not None:
        raise typer.Exit(run_mutant(mutate, ["--seed", str(seed), *_given(rounds, webhooks, quick=quick)], console))
    raise typer.Exit(_run(seed, size, keep))


def _given(rounds: int | None, webhooks: int | None, *, quick: bool) -> list[str]:
    given = {"--rounds": rounds, "--webhooks": webhooks}
    return [part for name, value in given.items() if value for part in (name, str(value))] + ["--quick"] * quick


def _run(seed: int, size: scenario.Size, keep: Path | None) -> int:
    campaigns = entrance.campaigns_of({})
    planned = scenario.make(seed, size, campaigns, datetime.now(UTC))
    console.print(
        f"seed {seed}: {size.rounds} rounds, {len(planned.webhooks)} webhooks in {planned.postings} postings",
        highlight=False,
    )
    found: list[Outcome] = []

    async def work(folder: Path) -> int:
        with Progress(console) as progress:
            found.append(await run_chaos(planned, campaigns, folder, progress))
        return 0

    def survived(folder: Path) -> int:
        code = entrance.run(work(folder))
        if code == 0:
            report.show(console, found[0])
            code = 0 if found[0].right else 1
        return code

    return entrance.in_folder(keep, "tidings-chaos-", console, survived)


if __name__ == "__main__":
    sys.exit(entrance.main(app))
