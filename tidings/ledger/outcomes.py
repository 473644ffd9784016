"""What Resend reports of mails, each report counted once and in any order of arrival."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from sqlalchemy import select
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncConnection

from tidings.ledger import mails
from tidings.ledger.tables import outcome
from tidings.model import MessageState, Report


async def record(connection: AsyncConnection, report: Report, body: str, now: datetime) -> bool:
    """Store a report as it came; False when it was stored before (Resend delivers at least once)."""
    rows = await connection.execute(
        insert(outcome)
        .values(
            svix_id=report.id,
            type=report.type,
            provider_id=report.provider_id,
            state=report.state,
            reason=report.reason,
            occurred_at=report.at,
            received_at=now,
            body=body,
        )
        .on_conflict_do_nothing(index_elements=["svix_id"])
        .returning(outcome.c.svix_id)
    )
    return rows.one_or_none() is not None


async def catch_up(connection: AsyncConnection, provider_ids: Sequence[str]) -> None:
    """Apply reports that came before we knew these ids ourselves: Resend's webhook can outrun its answer."""
    if not provider_ids:
        return
    rows = await connection.execute(
        select(outcome).where(outcome.c.provider_id.in_(provider_ids), outcome.c.state.is_not(None))
    )
    for row in rows.all():
        await mails.apply_outcome(connection, row.provider_id, MessageState(row.state), row.occurred_at, row.reason)
