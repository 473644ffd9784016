"""Which ports are free, and who holds one that is not."""

from __future__ import annotations

import random
import socket
from dataclasses import replace

from tidings.errors import ConfigError
from tidings.local import procfs
from tidings.local.config import HOST, PORT_VARIABLES, Part, StackConfig

#: Below Linux' range for outgoing connections (32768 and up), so that none of those takes a chosen port
#: while its process is being restarted.
CHOICE = range(15_000, 32_000)

PART_OF_PORT = {"web_port": Part.WEB, "prefect_port": Part.PREFECT, "sandbox_port": Part.SANDBOX}


def is_free(port: int) -> bool:
    """Whether a server could listen here now."""
    with socket.socket() as probe:
        # as servers do: connections of an earlier server that linger do not count
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except OSError:
            return False
        return True


def free_port() -> int:
    """A port that is free now. Two stacks that start at the same moment rarely choose the same one."""
    for port in random.SystemRandom().sample(CHOICE, 200):
        if is_free(port):
            return port
    raise ConfigError([f"no free port was found between {CHOICE.start} and {CHOICE.stop}"])


def settle(config: StackConfig) -> StackConfig:
    """The same configuration with every 0 replaced by a free port; refuses ports that are taken."""
    used = _used(config)
    problems = [_taken(name, port) for name, port in used.items() if port and not is_free(port)]
    problems += _twice(used)
    if problems:
        raise ConfigError(problems)
    chosen: dict[str, int] = {}
    for name in [*PART_OF_PORT, "postgres_port"]:
        if not getattr(config, name):
            chosen[name] = _unused_port({*used.values(), *chosen.values()})
    return replace(config, **chosen)  # type: ignore[arg-type]  # mypy cannot see which fields these are


def with_free_ports(config: StackConfig) -> tuple[StackConfig, list[str]]:
    """The configuration with every taken port replaced by a free one, and what was replaced."""
    taken = {name: port for name, port in _used(config).items() if port and not is_free(port)}
    said = [f"port {port} is in use{procfs.holder(port)}: another one is taken" for port in taken.values()]
    return settle(replace(config, **dict.fromkeys(taken, 0))), said  # type: ignore[arg-type]  # as above


def _used(config: StackConfig) -> dict[str, int]:
    return {name: getattr(config, name) for name, part in PART_OF_PORT.items() if part in config.started}


def _taken(name: str, port: int) -> str:
    return (
        f"port {port} for {PART_OF_PORT[name]} is in use{procfs.holder(port)}; "
        f"stop that, or set {PORT_VARIABLES[name]} to another port (0: any free one)"
    )


def _twice(used: dict[str, int]) -> list[str]:
    ports = [port for port in used.values() if port]
    return [
        f"port {port} is set for {' and '.join(PORT_VARIABLES[n] for n in used if used[n] == port)}"
        for port in sorted({p for p in ports if ports.count(p) > 1})
    ]


def _unused_port(avoid: set[int]) -> int:
    while (port := free_port()) in avoid:
        continue
    return port
