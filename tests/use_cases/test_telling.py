"""Each alert is told once, and its end; what was over before is not told, and what nobody took is told later."""

from __future__ import annotations

import asyncio
import logging
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from itertools import pairwise

import pytest

from tidings.alerts import Finding, note
from tidings.errors import ConfigError
from tidings.ledger import Ledger
from tidings.ledger import alerts as ledger_alerts
from tidings.ledger.memory import Memory
from tidings.ports import Answer, Tone
from tidings.telling import FIRST_PAUSE, LONGEST, LONGEST_PAUSE, MOST, TROUBLE, Teller, try_out

NOW = datetime(2026, 12, 1, 12, tzinfo=UTC)
MINUTE = timedelta(minutes=1)
URL = "https://t.tidings.test"
LATE = Finding("late-mail", "3 mails are late", "No worker took their run.\nMore: tidings doctor", subject="one")
LEAD = Finding("hot-lead", "A CRITICAL contact", "Who it is: tidings contact", subject="event-1", lasting=False)


@dataclass
class Mouth:
    """Two channels; those whose numbers are in `deaf` take nothing."""

    deaf: set[int] = field(default_factory=set)
    said: list[tuple[str, str, Tone]] = field(default_factory=list)
    broken: bool = False

    async def send(self, title: str, body: str, tone: Tone) -> list[Answer]:
        if self.broken:
            raise ConfigError(["ALERT_URLS: address 1 is none that Apprise understands"])
        if self.deaf != {1, 2}:
            self.said.append((title, body, tone))
        return [Answer(f"channel {n}", "is deaf" if n in self.deaf else None) for n in (1, 2)]

    @property
    def titles(self) -> list[str]:
        return [title for title, _, _ in self.said]


@pytest.fixture
def mouth() -> Mouth:
    return Mouth()


@pytest.fixture
def teller(ledger: Ledger, mouth: Mouth) -> Teller:
    return Teller(ledger, mouth, URL)


async def found(ledger: Ledger, *findings: Finding, at: datetime = NOW) -> None:
    await note(ledger, findings, {"late-mail"}, at)


async def test_nothing_found__tells_nothing(teller: Teller, mouth: Mouth) -> None:
    assert await teller.tell(NOW) == 0
    assert mouth.said == []


async def test_an_alert__is_told_once_with_cause_cure_and_where_more_is(
    ledger: Ledger, teller: Teller, mouth: Mouth
) -> None:
    for minutes in range(3):
        await found(ledger, LATE, at=NOW + minutes * MINUTE)
        await teller.tell(NOW + minutes * MINUTE)

    [(title, body, tone)] = mouth.said
    assert (title, tone) == ("Tidings: 3 mails are late", Tone.FAILURE)
    assert body.startswith("No worker took their run.\nMore: tidings doctor")
    assert f"tidings alerts, or {URL}/api/alerts" in body


async def test_its_end__is_told_once_to_who_was_told_of_it(ledger: Ledger, teller: Teller, mouth: Mouth) -> None:
    await found(ledger, LATE)
    await teller.tell(NOW)
    for minutes in range(7, 9):
        await found(ledger, at=NOW + 7 * MINUTE)
        await teller.tell(NOW + minutes * MINUTE)

    assert mouth.said[1:] == [
        (
            "Tidings: over: 3 mails are late",
            "- 3 mails are late: over since 12:07:00 UTC, after 7 min",
            Tone.SUCCESS,
        )
    ]


async def test_what_is_over_before_anybody_was_told__is_never_told(
    ledger: Ledger, teller: Teller, mouth: Mouth
) -> None:
    await found(ledger, LATE)
    await found(ledger, at=NOW + MINUTE)

    assert await teller.tell(NOW + MINUTE) == 0
    assert mouth.said == []


async def test_what_comes_back__is_told_again(ledger: Ledger, teller: Teller, mouth: Mouth) -> None:
    for at, findings in ((0, [LATE]), (1, []), (2, [LATE])):
        await found(ledger, *findings, at=NOW + at * MINUTE)
        await teller.tell(NOW + at * MINUTE)

    assert len(mouth.said) == 3


async def test_what_only_happens__is_told_once_and_has_no_end(ledger: Ledger, teller: Teller, mouth: Mouth) -> None:
    for _ in range(2):
        await found(ledger, LEAD)
        await teller.tell(NOW)

    assert [(title, tone) for title, _, tone in mouth.said] == [("Tidings: A CRITICAL contact", Tone.INFO)]


async def test_several_of_a_kind__are_one_message_and_kinds_are_apart(
    ledger: Ledger, teller: Teller, mouth: Mouth
) -> None:
    many = [Finding("late-mail", f"Template {n} is late", "Because. " * 100, subject=str(n)) for n in range(MOST + 5)]
    await found(ledger, *many, LEAD)

    assert await teller.tell(NOW) == 2

    lead, (title, body, _) = mouth.said
    assert lead[0] == "Tidings: A CRITICAL contact"
    assert title == f"Tidings: {many[0].title}, and {MOST + 4} more (late-mail)"
    assert body.count("- Template ") == MOST
    assert "… and 5 more" in body
    assert len(body) < LONGEST + 200
    await found(ledger, at=NOW + MINUTE)
    await teller.tell(NOW + MINUTE)
    assert mouth.titles[2:] == [f"Tidings: over: {many[0].title}, and {MOST + 4} more (late-mail)"]


async def test_one_channel_that_takes_it__is_enough_and_the_other_shows(
    ledger: Ledger, teller: Teller, mouth: Mouth
) -> None:
    mouth.deaf = {1}
    await found(ledger, LATE)

    assert await teller.tell(NOW) == 1

    assert await Memory(ledger).recall(TROUBLE) == "channel 1: is deaf"
    assert await teller.tell(NOW + MINUTE) == 0
    mouth.deaf = set()
    await found(ledger, at=NOW + MINUTE)
    await teller.tell(NOW + MINUTE)
    assert await Memory(ledger).recall(TROUBLE) is None


async def test_what_no_channel_took__is_tried_again_ever_more_seldom_and_then_told(
    ledger: Ledger, teller: Teller, mouth: Mouth
) -> None:
    mouth.deaf = {1, 2}
    await found(ledger, LATE)
    at, tried = NOW, []
    while at < NOW + timedelta(hours=1):
        before = await Memory(ledger).recall(TROUBLE)
        await Memory(ledger).forget(TROUBLE)
        await teller.tell(at)
        if await Memory(ledger).recall(TROUBLE):
            tried.append(at)
        elif before:
            await Memory(ledger).remember(TROUBLE, before)
        at += timedelta(seconds=20)

    waits = [later - earlier for earlier, later in pairwise(tried)]
    assert waits[:3] == [FIRST_PAUSE, 2 * FIRST_PAUSE, 4 * FIRST_PAUSE]
    assert waits[-1] == LONGEST_PAUSE
    mouth.deaf = set()
    assert await teller.tell(at + LONGEST_PAUSE) == 1
    assert mouth.titles == ["Tidings: 3 mails are late"]


async def test_an_end_that_no_channel_took__is_told_later(ledger: Ledger, teller: Teller, mouth: Mouth) -> None:
    await found(ledger, LATE)
    await teller.tell(NOW)
    await found(ledger, at=NOW + MINUTE)
    mouth.deaf = {1, 2}
    assert await teller.tell(NOW + MINUTE) == 0
    mouth.deaf = set()

    assert await teller.tell(NOW + 2 * MINUTE) == 1
    assert mouth.titles[-1] == "Tidings: over: 3 mails are late"


async def test_an_address_that_is_wrong__is_trouble_and_no_crash(ledger: Ledger, teller: Teller, mouth: Mouth) -> None:
    mouth.broken = True
    await found(ledger, LATE)

    assert await teller.tell(NOW) == 0
    assert "address 1" in (await Memory(ledger).recall(TROUBLE) or "")


async def test_two_that_tell_at_the_same_time__tell_once(ledger: Ledger, mouth: Mouth) -> None:
    await found(ledger, LATE)

    await asyncio.gather(*[Teller(ledger, mouth, URL).tell(NOW) for _ in range(4)])

    assert len(mouth.said) == 1


async def test_without_channels__the_log_is_told(ledger: Ledger, caplog: pytest.LogCaptureFixture) -> None:
    logging.getLogger("tidings.alerts").addHandler(caplog.handler)
    await found(ledger, LATE)

    assert await Teller(ledger, None, URL).tell(NOW) == 1
    assert await Teller(ledger, None, URL).tell(NOW) == 0

    logging.getLogger("tidings.alerts").removeHandler(caplog.handler)
    assert {getattr(record, "title", "") for record in caplog.records} == {"Tidings: 3 mails are late"}


async def test_a_test_message__goes_to_every_channel_and_mends_the_word(ledger: Ledger, mouth: Mouth) -> None:
    mouth.deaf = {2}
    assert [a.problem for a in await try_out(ledger, mouth, URL)] == [None, "is deaf"]
    assert await Memory(ledger).recall(TROUBLE) == "channel 2: is deaf"
    mouth.deaf = set()

    await try_out(ledger, mouth, URL)

    assert await Memory(ledger).recall(TROUBLE) is None
    assert mouth.said[-1][1].startswith(f"This is a test: alerts of {URL} arrive here.")


async def test_addresses_and_secrets__are_hidden_in_what_is_told(ledger: Ledger, teller: Teller, mouth: Mouth) -> None:
    await found(ledger, Finding("late-mail", "Mail to someone@resend.dev", "someone@resend.dev has none"))
    await teller.tell(NOW)

    assert "someone@" not in str(mouth.said)


async def test_what_is_open__is_listed_and_the_history_on_demand(ledger: Ledger) -> None:
    await found(ledger, LATE, LEAD)
    await found(ledger, Finding("late-mail", "Another", "…", subject="two"), at=NOW + MINUTE)

    async with ledger.reading() as connection:
        now_open = await ledger_alerts.listed(connection, history=False, limit=10)
        every = await ledger_alerts.listed(connection, history=True, limit=10)

    assert [row.key for row in now_open] == ["late-mail:two"]
    assert {row.key for row in every} == {"late-mail:one", "late-mail:two", "hot-lead:event-1"}
