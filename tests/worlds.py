"""A small world of real parts: the ledger, Notion and Resend as the sandbox speaks them, and Prefect's fake."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

import resend as sdk
from fakes import FakeRuns
from sandbox_process import Sandbox
from sqlalchemy import text
from winter import CAMPAIGNS, HELLO, MEETING, WINTER

from tidings import enrol as enrolling
from tidings.accept import arrival
from tidings.adapters.notion import BODY, SUBJECT, TITLE, Notion, rich_text
from tidings.adapters.resend import Resend
from tidings.campaign import Campaigns
from tidings.deliver import Delivery, Identity, Selection, Sent, send_next
from tidings.ledger import Ledger, inbox
from tidings.model import Arrival, Receipt
from tidings.ports import Sender, Turns
from tidings.replay import Wanted, replay
from tidings.unsubscribe import Links
from tidings.wiring import NotionCopy

TABLES = (
    "alert",
    "canary",
    "form_limit",
    "form_tally",
    "metric",
    "outcome",
    "suppression",
    "memo",
    "message",
    "claim",
    "enrolment",
    "booking",
    "milestone",
    "event",
    "dispatch",
    "contact",
)
IDENTITY = Identity("Tidings <hello@tidings.test>", "Tidings", "1 Example Street, Toronto", None)
LINKS = Links(secret="s" * 32, public_url="https://t.tidings.test", sender=IDENTITY.sender)
RICH: dict[str, Any] = {"rich_text": {}}
COPY = {
    name: (f"{name} for {{{{ first_name | default('you') }}}}", "<p>Hello {{ first_name | default('you') }}</p>")
    for name in (*HELLO, *MEETING)
}


def now() -> datetime:
    return datetime.now(UTC)


def address(outcome: str = "delivered") -> str:
    """A test recipient of its own."""
    return f"{outcome}+{uuid4().hex[:12]}@resend.dev"


async def replay_named(ledger: Ledger, runs: FakeRuns, campaigns: Campaigns, *event_ids: UUID) -> dict[UUID, str]:
    """What became of events that an operator names."""
    pages = replay(ledger, runs, campaigns, Wanted(event_ids), now=now())
    return {event_id: what async for page in pages for event_id, what in page.told.items()}


async def make_templates(
    notion: Notion, box: Sandbox, copy: Mapping[str, tuple[str, str]], properties: Mapping[str, Any] | None = None
) -> str:
    """A new templates database with these pages (subject, body); returns its id."""
    root = box.get("health")["notion_root_page_id"]
    wanted = properties or {TITLE: {"title": {}}, SUBJECT: RICH, BODY: RICH}
    database, _ = await notion.create_database(root, "Templates", wanted)
    for name, (subject, body) in copy.items():
        await add_template(notion, database, name, subject, body)
    return database


async def add_template(notion: Notion, database: str, name: str, subject: str, body: str) -> str:
    values = {
        TITLE: {"title": rich_text(name)},
        SUBJECT: {"rich_text": rich_text(subject)},
        BODY: {"rich_text": rich_text(body)},
    }
    return await notion.create_row("NOTION_TEMPLATES_DB_ID", database, values)


@dataclass
class World:
    """What a use case is given, and looks at its effects."""

    ledger: Ledger
    box: Sandbox
    notion: Notion
    resend: Resend
    runs: FakeRuns
    templates_id: str
    campaigns: Campaigns = field(default_factory=lambda: CAMPAIGNS)

    @property
    def copy(self) -> NotionCopy:
        """A new one each time, as each Prefect run has."""
        return NotionCopy(self.notion, self.templates_id)

    def delivery(
        self, *, identity: Identity = IDENTITY, sender: Sender | None = None, turns: Turns | None = None
    ) -> Delivery:
        return Delivery(
            self.ledger, self.campaigns, self.copy, sender or self.resend, LINKS, identity, lease=120.0, turns=turns
        )

    # -- acting ------------------------------------------------------------------------------------------------

    def arrival(self, path: str = "winter-hello", *, at: datetime | None = None, **body: Any) -> Arrival:
        webhook = WINTER.webhook(path)
        body = {"email": address(), **body}
        payload = webhook.payload.model_validate(body)
        raw = json.dumps(body, default=str)
        return arrival(WINTER, webhook, payload, body=raw, key=None, now=at or now(), testing_minute=None)

    async def accept(self, *arrivals: Arrival) -> list[Receipt]:
        async with self.ledger.transaction() as connection:
            return await inbox.accept(connection, arrivals)

    async def enrol(self, *event_ids: UUID, at: datetime | None = None) -> enrolling.Enrolled:
        return await enrolling.enrol(self.ledger, self.copy, self.campaigns, {}, event_ids, at or now())

    async def enrolled(self, count: int = 1, *, ago: timedelta = timedelta(0), **body: Any) -> list[str]:
        """Contacts whose first mail is due now; returns their addresses."""
        then = now() - ago
        arrivals = [self.arrival(at=then, **body) for _ in range(count)]
        await self.accept(*arrivals)
        done = await self.enrol(*[a.id for a in arrivals], at=then)
        assert len(done.new) == count
        return [a.contact.email for a in arrivals if a.contact]

    async def send(
        self, *, template: str = HELLO[0], run: UUID | None = None, delivery: Delivery | None = None
    ) -> list[Sent]:
        """Claim after claim until nothing is due, as one Prefect run does."""
        selection = Selection("winter", now() + timedelta(seconds=1), template=template)
        delivery, run, done = delivery or self.delivery(), run or uuid4(), []
        while (sent := await send_next(delivery, selection, run)) is not None:
            done.append(sent)
        return done

    async def edit_template(self, name: str, *, subject: str | None = None, body: str | None = None) -> None:
        rows = await self.notion.query("NOTION_TEMPLATES_DB_ID", self.templates_id)
        page = next(r["id"] for r in rows if r["properties"][TITLE]["title"][0]["plain_text"] == name)
        values = {SUBJECT: subject, BODY: body}
        await self.notion.update_row(page, {k: {"rich_text": rich_text(v)} for k, v in values.items() if v is not None})

    # -- looking -----------------------------------------------------------------------------------------------

    async def rows(self, query: str, **values: Any) -> list[Any]:
        async with self.ledger.reading() as connection:
            return list((await connection.execute(text(query), values)).all())

    async def run_sql(self, statement: str, **values: Any) -> None:
        async with self.ledger.transaction() as connection:
            await connection.execute(text(statement), values)

    async def messages(self, template: str = HELLO[0]) -> list[Any]:
        return await self.rows("SELECT * FROM message WHERE template = :t ORDER BY id", t=template)

    async def message(self, template: str = HELLO[0]) -> Any:
        (row,) = await self.messages(template)
        return row

    async def events(self) -> list[Any]:
        return await self.rows("SELECT * FROM event ORDER BY received_at, id")

    async def event(self) -> Any:
        (row,) = await self.events()
        return row

    def inbox(self) -> list[dict[str, Any]]:
        return self.box.inbox(limit=1000)

    def mailed(self) -> list[str]:
        """Who got a mail, once for each."""
        return sorted(mail["to"][0] for mail in self.inbox())

    def calls(self, path: str = "/emails") -> list[dict[str, Any]]:
        """What Resend was asked, in order."""
        found = self.box.get("requests", service="resend", limit=10_000)["data"]
        return [r for r in found if r["path"].startswith(path)]


@dataclass
class Clients:
    """Notion's and Resend's adapters, pointed at the sandbox."""

    notion: Notion
    resend: Resend
    resend_settings: dict[str, Any]


@asynccontextmanager
async def open_clients(box: Sandbox) -> AsyncIterator[Clients]:
    notion = Notion(token="ntn_test", api_url=f"{box.url}/notion", requests_per_second=1000)
    resend = Resend(api_key="re_test", api_url=f"{box.url}/resend", timeout=5)
    names = ("api_key", "api_url", "default_async_http_client")
    try:
        yield Clients(notion, resend, {name: getattr(sdk, name) for name in names})
    finally:
        await resend.close()
        await notion.close()


def other_sender(sender: str) -> Identity:
    return replace(IDENTITY, sender=sender)
