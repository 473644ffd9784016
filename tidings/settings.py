"""Every knob of Tidings, with its meaning. Read once, at the entrance of a process; never at import.

A value comes from the environment, else from the file that `<NAME>_FILE` names, else from `.env`, else from the
Prefect Secret block named beside it. What is wrong or missing is refused all at once.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import os
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar, cast
from urllib.parse import urlsplit

from dotenv import dotenv_values
from pydantic import Field, FilePath, Json, SecretStr, ValidationError, ValidationInfo, field_validator
from pydantic_core import ErrorDetails
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict

from tidings.errors import ConfigError
from tidings.model import Scheme

ROOT = Path(__file__).resolve().parent.parent
ENV_FILE = ".env"
#: A website as a browser names it in `Origin`; a slash at the end is forgiven.
ORIGIN = re.compile(r"^https?://[^\s/*?#@]+/?$")
#: Where the sandbox listens, and nothing that delivers mail.
LOOPBACK = frozenset({"127.0.0.1", "::1", "localhost"})
REAL_RESEND = "https://api.resend.com"
#: In the footer of the sandbox's mails; never of a real one's.
SAMPLE = "sample address of the sandbox"

#: The setting with the secrets of each kind of sender.
SECRETS = {
    Scheme.BEARER: "webhook_tokens",
    Scheme.STANDARD: "standard_webhook_secrets",
    Scheme.CALENDLY: "calendly_signing_keys",
    Scheme.CALCOM: "calcom_webhook_secrets",
    Scheme.STRIPE: "stripe_webhook_secrets",
    Scheme.DOCUSIGN: "docusign_hmac_keys",
}


def setting(default: Any = ..., *, block: str | None = None, **kwargs: Any) -> Any:
    """A field whose value may also live in a Prefect Secret block."""
    extra: dict[str, Any] = {"prefect_block": block} if block else {}
    return Field(default, json_schema_extra=extra, **kwargs)


class Settings(BaseSettings):
    """One typed object for the whole product. Environment names are the field names in capitals."""

    model_config = SettingsConfigDict(
        env_file=ENV_FILE, env_file_encoding="utf-8", extra="ignore", frozen=True, env_ignore_empty=True
    )

    database_url: SecretStr = setting(
        description="PostgreSQL of the ledger, such as postgresql://user:password@host:5432/tidings"
    )
    prefect_api_url: str = setting(description="Prefect's API, such as http://prefect:4200/api")

    notion_token: SecretStr = setting(block="notion-token", description="Notion integration token (ntn_…)")
    notion_templates_db_id: str = setting(
        block="notion-email-templates-db-id", description="Notion database (or data source) of the templates"
    )
    notion_email_sequence_db_id: str = setting(
        block="notion-email-sequence-db-id", description="Notion database with one row an enrolment"
    )
    notion_contacts_db_id: str = setting(block="notion-businessx-db-id", description="Notion database of the contacts")
    notion_customer_projects_db_id: str | None = setting(
        None,
        block="notion-customer-projects-db-id",
        description="Notion database with a portal page a customer",
    )
    notion_email_analytics_db_id: str = setting(
        block="notion-email-analytics-db-id", description="Notion database with one row a send"
    )
    notion_api_url: str = setting("https://api.notion.com", description="Base address of Notion's API")
    notion_requests_per_second: float = setting(
        2.0,
        gt=0,
        description="How often the Notion mirror asks Notion, whose documented average is 3 a second: it leaves the "
        "rest to the copy of mails",
    )

    resend_api_key: SecretStr = setting(block="resend-api-key", description="Resend API key (re_…)")
    resend_api_url: str = setting(REAL_RESEND, description="Base address of Resend's API")
    resend_webhook_secret: SecretStr | None = setting(
        None,
        block="resend-webhook-secret",
        description="Signing secret (whsec_…) of the webhook at Resend that reports deliveries and bounces; several "
        "separated by commas while one is replaced",
    )
    resend_requests_per_second: float = setting(
        2.0,
        gt=0,
        description="Limit at Resend for the whole team; it follows Resend's ratelimit-limit header",
    )

    sender: str = setting(
        block="sender", description='From line of every mail, such as "Clinic <hello@mail.clinic.ca>"'
    )
    reply_to: str | None = setting(None, description="Where answers go, when not to the sender")
    sender_name: str | None = setting(None, description="Who sends, for the footer; else the name in SENDER")
    postal_address: str = setting(description="Postal address of the business, for the footer of every mail")

    secret_key: SecretStr = setting(
        block="tidings-secret-key",
        min_length=16,
        description="Signs unsubscribe links; any 32 random characters, kept for as long as mails are in the world",
    )
    public_url: str = setting(
        "http://127.0.0.1:8000",
        description="Address under which the world reaches this server, without a path",
    )
    cors_origins: str = setting("", description="Websites that may post from a browser, separated by commas")
    webhook_tokens: SecretStr | None = setting(
        None,
        block="webhook-tokens",
        description="Tokens that senders show as 'Authorization: Bearer …', separated by commas while one is replaced",
    )
    standard_webhook_secrets: SecretStr | None = setting(
        None,
        block="standard-webhook-secrets",
        description="Secrets (whsec_…) of senders that sign as Standard Webhooks does, separated by commas",
    )
    calendly_signing_keys: SecretStr | None = setting(
        None,
        block="calendly-signing-keys",
        description="Signing keys of the webhook subscriptions at Calendly, separated by commas",
    )
    calcom_webhook_secrets: SecretStr | None = setting(
        None, block="calcom-webhook-secrets", description="Secrets of the webhooks at Cal.com, separated by commas"
    )
    calcom_api_key: SecretStr | None = setting(
        None,
        block="calcom-api-key",
        description="Cal.com API key (cal_…): bookings and no-shows that never arrived are taken in, and what no "
        "webhook has told of a no-show's booking is looked up",
    )
    calcom_api_url: str = setting("https://api.cal.com", description="Base address of Cal.com's API")
    stripe_webhook_secrets: SecretStr | None = setting(
        None,
        block="stripe-webhook-secrets",
        description="Signing secrets (whsec_…) of the webhook endpoints at Stripe, separated by commas",
    )
    docusign_hmac_keys: SecretStr | None = setting(
        None, block="docusign-hmac-keys", description="HMAC keys of DocuSign Connect, separated by commas"
    )
    admin_token: SecretStr | None = setting(
        None, block="admin-token", description="Token of the operators' API under /api; without it that API is closed"
    )
    form_min_seconds: float = setting(
        2.0, ge=0, description="A public form sent sooner after it was shown (its form_seconds) is taken for a bot's"
    )
    form_fields_required: bool = setting(
        False, description="true refuses (422) a public form without form_trap and form_seconds"
    )
    form_limit_per_client: int = setting(
        60, ge=0, description="New public forms from one client address in 10 minutes, then 429; 0 sets no limit"
    )
    form_limit_per_email: int = setting(
        5, ge=0, description="New public forms with one email address in 10 minutes, then 429; 0 sets no limit"
    )
    trusted_proxies: int = setting(
        0,
        ge=0,
        description="Reverse proxies before this server that each add to X-Forwarded-For; 0 believes no such header",
    )
    turnstile_secret: SecretStr | None = setting(
        None, block="turnstile-secret", description="Secret key of Cloudflare Turnstile; public forms must then pass it"
    )
    hcaptcha_secret: SecretStr | None = setting(
        None, block="hcaptcha-secret", description="Secret key of hCaptcha; public forms must then pass it"
    )
    calendly_link: str | None = setting(None, description="Page where a contact books a call")
    portal_url: str | None = setting(None, description="Page where a customer finds their project")
    pdf_download_link: str | None = setting(None, description="Page where a contact downloads their report")

    alert_urls: SecretStr | None = setting(
        None,
        block="alert-urls",
        description="Where alerts go, as Apprise addresses (discord://…, mailto://…, ntfy://…), separated by commas; "
        "without any, alerts are only in the log and the ledger",
    )
    watch_seconds: float = setting(
        20.0, gt=0, description="How often everything is looked at that somebody is alerted of, in seconds"
    )
    late_after_minutes: float = setting(
        5.0, gt=0, description="A mail that is due for longer than this and has not left raises an alert"
    )
    bounce_rate_alert: float = setting(
        0.05, gt=0, le=1, description="Share of a day's mails that may bounce before an alert; Resend asks for 0.04"
    )
    complaint_rate_alert: float = setting(
        0.001, gt=0, le=1, description="Share of a day's mails that may be called spam before an alert"
    )
    canary_hours: float = setting(
        24.0, ge=0, description="How often a canary goes through the whole chain, in hours; 0 sends none"
    )
    deadman_url: SecretStr | None = setting(
        None,
        block="deadman-url",
        description="Address that is asked when a canary has come back, such as https://hc-ping.com/…; whoever "
        "watches it raises the alarm when it is not asked in time",
    )
    metrics_token: SecretStr | None = setting(
        None,
        block="metrics-token",
        description="Token that Prometheus shows at /metrics; without it /metrics answers in the sandbox only",
    )
    calendly_token: SecretStr | None = setting(
        None,
        block="calendly-token",
        description="Calendly access token: bookings and no-shows that never arrived are taken in, and a webhook "
        "subscription that Calendly has switched off is made anew",
    )
    calendly_api_url: str = setting("https://api.calendly.com", description="Base address of Calendly's API")
    stripe_api_key: SecretStr | None = setting(
        None,
        block="stripe-api-key",
        description="Stripe API key (rk_… that may read events and checkout sessions): payments that never arrived are "
        "taken in",
    )
    stripe_api_url: str = setting("https://api.stripe.com", description="Base address of Stripe's API")

    testing_mode: bool = setting(
        False, block="testing-mode", description="true makes every gap between mails one testing minute"
    )
    testing_minute_seconds: float = setting(60.0, gt=0, description="Length of a testing minute in seconds")

    campaigns_dirs: str = setting(
        "campaigns", description="Folders of campaigns, separated by commas, relative to the checkout"
    )
    work_pool: str = setting("tidings", description="Prefect work pool that the deployments run in")
    worker_concurrency: int = setting(4, ge=1, description="Flow runs that one worker runs at the same time")
    lease_seconds: float = setting(
        120.0, gt=0, description="After how long a claim of mails whose run died is taken over by another"
    )
    max_body_bytes: int = setting(256 * 1024, gt=0, description="Largest webhook body that is read, in bytes")
    log_json: bool = setting(False, description="true writes one JSON object a log line")

    @field_validator("database_url")
    @classmethod
    def _postgresql(cls, value: SecretStr) -> SecretStr:
        if not value.get_secret_value().startswith(("postgresql://", "postgres://", "postgresql+asyncpg://")):
            raise ValueError("must be a PostgreSQL address: postgresql://user:password@host:5432/name")
        return value

    @field_validator(
        "public_url",
        "notion_api_url",
        "resend_api_url",
        "calcom_api_url",
        "calendly_api_url",
        "stripe_api_url",
        "prefect_api_url",
    )
    @classmethod
    def _address(cls, value: str) -> str:
        if not value.startswith(("http://", "https://")):
            raise ValueError("must begin with http:// or https://")
        return value.rstrip("/")

    @field_validator("standard_webhook_secrets", "resend_webhook_secret")
    @classmethod
    def _base64(cls, value: SecretStr | None) -> SecretStr | None:
        for secret in value.get_secret_value().split(",") if value else ():
            try:
                text = secret.strip().removeprefix("whsec_")
                key = base64.b64decode(text + "=" * (-len(text) % 4), validate=True)
            except ValueError:
                key = b""
            if len(key) < 16:
                raise ValueError("must be whsec_ and then at least 16 bytes in base64, separated by commas")
        return value

    @field_validator("cors_origins")
    @classmethod
    def _websites(cls, value: str) -> str:
        for origin in filter(None, (part.strip() for part in value.split(","))):
            if not ORIGIN.match(origin):
                raise ValueError(
                    f"names {origin!r}; name each website as https://www.your-domain.example, without a path"
                )
        return value

    @field_validator("sender")
    @classmethod
    def _sender(cls, value: str) -> str:
        if "@" not in value or "\n" in value or "\r" in value:
            raise ValueError('must be an address such as "Clinic <hello@mail.clinic.ca>"')
        return value

    @field_validator("postal_address")
    @classmethod
    def _postal_address(cls, value: str, info: ValidationInfo) -> str:
        if not value.strip():
            raise ValueError("must be the postal address of the business, which the law asks for in every mail")
        if SAMPLE in value and not _local(info.data.get("resend_api_url", REAL_RESEND)):
            raise ValueError("is the sandbox's sample, and mails would leave through the real Resend")
        return value.strip()

    @field_validator("hcaptcha_secret")
    @classmethod
    def _one_captcha(cls, value: SecretStr | None, info: ValidationInfo) -> SecretStr | None:
        if value and info.data.get("turnstile_secret"):
            raise ValueError("and TURNSTILE_SECRET are both set; keep the one whose widget the form has")
        return value

    @property
    def secrets(self) -> set[str]:
        """Every secret value of this process, for `tidings.redact`."""
        found = PrefectAccess.load(prefect_api_url=self.prefect_api_url).secrets
        for name in type(self).model_fields:
            value = getattr(self, name)
            if isinstance(value, SecretStr):
                found |= {value.get_secret_value(), *value.get_secret_value().split(",")}
        found.add(self.canary_secret)
        found |= {word for text in (self.prefect_api_url, *found) for word in (urlsplit(text).password or "",)}
        return {secret.strip() for secret in found} - {""}

    @property
    def testing_minute(self) -> float | None:
        """Seconds of a testing minute, or None outside of testing."""
        return self.testing_minute_seconds if self.testing_mode else None

    @property
    def campaign_folders(self) -> list[Path]:
        return folders(self.campaigns_dirs)

    @property
    def canary_secret(self) -> str:
        """What canaries are signed with, as Standard Webhooks does. Derived, so that there is nothing to set."""
        key = hmac.new(self.secret_key.get_secret_value().encode(), b"tidings canary", hashlib.sha256).digest()
        return "whsec_" + base64.b64encode(key).decode()

    def secrets_of(self, scheme: Scheme) -> list[str]:
        """Every secret that a sender of this kind may have now: several while one is replaced."""
        return _several(getattr(self, SECRETS[scheme]))

    @property
    def resend_webhook_secrets(self) -> list[str]:
        """Every secret that Resend may sign its reports with now; none where it is not set."""
        return _several(self.resend_webhook_secret)

    @staticmethod
    def secret_name(scheme: Scheme) -> str:
        """The setting that holds them."""
        return SECRETS[scheme].upper()

    @property
    def real(self) -> bool:
        """Whether mails may reach real people: through Resend, or whatever stands before it. The sandbox is local."""
        return not _local(self.resend_api_url)

    @property
    def origins(self) -> list[str]:
        return [part.strip().rstrip("/") for part in self.cors_origins.split(",") if part.strip()]

    @property
    def facts(self) -> dict[str, Any]:
        """Template variables that are the same for every contact; unknown ones are left out."""
        known = {
            "calendly_link": self.calendly_link,
            "portal_url": self.portal_url,
            "pdf_download_link": self.pdf_download_link,
        }
        return {name: value for name, value in known.items() if value}

    @property
    def async_database_url(self) -> str:
        """DATABASE_URL in the form that SQLAlchemy's asyncpg driver takes."""
        return asyncpg_url(self.database_url.get_secret_value())

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        return init_settings, env_settings, dotenv_settings


def _several(value: SecretStr | None) -> list[str]:
    listed = value.get_secret_value() if value else ""
    return [part.strip() for part in listed.split(",") if part.strip()]


def load_settings(blocks: Callable[[list[str]], Mapping[str, str]] | None = None, **given: Any) -> Settings:
    """The settings of this process, or one ConfigError that lists everything wrong.

    `blocks` looks up Prefect Secret blocks by name and is asked only for what is not given elsewhere.
    """
    sources = _Sources.of(Settings)
    values = {**sources.files, **given}
    elsewhere = sources.names | values.keys()
    wanted = {block: name for name in Settings.model_fields if name not in elsewhere and (block := block_of(name))}
    if blocks and wanted and "prefect_api_url" in elsewhere:
        values |= {wanted[block]: value for block, value in blocks(sorted(wanted)).items() if value.strip()}
    return sources.build(Settings, values)


Some = TypeVar("Some", bound=BaseSettings)


@dataclass(frozen=True)
class _Sources:
    """What the process was given besides its environment, and what of that cannot be read."""

    #: Values of `<NAME>_FILE` variables, the way Docker and Kubernetes hand over secrets.
    files: Mapping[str, str]
    #: What is wrong with such files, by field.
    unread: Mapping[str, str]
    #: What is wrong with .env itself: then what it says is not known.
    env_problem: str | None

    @classmethod
    def of(cls, kind: type[BaseSettings]) -> _Sources:
        files: dict[str, str] = {}
        unread: dict[str, str] = {}
        for name in kind.model_fields:
            variable = f"{name.upper()}_FILE"
            path = os.environ.get(variable)
            if not path or os.environ.get(name.upper()):
                continue
            content, problem = _text_of(Path(path))
            if problem:
                unread[name] = f"{variable} names {path}{problem}"
            # An empty one counts as not set, like an empty variable: an empty token would let everybody in.
            files |= {name: content} if content else {}
        _, problem = _text_of(Path(ENV_FILE)) if Path(ENV_FILE).is_file() else ("", None)
        return cls(files, unread, f"There is {Path(ENV_FILE).absolute()}{problem}" if problem else None)

    @property
    def names(self) -> set[str]:
        """The fields that the environment, .env or a file give a value, or should."""
        lines = {**({} if self.env_problem else dotenv_values(ENV_FILE)), **os.environ}
        return {name.lower() for name, value in lines.items() if value} | self.unread.keys()

    def build(self, kind: type[Some], values: Mapping[str, Any]) -> Some:
        """The settings, or one ConfigError with every problem; what cannot be read is not called missing too."""
        problems = [*self.unread.values(), *([self.env_problem] if self.env_problem else [])]
        try:
            built = cast(Any, kind)(_env_file=None if self.env_problem else ENV_FILE, **values)
        except ValidationError as error:
            wrong = [e for e in error.errors(include_input=False) if not self._is_behind(e)]
            raise ConfigError([*problems, *_problems(kind, wrong)]) from None
        if problems:
            raise ConfigError(problems)
        return cast(Some, built)

    def _is_behind(self, error: ErrorDetails) -> bool:
        """Whether a value is only lacking because of where it should have come from."""
        names = {str(part) for part in error["loc"]}
        return error["type"] == "missing" and (self.env_problem is not None or bool(names & self.unread.keys()))


def _text_of(path: Path) -> tuple[str, str | None]:
    """What a file holds, or what is wrong with it."""
    try:
        return path.read_text(encoding="utf-8").strip(), None
    except OSError as error:
        return "", f", which cannot be read: {error.strerror}"
    except UnicodeDecodeError:
        return "", ", which is not UTF-8 text; save it as plain text in UTF-8"


def block_of(field: str) -> str | None:
    """The Prefect Secret block that may hold this field."""
    known = Settings.model_fields.get(field)
    extra = known.json_schema_extra if known else None
    block = extra.get("prefect_block") if isinstance(extra, dict) else None
    return str(block) if block else None


def _problems(kind: type[BaseSettings], errors: Iterable[ErrorDetails]) -> list[str]:
    """Each problem with the variable's name, what is wrong, and how to mend it."""
    lines = []
    for item in errors:
        name = str(item["loc"][0])
        field = Settings.model_fields.get(name, kind.model_fields[name])
        block = block_of(name)
        where = f"set {name.upper()}" + (f" or the Prefect Secret block {block!r}" if block else "")
        what = "is missing" if item["type"] == "missing" else item["msg"].removeprefix("Value error, ")
        lines.append(f"{name.upper()} {what}; {where}: {field.description}")
    return lines


class PrefectAccess(BaseSettings):
    """How Prefect's API is reached: of Prefect's own settings those that a client needs (docs.prefect.io, Settings)."""

    model_config = SettingsConfigDict(env_file=ENV_FILE, extra="ignore", frozen=True, env_ignore_empty=True)

    prefect_api_url: str
    prefect_api_auth_string: SecretStr | None = Field(None, description="user:password, as Prefect's server has it")
    prefect_api_key: SecretStr | None = Field(None, description="a key of Prefect Cloud")
    prefect_client_custom_headers: Json[dict[str, str]] = Field(
        "{}", validate_default=True, repr=False, description='headers for a proxy before it, as JSON: {"name": "value"}'
    )
    prefect_api_ssl_cert_file: FilePath | None = Field(
        None, description="a file with the authority that signed its certificate"
    )
    prefect_api_tls_insecure_skip_verify: bool = Field(False, description="true takes any certificate")

    @field_validator("prefect_api_url")
    @classmethod
    def _without_slash(cls, value: str) -> str:
        return value.rstrip("/")

    @property
    def secrets(self) -> set[str]:
        """For `tidings.redact`."""
        given = [each.get_secret_value() for each in (self.prefect_api_auth_string, self.prefect_api_key) if each]
        return {*given, *self.prefect_client_custom_headers.values(), urlsplit(self.prefect_api_url).password or ""}

    @classmethod
    def load(cls, **given: Any) -> PrefectAccess:
        """Raises ConfigError. What is given counts more than what the process was given."""
        sources = _Sources.of(cls)
        return sources.build(cls, {**sources.files, **given})


class NotionAccess(BaseSettings):
    """The few settings that `tidings notion init` needs, before the databases exist that the others name."""

    model_config = SettingsConfigDict(env_file=ENV_FILE, extra="ignore", frozen=True, env_ignore_empty=True)

    notion_token: SecretStr
    notion_api_url: str = "https://api.notion.com"
    campaigns_dirs: str = "campaigns"
    notion_templates_db_id: str | None = None
    notion_email_sequence_db_id: str | None = None
    notion_contacts_db_id: str | None = None
    notion_customer_projects_db_id: str | None = None
    notion_email_analytics_db_id: str | None = None

    @classmethod
    def load(cls) -> NotionAccess:
        """Raises ConfigError when the token is not set."""
        sources = _Sources.of(cls)
        return sources.build(cls, sources.files)

    @property
    def ids(self) -> dict[str, str | None]:
        """Database ids by field."""
        return {name: getattr(self, name) for name in type(self).model_fields if name.endswith("_db_id")}

    @property
    def campaign_folders(self) -> list[Path]:
        return folders(self.campaigns_dirs)


#: The campaign by which the chain shows that it works; it is there whatever the others are.
CANARY = ROOT / "campaigns" / "canary"


def folders(listed: str) -> list[Path]:
    """Folders separated by commas, relative ones from the checkout; the canary's is always among them."""
    found = [ROOT / part.strip() for part in listed.split(",") if part.strip()]
    there = any(folder.resolve() in {CANARY, CANARY.parent} for folder in found)
    return found if there else [*found, CANARY]


class _Campaigns(BaseSettings):
    model_config = SettingsConfigDict(env_file=ENV_FILE, extra="ignore", env_ignore_empty=True)

    campaigns_dirs: str = "campaigns"


def campaign_folders() -> list[Path]:
    """The folders of CAMPAIGNS_DIRS alone, for what is prepared before all settings are known."""
    sources = _Sources.of(_Campaigns)
    return folders(sources.build(_Campaigns, sources.files).campaigns_dirs)


class _Database(BaseSettings):
    model_config = SettingsConfigDict(env_file=ENV_FILE, extra="ignore", env_ignore_empty=True)

    database_url: SecretStr


def database_url() -> str:
    """DATABASE_URL alone, for migrations that run before anything else is set up; in asyncpg's form."""
    sources = _Sources.of(_Database)
    given = sources.build(_Database, sources.files)
    return asyncpg_url(given.database_url.get_secret_value())


def asyncpg_url(url: str) -> str:
    """A PostgreSQL address in the form that SQLAlchemy's asyncpg driver takes."""
    return "postgresql+asyncpg://" + url.split("://", 1)[1]


def _local(url: str) -> bool:
    """Whether an address is one of this very machine."""
    return urlsplit(url).hostname in LOOPBACK
