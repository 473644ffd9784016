"""Take in what Resend reports, whatever the order and however often."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import datetime

from tidings.grouping import Grouped
from tidings.ledger import Ledger, mails, outcomes, people
from tidings.model import Report

#: Reports that are stored by one commit at most: a wave of mails is followed by twice as many of them.
GROUP_LIMIT = 100


class Reports:
    """One process's intake of reports: one commit for all that came while the last was under way."""

    def __init__(self, ledger: Ledger, *, now: Callable[[], datetime]) -> None:
        self._ledger = ledger
        self._now = now
        self._grouped = Grouped(self._store, limit=GROUP_LIMIT)

    async def take(self, report: Report, body: str) -> bool:
        """Store a report and apply it; returns whether it was new. Raises LedgerUnavailable when it is not stored."""
        return await self._grouped.take((report, body))

    async def _store(self, reports: list[tuple[Report, str]]) -> list[bool]:
        return await take_reports(self._ledger, reports, self._now())

    async def drain(self) -> None:
        """Wait until what was taken is stored."""
        await self._grouped.drain()


async def take_reports(ledger: Ledger, reports: Sequence[tuple[Report, str]], now: datetime) -> list[bool]:
    """Store reports and apply them, all or none; returns for each whether it was new."""
    unique = {report.id: (report, body) for report, body in reversed(reports)}
    async with ledger.transaction() as connection:
        new = await outcomes.record(connection, list(unique.values()), now)
        fresh = [report for report, _ in unique.values() if report.id in new and report.provider_id is not None]
        severe = [report for report in fresh if report.severity is not None]
        # Before the messages: whoever stops mails to a contact locks the contact first.
        for contact_id in await mails.recipients(connection, severe) if severe else []:
            await people.lock_contact(connection, contact_id)
        await mails.apply_reports(connection, fresh)
        about = sorted({str(report.provider_id) for report in fresh})
        if about:
            await outcomes.note(connection, about)
        if severe:
            await outcomes.judge(connection, sorted({str(report.provider_id) for report in severe}), now)
    answers = []
    for report, _ in reports:
        answers.append(report.id in new)
        new.discard(report.id)
    return answers
