"""Puts the parts together: the only place, beside the entrances, that knows concrete classes."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parseaddr

from tidings.adapters.calcom import Calcom
from tidings.adapters.calendly import Calendly
from tidings.adapters.deadman import DeadmanUrl
from tidings.adapters.notion import Notion
from tidings.adapters.prefect import RUNS_PATIENCE_SECONDS, PrefectRuns
from tidings.adapters.prefect_api import PATIENCE_SECONDS, PAUSES, open_api
from tidings.adapters.resend import Resend
from tidings.adapters.stripe import Stripe
from tidings.campaign import Campaigns, load_campaigns
from tidings.deliver import Delivery, Identity
from tidings.ledger import Ledger
from tidings.ledger.memory import Memory
from tidings.logs import redact_all_logs
from tidings.metrics import counting
from tidings.mirror import Mirror
from tidings.model import Template
from tidings.notion_schema import Database, databases
from tidings.pace import Pace
from tidings.redact import hide
from tidings.settings import PrefectAccess, Settings
from tidings.tls import share_contexts
from tidings.unsubscribe import Links


def utc_now() -> datetime:
    """The clock. Passed in wherever time matters, so that tests can hold it."""
    return datetime.now(UTC)


#: For how long a run works with the copy that it has fetched: from trying it to sending it.
COPY_SECONDS = 30.0


class NotionCopy:
    """The templates database as the use cases see it."""

    def __init__(self, notion: Notion, database: str) -> None:
        self._notion = notion
        self._database = database
        self._kept: dict[str, tuple[float, Template]] = {}

    async def templates(self, names: Sequence[str]) -> dict[str, Template]:
        """Templates as they stand now; what this very run has fetched a moment ago is not fetched again."""
        now = time.monotonic()
        stale = [n for n in names if n not in self._kept or now - self._kept[n][0] > COPY_SECONDS]
        if stale:
            fetched = await self._notion.templates(self._database, stale)
            self._kept |= {name: (now, template) for name, template in fetched.items()}
        return {name: self._kept[name][1] for name in names}


class NotionProjects:
    """The customer projects database as the use cases see it."""

    SETTING = "NOTION_CUSTOMER_PROJECTS_DB_ID"

    def __init__(self, notion: Notion, database: str) -> None:
        self._notion = notion
        self._database = database

    async def portal_url(self, email: str) -> str | None:
        """The address in the customer's `Portal` property, else the customer's published Notion page."""
        name = await self._notion.property_name(self.SETTING, self._database, "email")
        rows = await self._notion.query(
            self.SETTING, self._database, filter={"property": name, "email": {"equals": email}}, page_size=1
        )
        if not rows:
            return None
        given = rows[0]["properties"].get("Portal") or {}
        return given.get("url") or rows[0].get("public_url")


@dataclass
class App:
    """One process's parts."""

    settings: Settings
    campaigns: Campaigns
    ledger: Ledger
    notion: Notion
    resend: Resend
    runs: PrefectRuns
    copy: NotionCopy
    projects: NotionProjects | None
    calendar: Calcom | None
    calendly: Calendly | None
    stripe: Stripe | None
    links: Links
    delivery: Delivery
    mirror: Mirror


@asynccontextmanager
async def open_app(
    settings: Settings, *, campaigns: Campaigns | None = None, at_the_door: bool = False
) -> AsyncIterator[App]:
    """Everything a process needs, closed again at the end. From here on its secrets are in no log and no error.

    `at_the_door`: webhooks wait for their answer, so a Prefect that is away is not waited for.
    """
    hide(settings.secrets)
    redact_all_logs()
    share_contexts()
    campaigns = campaigns or load_campaigns(settings.campaign_folders)
    ledger = Ledger(settings.async_database_url)
    notion = Notion(
        token=settings.notion_token.get_secret_value(),
        api_url=settings.notion_api_url,
        memory=Memory(ledger),
        requests_per_second=settings.notion_requests_per_second,
    )
    resend = Resend(api_key=settings.resend_api_key.get_secret_value(), api_url=settings.resend_api_url)
    links = Links(secret=settings.secret_key.get_secret_value(), public_url=settings.public_url, sender=settings.sender)
    copy = NotionCopy(notion, settings.notion_templates_db_id)
    customers = settings.notion_customer_projects_db_id
    projects = NotionProjects(notion, customers) if customers else None
    cal_key = settings.calcom_api_key
    calendar = Calcom(cal_key.get_secret_value(), settings.calcom_api_url) if cal_key else None
    token, stripe_key = settings.calendly_token, settings.stripe_api_key
    calendly = Calendly(token.get_secret_value(), settings.calendly_api_url) if token else None
    stripe = Stripe(stripe_key.get_secret_value(), settings.stripe_api_url) if stripe_key else None
    mirror = Mirror(ledger, notion, mirrored(settings, campaigns))
    access = PrefectAccess.load(prefect_api_url=settings.prefect_api_url)
    async with open_api(access, pauses=() if at_the_door else PAUSES) as api:
        deployments = {c.name: c.send_deployment for c in campaigns.values()}
        runs = PrefectRuns(api, deployments, patience=PATIENCE_SECONDS if at_the_door else RUNS_PATIENCE_SECONDS)
        turns = Pace(ledger, Memory(ledger), rate=settings.resend_requests_per_second)
        who = identity(settings)
        delivery = Delivery(ledger, campaigns, copy, resend, links, who, lease=settings.lease_seconds, turns=turns)
        parts = App(
            settings=settings,
            campaigns=campaigns,
            ledger=ledger,
            notion=notion,
            resend=resend,
            runs=runs,
            copy=copy,
            projects=projects,
            calendar=calendar,
            calendly=calendly,
            stripe=stripe,
            links=links,
            delivery=delivery,
            mirror=mirror,
        )
        try:
            async with counting(ledger):
                yield parts
        finally:
            if calendly:
                await calendly.close()
            await resend.close()
            await notion.close()
            await ledger.close()


def notion_databases(settings: Settings, campaigns: Campaigns) -> list[tuple[Database, str | None]]:
    """Every Notion database with its id from the settings, None where an optional one is not set."""
    longest = max(len(s.steps) for c in campaigns.values() for s in c.sequences)
    return [(database, getattr(settings, database.field)) for database in databases(longest)]


def mirrored(settings: Settings, campaigns: Campaigns) -> dict[str, tuple[Database, str]]:
    """The databases by their setting's field, those that are set."""
    return {d.field: (d, given) for d, given in notion_databases(settings, campaigns) if given}


def deadman_of(settings: Settings) -> DeadmanUrl | None:
    """Who is told outside of how canaries fare, where anybody is."""
    return DeadmanUrl(settings.deadman_url.get_secret_value()) if settings.deadman_url else None


def identity(settings: Settings) -> Identity:
    """Who the mails come from, for header and footer."""
    name, address = parseaddr(settings.sender)
    return Identity(
        sender=settings.sender,
        name=settings.sender_name or name or address,
        postal_address=settings.postal_address,
        reply_to=settings.reply_to,
    )
