"""The image and the compose file, tried without an engine.

The Dockerfile's steps are done in a clean folder. Then the services of docker-compose.yml run from there: their own
commands, environments and health checks, as the image's user, against an embedded PostgreSQL and the sandbox.
"""

from __future__ import annotations

import asyncio
import os
import re
import subprocess
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import asyncpg
import httpx

from deploy.checks import compose
from deploy.checks.dockerfile import BuildFailed, Image
from tidings.campaign import load_campaigns
from tidings.local import environment, ports, postgres
from tidings.local.config import HOST, Part, StackConfig
from tidings.local.demo_ledger import inbox
from tidings.local.services import notion_root
from tidings.local.stack import Stack
from tidings.settings import folders

Say = Callable[[str], None]
HEALTHY_SECONDS = 90.0
MAILS_SECONDS = 60.0
TESTING = {"TESTING_MODE": "true", "TESTING_MINUTE_SECONDS": "1"}
#: How the folders of trials are called.
FOLDER = "tidings-image-"
#: Where an unprivileged process could leave something outside of the image's own /tmp.
OPEN_TO_ALL = ("/tmp", "/var/tmp", "/dev/shm", "/run")  # noqa: S108


class CheckFailed(Exception):
    """The image does not do what it should."""


@dataclass
class Trial:
    """The services of the compose file as processes on this machine."""

    image: Image
    stack: Stack
    say: Say
    prefect_port: int
    variables: dict[str, str]
    running: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)

    @property
    def services(self) -> dict[str, Any]:
        return compose.services(variables=self.variables)

    def here(self, text: str) -> str:
        """An address of the compose network as it is on this machine."""
        config = self.stack.addresses.config
        for there, port in (("postgres:5432", config.postgres_port), ("prefect:4200", self.prefect_port),
                            (f"{HOST}:4200", self.prefect_port), (f"{HOST}:8000", config.web_port)):  # fmt: skip
            text = text.replace(there, f"{HOST}:{port}")
        return text

    def environment(self, service: str) -> dict[str, str]:
        given = self.services[service].get("environment", {})
        return {
            **self.image.environment,
            **{name: self.here(value) for name, value in given.items()},
            "PREFECT_SERVER_API_PORT": str(self.prefect_port),
        }

    def command(self, service: str) -> list[str]:
        """The service's command, listening on this machine only, with two web workers."""
        command = self.services[service].get("command") or self.image.command
        port = str(self.stack.addresses.config.web_port)
        changed = {"0.0.0.0": HOST, "8000": port, "4": "2"}  # noqa: S104
        return [changed.get(part, part) for part in command]

    def start(self, service: str, command: list[str] | None = None) -> subprocess.Popen[bytes]:
        """Start a service, or another command in its place, as the image's user."""
        user = self.image.user if os.geteuid() == 0 else None
        with self.log(service).open("ab") as log:
            return subprocess.Popen(
                command or self.command(service),
                executable=self._program((command or self.command(service))[0]),
                cwd=self.image.at(self.image.workdir),
                env=self.environment(service),
                user=user,
                group=user,
                extra_groups=None if user is None else [],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def _program(self, name: str) -> str:
        inside = self.image.at("/usr/local/bin") / name
        return str(inside) if inside.exists() else f"/bin/{name}"

    def log(self, service: str) -> Path:
        return self.image.root.parent / f"{service}.log"

    def tail(self, service: str) -> str:
        return "\n".join(self.log(service).read_text(errors="replace").splitlines()[-25:])

    async def run(self, service: str, command: list[str] | None = None) -> str:
        """Run a service that ends by itself; returns what this run said."""
        log = self.log(service)
        before = log.stat().st_size if log.exists() else 0
        process = self.start(service, command)
        while process.poll() is None:
            await asyncio.sleep(0.1)
        if process.returncode:
            raise CheckFailed(f"{service} ended with exit code {process.returncode}:\n{self.tail(service)}")
        self.say(f"{service}: done")
        return log.read_bytes()[before:].decode()

    async def up(self, service: str) -> None:
        """Start a service that stays, and wait until its health check passes."""
        process = self.running[service] = self.start(service)
        test = self.services[service].get("healthcheck", {}).get("test", ["CMD", *self.image.health])[1:]
        test = [self.here(part) for part in test]
        began = time.monotonic()
        while (code := await self._probe(service, test)) != 0:
            if process.poll() is not None:
                raise CheckFailed(f"{service} ended with {process.returncode}:\n{self.tail(service)}")
            if time.monotonic() - began > HEALTHY_SECONDS:
                raise CheckFailed(f"{service} is not healthy ({code}):\n{self.tail(service)}")
            await asyncio.sleep(1)
        self.say(f"{service}: healthy after {time.monotonic() - began:.0f} s")

    async def _probe(self, service: str, test: list[str]) -> int | None:
        probe = self.start(f"{service}", test)
        while probe.poll() is None:
            await asyncio.sleep(0.1)
        return probe.returncode

    async def down(self) -> None:
        """SIGTERM as `docker stop` sends it: to the first process alone. It has to end within its grace period."""
        for name, process in reversed(list(self.running.items())):
            grace = float(self.services[name].get("stop_grace_period", "10s").removesuffix("s"))
            began = time.monotonic()
            process.terminate()
            while process.poll() is None and time.monotonic() - began < grace:
                await asyncio.sleep(0.1)
            if process.poll() is None:
                raise CheckFailed(f"{name} had not ended {grace:g} s after SIGTERM:\n{self.tail(name)}")
            self.say(f"{name}: stopped within {time.monotonic() - began:.1f} s, exit code {process.returncode}")
            del self.running[name]

    def kill(self) -> None:
        """Whatever a failed trial has left running."""
        for process in self.running.values():
            try:
                os.killpg(process.pid, 9)
            except ProcessLookupError:
                continue
            process.wait()


async def problems(say: Say = lambda text: None) -> list[str]:
    """What went wrong, if anything."""
    with tempfile.TemporaryDirectory(prefix=FOLDER) as folder:
        os.chmod(folder, 0o755)  # noqa: PTH101, S103  # the image's user has to pass
        top = Path(folder)
        image = Image(top / "image", say)
        try:
            image.build()
            async with _trial(image, top / "data", say) as trial:
                return await _try(trial)
        except (BuildFailed, CheckFailed) as error:
            return [str(error)]


@asynccontextmanager
async def _trial(image: Image, data: Path, say: Say) -> AsyncIterator[Trial]:
    """The outside world of the services: a PostgreSQL without Tidings' databases, and the sandbox."""
    config = StackConfig(
        data=data, web_port=0, prefect_port=0, sandbox_port=0, isolated=True, steps=frozenset(),
        parts=frozenset({Part.POSTGRES, Part.SANDBOX}), sandbox_options={"resend-rate": "10"},
    )  # fmt: skip
    async with Stack(config) as stack:
        variables = {**compose.SAMPLE, **_sandboxed(stack), **TESTING}
        await _make_user(stack, variables["POSTGRES_PASSWORD"])
        trial = Trial(image, stack, say, stack.addresses.config.prefect_port or ports.free_port(), variables)
        try:
            yield trial
        finally:
            trial.kill()


def _sandboxed(stack: Stack) -> Mapping[str, str]:
    known = {match["name"] for match in compose.variables_of(compose.MAIN)}
    return {n: v for n, v in environment.product(stack.addresses, stack.folder).items() if n in known}


async def _make_user(stack: Stack, password: str) -> None:
    """The user of the compose file, less powerful than the postgres image makes it: as on a server of one's own."""
    connection = await asyncpg.connect(stack.addresses.database("postgres"))
    try:
        for name in ("tidings", "prefect"):
            await connection.execute(f'DROP DATABASE "{name}"')
        await connection.execute(f"CREATE ROLE tidings LOGIN CREATEDB PASSWORD '{password}'")
    finally:
        await connection.close()


async def _try(trial: Trial) -> list[str]:
    """In the order of the compose file's depends_on."""
    found = _compiled(trial)
    before = trial.image.files()
    await _make_databases(trial)
    await trial.up("prefect")
    trial.variables |= await _notion(trial)
    await trial.run("setup")
    await trial.run("setup", ["tidings", "templates", "push"])
    await trial.up("worker")
    await trial.up("web")
    found += await _guarded(trial) + await _mails(trial)
    await trial.down()
    return found + _written(trial, before)


def _compiled(trial: Trial) -> list[str]:
    """All bytecode is there before the first start: at run time none can be written."""
    root = trial.image.root
    places = {"the packages": next(root.glob("venv/lib/python*/site-packages")) / "fastapi", "the code": root / "app"}
    size = sum(path.lstat().st_size for path in (root / "venv").rglob("*")) // 2**20
    trial.say(f"built: {size} MB of packages on top of the base image")
    return [
        f"{what} of the image are not compiled"
        for what, where in places.items()
        if not (where / "__pycache__").is_dir()
    ]


async def _make_databases(trial: Trial) -> None:
    """The `databases` service with the programs of the embedded PostgreSQL; twice, as at a second start."""
    service = trial.services["databases"]
    given = {name: trial.here(value) for name, value in service["environment"].items()}
    port = str(trial.stack.addresses.config.postgres_port)
    env = {**given, "PGHOST": HOST, "PGPORT": port, "PATH": f"{postgres.BIN}:/usr/bin:/bin"}
    for _ in range(2):
        done = await asyncio.to_thread(
            subprocess.run, service["command"], env=env, capture_output=True, text=True, cwd="/"
        )
        if done.returncode:
            raise CheckFailed(f"databases: {done.stderr}")
    trial.say("databases: done, and harmless to repeat")


async def _notion(trial: Trial) -> dict[str, str]:
    """`tidings notion init`, as deploy/server.md says to run it; its ids are settings from then on."""
    parent = await notion_root(trial.stack.addresses)
    said = await trial.run("setup", ["tidings", "notion", "init", "--parent", parent])
    return dict(re.findall(r"^(NOTION_\w+_DB_ID)=(\S+)", said, re.MULTILINE))


async def _guarded(trial: Trial) -> list[str]:
    """Prefect lets nobody in without the password, except to ask whether it lives."""
    api = f"http://{HOST}:{trial.prefect_port}"
    user, _, password = trial.variables["PREFECT_AUTH_STRING"].partition(":")
    async with httpx.AsyncClient(trust_env=False) as client:
        stranger = await client.post(f"{api}/api/deployments/filter", json={})
        friend = await client.post(f"{api}/api/deployments/filter", json={}, auth=(user, password))
        page = await client.get(api, follow_redirects=True)
    trial.say(f"prefect: {stranger.status_code} without the password, {friend.status_code} with it")
    found = []
    if stranger.status_code != httpx.codes.UNAUTHORIZED:
        found.append(f"Prefect's API answers {stranger.status_code} to a stranger")
    if friend.status_code != httpx.codes.OK or not friend.json():
        found.append(f"Prefect's API answers {friend.status_code} with the password")
    if page.status_code != httpx.codes.OK or "html" not in page.headers["content-type"]:
        found.append(f"Prefect's dashboard answers {page.status_code} {page.headers.get('content-type')}")
    return found


async def _mails(trial: Trial) -> list[str]:
    """A signup through the web server becomes all of its mails."""
    at = trial.stack.addresses
    campaigns = load_campaigns(folders("campaigns")).for_people
    campaign, webhook = campaigns.webhooks[0]
    wanted = len(campaign.sequence(webhook.sequence).steps)
    async with httpx.AsyncClient(trust_env=False, timeout=30) as client:
        body = next(iter(webhook.examples.values()))
        answer = await client.post(f"{at.web}/webhook/{webhook.path}", json=body)
        if answer.status_code != httpx.codes.OK:
            return [f"the webhook is answered {answer.status_code}: {answer.text}\n{trial.tail('web')}"]
        deadline = time.monotonic() + MAILS_SECONDS
        while True:
            there = await inbox(client, at)
            delivered = sum(mail.last_event == "delivered" for mail in there.values())
            if delivered == wanted:
                trial.say(f"mails: {delivered} of {wanted} delivered")
                break
            if time.monotonic() > deadline:
                return [f"{delivered} of {wanted} mails were delivered\n{trial.tail('worker')}"]
            await asyncio.sleep(0.5)
        return await _ready(trial, client)


async def _ready(trial: Trial, client: httpx.AsyncClient) -> list[str]:
    """Every part says that it is well; Notion may ask for a moment, as the mirror has just written to it."""
    deadline = time.monotonic() + HEALTHY_SECONDS
    while True:
        checks = (await client.get(f"{trial.stack.addresses.web}/health/ready")).json()["checks"]
        wrong = [f"/health/ready: {name}: {said}" for name, said in checks.items() if said != "ok"]
        if not wrong or time.monotonic() > deadline:
            trial.say(f"ready: {', '.join(checks)}" if not wrong else "not ready")
            return wrong
        await asyncio.sleep(5)


def _written(trial: Trial, before: Mapping[str, tuple[int, float]]) -> list[str]:
    """Files that the services have changed or left outside of the image's /tmp."""
    after = trial.image.files()
    changed = sorted(name for name in {*before, *after} if before.get(name) != after.get(name))
    own = trial.image.at("/tmp")  # noqa: S108
    left = [
        path for folder in OPEN_TO_ALL for path in _owned(Path(folder), trial.image.user) if own not in path.parents
    ]
    trial.say(f"written: {len(changed)} files of the image changed, {len(left)} left outside of its /tmp")
    return [f"the image's file {name} was changed" for name in changed] + [f"{path} was left behind" for path in left]


def _owned(folder: Path, user: int | None) -> list[Path]:
    if os.geteuid() != 0 or not folder.is_dir():
        return []
    found = []
    for top, folders_, names in os.walk(folder):
        # What trials beside this one do, or one that was killed has left, is none of this one's.
        folders_[:] = [name for name in folders_ if not name.startswith(FOLDER)]
        for name in (*folders_, *names):
            path = Path(top) / name
            try:
                if path.lstat().st_uid == user:
                    found.append(path)
            except FileNotFoundError:
                continue
    return [path for path in found if path.name != "tmp" or path.parent.name != "image"]
