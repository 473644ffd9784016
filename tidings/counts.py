"""What a process counts of what it does, and leaves no other trace of: webhooks, requests, calls, the ends of runs.

Kept by prometheus-client in memory, and added to the ledger every few seconds and at the process's end
(tidings.metrics): so the figures are those of all processes together, of the many short-lived ones of runs too.
Labels are names of ours, of routes and of services; never a word from outside.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache
from typing import Any

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

PROCESS = CollectorRegistry()
#: Of a sample: its name, and its labels as JSON.
Key = tuple[str, str]

QUICK = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
LONG = (0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0)

WEBHOOKS = "tidings_webhooks_total"
_webhooks = Counter(
    WEBHOOKS,
    "Webhooks answered, by route, by what became of them (accepted, duplicate, ignored, blocked, refused), and status",
    ["source", "result", "status"],
    registry=PROCESS,
)
_answered = Histogram(
    "tidings_webhook_duration_seconds",
    "From a webhook's headers to its answer",
    ["source"],
    buckets=QUICK,
    registry=PROCESS,
)
_requests = Counter(
    "tidings_http_requests", "Requests other than webhooks, by route", ["route", "status"], registry=PROCESS
)
_calls = Counter(
    "tidings_provider_requests",
    "Calls to a service; the status is HTTP's, or none where no answer came",
    ["service", "status"],
    registry=PROCESS,
)
_call_seconds = Histogram(
    "tidings_provider_request_duration_seconds",
    "From a call to a service to its answer",
    ["service"],
    buckets=QUICK,
    registry=PROCESS,
)
_limit = Gauge(
    "tidings_provider_rate_limit", "Requests in a window that a service last said it allows", ["service"],
    registry=PROCESS,
)  # fmt: skip
_remaining = Gauge(
    "tidings_provider_rate_limit_remaining",
    "Requests that a service last said are left of its window",
    ["service"],
    registry=PROCESS,
)
_quota = Gauge(
    "tidings_provider_quota_used",
    "What a service last said is used of its quota, in mails",
    ["service", "period"],
    registry=PROCESS,
)
_runs = Histogram(
    "tidings_run_duration_seconds",
    "From a run's first line to its last, by deployment and by how it ended (completed or failed)",
    ["deployment", "result"],
    buckets=LONG,
    registry=PROCESS,
)

_webhook = cache(lambda *labels: _webhooks.labels(*labels))  # prometheus-client's own look-up takes a lock
_answer = cache(lambda source: _answered.labels(source))


def webhook(source: str, result: str, status: int, seconds: float) -> None:
    """A webhook was answered. On its hot path: two dictionaries and two sums."""
    _webhook(source, result, status).inc()
    _answer(source).observe(seconds)


def request(route: str, status: int) -> None:
    """Any other request was answered. `route` is the path's pattern, not the path."""
    _requests.labels(route, status).inc()


def call(service: str, status: int | None, seconds: float) -> None:
    """A service was called; `status` is None when there was no answer."""
    _calls.labels(service, status or "none").inc()
    _call_seconds.labels(service).observe(seconds)


#: What services say of their limits in headers of their answers, and what it means here.
_SAID: Mapping[str, tuple[Gauge, tuple[str, ...]]] = {
    "ratelimit-limit": (_limit, ()),
    "ratelimit-remaining": (_remaining, ()),
    "x-resend-daily-quota": (_quota, ("daily",)),
    "x-resend-monthly-quota": (_quota, ("monthly",)),
}


def limits(service: str, headers: Mapping[str, str]) -> None:
    """What the headers of an answer say of the service's limits."""
    for name, (gauge, labels) in _SAID.items():
        if (value := headers.get(name, "")).isdecimal():
            gauge.labels(service, *labels).set(int(value))


@contextmanager
def run(deployment: str) -> Iterator[None]:
    """A run, from here to the end of the block."""
    began, result = time.perf_counter(), "failed"
    _runs.labels(deployment, "failed")  # there from the first run on, so that the first failure is seen as one more
    try:
        yield
        result = "completed"
    finally:
        _runs.labels(deployment, result).observe(time.perf_counter() - began)


@dataclass(frozen=True)
class Taken:
    """What has been counted since it was last taken."""

    added: Mapping[Key, float] = field(default_factory=dict)
    said: Mapping[Key, float] = field(default_factory=dict)

    def __bool__(self) -> bool:
        return bool(self.added or self.said)


_taken: dict[Key, float] = {}


def take() -> Taken:
    """What is new; whoever takes it adds it to the ledger, or gives it back."""
    added: dict[Key, float] = {}
    said: dict[Key, float] = {}
    for family in PROCESS.collect():
        for key, value in _samples(family):
            before = _taken.get(key)  # a bucket that is empty counts, too: it is there from its histogram's beginning
            if value != before:
                _taken[key] = value
                if family.type == "gauge":
                    said[key] = value
                else:
                    added[key] = value - (before or 0.0)
    return Taken(added, said)


def give_back(taken: Taken) -> None:
    """The ledger has not taken it, so it is taken again next time."""
    for key, value in taken.added.items():
        _taken[key] -= value
    for key in taken.said:
        _taken.pop(key, None)


def _samples(family: Any) -> Iterator[tuple[Key, float]]:
    for sample in family.samples:
        if not sample.name.endswith("_created"):  # when a process first counted it: nothing of all together
            yield (sample.name, json.dumps(sample.labels, sort_keys=True)), sample.value
