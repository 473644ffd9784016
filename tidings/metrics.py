"""Figures for Prometheus: what this process has counted goes into the ledger, and the ledger is what is shown.

So every server shows the same, of all processes and hosts together, whoever was started anew or has ended since.
"""

from __future__ import annotations

import asyncio
import json
import logging
import time
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from datetime import timedelta
from itertools import product

from prometheus_client import CollectorRegistry
from prometheus_client.exposition import choose_encoder
from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from tidings import counts
from tidings.campaign import Campaigns
from tidings.errors import LedgerUnavailable
from tidings.ledger import Ledger
from tidings.ledger import metrics as ledger_metrics
from tidings.ledger.metrics import KINDS, OUTCOMES, SENT, Figures, labels

log = logging.getLogger("tidings.metrics")

#: How often a process adds to the ledger what it has counted; what it loses when it is killed is no older.
WRITE_SECONDS = 5.0
#: For how long figures are shown again before the ledger is asked anew.
FRESH_SECONDS = 5.0


async def write(ledger: Ledger) -> None:
    """Add to the ledger what this process has counted. Kept for the next time when the ledger is away."""
    if not (taken := counts.take()):
        return
    written = False
    try:
        async with ledger.transaction() as connection:
            await ledger_metrics.add(connection, taken.added)
            await ledger_metrics.put(connection, taken.said)
        written = True
    finally:
        if not written:
            counts.give_back(taken)


@asynccontextmanager
async def counting(ledger: Ledger) -> AsyncIterator[None]:
    """While in here, what this process counts is in the ledger a few seconds later, and all of it at the end."""
    writing = asyncio.create_task(_write_always(ledger))
    try:
        yield
    finally:
        writing.cancel()
        with suppress(asyncio.CancelledError):
            await writing
        with suppress(LedgerUnavailable):  # figures are lost then, and no work
            await write(ledger)


async def _write_always(ledger: Ledger) -> None:
    while True:
        await asyncio.sleep(WRITE_SECONDS)
        try:
            await write(ledger)
        except LedgerUnavailable as error:
            log.warning("metrics.unwritten", extra={"error": str(error)})


class Board:
    """The figures as Prometheus reads them; the ledger is asked by one at a time, and seldom."""

    def __init__(self, ledger: Ledger, campaigns: Campaigns, *, late: timedelta) -> None:
        self._ledger = ledger
        self._internal = campaigns.internal
        self._names = _Names.of(campaigns.for_people)
        self._late = late
        self._lock = asyncio.Lock()
        self._known: tuple[float, Figures | None] = (float("-inf"), None)

    async def text(self, accept: str) -> tuple[bytes, str]:
        """The page, and its content type, in the form that the reader asks for."""
        async with self._lock:
            if time.monotonic() - self._known[0] > FRESH_SECONDS:
                self._known = (time.monotonic(), await self._ask())
        registry = CollectorRegistry()
        registry.register(_Page(self._known[1], self._names))
        encode, kind = choose_encoder(accept)
        return encode(registry), kind

    async def _ask(self) -> Figures | None:
        try:
            await write(self._ledger)
            async with self._ledger.transaction() as connection:
                await ledger_metrics.sum_up(connection)
            async with self._ledger.reading() as connection:
                await connection.execution_options(isolation_level="REPEATABLE READ")
                return await ledger_metrics.read(connection, self._internal, self._late)
        except LedgerUnavailable as error:
            log.warning("metrics.unknown", extra={"error": str(error)})
            return None


@dataclass(frozen=True)
class _Names:
    """What there are figures of from the beginning: to Prometheus, a figure that was not there has not grown."""

    sources: tuple[str, ...]
    #: (campaign, template)
    templates: tuple[tuple[str, str], ...]

    @classmethod
    def of(cls, campaigns: Campaigns) -> _Names:
        return cls(
            tuple(w.path for _, w in campaigns.webhooks),
            tuple((c.name, template) for c in campaigns.values() for template in c.templates),
        )

    def counted(self) -> dict[tuple[str, str], float]:
        answers = (("accepted", "200"), ("refused", "500"), ("refused", "503"))
        webhooks = {
            (counts.WEBHOOKS, labels(source=source, result=result, status=status)): 0.0
            for source in (*self.sources, "resend")
            for result, status in answers
        }
        sent = {(SENT, labels(campaign=campaign, template=template)): 0.0 for campaign, template in self.templates}
        campaigns = {campaign for campaign, _ in self.templates}
        outcomes = {(OUTCOMES, labels(campaign=campaign, kind=kind)): 0.0 for campaign in campaigns for kind in KINDS}
        return {**webhooks, **sent, **outcomes}


class _Page(Collector):
    """Figures as metrics. Without any, only that the ledger is away."""

    def __init__(self, figures: Figures | None, names: _Names) -> None:
        self._figures = figures
        self._names = names

    def collect(self) -> Iterator[Metric]:
        up = "Whether the ledger answers; without it there are no other figures"
        yield GaugeMetricFamily("tidings_ledger_up", up, value=1.0 if self._figures else 0.0)
        if self._figures:
            yield from _counted({**self._names.counted(), **self._figures.counted})
            yield from _events(self._figures, self._names)
            yield from _messages(self._figures, self._names)
            yield from _watched(self._figures)


def _counted(counted: Mapping[tuple[str, str], float]) -> Iterator[Metric]:
    """What processes have counted, under the words with which they do, and the sums of the ledger itself."""
    sent = CounterMetricFamily(SENT, "Mails that Resend has taken", labels=["campaign", "template"])
    outcomes = CounterMetricFamily(
        OUTCOMES, "What Resend has reported of these mails; one mail has several", labels=["campaign", "kind"]
    )
    families: list[Metric] = [sent, outcomes, *(_empty(family) for family in counts.PROCESS.collect())]
    ending = {"counter": ("_total",), "histogram": ("_bucket", "_sum", "_count"), "gauge": ("",)}
    by_sample = {family.name + end: family for family in families for end in ending[family.type]}
    for (name, kept), value in sorted(counted.items(), key=_in_order):
        if family := by_sample.get(name):  # what an older version counted is left where it is
            family.add_sample(name, json.loads(kept), value)
    yield from families


def _in_order(item: tuple[tuple[str, str], float]) -> tuple[str, list[tuple[str, str]], float]:
    """Buckets of a histogram one after the other, by what they hold."""
    (name, kept), _ = item
    of = json.loads(kept)
    le = float(of.pop("le", "inf"))
    return name.removesuffix("_bucket"), sorted(of.items()), le


def _empty(family: Metric) -> Metric:
    return Metric(family.name, family.documentation, family.type)


def _events(figures: Figures, names: _Names) -> Iterator[Metric]:
    events = GaugeMetricFamily(
        "tidings_events",
        "Events that wait for their run (accepted, dispatched) or for a person (failed, quarantined)",
        labels=["source", "state"],
    )
    states = ("accepted", "dispatched", "failed", "quarantined")
    found = {(row.source, row.state): row.times for row in (*figures.waiting, *figures.stuck)}
    for key, times in {**dict.fromkeys(product(names.sources, states), 0), **found}.items():
        events.add_metric(key, times)
    yield events
    oldest = max((float(row.age) for row in figures.waiting), default=0.0)
    words = "Age of the oldest event that was taken in and not yet handled"
    yield GaugeMetricFamily("tidings_inbox_oldest_age_seconds", words, value=oldest)


def _messages(figures: Figures, names: _Names) -> Iterator[Metric]:
    each = ["campaign", "template"]
    due = GaugeMetricFamily("tidings_messages_due", "Mails whose time has come and that have not left", labels=each)
    late = GaugeMetricFamily("tidings_messages_late", "Mails due for longer than LATE_AFTER_MINUTES", labels=each)
    none = dict.fromkeys(names.templates, (0, 0))
    waiting = {(row.campaign, row.template): (row.times, row.late) for row in figures.due}
    for key, (times, too_late) in {**none, **waiting}.items():
        due.add_metric(key, times)
        late.add_metric(key, too_late)
    yield due
    yield late
    oldest = max((float(row.age) for row in figures.due), default=0.0)
    words = "For how long the mail that waits longest has been due"
    yield GaugeMetricFamily("tidings_messages_overdue_seconds", words, value=oldest)
    failed = GaugeMetricFamily(
        "tidings_messages_failed", "Mails that wait for a person: failed or unknown", labels=[*each, "state"]
    )
    found = {(row.campaign, row.template, row.state): row.times for row in figures.failed}
    all_zero = {(*key, state): 0 for key in names.templates for state in ("failed", "unknown")}
    for labelled, times in {**all_zero, **found}.items():
        failed.add_metric(labelled, times)
    yield failed


def _watched(figures: Figures) -> Iterator[Metric]:
    alerts = GaugeMetricFamily("tidings_alerts_open", "Alerts that are open now (tidings alerts)", labels=["kind"])
    for row in figures.alerts:
        alerts.add_metric([row.kind], row.times)
    yield alerts
    canary = figures.canary
    for name, words, value in (
        ("last_start_timestamp_seconds", "When the last canary was sent", canary.started),
        ("last_return_timestamp_seconds", "When a canary has last come back", canary.returned),
        ("duration_seconds", "How long the last canary was under way that has come back", canary.took),
        ("ok", "1: the last canary that is over has come back; 0: it was lost", canary.back),
    ):
        family = GaugeMetricFamily(f"tidings_canary_{name}", words)
        if value is not None:
            family.add_metric([], float(value))
        yield family
