"""The deployment `tidings-reconcile`: every hour, compares with what Calendly, Cal.com, Stripe, Resend and Notion have.

What never arrived as a webhook is taken in; a webhook subscription that Calendly has switched off is made anew.
"""

from __future__ import annotations

from datetime import datetime

from prefect import flow
from prefect.artifacts import acreate_markdown_artifact

from flows.reporting import RunFailed, cell, running
from tasks.reconcile import compare
from tidings import reconciliation
from tidings.gaps import Scope
from tidings.reconciliation import Outcome
from tidings.schedule import aware
from tidings.wiring import utc_now


@flow(name="tidings-reconcile", flow_run_name="reconciliation", persist_result=False)
async def reconcile(since: datetime | None = None, dry_run: bool = False) -> None:
    """Look at each service, one after the other; `since` looks further back, a dry run changes nothing."""
    async with running() as app:
        scope = Scope(utc_now(), aware(since) if since else None, dry_run)
        outcome = await reconciliation.reconcile(app, scope, compare)
        await _report(outcome)
    if outcome.failed:
        raise RunFailed("; ".join(f"{name}: {error}" for name, error in outcome.failed.items())[:2000])


async def _report(outcome: Outcome) -> None:
    """What was taken in, made anew and found to differ, where the dashboard shows it. No addresses."""
    taken, remade, differences = (outcome.total(what) for what in ("taken", "remade", "differences"))
    title = f"{taken} taken in, {remade} made anew, {differences} differences"
    lines = [f"## {title}", "", "| | |", "|---|---|"]
    lines += [f"| {name} | {cell('; '.join(checked.notes))} |" for name, checked in outcome.done.items()]
    lines += [f"| {name} | failed: {cell(str(error))} |" for name, error in outcome.failed.items()]
    await acreate_markdown_artifact("\n".join(lines), key="reconciled", description=title)
