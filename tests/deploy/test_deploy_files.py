"""Dockerfile, compose files, units: what can be said of them without an engine."""

from __future__ import annotations

import copy
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml
from prefect.server.api.server import create_app
from prefect.settings import PREFECT_SERVER_API_AUTH_STRING, temporary_settings

from deploy.checks import compose, dockerfile, units
from deploy.checks.dockerfile import Image
from tidings.adapters.prefect import lets_anyone_in
from tidings.settings import ROOT, Settings
from tidings.worker import GRACE_SECONDS, LEAVE_SECONDS

DEPLOY = ROOT / "deploy"
#: What a person has to fill in beside the variables that the compose file itself asks for.
FILLED_IN = {
    "NOTION_TOKEN": "ntn_sample",
    "NOTION_TEMPLATES_DB_ID": "1",
    "NOTION_EMAIL_SEQUENCE_DB_ID": "2",
    "NOTION_CONTACTS_DB_ID": "3",
    "NOTION_EMAIL_ANALYTICS_DB_ID": "4",
    "RESEND_API_KEY": "re_sample",
    "SENDER": "Sample <hello@mail.your-domain.example>",
    "SECRET_KEY": "sample-secret-of-32-characters-xx",
}


@pytest.fixture
def services() -> dict[str, Any]:
    return copy.deepcopy(compose.services())


def test_the_compose_files__fit_the_specification_and_the_settings() -> None:
    assert compose.problems() == []


@pytest.mark.parametrize("service", ["web", "worker", "setup"])
def test_a_service__starts_with_what_the_compose_file_hands_on(service: str, monkeypatch: pytest.MonkeyPatch) -> None:
    given = compose.services(variables={**compose.SAMPLE, **FILLED_IN})[service]["environment"]
    for name in Settings.model_fields:
        monkeypatch.delenv(name.upper(), raising=False)
    for name, value in given.items():
        monkeypatch.setenv(name, value)

    settings = Settings(_env_file=None)  # type: ignore[call-arg]

    assert settings.public_url == compose.SAMPLE["PUBLIC_URL"]
    assert settings.notion_api_url == "https://api.notion.com"  # not set, so not "" either


def test_a_missing_required_variable__is_refused() -> None:
    with pytest.raises(compose.ComposeProblem, match="required variable POSTGRES_PASSWORD is missing a value"):
        compose.services(variables={**compose.SAMPLE, "POSTGRES_PASSWORD": ""})


SETS = [(), *[(name,) for name in compose.OVERLAYS], tuple(compose.OVERLAYS)]


@pytest.mark.parametrize("overlays", SETS, ids=" ".join)
def test_f20_prefects_api__asks_for_a_password_and_is_published_nowhere(overlays: tuple[str, ...]) -> None:
    found = compose.services(*overlays)
    password = found["prefect"]["environment"]["PREFECT_SERVER_API_AUTH_STRING"]

    assert password == compose.SAMPLE["PREFECT_AUTH_STRING"]
    assert "ports" not in found["prefect"]
    for client in ("web", "worker", "setup"):
        assert found[client]["environment"]["PREFECT_API_AUTH_STRING"] == password
    assert [name for name, service in found.items() if service.get("ports")] in ([], ["web"])
    for ports in (service.get("ports", []) for service in found.values()):
        assert all(port.startswith("127.0.0.1:") for port in ports)


def test_f20_without_a_password_for_prefect__nothing_starts() -> None:
    with pytest.raises(compose.ComposeProblem, match="required variable PREFECT_AUTH_STRING is missing a value"):
        compose.services(variables={**compose.SAMPLE, "PREFECT_AUTH_STRING": ""})


@pytest.mark.parametrize(
    ("service", "change", "said"),
    [
        ("prefect", {"ports": ["4200:4200"]}, "prefect: ports makes its API reachable"),
        ("prefect", {"network_mode": "host"}, "prefect: network_mode makes its API reachable"),
        ("prefect", {"environment": {}}, "lets anyone in"),
        ("worker", {"environment": {"PREFECT_API_URL": "x"}}, "worker: shows Prefect another password"),
    ],
)
def test_f20_the_check__sees_a_prefect_that_is_open(
    services: dict[str, Any], service: str, change: dict[str, Any], said: str
) -> None:
    services[service] |= change

    assert any(said in problem for problem in compose._private(services))


def test_f20_without_docker__prefect_listens_on_this_machine_only_and_asks_for_a_password() -> None:
    unit = (DEPLOY / "systemd" / "tidings-prefect.service").read_text()

    assert units.private_problems(unit) == []
    assert len(units.private_problems(unit.replace("127.0.0.1", "0.0.0.0").replace("test -n", "true"))) == 2
    guard = re.search(r"^ExecStartPre=/bin/sh -c '(.*)'$", unit, re.MULTILINE)
    assert guard is not None
    for given, code in ({"PREFECT_SERVER_API_AUTH_STRING": "admin:x"}, 0), ({}, 1):
        done = subprocess.run(["/bin/sh", "-c", guard[1].replace("$$", "$")], env=given, capture_output=True)
        assert done.returncode == code


async def test_f20_prefect_itself__lets_nobody_in_without_the_password() -> None:
    """The setting that the deployment files set does what they rely on, in the version that is locked."""
    with temporary_settings({PREFECT_SERVER_API_AUTH_STRING: "admin:word"}):
        server = create_app(ephemeral=True, ignore_cache=True)
        transport = httpx.ASGITransport(app=server, raise_app_exceptions=False)
        async with httpx.AsyncClient(transport=transport, base_url="http://prefect") as http:
            for auth in (None, ("admin", "wrong"), ("", "")):
                assert (await http.post("/api/flow_runs/filter", json={}, auth=auth)).status_code == 401
                assert (await http.post("/api/deployments/filter", json={}, auth=auth)).status_code == 401
            assert (await http.get("/api/admin/version", auth=("admin", "word"))).status_code == 200
        assert await lets_anyone_in("http://prefect/api", transport) is False
    with temporary_settings(restore_defaults={PREFECT_SERVER_API_AUTH_STRING}):
        transport = httpx.ASGITransport(app=create_app(ephemeral=True, ignore_cache=True))
        assert await lets_anyone_in("http://prefect/api", transport) is True


def test_everything_starts__after_what_it_needs(services: dict[str, Any]) -> None:
    started: list[str] = []
    while len(started) < len(services):
        ready = [n for n, s in services.items() if n not in started and set(s.get("depends_on", ())) <= set(started)]
        assert ready, f"a circle among {set(services) - set(started)}"
        started += ready

    order = ["postgres", "databases", "prefect", "setup", "worker"]
    assert [name for name in started if name in order] == order


def test_with_a_postgresql_elsewhere__ours_is_neither_started_nor_waited_for() -> None:
    services = compose.services("external-postgres")

    assert services["postgres"]["profiles"]
    assert services["databases"]["depends_on"]["postgres"]["required"] is False
    for name in ("web", "worker", "setup", "prefect", "databases"):
        assert "@postgres:" not in str(services[name]["environment"])
        assert services[name]["environment"]["PGSSLMODE"] == "require"


@pytest.mark.parametrize(
    ("service", "change", "said"),
    [
        ("postgres", {"image": "postgres:latest"}, "needs a tag, and not latest"),
        ("postgres", {"image": "postgres"}, "needs a tag, and not latest"),
        ("prefect", {"healthcheck": {}}, "waits for prefect to be healthy, which has no health check"),
        ("setup", {"restart": "unless-stopped"}, "waits for setup to end, which is restarted"),
        ("web", {"depends_on": {"redis": {"condition": "service_started"}}}, "depends on 'redis', which is not there"),
        ("worker", {"stop_grace_period": "half a minute"}, "is no duration"),
        ("web", {"volumes": ["data:/data"]}, "the volume 'data:/data' is not declared"),
        ("postgres", {"profiles": ["x"]}, "depends on postgres, which its profile keeps from starting"),
    ],
)
def test_the_check__sees(services: dict[str, Any], service: str, change: dict[str, Any], said: str) -> None:
    services[service] |= change

    assert any(said in problem for problem in compose._whole(services))


def test_the_check__sees_a_published_port_and_a_forgotten_setting(services: dict[str, Any]) -> None:
    services["prefect"]["ports"] = ["4200:4200"]
    del services["worker"]["environment"]["RESEND_API_KEY"]

    found = list(compose._ours(services))

    assert any("prefect: publishes a port" in problem for problem in found)
    assert any("worker: the setting RESEND_API_KEY is not handed on" in problem for problem in found)


def test_the_check__sees_a_cure_that_coolify_would_take_for_a_value(tmp_path: Path) -> None:
    file = tmp_path / "compose.yml"
    file.write_text("services: {web: {environment: {A: '${A:?set it to a password}'}}}")

    assert any("for a default value" in problem for problem in compose._file(compose.load(file), file))


# -- the image -----------------------------------------------------------------------------------------------


def test_the_build_context__holds_what_runs_and_nothing_else() -> None:
    files = {str(path) for path in dockerfile.context((ROOT / ".dockerignore").read_text())}

    assert {"server.py", "requirements.txt", "tidings/cli.py", "flows/handler.py", "deploy/image/tidings"} <= files
    assert "campaigns/christmas/copy/christmas_email_1.html" in files
    assert not [f for f in files if f.startswith(("tests/", "docs/", ".env", ".git"))]


@pytest.mark.parametrize("secret", [".env", "campaigns/.env", "tidings/.env.production", "deploy/check", "new.key"])
def test_the_build_context__lets_no_secret_in(secret: str) -> None:
    rules = [line for line in (ROOT / ".dockerignore").read_text().splitlines() if line and line[0] != "#"]

    assert not dockerfile._allowed(secret, rules)


def test_the_image__starts_the_server_as_nobody_in_particular() -> None:
    steps = list(dockerfile.instructions((ROOT / "Dockerfile").read_text()))
    image = Image(Path("/nowhere"), lambda text: None)
    for name, rest in steps:
        if name in {"USER", "CMD", "HEALTHCHECK"}:
            getattr(image, f"_{name.lower()}")(rest)

    assert image.user
    assert image.command == ["uvicorn", "server:app", "--host", "0.0.0.0", "--port", "8000", "--workers", "4"]
    assert "/health'" in image.health[-1]
    assert any(name == "RUN" and "--require-hashes" in rest for name, rest in steps)
    assert [name for name, _ in steps].index("USER") > max(n for n, (name, _) in enumerate(steps) if name == "RUN")


@pytest.mark.slow
@pytest.mark.stack
@pytest.mark.skipif(sys.platform != "linux", reason="the image is one of Linux")
def test_the_image__runs_as_the_compose_file_says() -> None:
    """Minutes: the Dockerfile's steps in a clean folder, then the services as the image's user."""
    done = subprocess.run(
        [sys.executable, "-m", "deploy.checks", "image"], cwd=ROOT, capture_output=True, text=True, timeout=900
    )

    assert done.returncode == 0, done.stdout + done.stderr
    assert "7 of 7 delivered" in done.stdout


# -- the rest ------------------------------------------------------------------------------------------------


@pytest.mark.skipif(not shutil.which("systemd-analyze"), reason="systemd-analyze is not installed")
def test_the_units__pass_systemds_own_check() -> None:
    assert units.problems() == []


@pytest.mark.parametrize("script", ["check", "dashboard", "image/tidings"])
def test_a_script__is_executable_and_valid_shell(script: str) -> None:
    assert os.access(DEPLOY / script, os.X_OK)
    subprocess.run(["sh", "-n", DEPLOY / script], check=True)


def test_the_workers_health_check__says_why() -> None:
    environment = {"PREFECT_API_URL": "http://127.0.0.1:9/api", "NO_PROXY": "127.0.0.1"}

    done = subprocess.run(
        [sys.executable, DEPLOY / "image" / "worker-lives"], env=environment, capture_output=True, text=True
    )

    assert done.returncode == 1
    assert "Prefect does not answer" in done.stderr


def test_the_worker__is_given_the_time_that_it_takes_to_end() -> None:
    """Whoever stops it waits longer than it gives the runs under way, and then those that do not end."""
    compose = yaml.safe_load((ROOT / "docker-compose.yml").read_text(encoding="utf-8"))
    unit = (ROOT / "deploy/systemd/tidings-worker.service").read_text(encoding="utf-8")
    waits = [
        float(compose["services"]["worker"]["stop_grace_period"].removesuffix("s")),
        float(re.search(r"^TimeoutStopSec=(\d+)$", unit, re.MULTILINE)[1]),
    ]
    told = [
        int(said)
        for text in (unit, (ROOT / "docker-compose.yml").read_text(encoding="utf-8"))
        for said in re.findall(r"gives the runs under way (\d+) s", text)
    ]

    assert told == [LEAVE_SECONDS, LEAVE_SECONDS]
    assert min(waits) >= LEAVE_SECONDS + GRACE_SECONDS + 3
