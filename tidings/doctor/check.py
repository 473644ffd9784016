"""What a check is, and what it may say."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

from tidings.errors import LedgerUnavailable, Refused, RetryLater, TidingsError
from tidings.wiring import App

TOO_MANY = 429


class State(StrEnum):
    #: Proven to work.
    OK = "ok"
    #: Proven not to work, with what to do.
    WRONG = "wrong"
    #: Cannot be proven from here, such as with a key that may only send.
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class Word:
    """What a check found. `text` is cause and cure of what is wrong, why it is unknown, or what was seen."""

    state: State
    text: str = ""

    @property
    def problem(self) -> str | None:
        """What is wrong and what to do, or None."""
        return self.text if self.state is State.WRONG else None

    def __str__(self) -> str:
        return {State.OK: "ok", State.WRONG: self.text, State.UNKNOWN: f"unknown: {self.text}"}[self.state]


def ok(seen: str = "") -> Word:
    return Word(State.OK, seen)


def wrong(text: str) -> Word:
    return Word(State.WRONG, text)


def unknown(text: str) -> Word:
    return Word(State.UNKNOWN, text)


def all_of(problems: Sequence[str], seen: str = "") -> Word:
    """Ok when there are none."""
    return wrong("; ".join(problems)) if problems else ok(seen)


@contextmanager
def cure(text: str, *statuses: int) -> Iterator[None]:
    """Add to a service's refusal with one of these statuses what to do about it."""
    try:
        yield
    except Refused as error:
        if error.status in statuses:
            raise Refused(error.service, f"{error.detail}; {text}", status=error.status, code=error.code) from error
        raise


@dataclass(frozen=True)
class Check:
    """One part of the chain. Its word is good for `fresh` seconds: Notion and Resend must not be asked often."""

    name: str
    proof: Callable[[App, datetime], Awaitable[Word]]
    fresh: float

    async def word(self, parts: App, now: datetime) -> Word:
        """What is so now. Raises RetryLater when a service asks to be asked less often."""
        try:
            return await self.proof(parts, now)
        except RetryLater as error:
            if error.status == TOO_MANY:
                raise  # it answers, so it lives; what was known of it before still holds
            return wrong(str(error))
        except LedgerUnavailable as error:
            return unknown(f"the ledger comes first: {error}")
        except TidingsError as error:
            return wrong(str(error))

    async def prove(self, parts: App, now: datetime) -> str | None:
        """None when nothing is known to be wrong, else what is wrong and what to do."""
        return (await self.word(parts, now)).problem
