"""Confirming and leaving over HTTP, and what operators do about people."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from datetime import timedelta
from typing import Any
from uuid import UUID, uuid4

import pytest
from typer.testing import CliRunner, Result
from web_client import ADMIN, Web
from worlds import address, now

from tidings import cli
from tidings.ledger import mails
from tidings.model import Basis, Consent, MessageState, Plan, PlannedMessage

OPERATOR = {"authorization": f"Bearer {ADMIN}"}
Run = Callable[..., Any]


async def waiting(web: Web, email: str, state: MessageState = MessageState.SCHEDULED) -> UUID:
    """An enrolment of a contact with two mails that wait; returns its id."""
    answer = await web.post("/webhook/christmas-signup", {"email": email, "consent": True})
    (event,) = await web.rows("SELECT * FROM event WHERE id = :i", i=answer.json()["event_id"])
    due = now() + timedelta(days=1)
    plan = Plan(
        event_id=event.id, contact_id=event.contact_id, campaign="christmas", sequence="nurture", key=email,
        segment=None, variables={}, anchor=now(), received_at=event.received_at, testing_minute=None,
        messages=tuple(PlannedMessage(n, f"christmas_email_{n}", due, due, state) for n in (1, 2)),
        consent=Consent(Basis.EXPRESS, "christmas-signup", event.received_at, "Yes, send me tips", email, None),
    )  # fmt: skip
    async with web.ledger.transaction() as connection:
        await mails.enrol(connection, [plan], now())
    (row,) = await web.rows("SELECT id FROM enrolment WHERE contact_id = :c", c=event.contact_id)
    return UUID(str(row.id))


def confirmation(web: Web, enrolment: UUID) -> str:
    return str(web.app.state.parts.links.confirm(enrolment)).removeprefix("https://t.tidings.test")


async def states(web: Web) -> list[str]:
    return [m.state for m in await web.rows("SELECT state FROM message ORDER BY position")]


# -- confirming --------------------------------------------------------------------------------------------------


async def test_f18_looking_at_the_page__confirms_nothing(web: Web) -> None:
    link = confirmation(web, await waiting(web, address(), MessageState.HELD))

    for method in ("HEAD", "GET"):
        await web.http.request(method, link)
    answer = await web.http.get(link)

    assert (answer.status_code, answer.headers["cache-control"]) == (200, "no-store")
    assert '<form method="post">' in answer.text
    assert await states(web) == ["held", "held"]


async def test_the_click__starts_what_waited_for_it_from_then_on(web: Web) -> None:
    link = confirmation(web, await waiting(web, address(), MessageState.HELD))
    before = now()

    answers = [await web.http.post(link) for _ in range(3)]

    assert {a.status_code for a in answers} == {200}
    assert "Thank you" in answers[0].text
    assert await states(web) == ["scheduled", "scheduled"]
    first, second = await web.rows("SELECT * FROM message ORDER BY position")
    assert before <= first.due_at <= now()
    assert second.due_at - first.due_at == timedelta(hours=24)
    assert first.reason is None
    (row,) = await web.rows("SELECT confirmed_at FROM enrolment")
    assert row.confirmed_at == first.due_at


@pytest.mark.parametrize("method", ["GET", "POST"])
async def test_a_link_to_leave__confirms_nothing(web: Web, method: str) -> None:
    enrolment = await waiting(web, address(), MessageState.HELD)
    token = web.app.state.parts.links.unsubscribe(enrolment).rpartition("/")[2]

    for wrong in (token, "x", "a.b", "é"):
        answer = await web.http.request(method, f"/confirm/{wrong}")
        assert answer.status_code == 404
    assert await states(web) == ["held", "held"]


async def test_a_link_of_an_enrolment_that_is_gone__is_a_404(web: Web) -> None:
    assert (await web.http.post(confirmation(web, uuid4()))).status_code == 404


async def test_who_left_before_the_click__gets_nothing_by_it(web: Web) -> None:
    email = address()
    link = confirmation(web, await waiting(web, email, MessageState.HELD))
    await web.http.post(f"/api/contacts/{email}/suppress", json={"reason": "phoned"}, headers=OPERATOR)

    await web.http.post(link)

    assert await states(web) == ["skipped", "skipped"]


# -- leaving -----------------------------------------------------------------------------------------------------


async def test_f18_the_link_of_a_mail__works_more_than_sixty_days_after_it(web: Web) -> None:
    enrolment = await waiting(web, address())
    moments = {"message": ("created_at", "due_at", "slot_at"), "enrolment": ("created_at",), "event": ("received_at",)}
    async with web.ledger.transaction() as connection:
        for table, columns in moments.items():
            aged = ", ".join(f"{column} = {column} - interval '400 days'" for column in columns)
            await connection.exec_driver_sql(f"UPDATE {table} SET {aged}")
    link = str(web.app.state.parts.links.unsubscribe(enrolment)).removeprefix("https://t.tidings.test")

    answer = await web.http.post(link, data={"List-Unsubscribe": "One-Click"})

    assert answer.status_code == 200
    assert await states(web) == ["skipped", "skipped"]


# -- operators ---------------------------------------------------------------------------------------------------


async def test_operators__suppress_and_lift_over_http(web: Web) -> None:
    email = address()

    async def post(what: str, **body: Any) -> Any:
        return await web.http.post(f"/api/contacts/{email}/{what}", json=body, headers=OPERATOR)

    assert (await post("lift", reason="x")).status_code == 404
    assert (await post("suppress", reason="phoned")).json() == {"new": True}
    assert (await post("suppress", reason="phoned")).json() == {"new": False}
    assert (await post("lift", reason="was a mistake")).json() == {"lifted": 1}
    assert (await post("suppress", reason="")).status_code == 422
    story = (await web.http.get(f"/api/contacts/{email}", headers=OPERATOR)).json()
    (told,) = story["suppressions"]
    assert (told["reason"], told["source"], told["lifted_because"]) == ("phoned", "operator", "was a mistake")


async def test_operators__get_the_proof_of_consent(web: Web) -> None:
    email = address()
    await waiting(web, email)

    proof = (await web.http.get(f"/api/contacts/{email}/consent", headers=OPERATOR)).json()

    assert (proof["email"], proof["last_word"]["consent"]) == (email, True)
    (one,) = proof["enrolments"]
    assert (one["basis"], one["source"], one["wording"], one["address"]) == (
        "express", "christmas-signup", "Yes, send me tips", email,
    )  # fmt: skip
    assert one["at"] == one["event"]["received_at"]
    assert json.loads(one["event"]["body"]) == {"email": email, "consent": True}
    assert (await web.http.get("/api/contacts/nobody@b.co/consent", headers=OPERATOR)).status_code == 404


@pytest.fixture
async def run(web: Web, monkeypatch: pytest.MonkeyPatch) -> Run:
    """The `tidings` command, with the parts of the application that runs here."""
    loop = asyncio.get_running_loop()

    def with_app(work: Callable[[Any], Any]) -> Any:
        return asyncio.run_coroutine_threadsafe(work(web.app.state.parts), loop).result()

    monkeypatch.setattr(cli, "with_app", with_app)

    async def go(*words: str) -> Result:
        return await asyncio.to_thread(CliRunner().invoke, cli.app, list(words))

    return go


async def test_the_command__exports_the_proof_for_people_and_machines(web: Web, run: Run) -> None:
    email = address()
    await waiting(web, email)
    await run("suppress", "add", email, "--reason", "phoned", "--sequence", "nurture")

    machines = await run("consent", "export", email, "--json")
    written = await run("consent", "export", email)

    assert json.loads(machines.stdout)["enrolments"][0]["wording"] == "Yes, send me tips"
    for words in (email, "christmas/nurture", "basis: express", "wording: Yes, send me tips", "not mailed (nurture)"):
        assert words in written.stdout
    assert (await run("consent", "export", "nobody@b.co")).exit_code == 2


async def test_the_command__suppresses_lists_and_lifts(web: Web, run: Run) -> None:
    email = address()

    assert "suppressed" in (await run("suppress", "add", email, "--reason", "phoned")).stdout
    assert "was suppressed before" in (await run("suppress", "add", email, "--reason", "again")).stdout
    listed = (await run("suppress", "list")).stdout
    assert email in listed
    assert "phoned" in listed
    assert "1 lifted" in (await run("suppress", "lift", email, "--reason", "a mistake")).stdout
    assert email not in (await run("suppress", "list")).stdout
    assert "a mistake" in (await run("suppress", "list", "--all")).stdout
    assert (await run("suppress", "add", "no-address", "--reason", "x")).exit_code == 2
    assert (await run("suppress", "lift", "nobody@b.co", "--reason", "x")).exit_code == 2


async def test_the_command__tells_the_story_with_ends_and_clicks(web: Web, run: Run) -> None:
    email = address()
    await waiting(web, email)
    async with web.ledger.transaction() as connection:
        await connection.exec_driver_sql("UPDATE message SET clicked_at = '2026-12-01T15:04:00Z' WHERE position = 1")
    await run("suppress", "add", email, "--reason", "phoned", "--until", "2099-01-02T03:04:00")

    told = (await run("contact", email)).stdout

    assert "2026-12-01 15:04" in told
    assert "phoned, by operator, until 2099-01-02 03:04" in told
