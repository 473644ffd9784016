"""The environment that the stack's processes see: what the stack decides, over what the user has set."""

from __future__ import annotations

import os
import shlex
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from datetime import timedelta

from tidings.local import postgres
from tidings.local.config import HOST, Part, StackConfig
from tidings.local.folder import DataFolder
from tidings.settings import ROOT, SAMPLE, Settings

#: Marks every process of one stack, however deep: the keeper ends those that are left.
MARK = "TIDINGS_STACK"
LOCAL_ADDRESSES = "127.0.0.1,localhost"
WORK_POOL = "tidings"
#: For how long Prefect keeps runs that have ended, here as in the deployment files, and how often it looks for older.
RUNS_KEPT = timedelta(days=30)
CLEANING_SECONDS = 30.0
#: Shown in the footer of the sandbox's mails; unmistakably not a real place.
SAMPLE_POSTAL_ADDRESS = f"Sample Street 1, 00000 Sampletown ({SAMPLE})"


#: Variables that are a setting of the product, or name a file with one.
SETTINGS = frozenset(f"{name.upper()}{end}" for name in Settings.model_fields for end in ("", "_FILE"))
NOTION_IDS = frozenset(name for name in SETTINGS if name.startswith("NOTION_") and name.endswith("_DB_ID"))


@dataclass(frozen=True)
class Addresses:
    """Where everything answers, once the ports are settled."""

    config: StackConfig
    postgres_password: str

    @property
    def web(self) -> str:
        return f"http://{HOST}:{self.config.web_port}"

    @property
    def prefect(self) -> str:
        return f"http://{HOST}:{self.config.prefect_port}"

    @property
    def prefect_api(self) -> str:
        return f"{self.prefect}/api"

    @property
    def sandbox(self) -> str:
        return f"http://{HOST}:{self.config.sandbox_port}"

    def database(self, name: str = "tidings", *, scheme: str = "postgresql") -> str:
        return postgres.url(self.config.postgres_port, self.postgres_password, name, scheme=scheme)


def base_environment(environ: Mapping[str, str], mark: str, *, without: Collection[str]) -> dict[str, str]:
    """For every process: the user's own, without settings of Prefect, which belong to another server."""
    kept = {n: value for n, value in environ.items() if not n.startswith("PREFECT_") and n not in without}
    python_path = os.pathsep.join(filter(None, [str(ROOT), environ.get("PYTHONPATH")]))
    no_proxy = ",".join(filter(None, [environ.get("NO_PROXY") or environ.get("no_proxy"), LOCAL_ADDRESSES]))
    return kept | {
        MARK: mark,
        "NO_PROXY": no_proxy,
        "no_proxy": no_proxy,
        "PYTHONPATH": python_path,
        "PYTHONUNBUFFERED": "1",
    }


def prefect_server(addresses: Addresses, folder: DataFolder) -> dict[str, str]:
    return _prefect_home(folder) | {
        "PREFECT_API_URL": addresses.prefect_api,
        "PREFECT_UI_API_URL": addresses.prefect_api,
        "PREFECT_API_DATABASE_CONNECTION_URL": addresses.database("prefect", scheme="postgresql+asyncpg"),
        "PREFECT_SERVER_API_HOST": HOST,
        "PREFECT_SERVER_API_PORT": str(addresses.config.prefect_port),
        "PREFECT_LOGGING_LEVEL": "WARNING",
        "PREFECT_SERVER_LOGGING_LEVEL": "WARNING",
        # Prefect's own cleaning of runs, logs and artifacts; the ledger keeps every mail.
        "PREFECT_SERVER_SERVICES_DB_VACUUM_ENABLED": "events,flow_runs",
        "PREFECT_SERVER_SERVICES_DB_VACUUM_RETENTION_PERIOD": str(int(RUNS_KEPT.total_seconds())),
        "PREFECT_SERVER_SERVICES_DB_VACUUM_LOOP_SECONDS": f"{CLEANING_SECONDS:g}",
        "PREFECT__SERVER_FINAL": "1",  # what `prefect server start` says to create_app
    }


def product(addresses: Addresses, folder: DataFolder) -> dict[str, str]:
    """For the web server, the worker and the steps."""
    config = addresses.config
    made = _prefect_home(folder) | {
        "DATABASE_URL": addresses.database(),
        "PREFECT_API_URL": addresses.prefect_api,
        "PREFECT_SERVER_ALLOW_EPHEMERAL_MODE": "false",
        "WORK_POOL": WORK_POOL,
    }
    if config.testing is not None:
        made["TESTING_MODE"] = str(config.testing).lower()
        made["TESTING_MINUTE_SECONDS"] = f"{config.testing_minute:g}"
    if config.campaigns_dirs is not None:
        made["CAMPAIGNS_DIRS"] = config.campaigns_dirs
    if Part.SANDBOX in config.started:
        made |= _sandboxed(addresses, folder)
    return {**made, **config.env}


def _prefect_home(folder: DataFolder) -> dict[str, str]:
    return {"PREFECT_HOME": str(folder.prefect), "PREFECT_SERVER_ANALYTICS_ENABLED": "false"}


def _sandboxed(addresses: Addresses, folder: DataFolder) -> dict[str, str]:
    """The providers are the sandbox, whatever keys and addresses .env has."""
    sandbox = addresses.sandbox
    port = addresses.config.sandbox_port
    return {
        "NOTION_TOKEN": "ntn_sandbox",
        "NOTION_API_URL": f"{sandbox}/notion",
        "RESEND_API_KEY": "re_sandbox",
        "RESEND_API_URL": f"{sandbox}/resend",
        "RESEND_WEBHOOK_SECRET": webhook_secret(folder),
        "SENDER": "Tidings Demo <hello@tidings.test>",
        "POSTAL_ADDRESS": SAMPLE_POSTAL_ADDRESS,
        "SECRET_KEY": folder.secret("secret-key"),
        "WEBHOOK_TOKENS": webhook_token(folder),
        "CALENDLY_TOKEN": "sandbox",
        "CALENDLY_API_URL": f"{sandbox}/calendly",
        "CALENDLY_SIGNING_KEYS": folder.secret("calendly-signing"),
        "CALCOM_API_KEY": "cal_sandbox",
        "CALCOM_API_URL": f"{sandbox}/calcom",
        "CALCOM_WEBHOOK_SECRETS": folder.secret("calcom-webhook"),
        "STRIPE_API_KEY": "rk_sandbox",
        "STRIPE_API_URL": f"{sandbox}/stripe",
        "STRIPE_WEBHOOK_SECRETS": folder.secret("stripe-webhook", prefix="whsec_"),
        "PUBLIC_URL": addresses.web,
        "CANARY_HOURS": "0",  # nobody waits for a laptop's; `tidings canary` sends one
        "CORS_ORIGINS": f"http://{HOST}:{port},http://localhost:{port}",
        "CALENDLY_LINK": f"{sandbox}/#book",
        "PORTAL_URL": f"{sandbox}/#portal",
        "PDF_DOWNLOAD_LINK": f"{sandbox}/#report",
        **folder.notion_ids(),
    }


def webhook_secret(folder: DataFolder) -> str:
    return folder.secret("resend-webhook", prefix="whsec_")


def webhook_token(folder: DataFolder) -> str:
    """What a sender shows to the sandboxed stack."""
    return folder.secret("webhook-token")


def first(values: Mapping[str, str], name: str) -> str:
    """Of a setting that lists secrets, the one that is in use."""
    return values.get(name, "").partition(",")[0].strip()


def bearer(values: Mapping[str, str]) -> dict[str, str]:
    """The header that lets a sender in who knows this environment; nothing where none is needed."""
    token = first(values, "WEBHOOK_TOKENS")
    return {"authorization": f"Bearer {token}"} if token else {}


def shell_lines(values: Mapping[str, str]) -> str:
    """What a shell reads to get the same environment: `set -a; . stack.env; set +a`."""
    return "".join(f"{name}={shlex.quote(value)}\n" for name, value in sorted(values.items()))
