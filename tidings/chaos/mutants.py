"""Runs the harness against a copy of the product with one guarantee taken out."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from rich.console import Console

from tidings.chaos.mutations import MUTATIONS, Change
from tidings.errors import TidingsError
from tidings.settings import ROOT

#: Not needed to run, or not ours.
LEFT_OUT = shutil.ignore_patterns(
    ".git", ".venv", ".tidings", "__pycache__", ".*_cache", ".hypothesis", "tests", "docs"
)


class MutationFailed(TidingsError):
    """The product has changed, so that the mutation does not fit any more."""


def mutated(code: Path, changes: tuple[Change, ...]) -> None:
    """Apply changes to a copy. Raises MutationFailed when a text is not there exactly once."""
    for change in changes:
        file = code / change.file
        text = file.read_text(encoding="utf-8")
        if text.count(change.old) != 1:
            raise MutationFailed(
                f"{change.file} has this text {text.count(change.old)} times instead of once; "
                f"bring tidings/chaos/mutations.py up to date:\n{change.old}"
            )
        file.write_text(text.replace(change.old, change.new), encoding="utf-8")


def run_mutant(name: str, arguments: list[str], console: Console) -> int:
    """The exit code of the harness: 1 when it has noticed."""
    if name == "all":
        found = {each: run_mutant(each, arguments, console) for each in MUTATIONS}
        for each, said in found.items():
            console.print(f"{each}: {'noticed' if said == 1 else 'NOT NOTICED'}", highlight=False)
        return 1 if set(found.values()) == {1} else 0
    if name not in MUTATIONS:
        raise MutationFailed(f"there is no mutation {name!r}; there are {', '.join(MUTATIONS)} and all")
    with tempfile.TemporaryDirectory(prefix=f"tidings-mutant-{name}-") as folder:
        code = Path(folder) / "code"
        shutil.copytree(ROOT, code, ignore=LEFT_OUT)
        mutated(code, MUTATIONS[name])
        console.print(f"mutation {name}: {len(MUTATIONS[name])} changes in a copy of the product", highlight=False)
        done = subprocess.run(
            [sys.executable, "-m", "tidings.chaos", *arguments],
            cwd=code,
            env=os.environ | {"PYTHONPATH": str(code)},
        )
    return done.returncode
