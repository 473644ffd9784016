"""The data folder: its lock, its secrets, its logs. One stack at a time."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import secrets
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

from dotenv import dotenv_values

from tidings.errors import ConfigError


@dataclass
class DataFolder:
    path: Path
    _lock: IO[str] | None = field(default=None, repr=False)

    def __post_init__(self) -> None:
        self.path = self.path.resolve()

    @property
    def postgres(self) -> Path:
        return self.path / "postgres"

    @property
    def prefect(self) -> Path:
        return self.path / "prefect"

    @property
    def sandbox(self) -> Path:
        return self.path / "sandbox"

    @property
    def notion_env(self) -> Path:
        return self.path / "notion.env"

    @property
    def run(self) -> Path:
        """An empty current folder, for processes that must not find the checkout's .env."""
        return self.path / "run"

    @property
    def stack_env(self) -> Path:
        return self.path / "stack.env"

    def open(self) -> None:
        """Make it and lock it. The kernel drops the lock when this process ends, however it ends."""
        self.path.mkdir(parents=True, exist_ok=True)
        for folder in (self.prefect, self.run, self.path / "logs"):
            folder.mkdir(exist_ok=True)
        lock = (self.path / "lock").open("a+", encoding="utf-8")
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            lock.seek(0)
            raise ConfigError([self._busy(lock.read().strip())]) from None
        lock.truncate(0)
        lock.write(str(os.getpid()))
        lock.flush()
        self._lock = lock

    def close(self) -> None:
        if self._lock:
            self._lock.close()
            self._lock = None

    def log(self, name: str) -> Path:
        return self.path / "logs" / f"{name}.log"

    def rotate_logs(self) -> None:
        """Each start begins its logs anew and keeps those of the start before."""
        for log in (self.path / "logs").glob("*.log"):
            if not log.name.endswith(".previous.log"):
                log.replace(log.with_suffix(".previous.log"))

    def secret(self, name: str, *, prefix: str = "") -> str:
        """A random secret that stays the same for this folder."""
        path = self.path / "secrets.json"
        known: dict[str, str] = json.loads(path.read_text()) if path.exists() else {}
        if name not in known:
            known[name] = prefix + secrets.token_hex(24)  # which is valid base64 too, as whsec_ has to be
            write_private(path, json.dumps(known, indent=1))
        return known[name]

    def notion_ids(self) -> dict[str, str]:
        """What `tidings notion init` wrote; nothing when the sandbox that it was written for is gone."""
        if not self.sandbox.exists():
            self.notion_env.unlink(missing_ok=True)
        return {name: value for name, value in dotenv_values(self.notion_env).items() if value}

    def _busy(self, pid: str) -> str:
        by = f"process {pid}" if pid else "another process"
        return f"{self.path} is in use by {by}, another stack; stop that, or choose another folder with --data"


def write_private(path: Path, text: str) -> None:
    """Write a file that only its owner can read, whole or not at all."""
    new = path.with_suffix(path.suffix + ".new")
    with contextlib.suppress(FileNotFoundError):
        new.unlink()
    with os.fdopen(os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
        file.write(text)
    new.replace(path)
