"""Messages by Apprise, to a real receiver: what each channel says, and that no address is ever shown."""

from __future__ import annotations

import logging
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace

import pytest

from tidings.adapters.notify import Apprised, addresses, complain_apart, complaints
from tidings.drill.receiver import Receiver, Told
from tidings.errors import ConfigError
from tidings.ports import Answer, Tone
from tidings.settings import ROOT

SECRET = "t0p-secret-token"


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with Receiver() as receiver:
        yield receiver


async def send(given: str) -> list[Answer]:
    return await Apprised(given).send("A title", "Line one\nLine two", Tone.FAILURE)


async def test_every_channel__gets_the_message_as_it_is(receiver: Receiver) -> None:
    answers = await send(f"{receiver.url}/one, {receiver.url}/two")

    assert [a.problem for a in answers] == [None, None]
    assert receiver.told == [Told("A title", "Line one\nLine two", "failure")] * 2
    assert sorted(receiver.paths) == ["/one", "/two"]


async def test_a_channel_that_does_not_take_it__says_why_and_the_others_take_it(receiver: Receiver) -> None:
    with Receiver(refuses=True) as other:
        first, second = await send(f"{other.url}/{SECRET},{receiver.url}")

    assert first.channel == "address 1 of ALERT_URLS (json)"
    assert "503" in (first.problem or "")
    assert second == Answer("address 2 of ALERT_URLS (json)")


async def test_an_address__is_in_no_answer_and_in_no_log(
    receiver: Receiver, caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str]
) -> None:
    caplog.set_level(logging.DEBUG)
    receiver.refuses = True
    given = f"json://{SECRET}:{SECRET}2@127.0.0.1:{receiver.port}/{SECRET}3,json://{SECRET}.invalid/x"

    answers = await send(given)
    shown = capsys.readouterr()

    assert all(a.problem for a in answers)
    words = [*(f"{a.channel} {a.problem}" for a in answers), caplog.text, shown.out, shown.err, repr(addresses(given))]
    assert not [w for w in words if SECRET in w]


@pytest.mark.parametrize("given", ["json://127.0.0.1, jsn://x", "nothing, json://127.0.0.1", f"discord://{SECRET}"])
def test_a_wrong_address__is_refused_by_number_and_scheme_all_of_them_at_once(given: str) -> None:
    with pytest.raises(ConfigError) as refused:
        complain_apart(f"{given}, tgram://{SECRET}")

    assert len(refused.value.problems) == 2
    assert all(p.startswith("ALERT_URLS: address ") for p in refused.value.problems)
    assert "(tgram)" in refused.value.problems[1]
    assert SECRET not in str(refused.value)


def test_good_addresses__are_accepted() -> None:
    given = "discord://4174216298/JHMHI8qBe7bk2ZwO5U711o3dV_js, mailto://user:pass@example.com, ntfy://topic"

    complain_apart(given)

    assert complaints(given) == []


async def test_a_wrong_address_that_nobody_looked_at__is_refused_at_the_first_message() -> None:
    with pytest.raises(ConfigError, match="address 1 of ALERT_URLS"):
        await send(f"discord://{SECRET}")


def test_an_address_with_a_comma_in_it__is_one() -> None:
    found = addresses("json://host/a,b , ntfy://topic,")

    assert [a.url for a in found] == ["json://host/a,b", "ntfy://topic"]
    assert replace(found[0], number=7).name == "address 7 of ALERT_URLS (json)"


def test_apprise__is_imported_by_no_process_before_a_message() -> None:
    """24 MB that a server and a worker without ALERT_URLS never need, and others only in the process that tells."""
    code = (
        "import sys, server, tidings.cli, tidings.worker, tidings.warm, tidings.web.app, tidings.adapters.deploy, "
        "tidings.adapters.notify, tidings.watching\n"
        "sys.exit('apprise' in sys.modules)"
    )

    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)

    assert (done.returncode, done.stderr) == (0, "")
