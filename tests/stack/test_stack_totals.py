"""What must hold of everything that this session did, whatever the tests before this file were about."""

from __future__ import annotations

from collections import Counter

import asyncpg
import pytest
from live_parts import Json, Live
from live_sequences import BUSINESS, FIRST_NAME, Posted

pytestmark = pytest.mark.stack

LEFT = ("sent", "delivered", "bounced", "complained")


async def test_f5_what_the_ledger_calls_sent__is_what_the_provider_has(live: Live, five: dict[str, Posted]) -> None:
    assert five
    rows = await live.ledger.rows(
        "SELECT m.id, m.provider_id, m.state FROM message m WHERE m.provider_id IS NOT NULL OR m.state = ANY($1)",
        list(LEFT),
    )
    mails = await live.sandbox.everything()

    assert {row["provider_id"] for row in rows} == {mail["id"] for mail in mails}
    assert len(rows) == len(mails)
    assert {row["state"] for row in rows} <= set(LEFT)
    once = Counter(_message(mail) for mail in mails)
    assert max(once.values()) == 1


def _message(mail: Json) -> str:
    return next(str(tag["value"]) for tag in mail["tags"] if tag["name"] == "message")


async def test_no_personal_data__is_in_what_prefect_shows(live: Live, five: dict[str, Posted]) -> None:
    assert five
    shown: list[str] = []
    for run in await live.prefect.all("flow_runs"):
        shown += [run["name"], str(run["parameters"]), str(run["tags"]), str((run["state"] or {}).get("message"))]
        shown += [str(run["context"]), str(run["idempotency_key"])]
    for task in await live.prefect.all("task_runs"):
        shown += [task["name"], str(task["task_inputs"]), str(task["tags"]), str((task["state"] or {}).get("message"))]
    shown += [f"{a['key']} {a['data']} {a['description']}" for a in await live.prefect.all("artifacts")]

    assert len(shown) > 100
    for text in shown:
        assert "@" not in text
        assert FIRST_NAME not in text
        assert "Quillfeather" not in text


async def test_no_personal_data__is_anywhere_in_prefects_database(live: Live, five: dict[str, Posted]) -> None:
    """Every column of every table: events, logs and states too."""
    assert five
    private = ["@resend.dev", "@example.com", FIRST_NAME, BUSINESS, "Quillfeather", "Okonkwo", "Bob & "]
    connection = await asyncpg.connect(live.stack.addresses.database("prefect"))
    try:
        tables = await connection.fetch("SELECT tablename FROM pg_tables WHERE schemaname = 'public'")
        found: dict[str, list[str]] = {}
        for (table,) in tables:
            rows = await connection.fetch(
                f'SELECT t::text FROM "{table}" t WHERE t::text ILIKE ANY($1)', [f"%{word}%" for word in private]
            )
            if rows:
                found[table] = [_around(row[0], private) for row in rows[:3]]
    finally:
        await connection.close()
    assert found == {}


def _around(text: str, words: list[str]) -> str:
    at = min(i for word in words if (i := text.lower().find(word.lower())) >= 0)
    return text[max(0, at - 120) : at + 60]


async def test_no_mail__has_a_placeholder_left(live: Live, five: dict[str, Posted]) -> None:
    assert five
    page = await live.sandbox.get("inbox", limit=1000)
    for mail in page["data"]:
        said = mail["subject"] + mail["html"] + mail["text"]
        said = said.replace("{{7*7}}", "")  # a name of test_f17's
        assert "{{" not in said, mail["subject"]
        assert "{%" not in said, mail["subject"]
