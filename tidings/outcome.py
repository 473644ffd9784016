"""Take in what Resend reports, whatever the order and however often."""

from __future__ import annotations

from datetime import datetime
from uuid import UUID

from tidings.ledger import Ledger, mails, outcomes, people
from tidings.model import Report


async def take_report(ledger: Ledger, report: Report, body: str, now: datetime) -> bool:
    """Store a report and apply it; returns whether it was new."""
    message_id = _uuid(report.message_id)
    async with ledger.transaction() as connection:
        if not await outcomes.record(connection, report, body, now):
            return False
        if report.provider_id is None:
            return True
        if report.severity is not None:
            # Before the message: whoever stops mails to a contact locks the contact first.
            contact_id = await mails.recipient(connection, report.provider_id, message_id)
            if contact_id is not None:
                await people.lock_contact(connection, contact_id)
        if message_id is not None and report.state is not None:
            await mails.learn_sent(connection, message_id, report.provider_id)
        if report.state is not None:
            await mails.apply_outcome(connection, report.provider_id, report.state, report.at, report.reason)
        await outcomes.note(connection, [report.provider_id])
        if report.severity is not None:
            await outcomes.judge(connection, [report.provider_id], now)
    return True


def _uuid(value: str | None) -> UUID | None:
    try:
        return UUID(value) if value else None
    except ValueError:
        return None
