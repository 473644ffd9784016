"""The Christmas campaign on the real ledger: takes bodies in, handles them, and looks at what became of them."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any
from uuid import UUID, uuid4

from fakes import FakeRuns
from sqlalchemy import text

from tidings.accept import arrivals
from tidings.adapters.calcom import Calcom
from tidings.campaign import load_campaigns
from tidings.deliver import Delivery, Selection, Sent, send_next
from tidings.enrol import Enrolled, enrol, schedule
from tidings.errors import RetryLater
from tidings.ledger import Ledger, inbox
from tidings.model import Receipt, Template
from tidings.settings import ROOT

CAMPAIGNS = load_campaigns([ROOT / "campaigns"])
CHRISTMAS = CAMPAIGNS["christmas"]
NOW = datetime(2026, 12, 1, 12, tzinfo=UTC)
SETTINGS = {"calendly_link": "https://calendly.com/busos", "portal_url": "https://portal.busos.test"}


class StarterCopy:
    """The campaign's own copy, as if it stood in Notion."""

    async def templates(self, names: Sequence[str]) -> dict[str, Template]:
        return {n: Template(n, *CHRISTMAS.starter(n), page_id=n, edited_at="") for n in names}


@dataclass
class Inn:
    """Takes bodies in and handles them."""

    ledger: Ledger
    runs: FakeRuns = field(default_factory=FakeRuns)
    calendar: Calcom | None = None

    async def take(self, path: str, body: dict[str, Any], *, at: datetime = NOW) -> list[UUID]:
        """Stored, not handled yet."""
        return [r.event_id for r in await self.receive(path, body, at=at)]

    async def receive(
        self, path: str, body: dict[str, Any], *, at: datetime = NOW, key: str | None = None
    ) -> list[Receipt]:
        """What the sender of a webhook is told."""
        webhook = CHRISTMAS.webhook(path)
        raw = json.dumps(body)
        payload = webhook.read(raw)
        found = arrivals(CHRISTMAS, webhook, payload, key=key, body=raw, now=at, testing_minute=None)
        async with self.ledger.transaction() as connection:
            return await inbox.accept(connection, found)

    async def handle(self, ids: list[UUID], *, at: datetime = NOW) -> Enrolled:
        done = await enrol(self.ledger, StarterCopy(), CAMPAIGNS, SETTINGS, ids, at, calendar=self.calendar)
        await schedule(self.ledger, self.runs, ids, at, lambda _: None)
        return done

    async def post(self, path: str, body: dict[str, Any], *, at: datetime = NOW) -> Enrolled:
        return await self.handle(await self.take(path, body, at=at), at=at)

    async def send(self, until: datetime, delivery: Delivery) -> Sent:
        """All that is due by then, as far as the sender lets it go."""
        total, run = Sent(), uuid4()
        try:
            while done := await send_next(delivery, Selection("christmas", until), run):
                total.add(done)
        except RetryLater:
            pass
        return total

    async def rows(self, query: str) -> list[Any]:
        async with self.ledger.reading() as connection:
            return list((await connection.execute(text(query))).all())

    async def mails(self) -> list[tuple[str, str, datetime]]:
        rows = await self.rows("SELECT template, state, due_at FROM message ORDER BY template")
        return [(row.template, row.state, row.due_at) for row in rows]

    async def waiting(self) -> dict[str, datetime]:
        return {template: due for template, state, due in await self.mails() if state == "scheduled"}

    async def reasons(self) -> set[str | None]:
        return {row.reason for row in await self.rows("SELECT reason FROM message WHERE state <> 'scheduled'")}

    async def events(self) -> list[tuple[str, str | None]]:
        rows = await self.rows("SELECT state, reason FROM event ORDER BY received_at, id")
        return [(row.state, row.reason) for row in rows]
