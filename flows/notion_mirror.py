"""The deployment `tidings-notion-mirror`: brings Notion's rows up to date from the ledger.

The server starts it when rows have changed, once a minute at most, and every ten minutes when they are many; a schedule
does so in any case.
"""

from __future__ import annotations

import logging
import os

from prefect import flow

from flows.reporting import running
from tasks.mirror import mirror_rows

log = logging.getLogger("tidings.mirror")


@flow(name="tidings-notion-mirror", flow_run_name="Notion mirror", persist_result=False)
async def mirror_to_notion() -> None:
    """Write what has changed; never in the way of a mail."""
    os.nice(10)  # a process of its own: what sends mails comes first
    async with running() as app:
        log.info("mirror.written", extra=await mirror_rows(app.mirror))
