"""What an operator can do: retry and cancel messages, suppress contacts, prove consent. Every change says why."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import datetime
from typing import Any
from uuid import UUID

from tidings.ledger import Ledger, mails, people
from tidings.model import MessageState

#: States that `retry` may send again by itself; UNKNOWN needs a person's word, as it may have been sent.
RETRYABLE = (MessageState.FAILED, MessageState.CANCELLED)

#: Messages of one transaction.
PAGE = 500

#: States in which a message waits for its time or for the contact's click.
WAITING = (MessageState.SCHEDULED, MessageState.HELD)


async def retry_messages(
    ledger: Ledger,
    *,
    ids: Sequence[UUID] = (),
    email: str | None = None,
    template: str | None = None,
    may_be_sent_twice: bool = False,
    dry_run: bool = False,
    now: datetime,
    told: Callable[[Sequence[UUID], int], None] = lambda done, remaining: None,
) -> list[UUID]:
    """Schedule failed and cancelled messages anew, due at once and rendered anew; returns which.

    `told` hears of each page that is done, and how many messages remain.

    Messages in state UNKNOWN may have reached their recipient: they are only taken with `may_be_sent_twice`.
    None is sent before the click that it waits for (double opt-in).
    """
    states = [*RETRYABLE, MessageState.UNKNOWN] if may_be_sent_twice else list(RETRYABLE)
    async with ledger.reading() as connection:
        found = await mails.find(connection, states=states, ids=ids, email=email, template=template, unconfirmed=False)
    done: list[UUID] = []
    for start in range(0, len(found), PAGE):
        some = found[start : start + PAGE]
        async with ledger.transaction() as connection:
            some = await mails.find(connection, states=states, ids=some, unconfirmed=False)  # as they are by now
            if not dry_run:
                await mails.schedule_anew(connection, some, now)
        done += some
        told(some, max(0, len(found) - start - PAGE))
    return done


async def cancel_messages(
    ledger: Ledger, email: str, *, sequence: str | None, reason: str, dry_run: bool, now: datetime
) -> list[UUID] | None:
    """Cancel what a contact has still to get, of one sequence or of all; None when the contact is not known."""
    async with ledger.transaction() as connection:
        if await people.find_contact(connection, email) is None:
            return None
        found = await mails.find(connection, states=WAITING, email=email, sequence=sequence)
        if not dry_run:
            await mails.cancel(connection, found, reason, now)
    return found


async def suppress_contact(
    ledger: Ledger,
    email: str,
    *,
    reason: str,
    sequence: str | None = None,
    until: datetime | None = None,
    now: datetime,
) -> bool:
    """Stop mails to an address, known or not, all or of one series; False when they were stopped before."""
    async with ledger.transaction() as connection:
        contact_id = await people.known_contact(connection, email, now)
        return await people.suppress(
            connection, contact_id, reason=reason, source="operator", now=now, sequence=sequence, until=until
        )


async def lift_suppression(
    ledger: Ledger, email: str, *, reason: str, sequence: str | None = None, now: datetime
) -> int | None:
    """End suppressions of everything or of one series; returns how many, None when the contact is not known.

    What was skipped stays skipped. Resend keeps its own list: an address that bounced is to be taken off there too.
    """
    async with ledger.transaction() as connection:
        person = await people.find_contact(connection, email)
        if person is None:
            return None
        return await people.lift(connection, person.id, reason=reason, now=now, sequence=sequence)


async def consent_proof(ledger: Ledger, email: str) -> dict[str, Any] | None:
    """All that shows whether a contact might be mailed, ready for JSON; None when the contact is not known."""
    async with ledger.reading() as connection:
        person = await people.find_contact(connection, email)
        if person is None:
            return None
        enrolments = await people.evidence(connection, person.id)
        suppressions = await people.suppressions(connection, person.id)
    return {
        "email": person.email,
        "known_since": _iso(person.created_at),
        "last_word": {"consent": person.consent, "at": _iso(person.consent_at)},
        "enrolments": [_proof(row) for row in enrolments],
        "suppressions": [
            {
                "of": s.sequence or "everything",
                "campaign": s.campaign,
                "reason": s.reason,
                "source": s.source,
                "at": _iso(s.created_at),
                "until": _iso(s.until),
                "lifted_at": _iso(s.lifted_at),
                "lifted_because": s.lifted_because,
            }
            for s in suppressions
        ],
    }


def _proof(row: Any) -> dict[str, Any]:
    return {
        "campaign": row.campaign,
        "sequence": row.sequence,
        "basis": row.consent_basis,
        "source": row.consent_source,
        "at": _iso(row.consent_at),
        "wording": row.consent_wording,
        "address": row.consent_address,
        "runs_out_at": _iso(row.consent_expires_at),
        "confirmed_at": _iso(row.confirmed_at),
        "mails_sent": row.mails,
        "event": {"id": str(row.event_id), "received_at": _iso(row.received_at), "body": row.body},
    }


def _iso(moment: datetime | None) -> str | None:
    return moment.isoformat() if moment else None
