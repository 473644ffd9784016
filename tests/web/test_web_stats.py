"""`tidings stats` and `tidings events show`: what came in, what was turned away, and what a bot sent."""

from __future__ import annotations

import asyncio

from typer.testing import CliRunner, Result
from web_client import Web
from worlds import address

from tidings.cli import app

SIGNUP = "/webhook/christmas-signup"


async def tidings(*words: str) -> Result:
    return await asyncio.to_thread(CliRunner().invoke, app, list(words))


async def test_stats__count_what_came_in_and_what_was_turned_away(web: Web) -> None:
    for _ in range(2):
        await web.post(SIGNUP, {"email": address(), "consent": False})
        await web.post(SIGNUP, {"email": address(), "consent": True, "form_trap": "x"})
    await web.app.state.form.write_tally()

    result = await tidings("stats")

    lines = [[cell.strip() for cell in line.split("│")[1:-1]] for line in result.stdout.splitlines() if "│" in line]
    assert result.exit_code == 0
    assert ["christmas-signup", "ignored", "the contact gave no consent to be mailed", "2"] in lines
    assert ["christmas-signup", "blocked", "", "2"] in lines
    assert any(line[1:] == ["christmas-signup", "hidden field filled in", "2"] for line in lines)


async def test_an_event__is_shown_as_it_was_sent(web: Web) -> None:
    email = address()
    sent = await web.post(SIGNUP, {"email": email, "form_trap": "[bold]x"})

    result = await tidings("events", "show", sent.json()["event_id"])

    assert "christmas-signup blocked" in result.stdout
    assert "the hidden field form_trap was filled in" in result.stdout
    assert f'"email":"{email}"' in result.stdout
    assert "[bold]x" in result.stdout


async def test_an_event_that_is_not_there__is_said(web: Web) -> None:
    result = await tidings("events", "show", "11111111-1111-4111-8111-111111111111")

    assert result.exit_code == 2
    assert "is not known" in result.stderr
