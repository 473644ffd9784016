"""What the use cases need from the outside, in their own words. Adapters satisfy these; tests may too."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any, Protocol
from uuid import UUID

from tidings.errors import Refused
from tidings.model import Booking, Slot, Template


class Told(Protocol):
    """Who hears how far something long has come."""

    def __call__(self, done: int, of: int) -> None: ...


def nobody_told(done: int, of: int) -> None:
    """Nobody wants to know."""


class Copy(Protocol):
    """Where the copy is written."""

    async def templates(self, names: Sequence[str]) -> dict[str, Template]: ...


class Projects(Protocol):
    """Where each customer's project is kept."""

    async def portal_url(self, email: str) -> str | None:
        """The address of this customer's portal page, or None when there is none yet."""
        ...


class Calendar(Protocol):
    """Where bookings are kept, for what no webhook has said of them."""

    async def booking(self, key: str) -> Booking | None:
        """A booking by its fact's key, or None when this calendar does not keep such or does not know it."""
        ...


class Subscription(Protocol):
    """A webhook subscription at a service: where it posts, what it tells of, and whether it is switched on."""

    @property
    def url(self) -> str: ...

    @property
    def active(self) -> bool: ...

    @property
    def events(self) -> frozenset[str]: ...


class Subscriptions(Protocol):
    """A service that posts webhooks, as it lists them itself."""

    async def subscriptions(self) -> Sequence[Subscription]: ...


class Door(Protocol):
    """This server's public address, as a sender of webhooks reaches it."""

    async def post(self, path: str, body: str, headers: Mapping[str, str]) -> tuple[int, Mapping[str, Any]]:
        """Status and JSON of the answer; empty where there was none. Raises ServiceError when nobody answers."""
        ...


class Deadman(Protocol):
    """Somebody outside who raises the alarm when it is not told in time that all is well."""

    async def well(self) -> None: ...

    async def failed(self, why: str) -> None: ...


class Turns(Protocol):
    """Who may ask the sender, and when: one pace for all workers."""

    async def turn(self) -> None: ...

    async def learn(self, rate: float | None) -> None: ...

    async def rest(self, seconds: float) -> None:
        """Nobody asks before so many seconds have passed: the sender has told us so."""
        ...


#: So many mails of its own list a sender tells of at most.
LISTED_MOST = 5000


class Sender(Protocol):
    """Who delivers."""

    @property
    def rate_limit(self) -> float | None:
        """Requests a second that the sender allows, as it last said."""
        ...

    async def send(self, payloads: Sequence[Mapping[str, Any]], key: str) -> list[str | Refused]: ...

    async def sent_since(self, since: datetime) -> list[Mapping[str, Any]]:
        """What the sender's own list has of mails accepted since then: id, to and subject of each.

        The newest LISTED_MOST at most. Raises Refused (restricted_api_key) for a key that may only send.
        """
        ...


class Runs(Protocol):
    """The engine that schedules and runs the work."""

    async def start_handler(self, deployment: str, event_ids: Sequence[UUID], dispatch_id: UUID) -> UUID: ...

    async def open_handler(self, deployment: str, dispatch_id: UUID, at: datetime) -> UUID:
        """A handler run for whatever events its dispatch has when it starts, at this time."""
        ...

    async def start_send(self, slot: Slot, *, at: datetime, key: str) -> tuple[UUID, bool]:
        """The run of this key and whether it has yet to begin (a repeat of the key finds the same run)."""
        ...

    async def ended(self, run_ids: Sequence[UUID]) -> dict[UUID, str]:
        """Of these runs, those that will not run any more, and how they ended: completed, cancelled, failed, gone."""
        ...


class Tone(StrEnum):
    """How a message to people sounds; the words are Apprise's."""

    FAILURE = "failure"
    SUCCESS = "success"
    INFO = "info"


@dataclass(frozen=True, slots=True)
class Answer:
    """What a channel said to a message."""

    #: Which channel, without its address.
    channel: str
    #: Why it did not take it; None: it did.
    problem: str | None = None


class Channels(Protocol):
    """Where people are told."""

    async def send(self, title: str, body: str, tone: Tone) -> list[Answer]:
        """Give a message to each channel; what each said."""
        ...
