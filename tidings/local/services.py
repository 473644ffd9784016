"""The commands of the stack's processes, and when each counts as ready."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx

from tidings.campaign import load_campaigns
from tidings.local import environment
from tidings.local.config import HOST, Step
from tidings.local.environment import Addresses
from tidings.local.errors import NotReady
from tidings.local.folder import DataFolder
from tidings.local.processes import Command, Probe
from tidings.model import Scheme
from tidings.settings import ROOT, Settings, folders

PYTHON = sys.executable
#: The check asks every outside service and gives each of them its own time.
READINESS_SECONDS = 20.0


def prefect(addresses: Addresses, folder: DataFolder, env: Mapping[str, str]) -> Command:
    # uvicorn itself rather than `prefect server start`: 1.5 s less, and one process to stop
    args = [PYTHON, "-m", "uvicorn", "--factory", "prefect.server.api.server:create_app"]
    args += ["--host", HOST, "--port", str(addresses.config.prefect_port), "--log-level", "warning"]
    args += ["--timeout-graceful-shutdown", "2"]

    async def ready() -> None:
        await _get(f"{addresses.prefect_api}/health")
        await _get(f"{addresses.prefect_api}/ready")

    return Command(
        name="prefect",
        args=args,
        env={**env, **environment.prefect_server(addresses, folder)},
        cwd=folder.run,
        log=folder.log("prefect"),
        ready=ready,
        timeout=120,
    )


def sandbox(addresses: Addresses, folder: DataFolder, env: Mapping[str, str]) -> Command:
    options = {
        "host": HOST,
        "port": str(addresses.config.sandbox_port),
        "data": str(folder.sandbox),
        "webhook-url": f"{addresses.web}/webhook/resend",
        "webhook-secret": environment.webhook_secret(folder),
        "signup-url": f"{addresses.web}/webhook/christmas-signup",
        **_senders(addresses, environment.product(addresses, folder)),
        **addresses.config.sandbox_options,
    }
    return Command(
        name="sandbox",
        args=[PYTHON, "-m", "tidings.sandbox", *(part for k, v in options.items() for part in (f"--{k}", v))],
        env=env,
        cwd=folder.run,
        log=folder.log("sandbox"),
        ready=answering(f"{addresses.sandbox}/control/health"),
        timeout=30,
    )


#: The sandbox's options for each service that posts a campaign's webhooks: the address, and what it signs with.
SENDERS = {
    Scheme.CALENDLY: ("calendly-webhook-url", "calendly-signing-key"),
    Scheme.CALCOM: ("calcom-webhook-url", "calcom-webhook-secret"),
    Scheme.STRIPE: ("stripe-webhook-url", "stripe-webhook-secret"),
}


def _senders(addresses: Addresses, env: Mapping[str, str]) -> dict[str, str]:
    """Where the calendars and Stripe post in the sandbox: to the campaigns' webhooks, signed as the web server asks."""
    options: dict[str, str] = {}
    for _, webhook in load_campaigns(folders(env.get("CAMPAIGNS_DIRS") or "campaigns")).webhooks:
        for native in webhook.natives:
            if native.scheme in SENDERS and SENDERS[native.scheme][0] not in options:
                url, secret = SENDERS[native.scheme]
                options[url] = f"{addresses.web}/webhook/{webhook.path}"
                options[secret] = environment.first(env, Settings.secret_name(native.scheme))
    return options


def web(addresses: Addresses, folder: DataFolder, env: Mapping[str, str]) -> Command:
    config = addresses.config
    args = [PYTHON, "-m", "uvicorn", "server:app", "--host", HOST, "--port", str(config.web_port)]
    args += ["--workers", str(config.web_workers), "--timeout-graceful-shutdown", "3", "--app-dir", str(ROOT)]
    return Command(
        name="web",
        args=args,
        env=env,
        cwd=_where(addresses, folder),
        log=folder.log("web"),
        ready=answering(f"{addresses.web}/health"),
    )


def worker(name: str, addresses: Addresses, folder: DataFolder, env: Mapping[str, str], known: set[str]) -> Command:
    """`known` are the workers that other starts stand for; each start has a name of its own in Prefect."""
    since = datetime.now(UTC)

    async def ready() -> None:
        """A worker is ready when Prefect has had a heartbeat of it; those of earlier ones do not count."""
        fresh = await online_workers(addresses.prefect_api, since) - known
        if not fresh:
            raise NotReady("Prefect knows of no new worker that is online")
        known.add(min(fresh))

    return Command(
        name=name,
        args=[PYTHON, "-m", "tidings", "worker"],
        env=env,
        cwd=_where(addresses, folder),
        log=folder.log(name),
        ready=ready,
        grace=5,
    )


#: What follows `python -m tidings` for each step; {…} is filled in by the stack.
STEP_ARGUMENTS: dict[Step, tuple[str, ...]] = {
    Step.MIGRATE: ("migrate",),
    Step.NOTION_INIT: ("notion", "init", "--parent", "{parent}", "--write", "{notion_env}"),
    Step.TEMPLATES: ("templates", "push"),
    Step.DEPLOY: ("deploy",),
}


def step(which: Step, addresses: Addresses, folder: DataFolder, env: Mapping[str, str], **values: str) -> Command:
    arguments = [part.format(**values) for part in STEP_ARGUMENTS[which]]
    return Command(
        name=which.value,
        args=[PYTHON, "-m", "tidings", *arguments],
        env=env,
        # notion init makes what .env has no ids of: ids there are those of a real Notion
        cwd=folder.run if which is Step.NOTION_INIT else _where(addresses, folder),
        log=folder.log(which.value),
        timeout=120,
    )


def _where(addresses: Addresses, folder: DataFolder) -> Path:
    """The checkout with its .env, or where there is none."""
    return folder.run if addresses.config.isolated else ROOT


async def notion_root(addresses: Addresses) -> str:
    """The page of the sandbox's Notion that new databases go below."""
    return str((await _get(f"{addresses.sandbox}/control/health"))["notion_root_page_id"])


async def online_workers(prefect_api: str, since: datetime) -> set[str]:
    """The names of workers that Prefect has heard of since then."""
    async with _client() as client:
        try:
            answer = await client.post(
                f"{prefect_api}/work_pools/{environment.WORK_POOL}/workers/filter", json={"limit": 200}
            )
        except httpx.TransportError as error:
            raise NotReady(f"Prefect does not answer: {error}") from None
    if answer.status_code != httpx.codes.OK:
        raise NotReady(f"Prefect answers {answer.status_code} for the work pool {environment.WORK_POOL!r}")
    return {
        worker["name"]
        for worker in answer.json()
        if worker["status"] == "ONLINE" and datetime.fromisoformat(worker["last_heartbeat_time"]) > since
    }


async def not_ready(addresses: Addresses) -> list[str]:
    """What still stands between a webhook and a mail, as the web server's own check sees it."""
    async with _client(READINESS_SECONDS) as client:
        try:
            answer = await client.get(f"{addresses.web}/health/ready")
        except httpx.TransportError as error:
            return [f"web: does not answer: {error or type(error).__name__}"]
    checks = answer.json()["checks"].items()
    return [f"{name}: {said}" for name, said in checks if said != "ok" and not said.startswith("unknown:")]


def answering(url: str) -> Probe:
    async def ready() -> None:
        await _get(url)

    return ready


async def _get(url: str) -> Any:
    async with _client() as client:
        try:
            answer = await client.get(url)
        except httpx.TransportError as error:
            raise NotReady(f"{url} does not answer: {error or type(error).__name__}") from None
    if answer.status_code != httpx.codes.OK:
        raise NotReady(f"{url} answers {answer.status_code}: {answer.text[:500]}")
    return answer.json()


def _client(timeout: float = 5) -> httpx.AsyncClient:
    return httpx.AsyncClient(timeout=timeout, trust_env=False)  # trust_env: no proxy between local processes
