"""What is wrong, in words for who can act: noted in the ledger when it is first seen, and when it is over.

Whoever looks (the keeper, the sweep, a canary, a reconciliation) notes what it found of the kinds that it looks at.
An alert is the same for as long as its key is, so looking again tells nobody twice.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from tidings.ledger import Ledger
from tidings.ledger import alerts as ledger_alerts
from tidings.redact import redact


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that is wrong, or that somebody wants to know of at once."""

    #: Such as "late-mail"; whoever notes a kind looks at all of that kind.
    kind: str
    #: One line without addresses or secrets.
    title: str
    #: Cause and cure, and the command or page that shows more.
    body: str
    #: What of the kind it is, when there may be several: a check, a source, an event.
    subject: str = ""
    #: False for what happens and is not over later, such as a hot lead: told once for its key.
    lasting: bool = True

    @property
    def key(self) -> str:
        """What makes it the same as what was found before."""
        return f"{self.kind}:{self.subject}" if self.subject else self.kind


def hot_lead(event_id: UUID, source: str, segment: str) -> Finding:
    """A new contact that somebody should call. No address: that is asked for with the event's id."""
    body = (
        f"It came in by {source} as event {event_id}. Somebody should get in touch soon.\n"
        f"Who it is: tidings events show {event_id}; the whole story: tidings contact <address>"
    )
    return Finding("hot-lead", f"A {segment} contact has come in by {source}", body, str(event_id), lasting=False)


async def note(
    ledger: Ledger,
    findings: Sequence[Finding],
    kinds: Collection[str],
    now: datetime,
    *,
    unknown: Collection[str] = (),
) -> None:
    """Write down what was found. Open alerts of these kinds that were not found again are over.

    But for those whose keys begin with what is `unknown`, as nobody could look.
    """
    async with ledger.transaction() as connection:
        for each in findings:
            await ledger_alerts.seen(
                connection,
                key=each.key,
                kind=each.kind,
                title=redact(each.title),
                body=redact(each.body),
                lasting=each.lasting,
                now=now,
            )
        await ledger_alerts.over(connection, kinds, [each.key for each in findings], now, unknown=unknown)
