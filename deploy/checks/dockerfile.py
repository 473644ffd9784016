"""The Dockerfile's steps, done in a folder instead of an image."""

from __future__ import annotations

import fnmatch
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from tidings.settings import ROOT

FILE = ROOT / "Dockerfile"
IGNORED = {"EXPOSE"}
#: What the stand-in for the base image is spared: it has no users of its own, and no need to be small.
NEEDLESS = (" --no-cache-dir",)
NOT_COPIED = shutil.ignore_patterns("site-packages", "test", "__pycache__", "idlelib", "tkinter", "*.a")


class BuildFailed(Exception):
    """A step of the Dockerfile failed, or is of a kind that this script does not know."""


def instructions(text: str) -> Iterator[tuple[str, str]]:
    """The instructions in order, with continued lines joined and comments left out."""
    lines = [line for line in text.splitlines() if not line.lstrip().startswith("#")]
    for line in re.sub(r"\\\n\s*", " ", "\n".join(lines)).splitlines():
        if line.strip():
            name, _, rest = line.strip().partition(" ")
            yield name.upper(), rest.strip()


def context(patterns: str) -> list[Path]:
    """The files of the checkout that .dockerignore lets into the build, in Docker's way: the last match decides."""
    rules = [line.strip() for line in patterns.splitlines() if line.strip() and not line.startswith("#")]
    tracked = subprocess.run(
        ["git", "ls-files", "-co", "--exclude-standard"], cwd=ROOT, capture_output=True, text=True, check=True
    )
    return [Path(name) for name in tracked.stdout.splitlines() if (ROOT / name).is_file() and _allowed(name, rules)]


def _allowed(name: str, rules: list[str]) -> bool:
    allowed = True
    for rule in rules:
        pattern = rule.removeprefix("!")
        if any(_fits(part, pattern) for part in (name, *map(str, Path(name).parents))):
            allowed = rule.startswith("!")
    return allowed


def _fits(path: str, pattern: str) -> bool:
    if pattern.startswith("**/"):
        return fnmatch.fnmatchcase(Path(path).name, pattern.removeprefix("**/"))
    return path.count("/") == pattern.count("/") and fnmatch.fnmatchcase(path, pattern)


@dataclass
class Image:
    """What was built: where the image's paths are on this machine, and how its programs are started."""

    root: Path
    say: Callable[[str], None]
    env: dict[str, str] = field(default_factory=dict)
    workdir: str = "/"
    user: int | None = None
    command: list[str] = field(default_factory=list)
    health: list[str] = field(default_factory=list)

    def at(self, path: str) -> Path:
        """An absolute path of the image on this machine."""
        if path.rstrip("/") == "/usr/local/bin":
            return self.root / "venv" / "bin"
        return self.root / path.lstrip("/")

    @property
    def environment(self) -> dict[str, str]:
        """What a process of the image sees, with paths of this machine."""
        values = {name: str(self.at(value)) if value.startswith("/") else value for name, value in self.env.items()}
        return {
            **values,
            "PATH": f"{self.at('/usr/local/bin')}:/usr/bin:/bin",
            "LD_LIBRARY_PATH": str(self.root / "python" / "lib"),
            "HOME": str(self.at("/tmp")),  # noqa: S108  # as in the image
            "TMPDIR": str(self.at("/tmp")),  # noqa: S108
            "NO_PROXY": "127.0.0.1",
        }

    def build(self) -> None:
        """Every step of the Dockerfile, in order."""
        self.at("/tmp").mkdir(parents=True)  # noqa: S108
        for name, rest in instructions(FILE.read_text(encoding="utf-8")):
            if name in IGNORED:
                continue
            step = getattr(self, f"_{name.lower()}", None)
            if step is None:
                raise BuildFailed(f"{name} is an instruction that deploy/checks/dockerfile.py does not know")
            self.say(f"{name} {rest[:100]}")
            step(rest)
        os.chmod(self.at("/tmp"), 0o1777)  # noqa: S103, S108, PTH101  # as /tmp is

    def _from(self, rest: str) -> None:
        """A virtual environment stands in for the base image's Python; the base is copied, as /root may be closed."""
        version = re.match(r"python:(\d+\.\d+)-slim$", rest)
        if not version or version[1] != f"{sys.version_info[0]}.{sys.version_info[1]}":
            raise BuildFailed(f"FROM {rest} is not the slim image of the Python that runs this check")
        base = Path(sys.base_prefix)
        python = self.root / "python"
        for part in ("bin", "lib"):
            if part == "bin":
                (python / part).mkdir(parents=True)
                name = f"python{version[1]}"
                shutil.copy2(base / part / name, python / part / name)
            else:
                source = base / part / f"python{version[1]}"
                shutil.copytree(source, python / part / source.name, symlinks=True, ignore=NOT_COPIED)
                for library in (base / part).glob("libpython*"):
                    shutil.copy2(library, python / part / library.name)
        self._run_here([str(python / "bin" / f"python{version[1]}"), "-m", "venv", str(self.root / "venv")])

    def _env(self, rest: str) -> None:
        self.env |= dict(part.split("=", 1) for part in shlex.split(rest))

    def _workdir(self, rest: str) -> None:
        self.workdir = rest
        self.at(rest).mkdir(parents=True, exist_ok=True)

    def _copy(self, rest: str) -> None:
        *sources, target = shlex.split(rest)
        to = self.at(target) if target.startswith("/") else self.at(self.workdir) / target
        files = context((ROOT / ".dockerignore").read_text(encoding="utf-8"))
        for source in sources:
            found = [f for f in files if f == Path(source) or Path(source) in f.parents]
            if not found:
                raise BuildFailed(f"COPY {source}: .dockerignore lets nothing of it in")
            for file in found:
                inside = file.relative_to(source) if file != Path(source) else None
                goal = to / inside if inside else (to / file.name if target.endswith("/") else to)
                goal.parent.mkdir(parents=True, exist_ok=True)
                shutil.copy2(ROOT / file, goal)

    def _run(self, rest: str) -> None:
        if rest.startswith("useradd "):
            return
        for needless in NEEDLESS:
            rest = rest.replace(needless, "")
        self._run_here(["sh", "-ec", rest], cwd=self.at(self.workdir))

    def _user(self, rest: str) -> None:
        self.user = int(rest.split(":")[0])
        if self.user == 0:
            raise BuildFailed("USER is root")

    def _healthcheck(self, rest: str) -> None:
        self.health = json.loads(rest.partition("CMD ")[2])

    def _cmd(self, rest: str) -> None:
        self.command = json.loads(rest)

    def _run_here(self, args: list[str], cwd: Path | None = None) -> None:
        environment = {**self.environment, "HOME": os.environ.get("HOME", "/")}  # pip's own settings and cache
        done = subprocess.run(args, cwd=cwd, env=environment, capture_output=True, text=True)
        if done.returncode:
            raise BuildFailed(f"{' '.join(args)[:200]} failed:\n{(done.stdout + done.stderr)[-3000:]}")

    def files(self) -> dict[str, tuple[int, float]]:
        """Everything in the image outside of /tmp, with sizes and times, to see later what was written."""
        temporary = self.at("/tmp")  # noqa: S108
        return {
            str(path.relative_to(self.root)): (path.lstat().st_size, path.lstat().st_mtime)
            for path in self.root.rglob("*")
            if temporary not in (path, *path.parents)
        }
