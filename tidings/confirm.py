"""Double opt-in: the contact has clicked, so the mails that waited for it begin."""

from __future__ import annotations

from datetime import datetime
from uuid import UUID

from tidings.campaign import Campaigns
from tidings.errors import CampaignError
from tidings.ledger import Ledger, mails, people
from tidings.schedule import due_times, slot

#: Why what another, older or newer question of the same sequence was about is not sent as well.
ANSWERED = "the contact has confirmed by another mail"


async def confirm(ledger: Ledger, campaigns: Campaigns, enrolment_id: UUID, now: datetime) -> bool:
    """Start what waited for the click, timed from the click; False when there is no such enrolment.

    A repeat changes nothing. The mails get their runs in Prefect by the keeper, as all mails do that have none.
    Raises CampaignError when the campaign has no such sequence any more.
    """
    async with ledger.transaction() as connection:
        who = await people.of_enrolment(connection, enrolment_id)
        if who is None:
            return False
        sequence = next((s for s in campaigns[who.campaign].sequences if s.name == who.sequence), None)
        if sequence is None:
            raise CampaignError(f"Campaign {who.campaign!r} has no sequence {who.sequence!r} any more")
        # Who clicks in two mails at once is served one after the other.
        await people.lock_contact(connection, who.id)
        if not await people.mark_confirmed(connection, enrolment_id, now):
            return True
        gaps = [step.after for step in sequence.steps]
        dues = due_times(now, gaps, testing_minute=who.testing_minute, started=now)
        times = {n: (due, slot(due, who.testing_minute)) for n, due in enumerate(dues, start=1)}
        await mails.release(connection, enrolment_id, times, now)
        others = await mails.withdraw_other_questions(connection, enrolment_id, ANSWERED, now)
        await mails.touch_enrolments(connection, others, now)
    return True
