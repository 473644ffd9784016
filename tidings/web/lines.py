"""Log lines of what happens many times in one round of the event loop: as when a group of webhooks is stored."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping

from tidings.logs import tell


class Together:
    """Tells together, as `tidings.logs.tell` does, what one round of the event loop has to say of one kind.

    A line costs as much as a tenth of a webhook, so under load a group has one.
    """

    def __init__(self, log: logging.Logger, what: str) -> None:
        self._log = log
        self._what = what
        self._about: list[Mapping[str, object]] = []

    def add(self, about: Mapping[str, object]) -> None:
        """Said before the loop serves what has come in meanwhile."""
        if not self._about:
            asyncio.get_running_loop().call_soon(self._tell)
        self._about.append(about)

    def _tell(self) -> None:
        about, self._about = self._about, []
        tell(self._log, self._what, about)
