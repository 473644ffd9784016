"""Apprise: messages to people, by whatever address ALERT_URLS names. Its refusals become ours here.

Apprise knows about 130 services and imports them all when the first address is read: 24 MB and half a second. So it is
imported where a message is sent and nowhere else, and `complain_apart` reads the addresses in a process of its own.
"""

from __future__ import annotations

import asyncio
import json
import logging
import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from tidings.errors import ConfigError
from tidings.ports import Answer, Tone
from tidings.redact import redact
from tidings.settings import ROOT, Settings

if TYPE_CHECKING:
    from apprise import Apprise

#: The longest that one channel may take. Apprise gives a connection and an answer 4 s each; mail takes several.
SEND_SECONDS = 30.0
#: The longest that reading the addresses may take in a process of its own, on a machine that is busy.
APART_SECONDS = 60.0
#: A word of an address that is this long might be a token of it.
SHORTEST_TOKEN = 4
#: What stands between an address that is separated from the one before by a comma; commas may be part of an address.
_BETWEEN = re.compile(r"[\s,]+(?=[A-Za-z0-9_+.-]+://)")

#: What Apprise says to the task that is sending now.
_said: ContextVar[list[str] | None] = ContextVar("said", default=None)


@dataclass(frozen=True)
class Address:
    """One address of ALERT_URLS. It is never shown: whoever has it can write to the team."""

    number: int
    url: str = field(repr=False)

    @property
    def scheme(self) -> str:
        return self.url.partition("://")[0].lower() if "://" in self.url else "no scheme"

    @property
    def name(self) -> str:
        """Which it is, in words that give nothing away."""
        return f"address {self.number} of ALERT_URLS ({self.scheme})"

    def scrub(self, text: str) -> str:
        """The text without any part of the address."""
        for part in re.split(r"[^\w.~%+-]+", self.url.partition("://")[2]):
            if len(part) >= SHORTEST_TOKEN:
                text = text.replace(part, "[hidden]")
        return redact(text)


def addresses(given: str) -> list[Address]:
    """ALERT_URLS, one by one."""
    urls = [part.strip(" ,\n\t") for part in _BETWEEN.split(given)]
    return [Address(n, url) for n, url in enumerate(filter(None, urls), start=1)]


def complaints(given: str) -> list[str]:
    """What is wrong with the addresses, each by its number and scheme. Imports Apprise."""
    return [
        f"ALERT_URLS: {each.name} is none that Apprise understands; see github.com/caronc/apprise/wiki for how it is "
        "written" for each in addresses(given) if _channel(each) is None
    ]  # fmt: skip


def complain_apart(given: str) -> None:
    """Raises ConfigError for wrong addresses. Apprise stays out of this process: another one reads them."""
    command = [sys.executable, "-m", "tidings.adapters.notify"]
    done = subprocess.run(
        command, cwd=ROOT, input=given, capture_output=True, text=True, timeout=APART_SECONDS, check=False
    )
    if done.returncode != 0:
        raise ConfigError(["ALERT_URLS cannot be read: Apprise does not start; install the locked requirements"])
    if problems := json.loads(done.stdout):
        raise ConfigError(problems)


class Apprised:
    """The channels of ALERT_URLS. Apprise is imported at the first message."""

    def __init__(self, given: str) -> None:
        self._addresses = addresses(given)
        self._channels: dict[int, Apprise] = {}

    async def send(self, title: str, body: str, tone: Tone) -> list[Answer]:
        """Give a message to every channel at once. Raises ConfigError for an address that Apprise does not know."""
        if not self._channels:
            self._channels = await asyncio.to_thread(self._open)
        return list(await asyncio.gather(*[self._give(each, title, body, tone) for each in self._addresses]))

    def _open(self) -> dict[int, Apprise]:
        opened = {each.number: _channel(each) for each in self._addresses}
        known = {number: channel for number, channel in opened.items() if channel is not None}
        if len(known) < len(opened):
            raise ConfigError([f"ALERT_URLS: {each.name} is none that Apprise understands"
                               for each in self._addresses if each.number not in known])  # fmt: skip
        return known

    async def _give(self, address: Address, title: str, body: str, tone: Tone) -> Answer:
        from apprise import NotifyFormat, NotifyType

        said: list[str] = []
        _said.set(said)  # each call of gather's is a task with a context of its own, and so is its thread
        try:
            async with asyncio.timeout(SEND_SECONDS):
                # Not its async_notify: that works in threads too, where nobody could tell whose warning it is.
                channel = self._channels[address.number]
                took = await asyncio.to_thread(
                    channel.notify, body=body, title=title, notify_type=NotifyType(tone), body_format=NotifyFormat.TEXT
                )
        except TimeoutError:
            return Answer(address.name, f"did not answer within {SEND_SECONDS:g} s")
        if took:
            return Answer(address.name)
        return Answer(address.name, address.scrub("; ".join(said)) or "did not take it and did not say why")


def channels_of(settings: Settings) -> Apprised | None:
    """Where alerts go; None where that is not set."""
    return Apprised(settings.alert_urls.get_secret_value()) if settings.alert_urls else None


def _channel(address: Address) -> Apprise | None:
    """One Apprise object an address, so that each answers for itself; None when the address is wrong."""
    from apprise import Apprise, AppriseAsset

    _listen()
    channel = Apprise(asset=AppriseAsset(app_id="Tidings", app_desc="Tidings", async_mode=False))
    with _unheard():
        return channel if channel.add(address.url) else None


class _Hearing(logging.Handler):
    """Takes Apprise's warnings to whoever is sending, and to nobody else: they may quote what is secret."""

    def emit(self, record: logging.LogRecord) -> None:
        said = _said.get()
        if said is not None:
            said.append(record.getMessage())


_hearing = _Hearing(logging.WARNING)


def _listen() -> None:
    # It logs every address that is asked, with its path.
    logging.getLogger("urllib3").setLevel(logging.ERROR)
    logger = logging.getLogger("apprise")
    logger.propagate = False
    logger.handlers = [_hearing]
    logger.setLevel(logging.WARNING)


@contextmanager
def _unheard() -> Iterator[None]:
    token = _said.set(None)
    try:
        yield
    finally:
        _said.reset(token)


if __name__ == "__main__":
    sys.stdout.write(json.dumps(complaints(sys.stdin.read())))
