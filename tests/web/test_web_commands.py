"""What operators see and do on the command line: whole, as it is, and the same as over HTTP."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

import pytest
from test_web_people import waiting
from typer.testing import CliRunner, Result
from web_client import Web
from worlds import address

from tidings.cli import app
from tidings.commands import console

SIGNUP, NO_SHOW = "/webhook/christmas-signup", "/webhook/calendly-noshow"
#: Whoever writes it: a sender, a template's author, a service in its error.
HOSTILE = "Ann [/] [bold]B[/bold] [type=missing, input_value={'a': 1}] :smile: [link=x]"
LONG = " ".join(f"[{n}] word{n}" for n in range(60))


async def tidings(*words: str) -> Result:
    return await asyncio.to_thread(CliRunner().invoke, app, list(words))


def cells(shown: str) -> list[list[str]]:
    """The rows of every table, with what was folded put together again, without its spaces."""
    rows: list[list[str]] = []
    begins = True
    for line in shown.splitlines():
        begins = begins or line[:1] in "┏┡├└"
        if line[:1] not in "│":
            continue
        parts = [part.replace(" ", "") for part in line.split("│")[1:-1]]
        if begins or parts[0]:
            rows.append(parts)
        else:
            rows[-1] = [a + b for a, b in zip(rows[-1], parts, strict=True)]
        begins = False
    return rows


def has(rows: Sequence[Sequence[str]], *texts: Any) -> bool:
    """Whether one row shows all of these, whole."""
    return any({str(text).replace(" ", "") for text in texts} <= set(row) for row in rows)


async def sql(web: Web, statement: str, *values: Any) -> None:
    async with web.ledger.transaction() as connection:
        await connection.exec_driver_sql(statement, values)


@pytest.mark.parametrize("width", [240, 60])
async def test_a_contact__is_shown_whatever_its_name_and_reasons_are(
    web: Web, width: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(console.out, "width", width)
    email = address()
    await waiting(web, email)
    await web.post(SIGNUP, {"email": email, "consent": True, "first_name": HOSTILE, "business_name": "[red]"})
    await tidings("suppress", "add", email, "--reason", HOSTILE)
    await sql(web, "UPDATE event SET reason = $1", HOSTILE + LONG)
    await sql(web, "UPDATE message SET reason = $1", LONG)

    told = await tidings("contact", email)

    assert (told.exit_code, told.exception) == (0, None)
    assert f"{email}  {HOSTILE}  [red]\n" in told.stdout
    assert f"not mailed (everything): {HOSTILE}, by operator\n" in told.stdout
    (event, *_), (message, *_) = await web.rows("SELECT id FROM event"), await web.rows("SELECT id FROM message")
    rows = cells(told.stdout)
    assert has(rows, "christmas-signup", HOSTILE + LONG, event.id)
    assert has(rows, LONG, message.id)


async def test_every_list__shows_what_comes_from_outside_as_it_is(web: Web) -> None:
    email = address()
    sent = await web.post(SIGNUP, {"email": email, "consent": True})
    await sql(web, "UPDATE event SET reason = $1, state = 'ignored'", HOSTILE)
    await sql(web, "INSERT INTO form_tally (day, source, reason, times) VALUES (current_date, 'x', $1, 1)", HOSTILE)
    await tidings("suppress", "add", email, "--reason", HOSTILE)

    assert has(cells((await tidings("events", "list")).stdout), sent.json()["event_id"], email, HOSTILE)
    assert HOSTILE in (await tidings("events", "show", sent.json()["event_id"])).stdout
    assert has(cells((await tidings("stats")).stdout), "christmas-signup", HOSTILE)
    assert has(cells((await tidings("stats")).stdout), "x", HOSTILE)
    assert has(cells((await tidings("suppress", "list")).stdout), email, HOSTILE)
    assert HOSTILE in (await tidings("consent", "export", email)).stdout
    assert (await tidings("contact", HOSTILE)).exit_code == 2


async def test_an_alert__is_shown_as_it_is(web: Web) -> None:
    await sql(
        web,
        "INSERT INTO alert (id, key, kind, title, body, times, opened_at, seen_at) "
        "VALUES (gen_random_uuid(), 'k', 'not-ready', $1, $2, 1, now(), now())",
        HOSTILE,
        LONG,
    )

    told = (await tidings("alerts")).stdout

    assert HOSTILE in told
    assert LONG in told


async def test_what_a_body_holds__is_no_command_to_the_terminal(web: Web) -> None:
    raw = b'{"email": 5, "x": "\x1b]0;owned\x07\x1b[2J\x9b"}'
    await web.http.post(NO_SHOW, content=raw, headers={"content-type": "application/json"})
    await web.http.post(
        NO_SHOW, content=raw, headers={"content-type": "application/json", "authorization": "Bearer token-of-a-sender"}
    )
    (event,) = await web.rows("SELECT id FROM event")

    told = (await tidings("events", "show", str(event.id))).stdout

    assert "\x1b" not in told
    assert "\x07" not in told
    assert "]0;owned" in told


async def test_an_error__is_shown_whole(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    from tidings import cli
    from tidings.errors import CopyError

    def fails() -> None:
        raise CopyError(f"{HOSTILE} {LONG}")

    monkeypatch.setattr(cli, "app", fails)
    with pytest.raises(SystemExit):
        cli.main()

    assert f"CopyError {HOSTILE} {LONG}" in capsys.readouterr().err
