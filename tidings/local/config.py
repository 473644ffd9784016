"""What a local stack is made of, and every choice about it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Any

from tidings.errors import ConfigError
from tidings.settings import ROOT

#: Everything listens here and nowhere else: the stack is for one machine.
HOST = "127.0.0.1"


class Part(StrEnum):
    """A process that stays. The stack stops them in the reverse of this order."""

    POSTGRES = "postgres"
    PREFECT = "prefect"
    SANDBOX = "sandbox"
    WORKER = "worker"
    WEB = "web"


class Step(StrEnum):
    """A command that runs once at every start; each does nothing when its work is done already."""

    MIGRATE = "migrate"
    NOTION_INIT = "notion-init"
    TEMPLATES = "templates"
    DEPLOY = "deploy"


#: Port settings: the variable that changes each, and its field in StackConfig.
PORT_VARIABLES = {
    "web_port": "TIDINGS_PORT",
    "prefect_port": "TIDINGS_PREFECT_PORT",
    "sandbox_port": "TIDINGS_SANDBOX_PORT",
}


@dataclass(frozen=True, kw_only=True)
class StackConfig:
    """A port of 0 means: choose a free one. Parts that are left out are not started, nor their steps."""

    data: Path = ROOT / ".tidings"
    web_port: int = 8000
    prefect_port: int = 4200
    sandbox_port: int = 8025
    postgres_port: int = 0

    parts: frozenset[Part] = frozenset(Part)
    steps: frozenset[Step] = frozenset(Step)
    #: uvicorn's own worker processes, and Prefect workers (named worker, worker-2, …).
    web_workers: int = 1
    workers: int = 1

    #: None leaves TESTING_MODE to the environment and .env.
    testing: bool | None = None
    testing_minute: float = 60.0
    #: None leaves CAMPAIGNS_DIRS to the environment and .env.
    campaigns_dirs: str | None = None
    #: Options of `python -m tidings.sandbox` beside the addresses, such as {"resend-rate": "5"}.
    sandbox_options: Mapping[str, str] = field(default_factory=dict)
    #: Nothing of .env, nor of the environment's own Tidings settings: for what must run alike everywhere.
    isolated: bool = False
    #: For the product's processes; wins over everything the stack sets itself.
    env: Mapping[str, str] = field(default_factory=dict)
    #: Notion and Resend themselves, with the keys of the environment; the sandbox is not started.
    real_services: bool = False

    @classmethod
    def apart(cls, data: Path, **given: Any) -> StackConfig:
        """One that runs alike everywhere and beside any other: on free ports, and with nothing of the user's own."""
        return cls(data=data, web_port=0, prefect_port=0, sandbox_port=0, isolated=True, **given)

    @property
    def started(self) -> frozenset[Part]:
        return self.parts - {Part.SANDBOX} if self.real_services else self.parts


def from_environment(environ: Mapping[str, str], **given: Any) -> StackConfig:
    """A StackConfig with the ports of the environment, and the real services when both keys are set."""
    problems: list[str] = []
    ports = {name: _port(environ, variable, problems) for name, variable in PORT_VARIABLES.items()}
    if problems:
        raise ConfigError(problems)
    set_ports = {name: port for name, port in ports.items() if port is not None}
    real = bool(environ.get("NOTION_TOKEN")) and bool(environ.get("RESEND_API_KEY"))
    return StackConfig(**{"real_services": real, **set_ports, **given})


def _port(environ: Mapping[str, str], variable: str, problems: list[str]) -> int | None:
    value = environ.get(variable, "").strip()
    if not value:
        return None
    if value.isdecimal() and int(value) < 65536:
        return int(value)
    problems.append(f"{variable} is {value!r}; set a port number, or 0 for any free one")
    return None
