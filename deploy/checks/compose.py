"""The compose files: against the compose specification, and against the settings in the code.

`docker compose config` is asked where it is installed. It needs no engine. Without it, the parts of the
specification that these files use are checked here, so a new key has to be added to SERVICE_KEYS first.
"""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml

from tidings.settings import ROOT, Settings

MAIN = ROOT / "docker-compose.yml"
OVERLAYS = {path.stem.removeprefix("compose."): path for path in sorted((ROOT / "deploy").glob("compose.*.yml"))}

TOP_KEYS = {"services", "volumes", "secrets"}
#: The keys of a service that are used here, each with the type the specification gives it.
SERVICE_KEYS: Mapping[str, type | tuple[type, ...]] = {
    "build": str, "image": str, "command": list, "environment": dict, "expose": list, "ports": list,
    "depends_on": dict, "healthcheck": dict, "restart": str, "init": bool, "read_only": bool, "tmpfs": list,
    "cap_drop": list, "security_opt": list, "logging": dict, "volumes": list, "secrets": list, "user": str,
    "stop_grace_period": str, "shm_size": str, "profiles": list,
}  # fmt: skip
HEALTH_KEYS = {"test", "interval", "timeout", "start_period", "retries", "disable"}
CONDITIONS = {"service_started", "service_healthy", "service_completed_successfully"}
DURATION = re.compile(r"^(\d+h)?(\d+m)?(\d+s)?$")
#: ${NAME}, ${NAME:-default}, ${NAME:?}; $$ is a dollar sign.
VARIABLE = re.compile(r"\$(?:\$|\{(?P<name>[A-Z][A-Z0-9_]*)(?::(?P<kind>[-?])(?P<text>[^}]*))?\}|(?P<bad>.))")
#: Values that `deploy/check` fills in; what they stand for is in .env.example.
SAMPLE = {
    "POSTGRES_PASSWORD": "sample-password",
    "POSTGRES_HOST": "db.your-domain.example",
    "PREFECT_AUTH_STRING": "admin:sample-password",
    "POSTAL_ADDRESS": "Sample Street 1, 00000 Sampletown",
    "PUBLIC_URL": "https://mail.your-domain.example",
}


class ComposeProblem(Exception):
    """A compose file says something that Compose would refuse."""


def load(path: Path) -> dict[str, Any]:
    """A compose file with its anchors resolved."""
    with path.open(encoding="utf-8") as file:
        return dict(yaml.safe_load(file))


def interpolate(value: Any, variables: Mapping[str, str]) -> Any:
    """A file's values as Compose sees them; refuses a required variable that is not set."""
    if isinstance(value, dict):
        return {k: interpolate(v, variables) for k, v in value.items()}
    if isinstance(value, list):
        return [interpolate(v, variables) for v in value]
    if not isinstance(value, str):
        return value

    def filled(match: re.Match[str]) -> str:
        if match[0] == "$$":
            return "$"
        if match["bad"]:
            raise ComposeProblem(f"{value!r} has a lone $; write $$")
        given = variables.get(match["name"], "")
        if match["kind"] == "?" and not given:
            raise ComposeProblem(f"required variable {match['name']} is missing a value")
        return given or (match["text"] or "" if match["kind"] == "-" else "")

    return VARIABLE.sub(filled, value)


def merged(base: Any, over: Any) -> Any:
    """Two files together: mappings by key, lists one after the other, the later value otherwise."""
    if isinstance(base, dict) and isinstance(over, dict):
        return {k: merged(base[k], over[k]) if k in base and k in over else over.get(k, base.get(k))
                for k in {**base, **over}}  # fmt: skip
    if isinstance(base, list) and isinstance(over, list):
        return [*base, *over]
    return over


def services(*overlays: str, variables: Mapping[str, str] = SAMPLE) -> dict[str, Any]:
    """The services of the main file with these overlays, with variables filled in."""
    whole: dict[str, Any] = interpolate(load(MAIN), variables)
    for name in overlays:
        whole = merged(whole, interpolate(load(OVERLAYS[name]), variables))
    return dict(whole["services"])


def variables_of(path: Path) -> Iterator[re.Match[str]]:
    """Every variable in a file, comments aside."""
    lines = [line for line in path.read_text(encoding="utf-8").splitlines() if not line.lstrip().startswith("#")]
    for match in VARIABLE.finditer("\n".join(lines)):
        if match["name"]:
            yield match


def problems() -> list[str]:
    """Everything that is wrong, in all files."""
    found = [f"{path.name}: {what}" for path in (MAIN, *OVERLAYS.values()) for what in _file(load(path), path)]
    for overlays in ((), *((name,) for name in OVERLAYS), tuple(OVERLAYS)):
        label = " + ".join((MAIN.stem, *overlays))
        found += [f"{label}: {what}" for what in (*_whole(services(*overlays)), *_private(services(*overlays)))]
    found += [f"{MAIN.name}: {what}" for what in _ours(services())]
    return found + _docker_compose()


def _file(content: Mapping[str, Any], path: Path) -> Iterator[str]:
    for key in content:
        if key not in TOP_KEYS and not key.startswith("x-"):
            yield f"{key!r} is not among {sorted(TOP_KEYS)}"
    for name, service in content["services"].items():
        for key, value in service.items():
            if key not in SERVICE_KEYS:
                yield f"{name}: {key!r} is not a key that is used here; look it up in the specification, then allow it"
            elif not isinstance(value, SERVICE_KEYS[key]):
                yield f"{name}: {key} is {value!r}, and must be {SERVICE_KEYS[key]}"
        yield from (f"{name}: environment {k} is {v!r}; write it in quotes"
                    for k, v in service.get("environment", {}).items() if not isinstance(v, str))  # fmt: skip
    for match in variables_of(path):
        if match["kind"] == "?" and match["text"]:
            yield f"{match[0]}: Coolify would take {match['text']!r} for a default value; write ${{{match['name']}:?}}"


def _whole(all_services: Mapping[str, Any]) -> Iterator[str]:
    """What only shows when the files are put together."""
    for name, service in all_services.items():
        if ("image" in service) == ("build" in service):
            yield f"{name}: needs an image or a build, and not both"
        if "image" in service and not re.fullmatch(r"[\w./-]+:(?!latest$)[\w.-]+", service["image"]):
            yield f"{name}: the image {service['image']!r} needs a tag, and not latest"
        if "restart" not in service:
            yield f"{name}: has no restart policy"
        yield from (f"{name}: {what}" for what in _health(service.get("healthcheck", {})))
        if not DURATION.match(service.get("stop_grace_period", "")):
            yield f"{name}: stop_grace_period {service['stop_grace_period']!r} is no duration"
        for needed, how in service.get("depends_on", {}).items():
            yield from (f"{name}: {what}" for what in _dependency(all_services, needed, how))
    yield from _volumes(all_services)


def _private(all_services: Mapping[str, Any]) -> Iterator[str]:
    """Whoever reaches Prefect's API can start and stop anything: it asks for a password and is published nowhere."""
    prefect = all_services["prefect"]
    password = prefect["environment"].get("PREFECT_SERVER_API_AUTH_STRING")
    if not password:
        yield "prefect: PREFECT_SERVER_API_AUTH_STRING is not set, so its API lets anyone in"
    yield from (f"prefect: {key} makes its API reachable from outside" for key in ("ports", "network_mode")
                if key in prefect)  # fmt: skip
    for name, service in all_services.items():
        environment = service.get("environment", {})
        if "PREFECT_API_URL" in environment and environment.get("PREFECT_API_AUTH_STRING") != password:
            yield f"{name}: shows Prefect another password than Prefect asks for"


def _health(check: Mapping[str, Any]) -> Iterator[str]:
    if extra := set(check) - HEALTH_KEYS:
        yield f"healthcheck has {sorted(extra)}"
    if check and not check.get("disable") and check["test"][0] not in {"CMD", "CMD-SHELL"}:
        yield f"healthcheck test begins with {check['test'][0]!r}"
    for key in ("interval", "timeout", "start_period"):
        if not DURATION.match(check.get(key, "")):
            yield f"healthcheck {key} {check[key]!r} is no duration"


def _dependency(all_services: Mapping[str, Any], needed: str, how: Mapping[str, Any]) -> Iterator[str]:
    condition = how.get("condition")
    if needed not in all_services:
        yield f"depends on {needed!r}, which is not there"
    elif condition not in CONDITIONS:
        yield f"depends on {needed} with {condition!r}"
    elif condition == "service_healthy" and "test" not in all_services[needed].get("healthcheck", {}):
        yield f"waits for {needed} to be healthy, which has no health check"
    elif condition == "service_completed_successfully" and all_services[needed].get("restart") != "no":
        yield f"waits for {needed} to end, which is restarted when it does"
    elif "profiles" in all_services[needed] and how.get("required", True):
        yield f"depends on {needed}, which its profile keeps from starting"


def _volumes(all_services: Mapping[str, Any]) -> Iterator[str]:
    declared = set(load(MAIN)["volumes"])
    for name, service in all_services.items():
        for volume in service.get("volumes", []):
            if volume.split(":")[0] not in declared:
                yield f"{name}: the volume {volume!r} is not declared"


def _ours(all_services: Mapping[str, Any]) -> Iterator[str]:
    """What this product wants of its main file."""
    for name, service in all_services.items():
        if "ports" in service:
            yield f"{name}: publishes a port; the main file publishes none"
    for name in ("web", "worker", "setup"):
        environment = all_services[name]["environment"]
        for field in Settings.model_fields:
            if field.upper() not in environment:
                yield f"{name}: the setting {field.upper()} is not handed on"
    known = {f.upper() for f in Settings.model_fields}
    extra = {n for n in all_services["web"]["environment"] if n not in known and not n.startswith("PREFECT_")}
    if extra:
        yield f"web: {sorted(extra)} are no settings"


def _docker_compose() -> list[str]:
    """The word of Compose itself, where it is installed."""
    docker = shutil.which("docker")
    if not docker or subprocess.run([docker, "compose", "version"], capture_output=True).returncode:
        return []
    found = []
    for chosen in ([], *([path] for path in OVERLAYS.values())):
        files = [part for path in (MAIN, *chosen) for part in ("-f", str(path))]
        done = subprocess.run(
            [docker, "compose", *files, "config", "--quiet"], env=SAMPLE, cwd=ROOT, capture_output=True, text=True
        )
        if done.returncode:
            found.append(f"docker compose config: {done.stderr.strip()}")
    return found
