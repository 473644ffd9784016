"""What the demo shows: progress, the table of mails, and what went wrong."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping
from datetime import datetime
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from tidings.local.demo_ledger import Mail


class Arrivals:
    """How many mails have arrived: a bar on a terminal, a line whenever it changes elsewhere."""

    def __init__(self, console: Console, total: int) -> None:
        self._console, self._total, self._shown = console, total, -1
        self._began = time.monotonic()
        columns = (TextColumn("mails delivered"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
        self._bar = Progress(*columns, console=console) if console.is_terminal else None
        self._task = self._bar.add_task("", total=total) if self._bar else None

    def __enter__(self) -> Self:
        if self._bar:
            self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bar:
            self._bar.stop()

    def show(self, count: int) -> None:
        if self._bar and self._task is not None:
            self._bar.update(self._task, completed=count)
        elif count != self._shown:
            elapsed = time.monotonic() - self._began
            self._console.print(f"  {count} of {self._total} mails delivered after {elapsed:.0f} s", highlight=False)
        self._shown = count


def mail_table(mails: Iterable[Mail]) -> Table:
    table = Table(title="Mails", title_justify="left")
    table.add_column("to", overflow="fold")
    table.add_column("template", overflow="fold")
    table.add_column("subject", overflow="ellipsis", no_wrap=True)
    for name in ("due", "sent", "delivered"):
        table.add_column(name, no_wrap=True)
    for mail in mails:
        arrived = mail.arrived
        subject = escape(arrived.subject) if arrived else ""
        delivered = arrived.delivered_at if arrived else None
        times = (_clock(mail.due_at), _clock(mail.sent_at), _clock(delivered))
        table.add_row(escape(mail.email), escape(mail.template), subject, *times)
    return table


def latest(mails: Iterable[Mail]) -> float:
    """How long after its due time the latest mail was taken by Resend, in seconds."""
    return max(((m.sent_at - m.due_at).total_seconds() for m in mails if m.sent_at), default=0.0)


def show_list(console: Console, title: str, lines: Iterable[str]) -> None:
    shown = [f"  {escape(line)}" for line in lines]
    if shown:
        console.print(f"\n[bold]{escape(title)}[/bold]", *shown, sep="\n", highlight=False, soft_wrap=True)


def show_tails(console: Console, tails: Mapping[str, str]) -> None:
    for name, text in tails.items():
        if text.strip():
            show_list(console, f"End of the log of {name}", text.splitlines())


def _clock(moment: datetime | None) -> str:
    if moment is None:
        return ""
    return f"{moment.astimezone():%H:%M:%S}.{moment.microsecond // 100_000}"
