"""Take in what Resend reports, whatever the order and however often."""

from __future__ import annotations

from datetime import datetime
from uuid import UUID

from tidings.ledger import Ledger, mails, outcomes
from tidings.model import Report


async def take_report(ledger: Ledger, report: Report, body: str, now: datetime) -> bool:
    """Store a report and apply it; returns whether it was new."""
    async with ledger.transaction() as connection:
        if not await outcomes.record(connection, report, body, now):
            return False
        if report.provider_id is None or report.state is None:
            return True
        if (message_id := _uuid(report.message_id)) is not None:
            await mails.learn_sent(connection, message_id, report.provider_id)
        await mails.apply_outcome(connection, report.provider_id, report.state, report.at, report.reason)
    return True


def _uuid(value: str | None) -> UUID | None:
    try:
        return UUID(value) if value else None
    except ValueError:
        return None
