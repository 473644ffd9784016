"""Contacts whose mails are due at a chosen moment, put into the ledger by the product's own functions."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Protocol
from uuid import uuid4

from tidings.bench.site import person
from tidings.campaign import load_campaigns
from tidings.ledger import Ledger, inbox, mails
from tidings.local.stack import Stack
from tidings.model import Arrival, ContactFacts, EventState, MessageState, Plan, PlannedMessage
from tidings.settings import ROOT

CHUNK = 500
SOURCE = "christmas-signup"
HANDLER = "christmas-signup-handler"


class Place(Protocol):
    """Where to seed: a running stack, and somebody who hears of the progress."""

    @property
    def stack(self) -> Stack: ...
    def say(self, text: str, /) -> None: ...


async def seed(site: Place, count: int, template: str, due: list[datetime]) -> None:
    """One mail each for this many new contacts; `due` is gone through in turn."""
    campaign = load_campaigns([ROOT / "campaigns"])["christmas"]
    sequence = campaign.sequence_of_template(template)
    position = sequence.templates.index(template) + 1
    variables = dict(next(iter(campaign.samples.values())))
    ledger = Ledger(site.stack.addresses.database(scheme="postgresql+asyncpg"))
    try:
        for start in range(0, count, CHUNK):
            numbers = range(start, min(start + CHUNK, count))
            now = datetime.now(UTC)
            arrivals = [arrival(now, person("wave")) for _ in numbers]
            async with ledger.transaction() as connection:
                await inbox.accept(connection, arrivals)
                events = {e.id: e for e in await inbox.lock_events(connection, [a.id for a in arrivals])}
                plans = [
                    Plan(
                        event_id=arrival.id,
                        contact_id=events[arrival.id].contact_id or uuid4(),
                        campaign=campaign.name,
                        sequence=sequence.name,
                        key=f"bench:{arrival.id}",
                        segment="OPTIMIZE",
                        variables=variables,
                        anchor=now,
                        received_at=now,
                        testing_minute=None,
                        messages=(_planned(position, template, due[number % len(due)]),),
                    )
                    for number, arrival in zip(numbers, arrivals, strict=True)
                ]
                await mails.enrol(connection, plans, now)
                await inbox.settle_events(connection, [a.id for a in arrivals], EventState.HANDLED, now)
            site.say(f"seeding: {numbers.stop} of {count}")
    finally:
        await ledger.close()


def _planned(position: int, template: str, due: datetime) -> PlannedMessage:
    return PlannedMessage(position, template, due, due, MessageState.SCHEDULED)


def arrival(now: datetime, email: str, deployment: str = HANDLER) -> Arrival:
    """A signup as it would be taken in."""
    return Arrival(
        id=uuid4(),
        source=SOURCE,
        key=email,
        campaign="christmas",
        deployment=deployment,
        body="{}",
        contact=ContactFacts(email=email, first_name="Ada", business_name=None, consent=True, attributes={}),
        received_at=now,
        ignored_because=None,
        testing_minute=None,
    )
