"""Which code a process runs, so that a worker and a server that do not fit each other are noticed (F6, F8)."""

from __future__ import annotations

import hashlib
import json
import platform
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from tidings.settings import ROOT

FOLDERS = ("tidings", "flows", "tasks", "campaigns")
#: Packages whose versions decide whether a run works.
PACKAGES = ("prefect", "fastapi", "pydantic", "sqlalchemy", "asyncpg", "httpx", "jinja2", "notion-client", "resend")
#: Begins the names of the memos in which each worker tells of its code.
TOLD = "worker:"


@dataclass(frozen=True)
class Code:
    """What a process runs. `flows` has a digest of each deployment's parameters, as its flow takes them."""

    python: str
    packages: Mapping[str, str]
    source: str
    flows: Mapping[str, str] = field(default_factory=dict)

    def to_json(self) -> str:
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> Code:
        known: dict[str, Any] = json.loads(text)
        return cls(**{name: known[name] for name in cls.__dataclass_fields__ if name in known})

    def differences(self, here: Code) -> list[str]:
        """What this has otherwise than the code here, in words."""
        found = []
        if _minor(self.python) != _minor(here.python):
            found.append(f"Python {self.python} where here is {here.python}")
        for name, wanted in here.packages.items():
            if (has := self.packages.get(name, "not installed")) != wanted:
                found.append(f"{name} {has} where here is {wanted}")
        changed = sorted(n for n in here.flows.keys() | self.flows.keys() if self.flows.get(n) != here.flows.get(n))
        if changed:
            found.append(f"other parameters of {', '.join(changed)}")
        elif self.source != here.source:
            found.append(f"other code ({self.source}) than here ({here.source})")
        return found


def _minor(python: str) -> str:
    return ".".join(python.split(".")[:2])


def of_this_process(flows: Mapping[str, str]) -> Code:
    return Code(platform.python_version(), _versions(), source(), dict(flows))


def _versions() -> dict[str, str]:
    found = {}
    for name in PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


@cache
def source() -> str:
    """A digest of the product's Python files. Taken once a process, as near to their import as may be."""
    digest = hashlib.sha256()
    for folder in FOLDERS:
        for path in sorted((ROOT / folder).rglob("*.py")):
            digest.update(str(path.relative_to(ROOT)).encode() + b"\0" + path.read_bytes() + b"\0")
    return digest.hexdigest()[:12]
