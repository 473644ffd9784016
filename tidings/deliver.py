"""Send what is due: claim, render, store the bodies, hand over, settle. Every step can be repeated without harm."""

from __future__ import annotations

import json
import logging
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncConnection

from tidings.campaign import Campaigns
from tidings.errors import (
    CopyError,
    KeyReused,
    MessageRefused,
    OutcomeUnknown,
    QuotaExhausted,
    Refused,
    RetryLater,
    ServiceError,
)
from tidings.ledger import Ledger, mails, outcomes, permission
from tidings.ledger.mails import Claim, ClaimedMessage
from tidings.ledger.memory import Memory
from tidings.logs import tell
from tidings.model import ASKING, MessageState, Template
from tidings.ports import LISTED_MOST, Copy, Sender, Turns
from tidings.render import one_line, render
from tidings.unsubscribe import CONFIRM, Links

log = logging.getLogger("tidings.deliver")

BATCH = 100
#: How long after Resend first saw a key a repeat is safe: Resend forgets keys after 24 h (docs, Nov 2026).
KEY_LIFETIME = timedelta(hours=23)
#: A run waits this many seconds at most when it is told to come again later; for longer it gives way to a later run.
PATIENCE = 60.0
#: How long a claim rests, in seconds, after Resend refused our set-up.
REFUSED_PAUSE = 60.0
#: Under which it is remembered that the quota is used up: until when mails wait for it.
USED_UP = "resend-quota-used-up"
#: By how much Resend's clock and the ledger's may differ.
CLOCKS = timedelta(minutes=5)
#: So long after a call Resend's list is believed to have all that it took. Resend names no time; the same clocks
#: are in this too.
LISTED_AFTER = timedelta(minutes=10)
BY_HAND = "to send it all the same: tidings messages retry --may-be-sent-twice"


@dataclass(frozen=True)
class Identity:
    """Who the mails come from."""

    sender: str
    name: str
    postal_address: str
    reply_to: str | None


@dataclass(frozen=True)
class Selection:
    """What a run is to send: a template's slot, or the mails of events that are due at once."""

    campaign: str
    until: datetime
    template: str | None = None
    event_ids: tuple[UUID, ...] | None = None


@dataclass
class Sent:
    """What a run did, for its artifact and its end state."""

    sent: int = 0
    skipped: dict[str, int] = field(default_factory=dict)
    failed: dict[str, int] = field(default_factory=dict)

    @property
    def count(self) -> int:
        """Mails that were dealt with, one way or another."""
        return self.sent + sum(self.skipped.values()) + sum(self.failed.values())

    def add(self, other: Sent) -> None:
        self.sent += other.sent
        for mine, theirs in ((self.skipped, other.skipped), (self.failed, other.failed)):
            for reason, count in theirs.items():
                mine[reason] = mine.get(reason, 0) + count


class Delivery:
    """Everything that sending needs, wired once a process."""

    def __init__(
        self,
        ledger: Ledger,
        campaigns: Campaigns,
        copy: Copy,
        sender: Sender,
        links: Links,
        identity: Identity,
        *,
        lease: float,
        turns: Turns | None = None,
    ) -> None:
        self.ledger = ledger
        self.campaigns = campaigns
        self.copy = copy
        self.sender = sender
        self.links = links
        self.identity = identity
        self.lease = lease
        self.turns = turns

    async def next_claim(self, selection: Selection, run_id: UUID | None) -> Claim | None:
        """First what a dead run left behind, then what is due and nobody holds; None when there is neither."""
        async with self.ledger.transaction() as connection:
            left = await mails.take_over(connection, campaign=selection.campaign, lease=self.lease, flow_run_id=run_id)
            if left is not None:
                log.warning("claim.taken_over", extra={"claim_id": str(left.id), "messages": len(left.messages)})
                return left
            return await mails.claim_due(
                connection,
                campaign=selection.campaign,
                template=selection.template,
                slot_until=selection.until,
                event_ids=selection.event_ids,
                lease=self.lease,
                flow_run_id=run_id,
                limit=BATCH,
            )

    async def prepare(self, claim: Claim) -> tuple[Claim, Sent]:
        """Skip who may not be mailed any more, render the rest, and store what Resend will be given."""
        done = Sent()
        # Once Resend may know the key, its content is fixed: nobody can be taken out of it any more.
        fresh = claim.messages if claim.first_sent_at is None else [m for m in claim.messages if m.payload is None]
        if not fresh:
            return claim, done
        async with self.ledger.reading() as connection:
            stopped = await self._stopped(connection, claim, fresh)
        payloads: dict[UUID, str] = {}
        failed: dict[UUID, str] = {}
        bare = [m for m in fresh if m.payload is None and m.id not in stopped]
        templates = await self._fetch({m.template for m in bare}, failed, bare)
        for message in bare:
            if message.id in failed:
                continue
            try:
                payloads[message.id] = self._payload(message, templates[message.template])
            except CopyError as error:
                failed[message.id] = str(error)
        await self._store(claim, payloads, stopped, failed)
        _tell(claim, "message.skipped", stopped)
        _tell(claim, "message.failed", failed, logging.ERROR)
        for reason in stopped.values():
            done.add(Sent(skipped={reason: 1}))
        for reason in failed.values():
            done.add(Sent(failed={reason: 1}))
        ready = tuple(
            replace(m, payload=payloads.get(m.id, m.payload))
            for m in claim.messages
            if (m.payload or m.id in payloads) and m.id not in stopped
        )
        return Claim(claim.id, ready, claim.first_sent_at), done

    async def _stopped(
        self, connection: AsyncConnection, claim: Claim, messages: Sequence[ClaimedMessage]
    ) -> dict[UUID, str]:
        """Of these messages, those that may not be sent any more, each with the reason. A claim has one campaign's."""
        if not messages:  # Resend may have reported on all of a claim by the time that it is taken over
            return {}
        campaign = self.campaigns[messages[0].campaign]
        return await permission.stopped(connection, campaign, [m.id for m in messages], claim_id=claim.id)

    async def _fetch(
        self, names: set[str], failed: dict[UUID, str], fresh: Sequence[ClaimedMessage]
    ) -> Mapping[str, Template]:
        """Templates as they stand now; a bad one fails its messages and no others."""
        found: dict[str, Template] = {}
        for name in sorted(names):
            try:
                found |= await self.copy.templates([name])
            except CopyError as error:
                failed |= {m.id: str(error) for m in fresh if m.template == name}
        return found

    async def _store(
        self, claim: Claim, payloads: Mapping[UUID, str], stopped: Mapping[UUID, str], failed: Mapping[UUID, str]
    ) -> None:
        async with self.ledger.transaction() as connection:
            if payloads:
                await mails.store_payloads(connection, claim.id, payloads)
            for message_id, reason in stopped.items():
                await mails.settle_messages(connection, claim.id, [message_id], MessageState.SKIPPED, reason)
            for message_id, reason in failed.items():
                await mails.settle_messages(connection, claim.id, [message_id], MessageState.FAILED, reason)

    def _payload(self, message: ClaimedMessage, template: Template) -> str:
        """The request to Resend, made once and kept to the byte: a repeat with other bytes would be refused."""
        link = self.links.unsubscribe(message.enrolment_id)
        asking = message.position == ASKING
        mail = render(
            template,
            {**message.variables, CONFIRM: self.links.confirm(message.enrolment_id)} if asking else message.variables,
            footer={
                "sender": self.identity.name,
                "postal_address": self.identity.postal_address,
                "unsubscribe_url": link,
            },
        )
        payload: dict[str, Any] = {
            "from": self.identity.sender,
            "to": [message.email],
            "subject": one_line(mail.subject),
            "html": mail.html,
            "text": mail.text,
            "headers": self.links.headers(message.enrolment_id),
            "tags": [
                {"name": "campaign", "value": message.campaign},
                {"name": "sequence", "value": message.sequence},
                {"name": "template", "value": message.template},
                {"name": "message", "value": str(message.id)},
            ],
        }
        if self.identity.reply_to:
            payload["reply_to"] = self.identity.reply_to
        return mails.to_json(payload)

    async def hand_over(self, claim: Claim, run_id: UUID | None) -> Sent:
        """One call to Resend for one claim, and its outcome into the ledger.

        Raises RetryLater, OutcomeUnknown and Refused; the claim, its bodies and its key stay for a repeat.
        """
        if not claim.messages:
            return await self._settle_all(claim, MessageState.SKIPPED, "")
        if self.turns is not None:
            await self.turns.turn()  # before the lease is renewed, so that waiting does not eat it up
        done = Sent()
        async with self.ledger.transaction() as connection:
            held = await mails.renew(connection, claim.id, self.lease, run_id)
            told = held is not None and held.first_sent_at is not None
            if held is not None and not told:
                claim, done = await self._last_look(connection, claim)
            left = await self._left(connection, claim) if told else {}
            if held is not None and not left:
                await mails.note_call(connection, claim.id)
        if held is None:
            log.warning("claim.lost", extra={"claim_id": str(claim.id)})
            return Sent()
        if not claim.messages:
            done.add(await self._settle_all(claim, MessageState.SKIPPED, ""))
            return done
        if _expired(held.first_sent_at):
            return await self._give_up(claim, held.first_sent_at)
        if left:
            return await self._take_apart(claim, held, left)
        done.add(await self._send(claim, held, run_id))
        return done

    async def _last_look(self, connection: AsyncConnection, claim: Claim) -> tuple[Claim, Sent]:
        """Who may not be mailed any more since the bodies were made: waiting for a turn can take a while."""
        stopped = await self._stopped(connection, claim, claim.messages)
        for message_id, reason in stopped.items():
            await mails.settle_messages(connection, claim.id, [message_id], MessageState.SKIPPED, reason)
        _tell(claim, "message.skipped", stopped)
        done = Sent(skipped=dict(Counter(stopped.values())))
        return replace(claim, messages=tuple(m for m in claim.messages if m.id not in stopped)), done

    async def _left(self, connection: AsyncConnection, claim: Claim) -> dict[UUID, str]:
        """Who may not be mailed any more of those that Resend has not reported on."""
        return await self._stopped(connection, claim, [m for m in claim.messages if m.provider_id is None])

    async def _send(self, claim: Claim, held: mails.RowOrNone, run_id: UUID | None) -> Sent:
        """The call to Resend, and what follows from its answer."""
        try:
            results = await self.sender.send([json.loads(m.payload) for m in claim.messages if m.payload], claim.key)
        except MessageRefused as error:
            return await self._refused(claim, error, run_id)
        except KeyReused as error:
            return await self._settle_all(claim, MessageState.UNKNOWN, str(error))
        except Refused as error:
            if held.first_sent_at is None:
                await self._put_back(claim, error)
            raise
        except RetryLater as error:
            if held.first_sent_at is None:
                await self._forget_call(claim)
            if self.turns is not None:
                await self.turns.rest(error.retry_after)
            raise
        done = await self._settle(claim, results)
        if self.turns is not None:
            await self.turns.learn(self.sender.rate_limit)
        return done

    async def _put_back(self, claim: Claim, error: Refused) -> None:
        """Our key or our domain is refused: nothing was done, and what is mended may change the mails' content."""
        async with self.ledger.transaction() as connection:
            await mails.put_back(connection, [m.id for m in claim.messages], str(error))
            await mails.close_claim(connection, claim.id)

    async def _forget_call(self, claim: Claim) -> None:
        async with self.ledger.transaction() as connection:
            await mails.nothing_was_done(connection, claim.id)

    async def _settle(self, claim: Claim, results: Sequence[str | Refused]) -> Sent:
        """Each message's own outcome. Raises the refusal of our set-up, if there is one, after the rest is settled."""
        pairs = list(zip(claim.messages, results, strict=True))
        sent = {m.id: r for m, r in pairs if isinstance(r, str)}
        refused = {m.id: r for m, r in pairs if isinstance(r, Refused)}
        ours = {message_id: error for message_id, error in refused.items() if not error.concerns_message}
        async with self.ledger.transaction() as connection:
            await mails.settle_sent(connection, claim.id, sent)
            await outcomes.catch_up(connection, list(sent.values()), datetime.now(UTC))
            for message_id, error in refused.items():
                if message_id in ours:
                    await mails.put_back(connection, [message_id], str(error))
                else:
                    await mails.settle_messages(connection, claim.id, [message_id], MessageState.FAILED, str(error))
            await mails.close_claim(connection, claim.id)
        _tell(claim, "message.sent", dict.fromkeys(sent))
        _tell(claim, "message.failed", {i: str(e) for i, e in refused.items() if i not in ours}, logging.ERROR)
        if ours:
            raise next(iter(ours.values()))
        done = Sent(sent=len(sent))
        for error in refused.values():
            done.add(Sent(failed={str(error): 1}))
        return done

    async def _refused(self, claim: Claim, error: MessageRefused, run_id: UUID | None) -> Sent:
        """A batch refused for one mail's sake did nothing, so each mail gets a key of its own and is sent alone."""
        if len(claim.messages) == 1:
            return await self._settle_all(claim, MessageState.FAILED, str(error))
        async with self.ledger.transaction() as connection:
            singles = await mails.split(connection, claim.id, [m.id for m in claim.messages], self.lease, run_id)
        done = Sent()
        for index, single in enumerate(singles):
            try:
                done.add(await self.hand_over(single, run_id))
            except ServiceError:
                for rest in singles[index + 1 :]:
                    await self.leave(rest, 0.0)  # nobody need wait for the leases of what was not tried
                raise
        return done

    async def _give_up(self, claim: Claim, first_sent_at: datetime) -> Sent:
        """Too late for a repeat. What Resend's own list has was sent; the rest waits for a person."""
        found, _ = await self._settle_listed(claim, first_sent_at)
        rest = tuple(m for m in claim.messages if m.id not in found)
        hours = int(KEY_LIFETIME.total_seconds() // 3600)
        reason = (
            f"handed to Resend more than {hours} h ago without an answer, and not found in Resend's list; {BY_HAND}"
        )
        done = await self._settle_all(replace(claim, messages=rest), MessageState.UNKNOWN, reason)
        done.add(Sent(sent=len(found)))
        return done

    async def _settle_listed(self, claim: Claim, first_sent_at: datetime) -> tuple[dict[UUID, str], bool]:
        """Settle what Resend's own list has of a claim; returns that, and whether the list could have had it all."""
        try:
            listed = await self.sender.sent_since(first_sent_at - CLOCKS)
        except Refused as error:  # a key that may only send cannot read the list
            log.warning("resend.list_refused", extra={"claim_id": str(claim.id), "error": str(error)})
            return {}, False
        async with self.ledger.transaction() as connection:
            known = await mails.known_ids(connection, [str(mail["id"]) for mail in listed])
        found = _match(claim, [mail for mail in listed if mail["id"] not in known])
        if found:
            async with self.ledger.transaction() as connection:
                await mails.settle_sent(connection, claim.id, found)
                await outcomes.catch_up(connection, list(found.values()), datetime.now(UTC))
        return found, len(listed) < LISTED_MOST

    async def _take_apart(self, claim: Claim, held: mails.RowOrNone, left: Mapping[UUID, str]) -> Sent:
        """Some may not be mailed any more since a call without an answer. A repeat could be what mails them, and no
        other content may be sent under the same key, so Resend's list decides (docs/decisions/0019)."""
        wait = (held.last_sent_at or held.first_sent_at) + LISTED_AFTER - datetime.now(UTC)
        if wait > timedelta(0):
            log.warning("claim.waits_for_list", extra={"claim_id": str(claim.id), "left": len(left)})
            await self.leave(claim, wait.total_seconds())
            return Sent()
        found, complete = await self._settle_listed(claim, held.first_sent_at)
        rest = tuple(m for m in claim.messages if m.id not in found and m.provider_id is None)
        if len(rest) < len(claim.messages) or not complete:
            done = await self._leave_to_a_person(replace(claim, messages=rest), left)
            done.add(Sent(sent=len(found)))
            return done
        async with self.ledger.transaction() as connection:
            for message_id, why in left.items():
                await mails.settle_messages(connection, claim.id, [message_id], MessageState.SKIPPED, why)
            stays = [m.id for m in rest if m.id not in left]
            await mails.put_back(connection, stays, "Resend has taken nothing of the call that it did not answer")
            await mails.close_claim(connection, claim.id)
        return Sent(skipped=dict(Counter(left.values())))

    async def _leave_to_a_person(self, claim: Claim, left: Mapping[UUID, str]) -> Sent:
        """Nobody can say whether these were sent, and a repeat could mail who left."""
        other = "a repeat could have mailed somebody who may not be mailed any more"
        done = Sent()
        async with self.ledger.transaction() as connection:
            for message in claim.messages:
                reason = (
                    f"handed to Resend without an answer, and not found in Resend's list; meanwhile: "
                    f"{left.get(message.id, other)}; {BY_HAND}"
                )
                await mails.settle_messages(connection, claim.id, [message.id], MessageState.UNKNOWN, reason)
                done.add(Sent(failed={reason: 1}))
            await mails.close_claim(connection, claim.id)
        return done

    async def _settle_all(self, claim: Claim, state: MessageState, reason: str) -> Sent:
        async with self.ledger.transaction() as connection:
            await mails.settle_messages(connection, claim.id, [m.id for m in claim.messages], state, reason)
            await mails.close_claim(connection, claim.id)
        _tell(claim, f"message.{state}", {m.id: reason for m in claim.messages}, logging.ERROR)
        return Sent(failed={reason: len(claim.messages)} if claim.messages else {})

    async def leave(self, claim: Claim, seconds: float) -> None:
        """Leave the claim for a later run: same bodies, same key, once this long has passed."""
        async with self.ledger.transaction() as connection:
            await mails.postpone(connection, claim.id, seconds)


def _tell(claim: Claim, what: str, reasons: Mapping[UUID, str | None], level: int = logging.INFO) -> None:
    """What became of each message, for who looks for it in the log."""
    told = [
        {
            "message_id": str(m.id),
            "enrolment_id": str(m.enrolment_id),
            "claim_id": str(claim.id),
            "campaign": m.campaign,
            "template": m.template,
            "reason": reasons[m.id],
        }
        for m in claim.messages
        if m.id in reasons
    ]
    tell(log, what, told, level)


def _match(claim: Claim, listed: Sequence[Mapping[str, Any]]) -> dict[UUID, str]:
    """Which mails of Resend's list are these messages: the same recipient and subject, each counted once."""
    ids: dict[tuple[str, str], list[str]] = {}
    for mail in listed:
        for address in mail.get("to") or []:
            ids.setdefault((str(address).lower(), str(mail.get("subject"))), []).append(str(mail["id"]))
    found = {}
    for message in claim.messages:
        payload = json.loads(message.payload or "{}")
        same = ids.get((message.email, str(payload.get("subject"))), [])
        if same:
            found[message.id] = same.pop()
    return found


def _expired(first_sent_at: datetime | None) -> bool:
    return first_sent_at is not None and datetime.now(UTC) - first_sent_at > KEY_LIFETIME


async def send_next(delivery: Delivery, selection: Selection, run_id: UUID | None) -> Sent | None:
    """One claim from beginning to end; None when nothing is due any more.

    After any error the claim is left as it is, so that making the same call again takes it over with the same
    bodies and the same key.
    """
    claim = await delivery.next_claim(selection, run_id)
    if claim is None:
        return None
    try:
        claim, done = await delivery.prepare(claim)
        done.add(await delivery.hand_over(claim, run_id))
    except RetryLater as error:
        await delivery.leave(claim, error.retry_after)
        if isinstance(error, QuotaExhausted):
            until = datetime.now(UTC) + timedelta(seconds=error.retry_after)
            await Memory(delivery.ledger).remember(USED_UP, until.isoformat())
        raise
    except OutcomeUnknown:
        await delivery.leave(claim, 0.0)
        raise
    except Refused:
        # Our key or our domain is at fault: until a person mends that, others must not run into the same claim.
        await delivery.leave(claim, REFUSED_PAUSE)
        raise
    return done
