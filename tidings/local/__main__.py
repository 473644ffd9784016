"""`python -m tidings.local up` and `python -m tidings.local demo`."""

from __future__ import annotations

import shutil
import sys
import tempfile
from pathlib import Path
from typing import Annotated, Any

import typer

from tidings.local import entrance, ports
from tidings.local.config import StackConfig, from_environment
from tidings.local.demo import demo as run_demo
from tidings.local.folder import DataFolder
from tidings.local.up import up as run_up

app = typer.Typer(no_args_is_help=True, add_completion=False, help=__doc__, pretty_exceptions_enable=False)
console = entrance.make_console()

DataOption = Annotated[Path | None, typer.Option(help="Folder for data and logs.")]
#: Nurture's seven mails then span 18 s, and every mail still has its own due time.
DEMO_MINUTE = 3.0


@app.command()
def up(
    data: DataOption = None,
    web_workers: Annotated[int, typer.Option(min=1, help="Processes of the webhook server.")] = 1,
    workers: Annotated[int, typer.Option(min=1, help="Prefect workers.")] = 1,
) -> None:
    """Start everything and keep it running until Ctrl-C. With NOTION_TOKEN and RESEND_API_KEY: for real."""
    environ = entrance.users_environment()
    given: dict[str, Any] = {"data": data} if data else {}
    config = from_environment(environ, web_workers=web_workers, workers=workers, **given)
    code = entrance.run(run_up(config, environ, console))
    # Ctrl-C is how `up` ends: no failure, so that make does not report one
    raise typer.Exit(0 if code == entrance.INTERRUPTED else code)


@app.command()
def demo(
    data: DataOption = None,
    keep: Annotated[bool, typer.Option("--keep", help="Leave the data folder for a look at it.")] = False,
    minute: Annotated[float, typer.Option(min=1.0, help="Seconds between the mails.")] = DEMO_MINUTE,
    timeout: Annotated[float, typer.Option(help="Seconds that the mails may take.")] = 120.0,
) -> None:
    """Show it all once, in a fresh folder: exit 0 when every mail was delivered."""
    environ = entrance.users_environment()
    folder = data or Path(tempfile.mkdtemp(prefix="tidings-demo-"))
    try:
        config = _demo_config(environ, folder, minute)
        code = entrance.run(run_demo(config, environ, console, patience=timeout))
    finally:
        _leave(folder, keep=keep or data is not None)
    raise typer.Exit(code)


@app.command()
def clean(data: DataOption = None) -> None:
    """Remove the data folder: ledger, sandbox, logs. Refused while a stack uses it."""
    folder = DataFolder(data or StackConfig().data)
    if not folder.path.exists():
        return
    folder.open()
    shutil.rmtree(folder.path)
    folder.close()
    console.print(f"removed {folder.path}", highlight=False)


def _demo_config(environ: dict[str, str], folder: Path, minute: float) -> StackConfig:
    wanted = from_environment(
        environ,
        data=folder,
        testing=True,
        testing_minute=minute,
        campaigns_dirs=environ.get("CAMPAIGNS_DIRS"),
        real_services=False,
        isolated=True,
    )
    config, said = ports.with_free_ports(wanted)
    for line in said:
        console.print(line, highlight=False, markup=False, soft_wrap=True)
    return config


def _leave(folder: Path, *, keep: bool) -> None:
    if keep:
        console.print(f"Data and logs are in {folder}", highlight=False)
    else:
        shutil.rmtree(folder)


if __name__ == "__main__":
    sys.exit(entrance.main(app))
