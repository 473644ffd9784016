"""Tells people of alerts, and of their end: several of a kind in one message, each once, tried again until it is taken.

A message that a channel took just before this process died is told again: twice is better than never.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from tidings.errors import ConfigError
from tidings.findings import length
from tidings.ledger import Ledger
from tidings.ledger import alerts as ledger_alerts
from tidings.ledger.locks import alone
from tidings.ledger.memory import Memory
from tidings.ports import Answer, Channels, Tone

log = logging.getLogger("tidings.alerts")

#: Where every process finds why the last message did not reach a channel.
TROUBLE = "alerts-trouble"
#: So many of a kind are told one by one, and so many characters in all: Discord takes 2,000.
MOST, LONGEST = 10, 1800
#: Between one attempt to tell and the next, doubled with each that fails.
FIRST_PAUSE, LONGEST_PAUSE = timedelta(seconds=20), timedelta(minutes=15)


@dataclass(frozen=True)
class Message:
    """What people read."""

    title: str
    body: str
    tone: Tone


def opening(rows: Sequence[Any], public_url: str) -> Message:
    """One message for alerts of one kind."""
    tone = Tone.INFO if rows[0].recovery_told_at else Tone.FAILURE
    more = f"All that is open: tidings alerts, or {public_url}/api/alerts"
    if len(rows) == 1:
        return Message(f"Tidings: {rows[0].title}", f"{_cut(rows[0].body, LONGEST)}\n\n{more}", tone)
    return Message(f"Tidings: {_several(rows)}", f"{_list(rows)}\n\n{more}", tone)


def ending(rows: Sequence[Any]) -> Message:
    """One message for alerts of one kind that are over."""
    lines = [f"- {row.title}: {_ended(row)}" for row in rows[:MOST]]
    lines += [f"… and {len(rows) - MOST} more"] if len(rows) > MOST else []
    what = rows[0].title if len(rows) == 1 else _several(rows)
    return Message(f"Tidings: over: {what}", _cut("\n".join(lines), LONGEST), Tone.SUCCESS)


def _several(rows: Sequence[Any]) -> str:
    """The first in its own words: a title is all that a phone shows."""
    return f"{rows[0].title}, and {len(rows) - 1} more ({rows[0].kind})"


def _ended(row: Any) -> str:
    return f"over since {row.recovered_at:%H:%M:%S} UTC, after {length(row.recovered_at - row.opened_at)}"


def _list(rows: Sequence[Any]) -> str:
    shown = rows[:MOST]
    parts = [_cut(f"- {row.title}\n  {row.body}", LONGEST // len(shown)) for row in shown]
    return "\n".join([*parts, *([f"… and {len(rows) - MOST} more"] if len(rows) > MOST else [])])


def _cut(text: str, longest: int) -> str:
    return text if len(text) <= longest else f"{text[: longest - 1]}…"


class Teller:
    """Tells for one process; several may try, one at a time does."""

    def __init__(self, ledger: Ledger, channels: Channels | None, public_url: str) -> None:
        """Without channels the log is the only one."""
        self._ledger = ledger
        self._channels = channels
        self._memory = Memory(ledger)
        self._public_url = public_url
        self._not_before: datetime | None = None
        self._pause = FIRST_PAUSE

    async def tell(self, now: datetime) -> int:
        """Tell what nobody was told of yet; returns how many messages were taken. Raises LedgerUnavailable."""
        if self._not_before is not None and now < self._not_before:
            return 0
        async with alone(self._ledger, ledger_alerts.TELLING) as connection:
            if connection is None:
                return 0
            new = _by_kind(await ledger_alerts.untold(connection))
            over = _by_kind(await ledger_alerts.untold_recoveries(connection))
            taken = [await self._opening(connection, rows, now) for rows in new]
            taken += [await self._ending(connection, rows, now) for rows in over]
        self._plan(taken, now)
        return sum(taken)

    async def _opening(self, connection: Any, rows: list[Any], now: datetime) -> bool:
        if not await self.send(opening(rows, self._public_url)):
            return False
        await ledger_alerts.told(connection, [row.id for row in rows], now)
        return True

    async def _ending(self, connection: Any, rows: list[Any], now: datetime) -> bool:
        if not await self.send(ending(rows)):
            return False
        await ledger_alerts.recovery_told(connection, [row.id for row in rows], now)
        return True

    def _plan(self, taken: list[bool], now: datetime) -> None:
        """When to try again what no channel took."""
        if all(taken):
            self._not_before, self._pause = None, FIRST_PAUSE
            return
        self._not_before = now + self._pause
        self._pause = min(2 * self._pause, LONGEST_PAUSE)

    async def send(self, message: Message) -> bool:
        """Whether a channel took it. What the others said is remembered until all take one."""
        log.warning("alert.told" if message.tone is not Tone.SUCCESS else "alert.over", extra={"title": message.title})
        if self._channels is None:
            return True
        answers = await send(self._channels, message)
        await remember(self._memory, answers)
        return any(answer.problem is None for answer in answers)


async def try_out(ledger: Ledger, channels: Channels, public_url: str) -> list[Answer]:
    """Send a message by which people see that alerts arrive; what each channel said."""
    body = f"This is a test: alerts of {public_url} arrive here.\nWhat is open: tidings alerts"
    answers = await send(channels, Message("Tidings: a test", body, Tone.INFO))
    await remember(Memory(ledger), answers)
    return answers


async def remember(memory: Memory, answers: Sequence[Answer]) -> None:
    """Why the last message did not reach a channel, for every process to see; forgotten when all have taken one."""
    trouble = "; ".join(f"{answer.channel}: {answer.problem}" for answer in answers if answer.problem)
    known = await memory.recall(TROUBLE)
    if trouble and trouble != known:
        await memory.remember(TROUBLE, trouble)
    if known and not trouble:
        await memory.forget(TROUBLE)


async def send(channels: Channels, message: Message) -> list[Answer]:
    """Give a message to every channel; what did not take it is in the log too."""
    try:
        answers = await channels.send(message.title, message.body, message.tone)
    except ConfigError as error:
        answers = [Answer("ALERT_URLS", "; ".join(error.problems))]
    for answer in answers:
        if answer.problem:
            log.error("alert.not_taken", extra={"channel": answer.channel, "problem": answer.problem})
    return answers


def _by_kind(rows: list[Any]) -> list[list[Any]]:
    found: dict[str, list[Any]] = {}
    for row in rows:
        found.setdefault(row.kind, []).append(row)
    return list(found.values())
