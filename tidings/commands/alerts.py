"""`tidings alerts`: what is wrong now, what was, and whether people can be told."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from tidings.commands.console import say, second
from tidings.commands.wired import with_app

if TYPE_CHECKING:
    from tidings.ports import Answer
    from tidings.wiring import App

alerts_app = typer.Typer(invoke_without_command=True, help="What is wrong now, in words; and whom it was told.")


@alerts_app.callback()
def alerts(
    context: typer.Context,
    history: Annotated[bool, typer.Option("--all", help="Also what is over")] = False,
    limit: Annotated[int, typer.Option(min=1, max=10_000)] = 100,
) -> None:
    """Open alerts, newest first, each with cause and cure."""
    if context.invoked_subcommand is None:
        rows = with_app(lambda parts: _listed(parts, history, limit))
        for row in rows:
            _show(row)
        say(f"{len(rows)} alerts" + ("" if history else " are open"))


@alerts_app.command("test")
def test() -> None:
    """Send a message to every channel of ALERT_URLS and show what each said; exit code 1 when one did not take it."""
    answers = with_app(_tried)
    for answer in answers:
        say(f"{answer.channel}: {answer.problem or 'took it'}")
    if not answers:
        say("ALERT_URLS is not set: alerts are only in the log and here")
    if not answers or any(answer.problem for answer in answers):
        raise typer.Exit(1)


async def _listed(parts: App, history: bool, limit: int) -> list[Any]:
    from tidings.ledger import alerts

    async with parts.ledger.reading() as connection:
        return await alerts.listed(connection, history=history, limit=limit)


async def _tried(parts: App) -> list[Answer]:
    from tidings.adapters.notify import channels_of
    from tidings.telling import try_out

    channels = channels_of(parts.settings)
    return await try_out(parts.ledger, channels, parts.settings.public_url) if channels else []


def _show(row: Any) -> None:
    over = f", over since {second(row.recovered_at)}" if row.recovered_at and row.recovered_at != row.opened_at else ""
    told = f"told {second(row.told_at)}" if row.told_at else "nobody was told"
    say(f"{second(row.opened_at)} UTC  {row.key}  {row.title}")
    for line in row.body.splitlines():
        say(f"    {line}")
    say(f"    {told}{over}\n")
