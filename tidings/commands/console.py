"""Where the commands write. Whatever comes from outside is shown as it is: nothing in it is markup, or an emoji."""

from __future__ import annotations

import re
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime

from rich.console import Console
from rich.measure import Measurement
from rich.table import Table
from rich.text import Text

from tidings.ports import Told

#: Wide where nobody reads it on a screen, so that an id can be taken out of a table by a script.
out = Console(width=None if sys.stdout.isatty() else 240, markup=False, emoji=False, highlight=False)
err = Console(stderr=True, markup=False, emoji=False, highlight=False)
#: What a terminal may take for a command of the sender's; tabs and line ends are none.
CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")
#: How often a step that is under way is told of where nothing can be shown in place.
LINE_SECONDS = 2.0
#: Columns with sentences in them, which are folded; what stands in all others is there to be copied.
SENTENCES = {"why", "turned away because", "lifted"}


def plain(text: str) -> str:
    """The text without what would move a terminal's cursor, change its colours or more."""
    return CONTROL.sub("\N{REPLACEMENT CHARACTER}", text)


def say(*parts: str | tuple[str, str], to: Console = out) -> None:
    """A line of its own, never cut; a part may be a text and its style."""
    styled = [(plain(part), "") if isinstance(part, str) else (plain(part[0]), part[1]) for part in parts]
    to.print(Text.assemble(*styled), soft_wrap=True)


def tell_progress(done: int, remaining: int, what: str) -> None:
    """How far something has come, on standard error; nothing where it has come to its end."""
    if remaining:
        say(f"… {done} of {done + remaining} {what}, {remaining} remain", to=err)


@contextmanager
def progress(what: str) -> Iterator[Told]:
    """How far one step has come, on standard error: in place on a terminal, elsewhere a line every few seconds."""
    said = time.monotonic()
    with err.status(what) as status:

        def told(done: int, of: int) -> None:
            nonlocal said
            status.update(f"{done} of {of} {what}")
            if not err.is_terminal and time.monotonic() - said >= LINE_SECONDS:
                said = time.monotonic()
                say(f"… {done} of {of} {what}", to=err)

        yield told


def table(*columns: str) -> Table:
    """A table of text as it is; only sentences are folded."""
    made = Table()
    for name in columns:
        folded = name in SENTENCES
        made.add_column(name, overflow="fold", no_wrap=not folded, min_width=24 if folded else None)
    return made


def add(made: Table, *cells: str | None) -> None:
    made.add_row(*(plain(cell or "") for cell in cells))


def show(made: Table) -> None:
    """The table whole: where the window is too narrow for it the terminal breaks its lines, and nothing is cut."""
    least = Measurement.get(out, out.options.update(max_width=10_000), made).minimum
    made.width = least if least > out.width else None
    out.print(made, crop=False)


def as_utc(moment: datetime | None) -> datetime | None:
    """What a person gave as an option: in UTC where it has no offset."""
    return moment.replace(tzinfo=UTC) if moment and moment.tzinfo is None else moment


def second(moment: datetime | None) -> str:
    """In UTC; nothing where there is none."""
    return f"{moment.astimezone(UTC):%Y-%m-%d %H:%M:%S}" if moment else ""


def minute(moment: datetime | None) -> str:
    """In UTC, without the seconds."""
    return f"{moment.astimezone(UTC):%Y-%m-%d %H:%M}" if moment else ""
