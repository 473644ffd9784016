"""What every run does around its work: its parts, its log lines, and a report; red with the reason when it failed."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any
from uuid import UUID

from prefect.artifacts import acreate_markdown_artifact
from prefect.client.schemas.objects import State
from prefect.logging.handlers import APILogHandler
from prefect.runtime import flow_run
from prefect.states import Completed

from tidings import counts, logs
from tidings.adapters.blocks import settings_of_this_process
from tidings.deliver import PATIENCE, Sent
from tidings.errors import RetryLater, TidingsError
from tidings.ledger.liveness import alive
from tidings.wiring import App, open_app, utc_now


class RunFailed(TidingsError):
    """Part of a run's work failed; the rest was done. The message says what and why."""


def run_id() -> UUID | None:
    """This run's id in Prefect."""
    return UUID(flow_run.id) if flow_run.id else None


@asynccontextmanager
async def running() -> AsyncIterator[App]:
    """The parts that a run works with. While in here it is known to be alive, its log lines carry its id and are in
    Prefect too, and how long it takes is counted."""
    settings = settings_of_this_process()
    logs.configure(as_json=settings.log_json)
    _tell_prefect()
    with logs.bound(run_id=flow_run.id):
        async with open_app(settings) as app, alive(app.ledger, run_id()):
            with counts.run(str(flow_run.flow_name)):
                yield app


def _tell_prefect() -> None:
    handler = APILogHandler()
    handler.setFormatter(logs.ShortFormatter())
    logging.getLogger("tidings").addHandler(handler)


async def report(key: str, title: str, sent: Sent, *, notes: list[str] | None = None) -> None:
    """What was sent, skipped and failed, where the dashboard shows it. Counts and reasons, no addresses."""
    rows = [("sent", "", sent.sent)]
    rows += [("skipped", reason, count) for reason, count in sorted(sent.skipped.items())]
    rows += [("failed", reason, count) for reason, count in sorted(sent.failed.items())]
    lines = [f"## {title}", "", *[f"- {n}" for n in notes or []], "", "| | why | mails |", "|---|---|---|"]
    lines += [f"| {what} | {cell(why)} | {count} |" for what, why, count in rows]
    await acreate_markdown_artifact("\n".join(lines), key=key, description=title)


def cell(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")


async def end(
    app: App, campaign: str, sent: Sent, errors: Sequence[Exception], extra: Mapping[str, int] | None = None
) -> State[Any] | None:
    """How a run that sends ends: red with the reason when something failed, `Deferred` when the rest has to wait."""
    waits = [error for error in errors if isinstance(error, RetryLater) and error.retry_after > PATIENCE]
    deferred = await _defer(app, campaign, max(waits, key=lambda error: error.retry_after)) if waits else None
    for error in errors:
        if error not in waits:
            raise error
    raise_failures(sent, extra)
    return deferred


async def _defer(app: App, campaign: str, error: RetryLater) -> State[Any]:
    """Give way to a later run, in plain sight: a used-up quota is no failure, and retrying would not help."""
    at, run = await app.runs.start_later(app.campaigns[campaign].send_deployment, error.retry_after, utc_now())
    return Completed(name="Deferred", message=f"{error}. Goes on at {at:%Y-%m-%d %H:%M:%S} UTC in run {run}.")


def raise_failures(sent: Sent, extra: Mapping[str, int] | None = None) -> None:
    """A failure stays a failure: the run is red, and its message says why."""
    reasons = {**sent.failed, **(extra or {})}
    if reasons:
        raise RunFailed("; ".join(f"{count} × {reason}" for reason, count in reasons.items())[:2000])
