"""`tidings canary`: send a canary through the whole chain now, and watch it."""

from __future__ import annotations

from typing import Annotated

import typer


def canary(
    wait: Annotated[float, typer.Option(min=1, help="For how many seconds it is waited for")] = 180.0,
) -> None:
    """Send a canary through the whole chain and show each station; exit code 1 when it does not come back."""
    from tidings.doctor.fly import fly

    if not fly(wait):
        raise typer.Exit(1)
