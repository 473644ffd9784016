"""The deployment `tidings-sweep`: every five minutes, makes up for whatever was lost on the way."""

from __future__ import annotations

import logging

from prefect import flow

from flows.reporting import running
from tidings.canary import look_after
from tidings.reconcile import bury_dead, reconcile
from tidings.watching import look_from_the_worker
from tidings.wiring import deadman_of, utc_now

log = logging.getLogger("tidings.reconcile")


@flow(name="tidings-sweep", flow_run_name="sweep", persist_result=False)
async def sweep() -> None:
    """Dispatch, schedule and take over what a crash or an outage left undone; and see that somebody watches."""
    async with running() as app:
        await look_after(app.ledger, deadman_of(app.settings), utc_now())
        await bury_dead(app.ledger, app.runs, utc_now())
        done = await reconcile(app.ledger, app.runs, app.campaigns, utc_now(), thorough=True)
        log.info("sweep.reconciled", extra={what.replace(" ", "_"): count for what, count in done.items()})
        await look_from_the_worker(app, utc_now())
