"""What is shown while a run goes on: a line that changes on a terminal, plain lines elsewhere."""

from __future__ import annotations

import time
from collections.abc import Iterable
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.markup import escape
from rich.status import Status

#: Seconds between two plain lines.
EVERY = 10.0


class Progress:
    def __init__(self, console: Console) -> None:
        self._console = console
        self._began = time.monotonic()
        self._status: Status | None = console.status("starting") if console.is_terminal else None
        self._shown = 0.0

    def __enter__(self) -> Self:
        if self._status:
            self._status.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._status:
            self._status.stop()

    @property
    def elapsed(self) -> float:
        return time.monotonic() - self._began

    def say(self, text: str) -> None:
        """Something that has happened."""
        self._console.print(f"{self.elapsed:6.1f} s  {escape(text)}", highlight=False, soft_wrap=True)

    def show(self, text: str) -> None:
        """How it stands now."""
        if self._status:
            self._status.update(f"{self.elapsed:.0f} s  {escape(text)}")
        elif self.elapsed - self._shown > EVERY:
            self._shown = self.elapsed
            self.say(text)


def show_list(console: Console, title: str, lines: Iterable[str]) -> None:
    """Lines as they are under a bold title, which may have markup; nothing when there are none."""
    listed = [f"  {escape(line)}" for line in lines]
    if listed:
        console.print(f"\n[bold]{title}[/bold]", *listed, sep="\n", highlight=False, soft_wrap=True)
