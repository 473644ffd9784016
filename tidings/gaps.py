"""Take in what never arrived as a webhook: from the services' own lists, once, as the webhook would have said it.

What is known already is recognised by the event's key, and where a list cannot show that (a webhook's own time) by
what the event says: of a booking, a no-show or a payment that the ledger has, it is no news. A webhook that comes late
after all is a repeat by the same two.
"""

from __future__ import annotations

import asyncio
import json
import logging
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Protocol

from sqlalchemy.ext.asyncio import AsyncConnection

from tidings.accept import Intake, arrivals
from tidings.alerts import Finding
from tidings.campaign import Campaign, Campaigns, Webhook
from tidings.ledger import Ledger, facts, inbox
from tidings.ledger.memory import Memory, oldest_trace
from tidings.model import (
    Arrival,
    Booking,
    BookingFact,
    BookingState,
    Fact,
    Found,
    MilestoneFact,
    MilestoneKind,
    Scheme,
    Subscription,
)

log = logging.getLogger("tidings.gaps")

KIND = "reconciliation"
NAMES = {Scheme.CALENDLY: "Calendly", Scheme.CALCOM: "Cal.com", Scheme.STRIPE: "Stripe"}
#: How old what is over may be to be taken in still. The last no-show mail is due two days after the call: what is three
#: days old comes out of the blue. Whoever has paid waits for a word, and is not surprised by it within a week.
LOOK_BACK = {Scheme.CALENDLY: timedelta(days=3), Scheme.CALCOM: timedelta(days=3), Scheme.STRIPE: timedelta(days=7)}
#: Remembers since when the ledger is there: nothing from before is taken in.
SET_UP = "reconciled-from"


class Source(Protocol):
    """A service with a list of what its webhooks tell of."""

    scheme: Scheme

    async def found(self, since: datetime, now: datetime) -> list[Found]:
        """What has happened since then, and what is ahead."""
        ...


class Subscriptions(Protocol):
    """A service that posts to whoever has subscribed."""

    async def subscriptions(self) -> list[Subscription]: ...
    async def subscribe(self, url: str, events: Sequence[str], signing_key: str) -> None: ...
    async def unsubscribe(self, uri: str) -> None: ...


@dataclass(frozen=True)
class Checked:
    """What one step of a reconciliation found and did: lines for people, and findings that somebody should know of."""

    notes: tuple[str, ...] = ()
    findings: tuple[Finding, ...] = ()
    #: Events that were taken in, subscriptions that were made anew, and whatever else differed.
    taken: int = 0
    remade: int = 0
    differences: int = 0


@dataclass(frozen=True)
class Scope:
    """How far back to look, and whether to change anything. `since`: an operator's own word, which overrules both."""

    now: datetime
    since: datetime | None = None
    dry_run: bool = False


@dataclass
class _Sorted:
    """What a list has shown, told apart."""

    news: list[Arrival] = field(default_factory=list)
    known: int = 0
    old: int = 0
    unreadable: Counter[str] = field(default_factory=Counter)


@dataclass(frozen=True)
class Gaps:
    """Closes the gap between a service's own list and the inbox."""

    ledger: Ledger
    intake: Intake
    campaigns: Campaigns
    testing_minute: float | None

    async def close(self, source: Source, scope: Scope) -> Checked:
        """Take in what is news, and hand it to Prefect. Raises what the source raises, and LedgerUnavailable."""
        set_up = await self._set_up(scope)
        since = scope.since or scope.now - LOOK_BACK[source.scheme]
        found = await source.found(since, scope.now)
        recent = [each for each in found if not _too_old(each, set_up, since, scope)]
        told = _Sorted(old=len(found) - len(recent))
        read = self._read(source.scheme, recent, scope.now, told)
        async with self.ledger.reading() as connection:
            told.news = await _news(connection, read)
        told.known = len(read) - len(told.news)
        if not scope.dry_run:
            await self._take_in(told.news)
        return _checked(source.scheme, told, scope)

    async def _set_up(self, scope: Scope) -> datetime:
        """Since when the ledger is there, as its oldest trace tells when this is first asked."""
        memory = Memory(self.ledger)
        if (known := await memory.recall(SET_UP)) is not None:
            return datetime.fromisoformat(known)
        async with self.ledger.reading() as connection:
            first = min(await oldest_trace(connection) or scope.now, scope.now)
        if not scope.dry_run:
            await memory.remember(SET_UP, first.isoformat())
        return first

    def _read(self, scheme: Scheme, found: Sequence[Found], now: datetime, told: _Sorted) -> list[Arrival]:
        """As events of every webhook that takes this service's bodies, in the order in which they happened."""
        read: list[Arrival] = []
        for campaign, webhook in taking(self.campaigns, scheme):
            for each in sorted(found, key=lambda one: one.at):
                body = json.dumps(each.body, ensure_ascii=False)
                try:
                    read += self._arrivals(campaign, webhook, body, scheme, now)
                except ValueError as error:  # pydantic's, which quotes what the body holds: only its kind is told
                    told.unreadable[type(error).__name__] += 1
                    log.warning("gap.unreadable", extra={"source": webhook.path, "origin": scheme.value})
        return [each for each in read if each.facts]

    def _arrivals(
        self, campaign: Campaign, webhook: Webhook, body: str, scheme: Scheme, now: datetime
    ) -> list[Arrival]:
        payload = webhook.read(body)
        minute = self.testing_minute
        return arrivals(
            campaign, webhook, payload, body=body, key=None, now=now, testing_minute=minute, origin=scheme.value
        )

    async def _take_in(self, news: Sequence[Arrival]) -> None:
        receipts = await asyncio.gather(*[self.intake.take(each) for each in news])
        for arrival, receipt in zip(news, receipts, strict=True):
            log.warning("gap.taken_in", extra={"source": arrival.source, "origin": arrival.origin,
                                               "event_id": str(receipt.event_id)})  # fmt: skip
            if receipt.flow_run_id is None and receipt.dispatch_id is not None:
                await self.intake.dispatch(arrival.deployment, receipt.dispatch_id)


def taking(campaigns: Campaigns, scheme: Scheme) -> Iterator[tuple[Campaign, Webhook]]:
    """The webhooks that take a service's own bodies."""
    for campaign, webhook in campaigns.webhooks:
        if any(native.scheme is scheme for native in webhook.natives):
            yield campaign, webhook


def _too_old(each: Found, set_up: datetime, since: datetime, scope: Scope) -> bool:
    """Nothing from before the ledger was there. What is about a meeting ahead is never old; all else soon is."""
    if scope.since is not None:
        return each.at < scope.since
    ahead = each.starts_at is not None and each.starts_at > scope.now
    return each.at < set_up or (each.at < since and not ahead)


async def _news(connection: AsyncConnection, read: Sequence[Arrival]) -> list[Arrival]:
    """Of these, those that the ledger does not know, neither by key nor by what they say."""
    said = [fact for each in read for fact in each.facts]
    bookings = await facts.bookings(connection, sorted({f.key for f in said if isinstance(f, BookingFact)}))
    paid = await facts.known_milestones(connection, sorted({f.key for f in said if isinstance(f, MilestoneFact)}))
    stored = await inbox.on_record(connection, read)
    return [
        each
        for each in read
        if each.id not in stored and any(_is_news(fact, each.received_at, bookings, paid) for fact in each.facts)
    ]


def _is_news(fact: Fact, now: datetime, bookings: Mapping[str, Booking], paid: set[tuple[MilestoneKind, str]]) -> bool:
    if isinstance(fact, MilestoneFact):
        return (fact.kind, fact.key) not in paid
    known = bookings.get(fact.key)
    if known is None:
        return fact.state is not BookingState.ATTENDED  # what nobody has said needs no taking back
    if known.state is BookingState.MOVED or (fact.said_at or now) <= known.said_at:
        return False
    moved = fact.state is BookingState.BOOKED and fact.starts_at != known.starts_at
    return fact.state is not known.state or moved


def _checked(scheme: Scheme, told: _Sorted, scope: Scope) -> Checked:
    would = "would be taken in" if scope.dry_run else "taken in"
    by_path = Counter(each.source for each in told.news)
    notes = [f"{count} {would} for {path}" for path, count in sorted(by_path.items())]
    notes += [f"{told.known} known already"] if told.known else []
    notes += [f"{told.old} too old"] if told.old else []
    notes += [f"{sum(told.unreadable.values())} not understood"] if told.unreadable else []
    findings = [_unreadable(scheme, told)] if told.unreadable else []
    findings += [_missed(scheme, by_path, scope.now)] if told.news else []
    return Checked(tuple(notes or ["nothing"]), tuple(findings), taken=len(told.news))


def _missed(scheme: Scheme, by_path: Counter[str], now: datetime) -> Finding:
    name, count = NAMES[scheme], by_path.total()
    many, were = ("event has", "was") if count == 1 else ("events have", "were")
    look = " and ".join(f"tidings events list --source {path}" for path in sorted(by_path))
    return Finding(
        kind=KIND,
        subject=f"{scheme.value}/{now:%Y-%m-%dT%H:%M}",
        title=f"{count} {many} never arrived from {name} and {were} found in its list",
        body=f"They were taken in, and their mails go out as if they had arrived. See: {look}. When it goes on, the "
        f"webhook at {name} does not reach this server: look at its deliveries there, and at PUBLIC_URL.",
        lasting=False,
    )


def _unreadable(scheme: Scheme, told: _Sorted) -> Finding:
    name, count = NAMES[scheme], told.unreadable.total()
    return Finding(
        kind=KIND,
        subject=f"{scheme.value}/unreadable",
        title=f"{count} of {name}'s list cannot be understood",
        body=f"They are in no form that the campaign's models for {name} take, so they cannot be taken in. Has {name} "
        "changed its API? The log says which webhook they are for (gap.unreadable).",
    )


# -- subscriptions -----------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Wanted:
    """The subscriptions that should be there: what each address is told of, and what signs it."""

    events: Mapping[str, tuple[str, ...]]
    signing_key: str | None
    #: Whether the service can reach these addresses.
    reachable: bool = True


async def mend_subscriptions(service: Subscriptions, wanted: Wanted, scope: Scope) -> Checked:
    """Make anew what Calendly has switched off, or lost: it does so after a day of failures, and tells nobody (F22)."""
    there = await service.subscriptions()
    done = [await _mend(service, wanted, url, [s for s in there if s.url == url], scope) for url in wanted.events]
    return Checked(
        notes=tuple(note for each in done for note in each.notes),
        findings=tuple(finding for each in done for finding in each.findings),
        remade=sum(each.remade for each in done),
    )


async def _mend(
    service: Subscriptions, wanted: Wanted, url: str, there: Sequence[Subscription], scope: Scope
) -> Checked:
    events = wanted.events[url]
    active = [each for each in there if each.active]
    if active:
        return _lacking(url, frozenset(events).difference(*[each.events for each in active]))
    what = "was switched off" if there else "was missing"
    if not wanted.reachable or wanted.signing_key is None:
        return Checked((f"{url} {what}, and cannot be made anew",), (_helpless(what, wanted),))
    if scope.dry_run:
        return Checked((f"{url} {what}, and would be made anew",))
    for each in there:
        await service.unsubscribe(each.uri)
    await service.subscribe(url, events, wanted.signing_key)
    log.warning("subscription.remade", extra={"url": url, "what": what})
    return Checked((f"{url} {what}, and was made anew",), (_remade(what, url, scope.now),), remade=1)


def _lacking(url: str, lacking: frozenset[str]) -> Checked:
    if not lacking:
        return Checked((f"{url} is active",))
    names = ", ".join(sorted(lacking))
    finding = Finding(
        kind=KIND,
        subject="calendly-subscription/events",
        title="Calendly's webhook subscription does not tell of everything",
        body=f"It lacks {names}, which are found by reconciliation alone, up to an hour late. Delete it at Calendly, "
        "and run: tidings reconcile, which makes it anew.",
    )
    return Checked((f"{url} lacks {names}",), (finding,))


def _helpless(what: str, wanted: Wanted) -> Finding:
    cure = (
        "Set CALENDLY_SIGNING_KEYS: without a key Calendly signs nothing, and what is not signed is refused."
        if wanted.reachable
        else "Set PUBLIC_URL to the https address under which Calendly reaches this server."
    )
    return Finding(
        kind=KIND,
        subject="calendly-subscription/helpless",
        title=f"Calendly's webhook subscription {what}, and cannot be made anew",
        body=f"{cure} Until then bookings and no-shows come in by reconciliation alone, up to an hour late.",
    )


def _remade(what: str, url: str, now: datetime) -> Finding:
    path = url.rpartition("/")[2]
    return Finding(
        kind=KIND,
        subject=f"calendly-subscription/{path}/{now:%Y-%m-%dT%H:%M}",
        title=f"Calendly's webhook subscription {what}; it was made anew",
        body="Calendly switches a subscription off after 24 h without a delivery that succeeds, and tells nobody. What "
        f"happened meanwhile is taken in from its list. See: tidings events list --source {path}; and look why "
        "deliveries failed: an answer of 401 means another signing key, none means that PUBLIC_URL was not reached.",
        lasting=False,
    )
