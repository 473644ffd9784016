"""`tidings reconcile`: the hourly comparison with the services' own lists, now."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated

import typer

from tidings.commands.console import as_utc, say
from tidings.commands.wired import with_app


def reconcile(
    since: Annotated[
        datetime | None,
        typer.Option(help="From this moment on (UTC), however long ago; else as far back as the hourly run looks"),
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would be done")] = False,
) -> None:
    """Take in what never arrived as a webhook, and compare the ledger with Resend and Notion."""
    from tidings.gaps import Checked, Scope
    from tidings.reconciliation import Outcome, Step, reconcile
    from tidings.wiring import App, utc_now

    async def told(step: Step, scope: Scope) -> Checked:
        say(f"{step.name} …")
        checked = await step.check(scope)
        for note in checked.notes:
            say(f"  {note}")
        return checked

    async def go(app: App) -> Outcome:
        return await reconcile(app, Scope(utc_now(), as_utc(since), dry_run), told)

    outcome = with_app(go)
    for name, error in outcome.failed.items():
        say(f"{name}: {error}")
    will = "would be " if dry_run else ""
    say(
        f"{outcome.total('taken')} {will}taken in, {outcome.total('remade')} {will}made anew, "
        f"{outcome.total('differences')} differences, {len(outcome.failed)} failed"
    )
    if outcome.failed:
        raise typer.Exit(1)
