"""Products with one guarantee taken out, as data: what the harness must notice.

Each change replaces a text that must be there exactly once; when the product has changed so that it is not, running
the mutation fails loudly instead of proving nothing.
"""

from __future__ import annotations

from dataclasses import dataclass

DELIVER = "tidings/deliver.py"
INBOX = "tidings/ledger/inbox.py"
MAILS = "tidings/ledger/mails.py"
FIRST_MIGRATION = "tidings/ledger/migrations/versions/0001_the_ledger.py"


@dataclass(frozen=True)
class Change:
    """Replace this very text."""

    file: str
    old: str
    new: str


MUTATIONS: dict[str, tuple[Change, ...]] = {
    # A claim holds nobody off: runs take over what a living run is sending, under keys of their own.
    "lease": (
        Change(MAILS, "WHERE c.settled_at IS NULL AND c.lease_until < now() AND", "WHERE c.settled_at IS NULL AND"),
        Change(
            DELIVER,
            "                return left\n",
            "                mine = [m.id for m in left.messages]\n"
            "                return (await mails.split(connection, left.id, mine, self.lease, run_id))[0]\n",
        ),
    ),
    # Nobody takes over what a dead run has claimed.
    "no-take-over": (
        Change(
            MAILS,
            "WHERE c.settled_at IS NULL AND c.lease_until < now() AND",
            "WHERE false AND c.settled_at IS NULL AND c.lease_until < now() AND",
        ),
    ),
    # Resend gets another key with each attempt.
    "idempotency-key": (Change(MAILS, 'return f"tidings/{self.id}"', 'return f"tidings/{self.id}/{uuid4()}"'),),
    # The same event is stored, and the same business enrolled, as often as it comes.
    "unique-key": (
        Change(
            FIRST_MIGRATION, '        sa.UniqueConstraint("source", "key", name=op.f("uq_event_source_key")),\n', ""
        ),
        Change(
            FIRST_MIGRATION,
            '        sa.UniqueConstraint("campaign", "sequence", "key", '
            'name=op.f("uq_enrolment_campaign_sequence_key")),\n',
            "",
        ),
        Change(INBOX, "ON CONFLICT (source, key) DO NOTHING\nRETURNING id,", "RETURNING id,"),
        Change(
            INBOX,
            "    known = await _known(connection, arrivals)\n    arrivals, known =",
            "    known = {}\n    arrivals, known =",
        ),
        Change(MAILS, '        .on_conflict_do_nothing(index_elements=["campaign", "sequence", "key"])\n', ""),
    ),
    # What Resend is given is not kept, and made anew with each attempt.
    "stored-body": (
        Change(
            DELIVER,
            "            if payloads:\n                await mails.store_payloads(connection, claim.id, payloads)\n",
            "",
        ),
    ),
}
