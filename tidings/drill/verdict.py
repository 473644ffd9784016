"""Which alerts are missing, and which are false: judged from what arrived, and from what was broken at that time."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase

from tidings.drill.receiver import Told
from tidings.drill.ways import Way

NAME, OVER = "Tidings: ", "over: "
_GROUP = re.compile(r".*, and \d+ more \([a-z-]+\)$")  # tidings.telling
_ENDED = re.compile(r": over since \d\d:\d\d:\d\d UTC.*")


@dataclass(frozen=True)
class Alert:
    """One alert of a message, which may have several of one kind."""

    title: str
    text: str
    #: The message's own title, where it has several alerts.
    among: str
    over: bool
    at: float

    @property
    def read(self) -> str:
        """What a person reads of it first."""
        return f"{self.among}: {self.title}" if self.among else self.title

    def fits(self, beginning: str) -> bool:
        """Whether the title begins so; "*" stands for anything."""
        return fnmatchcase(self.title, f"{beginning}*")


def alerts(told: Sequence[Told]) -> list[Alert]:
    """What all these messages tell, alert by alert."""
    return [alert for message in told for alert in _alerts(message)]


def _alerts(told: Told) -> Iterator[Alert]:
    title = told.title.removeprefix(NAME)
    over = title.startswith(OVER)
    title = title.removeprefix(OVER) if over else title
    listed = [line[2:] for line in told.message.splitlines() if line.startswith("- ")]
    several = _GROUP.match(title)
    for each in listed if several else [title]:
        among = title if several else ""
        yield Alert(_ENDED.sub("", each) if over else each, f"{each}\n{told.message}", among, over, told.at)


@dataclass(frozen=True, kw_only=True)
class Result:
    """What came of one way."""

    way: Way
    #: What a person read first, and after how many seconds; None: nothing came.
    alert: str | None = None
    seconds: float | None = None
    #: After how many seconds from the mending people were told that it is over.
    recovery: float | None = None
    #: Everything that arrived from the breaking until all was well again.
    told: tuple[Told, ...] = ()
    #: What the drill itself could not do, or what was not well again in time.
    trouble: str | None = None


def missing(result: Result) -> Iterator[str]:
    """What should have been told and was not."""
    way = result.way
    if result.alert is None:
        yield f"{way.name}: {way.failure}, and no alert {way.alert!r} came within {way.within:.0f} s"
    elif way.recovers and result.recovery is None:
        yield f"{way.name}: it was mended, and nobody was told that it is over within {way.within:.0f} s"


def false(result: Result) -> Iterator[str]:
    """What was told and should not have been: what this break does not explain, or what was told already."""
    way = result.way
    told = Counter(alert.title for alert in alerts(result.told) if not alert.over)
    for title, times in told.items():
        if not any(fnmatchcase(title, f"{each}*") for each in (way.alert, *way.also)):
            yield f"{way.name}: {way.failure}, which does not explain {title!r}"
        elif times > 1:
            yield f"{way.name}: {title!r} was told {times} times"


@dataclass(frozen=True)
class Quiet:
    """Ordinary work at the end, in which nobody may be told of anything."""

    minutes: float
    seconds: float
    webhooks: int
    #: Mails that became due in it and were delivered, and those that were not.
    mails: int
    lacking: int
    told: tuple[Told, ...]


@dataclass(frozen=True)
class Verdict:
    """Everything that was not as it has to be, in words."""

    missing: tuple[str, ...]
    false: tuple[str, ...]
    troubles: tuple[str, ...]

    @property
    def right(self) -> bool:
        return not (self.missing or self.false or self.troubles)


def judge(results: Sequence[Result], quiet: Quiet | None) -> Verdict:
    """`quiet` is None when it did not take place."""
    wrong = [each for result in results for each in false(result)]
    troubles = [f"{result.way.name}: {result.trouble}" for result in results if result.trouble]
    if quiet:
        wrong += [f"quiet period: {alert.title!r} came although nothing was broken" for alert in alerts(quiet.told)]
        troubles += [f"quiet period: {quiet.lacking} mails were not delivered"] if quiet.lacking else []
    else:
        troubles.append("there was no quiet period")
    return Verdict(tuple(each for result in results for each in missing(result)), tuple(wrong), tuple(troubles))
