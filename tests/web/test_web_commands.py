"""What operators see and do on the command line: whole, as it is, and the same as over HTTP."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

import pytest
from sandbox_process import Sandbox
from test_web_people import waiting
from typer.testing import CliRunner, Result
from web_client import Web
from worlds import address, make_templates

from tidings import replay
from tidings.adapters.notion import Notion
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


# -- what operators do -------------------------------------------------------------------------------------------


async def states(web: Web) -> list[tuple[str, str | None]]:
    return [(m.state, m.reason) for m in await web.rows("SELECT state, reason FROM message ORDER BY position")]


async def test_events__are_listed_newest_first_by_state_webhook_and_time(web: Web) -> None:
    ids = []
    for body in ({"consent": True}, {"consent": False}):
        ids.append((await web.post(SIGNUP, {"email": address(), **body})).json()["event_id"])
    ids.append((await web.post(NO_SHOW, {"email": address()})).json()["event_id"])
    for n, event_id in enumerate(ids):
        at = datetime(2026, 11, 1 + n, tzinfo=UTC)
        await sql(web, "UPDATE event SET received_at = $1 WHERE id = $2", at, event_id)

    async def listed(*words: str) -> list[str]:
        shown = await tidings("events", "list", *words)
        assert shown.exit_code == 0
        return [row[1] for row in cells(shown.stdout)]

    assert await listed() == ids[::-1]
    assert await listed("--limit", "1") == ids[2:]
    assert await listed("--state", "ignored") == ids[1:2]
    assert await listed("--source", "calendly-noshow") == ids[2:]
    assert await listed("--since", "2026-11-02T00:00:00", "--until", "2026-11-03T00:00:00") == ids[1:2]


async def test_cancel__stops_what_waits_and_says_which(web: Web) -> None:
    email = address()
    await waiting(web, email)
    ids = [str(m.id) for m in await web.rows("SELECT id FROM message ORDER BY position")]

    tried = await tidings("cancel", email, "--dry-run")
    other = await tidings("cancel", email, "--sequence", "precall")
    assert await states(web) == [("scheduled", None)] * 2
    done = await tidings("cancel", email.upper(), "--sequence", "nurture", "--reason", "asked [by] phone")

    assert sorted(tried.stdout.split()[:2]) == sorted(ids)
    assert "2 messages would be cancelled" in tried.stdout
    assert other.stdout == "0 messages cancelled\n"
    assert "2 messages cancelled" in done.stdout
    assert await states(web) == [("cancelled", "asked [by] phone")] * 2
    unknown = await tidings("cancel", "nobody@b.co")
    assert (unknown.exit_code, "nobody@b.co is not known" in unknown.stderr) == (2, True)


async def test_messages__are_retried_by_id_address_and_template(web: Web) -> None:
    email = address()
    await waiting(web, email)
    await tidings("cancel", email)
    first, second = (str(m.id) for m in await web.rows("SELECT id FROM message ORDER BY position"))

    tried = await tidings("messages", "retry", "--email", email, "--dry-run")
    assert {state for state, _ in await states(web)} == {"cancelled"}
    by_id = await tidings("messages", "retry", first)
    assert [state for state, _ in await states(web)] == ["scheduled", "cancelled"]
    by_template = await tidings("messages", "retry", "--template", "christmas_email_2")

    assert tried.stdout == f"{first}\n{second}\n2 messages would be retried\n"
    assert by_id.stdout == f"{first}\n1 messages retried\n"
    assert by_template.stdout == f"{second}\n1 messages retried\n"
    assert await states(web) == [("scheduled", None)] * 2
    assert (await tidings("messages", "retry")).exit_code == 2


async def test_a_message_that_may_have_been_sent__is_retried_at_a_persons_word_only(web: Web) -> None:
    email = address()
    await waiting(web, email)
    await sql(web, "UPDATE message SET state = 'unknown'")

    assert (await tidings("messages", "retry", "--email", email)).stdout == "0 messages retried\n"
    assert "2 messages retried" in (await tidings("messages", "retry", "--email", email, "--may-be-sent-twice")).stdout


async def test_a_replay__says_what_remains_and_what_waits_for_prefect(
    web: Web, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(replay, "PAGE", 2)
    for _ in range(3):
        await web.post(SIGNUP, {"email": address(), "consent": True})
    ids = [str(e.id) for e in await web.rows("SELECT id FROM event ORDER BY received_at, id")]
    until = ("--until", "2099-01-01T00:00:00")

    tried = await tidings("events", "replay", *until, "--dry-run")
    done = await tidings("events", "replay", *until)

    assert tried.stdout.splitlines() == [*(f"{i}: would be replayed" for i in ids), "3 events would be replayed"]
    assert done.stdout.splitlines() == [
        *(f"{i}: waits for Prefect" for i in ids),
        "3 events",
        "3 of them are stored, and are handled when Prefect is back",
    ]
    assert "… 2 of 3 events, 1 remain" in done.stderr
    assert (await tidings("events", "replay")).exit_code == 2


async def test_templates__are_pushed_and_checked(
    web: Web, notion: Notion, box: Sandbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(console, "LINE_SECONDS", 0.0)
    monkeypatch.setenv("NOTION_REQUESTS_PER_SECOND", "1000")
    monkeypatch.setenv("NOTION_TEMPLATES_DB_ID", await make_templates(notion, box, {}))

    missing = await tidings("templates", "check")
    pushed, again = await tidings("templates", "push"), await tidings("templates", "push")
    checked = await tidings("templates", "check")

    assert (missing.exit_code, "✗ christmas_email_1: Template 'christmas_email_1' is missing" in missing.stdout) == (
        1,
        True,
    )
    assert {line.partition(": ")[2] for line in pushed.stdout.splitlines()} == {"created"}
    assert {line.partition(": ")[2] for line in again.stdout.splitlines()} == {"unchanged"}
    count = len(pushed.stdout.splitlines())
    assert (checked.exit_code, checked.stdout.splitlines()[-1]) == (0, f"{count} of {count} templates can be sent")
    assert f"… {count} of {count} templates read" in checked.stderr
