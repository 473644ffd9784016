"""How far a webhook has come, in words for a page that anybody may see: no personal data, and nothing of the past.

What the contact did before is nobody's affair who only knows an address: that it was in this series already, has left
or has bought is told as "no new email", without the reason.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any
from uuid import UUID

from tidings.ledger import Ledger, progress
from tidings.model import TAKEN_IN, EventState, MessageState


class Stage(StrEnum):
    #: Stored; nobody works on it yet.
    RECEIVED = "received"
    #: On its way: being prepared, or due now.
    WORKING = "working"
    #: The first mail has a time, which is still ahead.
    PLANNED = "planned"
    #: The first mail has left.
    SENT = "sent"
    #: The server of its recipient has taken it.
    DELIVERED = "delivered"
    #: No mail follows from this.
    NOTHING = "nothing"
    #: The mail could not be sent, or did not arrive.
    FAILED = "failed"


#: Stages after which no other comes by itself.
LAST = frozenset({Stage.DELIVERED, Stage.NOTHING, Stage.FAILED})
#: How long a page waits before it asks again, in seconds.
ASK_AGAIN = 2
#: However far ahead a mail is planned, asking again after this long is soon enough.
ASK_LATEST = 3600

WORDS = {
    Stage.RECEIVED: "We have received this. Nothing has been sent yet.",
    Stage.WORKING: "The first email is on its way.",
    Stage.PLANNED: "The first email will be sent at the time that is planned for it.",
    Stage.SENT: "The first email has been sent.",
    Stage.DELIVERED: "The first email has been delivered.",
    Stage.NOTHING: "No new email will be sent because of this.",
    Stage.FAILED: "We have received this, but could not send the email.",
}
NOT_DELIVERED = "The first email was sent, but could not be delivered to this address."
NOT_SURE = "We have received this, but cannot tell whether the email was sent."

_STAGES = {
    MessageState.HELD: Stage.WORKING,
    MessageState.SENDING: Stage.WORKING,
    MessageState.SENT: Stage.SENT,
    MessageState.DELIVERED: Stage.DELIVERED,
    MessageState.COMPLAINED: Stage.DELIVERED,
    MessageState.BOUNCED: Stage.FAILED,
    MessageState.FAILED: Stage.FAILED,
    MessageState.UNKNOWN: Stage.FAILED,
}


@dataclass(frozen=True, slots=True)
class Progress:
    """A stage, what may be said of it, and when the first mail was sent, or is due."""

    stage: Stage
    words: str
    at: datetime | None = None

    @property
    def final(self) -> bool:
        """Whether asking again tells nothing new, until a person does something."""
        return self.stage in LAST

    def ask_again(self, now: datetime) -> int | None:
        """After how many seconds asking again may tell something new."""
        if self.final:
            return None
        if self.stage is not Stage.PLANNED or self.at is None:
            return ASK_AGAIN
        return min(ASK_LATEST, max(ASK_AGAIN, int((self.at - now).total_seconds())))


async def progress_of(ledger: Ledger, event_id: UUID, now: datetime) -> Progress | None:
    """How far the event has come; None for one that is not known. One look at the ledger, by indexes."""
    async with ledger.reading() as connection:
        rows = await progress.rows(connection, event_id)
        if rows and (taken_in := _taken_in(rows[0])):
            rows = await progress.rows(connection, taken_in)
    return _judge(rows, now) if rows else None


def _taken_in(row: Any) -> UUID | None:
    """The event that an operator has made of one that had been set aside."""
    if row.event_state != EventState.IGNORED or not (row.event_reason or "").startswith(TAKEN_IN):
        return None
    return UUID(row.event_reason.removeprefix(TAKEN_IN).partition(",")[0])


def _judge(rows: Sequence[Any], now: datetime) -> Progress:
    match EventState(rows[0].event_state):
        case EventState.ACCEPTED | EventState.QUARANTINED | EventState.BLOCKED:
            return _said(Stage.RECEIVED)
        case EventState.DISPATCHED:
            return _said(Stage.WORKING)
        case EventState.FAILED:
            return _said(Stage.FAILED)
        case EventState.IGNORED:
            return Progress(Stage.NOTHING, f"No email will be sent because {rows[0].event_reason}.")
        case EventState.HANDLED:
            return _of_mails(rows, now)


def _of_mails(rows: Sequence[Any], now: datetime) -> Progress:
    """By the first mail that is ours to send: one that the website sent itself, or whose time had passed, is not."""
    ours = [r for r in rows if r.state not in {None, MessageState.SKIPPED, MessageState.CANCELLED}]
    return _of_mail(ours[0], now) if ours else _said(Stage.NOTHING)


def _of_mail(row: Any, now: datetime) -> Progress:
    match MessageState(row.state):
        case MessageState.SCHEDULED:
            stage = Stage.PLANNED if row.due_at > now else Stage.WORKING
            return Progress(stage, WORDS[stage], row.due_at)
        case MessageState.BOUNCED:
            return Progress(Stage.FAILED, NOT_DELIVERED, row.sent_at)
        case MessageState.UNKNOWN:
            return Progress(Stage.FAILED, NOT_SURE)
        case state:
            stage = _STAGES[state]
            return Progress(stage, WORDS[stage], row.sent_at)


def _said(stage: Stage) -> Progress:
    return Progress(stage, WORDS[stage])
