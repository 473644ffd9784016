"""The deployment `tidings-canary`: sends a canary through the whole chain. It does not wait for it: others look."""

from __future__ import annotations

from prefect import flow

from flows.reporting import RunFailed, running
from tidings.adapters.public import PublicSide
from tidings.canary import send
from tidings.ledger import canaries
from tidings.wiring import deadman_of, utc_now


@flow(name="tidings-canary", flow_run_name="canary", persist_result=False)
async def canary() -> None:
    """Post a canary's webhook at the public address; red when it is not let in."""
    async with running() as app:
        settings = app.settings
        async with PublicSide(settings.public_url) as door:
            canary_id = await send(app.ledger, door, settings, deadman_of(settings), utc_now())
        async with app.ledger.reading() as connection:
            journey = await canaries.journey(connection, canary_id)
    if journey.problem:
        raise RunFailed(journey.problem)
    print(f"canary {canary_id} is under way; it is to be back within 3 minutes")
