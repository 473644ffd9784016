"""Where the ledger and the services' own lists differ: the mails that Resend has taken, the rows that Notion shows.

A difference at Resend is told and never sent again by itself. A row that Notion lacks, or shows otherwise than it is,
is written again by the mirror; one that a person deletes comes back once.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from email.utils import parseaddr
from typing import Any, Protocol
from uuid import UUID

from tidings.alerts import Finding
from tidings.errors import Refused
from tidings.gaps import KIND, Checked, Scope
from tidings.ledger import Ledger, mails, mirror
from tidings.ledger.memory import Memory
from tidings.ledger.mirror import Kind, Row
from tidings.mirror import Workspace, property_value
from tidings.model import Listed, MessageState
from tidings.notion_schema import KEY, Database
from tidings.ports import Turns

#: Runs are an hour apart, so every mail is looked at twice at least.
MAILS_BACK = timedelta(hours=3)
#: A mail or row that was handed over a moment ago may not be listed yet; and its answer may be on its way.
SETTLED_AFTER = timedelta(minutes=5)
#: An answer that was lost is asked for again by then, with the same key.
ASKED_AGAIN_WITHIN = timedelta(minutes=30)
#: Of mails that the ledger does not know, so many are asked about one by one: each costs a turn.
MOST_STRANGERS = 20
#: Rows of each kind that are looked at, those changed last, and how far back: ten questions at Notion, at the most.
ROWS, ROWS_BACK = 1000, timedelta(days=3)
#: Conditions that one question at Notion may hold.
QUESTION = 100
#: What Notion shows that only the ledger can know. All else people may change there.
OURS = {"messages": ("Status", "Resend Email ID"), "enrolments": ("Sequence Completed", "Email "), "contacts": ()}
SHOWN_IDS = 10


class Lister(Protocol):
    """The sender's own list of mails."""

    async def listed_since(self, since: datetime, turns: Turns) -> Listed: ...

    async def message_of(self, provider_id: str, turns: Turns) -> UUID | None: ...


@dataclass(frozen=True)
class SentMails:
    """The ledger's sent mails against the sender's list. `sender` is the From line of ours."""

    ledger: Ledger
    lister: Lister
    turns: Turns
    sender: str

    async def compare(self, scope: Scope) -> Checked:
        """Raises RetryLater and OutcomeUnknown while the sender gives no answer, Refused for a key that is wrong."""
        since, until = scope.since or scope.now - MAILS_BACK, scope.now - SETTLED_AFTER
        try:
            listed = await self.lister.listed_since(since - SETTLED_AFTER, self.turns)
        except Refused as error:
            if error.code != "restricted_api_key":
                raise
            return Checked(("cannot be compared: RESEND_API_KEY may only send",))
        async with self.ledger.reading() as connection:
            ours = await mails.sent_between(connection, max(since, listed.since + SETTLED_AFTER), until)
        there = {str(mail["id"]) for mail in listed.mails}
        missing = {provider_id: ours[provider_id] for provider_id in ours if provider_id not in there}
        strangers = await self._strangers(listed, scope)
        findings = [f for f in (_missing(missing), _strange(strangers)) if f]
        notes = (f"{len(ours)} compared", *[f.title for f in findings])
        return Checked(notes, tuple(findings), differences=len(missing) + len(strangers))

    async def _strangers(self, listed: Listed, scope: Scope) -> dict[UUID, MessageState]:
        """Messages of ours that Resend has sent, and the ledger does not know as handed over."""
        ids = [str(m["id"]) for m in listed.mails if self._is_ours(m) and _age(m, scope.now) > ASKED_AGAIN_WITHIN]
        async with self.ledger.reading() as connection:
            known = await mails.known_ids(connection, ids)
        unknown = [each for each in ids if each not in known][:MOST_STRANGERS]
        told = [await self.lister.message_of(each, self.turns) for each in unknown]
        async with self.ledger.reading() as connection:
            return await mails.states(connection, [each for each in told if each is not None])

    def _is_ours(self, mail: Mapping[str, Any]) -> bool:
        return parseaddr(str(mail.get("from")))[1].lower() == parseaddr(self.sender)[1].lower()


def _age(mail: Mapping[str, Any], now: datetime) -> timedelta:
    try:
        at = datetime.fromisoformat(str(mail.get("created_at")))
    except ValueError:
        return timedelta(0)
    return now - (at if at.tzinfo else at.replace(tzinfo=UTC))


def _some(ids: Sequence[object]) -> str:
    more = f" and {len(ids) - SHOWN_IDS} more" if len(ids) > SHOWN_IDS else ""
    return ", ".join(str(each) for each in ids[:SHOWN_IDS]) + more


def _missing(missing: Mapping[str, UUID]) -> Finding | None:
    if not missing:
        return None
    return Finding(
        kind=KIND,
        subject="resend/missing",
        title=f"Resend's list lacks {len(missing)} of the mails that the ledger has as sent",
        body=f"Resend's ids: {_some(list(missing))}. Does RESEND_API_KEY belong to another team than the one that sent "
        "them? Look them up at resend.com/emails, and ask Resend about those that are not there. Nothing is sent "
        "again by itself.",
    )


def _strange(strangers: Mapping[UUID, MessageState]) -> Finding | None:
    if not strangers:
        return None
    said = _some([f"{message_id} ({state.value})" for message_id, state in strangers.items()])
    return Finding(
        kind=KIND,
        subject="resend/unknown",
        title=f"Resend has sent {len(strangers)} mails that the ledger does not know as sent",
        body=f"Messages, and what the ledger has them as: {said}. Resend's answer was lost, or the ledger was put back "
        "to an older copy. Do not send them again: tidings messages retry would.",
    )


# -- Notion's rows -----------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class NotionRows:
    """The ledger's rows against what Notion shows of them."""

    ledger: Ledger
    workspace: Workspace
    databases: Mapping[str, tuple[Database, str]]

    async def compare(self, scope: Scope) -> Checked:
        """Have rows written again that are missing or not as they were written. Raises what the workspace raises."""
        since = scope.since or scope.now - ROWS_BACK
        notes, differences = [], 0
        for kind in mirror.KINDS:
            async with self.ledger.reading() as connection:
                rows = await kind.shown(connection, since, scope.now - SETTLED_AFTER, ROWS)
            seen = await self._look_up(kind, rows)
            missing = [row for row in rows if str(row.id) not in seen]
            stale = [row for row in rows if str(row.id) in seen and await self._differs(kind, row, seen[str(row.id)])]
            again = [row for row in missing if await self._first_time(row, scope)]
            if not scope.dry_run:
                async with self.ledger.transaction() as connection:
                    await kind.write_again(connection, again, on_a_new_page=True)
                    await kind.write_again(connection, stale, on_a_new_page=False)
            notes.append(_said(kind, rows, again, stale, len(missing) - len(again), scope))
            differences += len(again) + len(stale)
        return Checked(tuple(notes), (_rewritten(differences, notes, scope),) if differences else (),
                       differences=differences)  # fmt: skip

    async def _look_up(self, kind: Kind, rows: Sequence[Row]) -> dict[str, Mapping[str, Any]]:
        """Notion's rows by our ids, a hundred a question."""
        database, given = self.databases[kind.field]
        name = await self.workspace.property_name(database.setting, given, KEY)
        seen: dict[str, Mapping[str, Any]] = {}
        for start in range(0, len(rows), QUESTION):
            wanted = [{"property": name, "rich_text": {"equals": str(r.id)}} for r in rows[start : start + QUESTION]]
            await self.workspace.pace()
            for page in await self.workspace.query(
                database.setting, given, filter={"or": wanted} if len(wanted) > 1 else wanted[0], page_size=100
            ):
                seen[plain(page["properties"][name])] = page["properties"]
        return seen

    async def _differs(self, kind: Kind, row: Row, shown: Mapping[str, Any]) -> bool:
        database, given = self.databases[kind.field]
        for wanted, value in row.values.items():
            if wanted.startswith(OURS[kind.name] or ("\0",)):
                name = await self.workspace.property_name(database.setting, given, wanted)
                if plain(shown[name]) != plain(property_value(shown[name]["type"], value)):
                    return True
        return False

    async def _first_time(self, row: Row, scope: Scope) -> bool:
        """Whether it has not been put back before: who deletes it again means it."""
        memory, key = Memory(self.ledger), f"notion-put-back:{row.id}"
        if await memory.recall(key) is not None:
            return False
        if not scope.dry_run:
            await memory.remember(key, scope.now.isoformat())
        return True


def plain(value: Mapping[str, Any]) -> str:
    """A property's value in one form, as it is written and as Notion gives it back: dates to the minute, in UTC."""
    kind = value.get("type") or next(iter(value))
    given = value[kind]
    match kind:
        case "title" | "rich_text":
            return "".join(item.get("plain_text") or item["text"]["content"] for item in given)
        case "select" | "status":
            return str(given["name"]) if given else ""
        case "date":
            return _minute(given["start"]) if given else ""
        case "number":
            return "" if given is None else f"{float(given):g}"
        case _:
            return "" if given is None else str(given)


def _minute(text: str) -> str:
    """Notion drops the seconds (apis.md 0)."""
    moment = datetime.fromisoformat(text)
    return moment.astimezone(UTC).replace(second=0, microsecond=0).isoformat() if moment.tzinfo else text


def _said(kind: Kind, rows: Sequence[Row], again: Sequence[Row], stale: Sequence[Row], left: int, scope: Scope) -> str:
    will = "would be written again" if scope.dry_run else "are written again"
    parts = [f"{len(rows)} compared"]
    parts += [f"{len(again)} missing {will}"] if again else []
    parts += [f"{len(stale)} changed there {will}"] if stale else []
    parts += [f"{left} deleted by a person more than once are left out"] if left else []
    return f"{kind.name}: {', '.join(parts)}"


def _rewritten(differences: int, notes: Sequence[str], scope: Scope) -> Finding:
    return Finding(
        kind=KIND,
        subject=f"notion/{scope.now:%Y-%m-%dT%H:%M}",
        title=f"{differences} of Notion's rows were missing or not as the ledger has them",
        body=f"{'; '.join(notes)}. The mirror writes them again. When nobody has deleted or changed them, somebody "
        "else's automation may; a row that is deleted a second time stays so.",
        lasting=False,
    )
