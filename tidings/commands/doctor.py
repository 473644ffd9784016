"""`tidings doctor`: is the whole chain well, from where this runs?"""

from __future__ import annotations

from typing import Annotated

import typer


def doctor(
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object on standard output")] = False,
) -> None:
    """Prove the whole chain, from a webhook to a delivered mail; exit code 1 when any of it does not work."""
    from tidings.doctor.show import examine_and_show

    if not examine_and_show(as_json=as_json):
        raise typer.Exit(1)
