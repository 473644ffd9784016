"""What an operator can do to messages: retry them, cancel them. Every change says who asked and why."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from uuid import UUID

from tidings.ledger import Ledger, mails, people
from tidings.model import MessageState

#: States that `retry` may send again by itself; UNKNOWN needs a person's word, as it may have been sent.
RETRYABLE = (MessageState.FAILED, MessageState.CANCELLED)


async def retry_messages(
    ledger: Ledger,
    *,
    ids: Sequence[UUID] = (),
    email: str | None = None,
    template: str | None = None,
    may_be_sent_twice: bool = False,
    dry_run: bool = False,
    now: datetime,
) -> list[UUID]:
    """Schedule failed and cancelled messages anew, due at once and rendered anew; returns which.

    Messages in state UNKNOWN may have reached their recipient: they are only taken with `may_be_sent_twice`.
    """
    states = [*RETRYABLE, MessageState.UNKNOWN] if may_be_sent_twice else list(RETRYABLE)
    async with ledger.transaction() as connection:
        found = await mails.find(connection, states=states, ids=ids, email=email, template=template)
        if not dry_run:
            await mails.schedule_anew(connection, found, now)
    return found


async def cancel_messages(
    ledger: Ledger, email: str, *, sequence: str | None, reason: str, dry_run: bool, now: datetime
) -> list[UUID] | None:
    """Cancel what a contact has still to get, of one sequence or of all; None when the contact is not known."""
    async with ledger.transaction() as connection:
        if await people.find_contact(connection, email) is None:
            return None
        found = await mails.find(connection, states=[MessageState.SCHEDULED], email=email, sequence=sequence)
        if not dry_run:
            await mails.cancel(connection, found, reason, now)
    return found
