"""Leaving, Resend's reports, and the operators' API over HTTP."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

import httpx
import pytest
from pydantic import SecretStr
from svix.webhooks import Webhook
from web_client import ADMIN, BEFORE, SECRET, TOKEN, Web
from worlds import address, now

from tidings import replay
from tidings.ledger import inbox, mails, permission
from tidings.model import MessageState, Plan, PlannedMessage
from tidings.web import operate

OPERATOR = {"authorization": f"Bearer {ADMIN}"}


async def enrolled(web: Web, sequences: tuple[str, ...] = ("nurture",), *, email: str | None = None) -> list[UUID]:
    """Enrolments of one contact with one waiting mail each; returns their ids in the order of the sequences."""
    email = email or address()
    answer = await web.post("/webhook/christmas-signup", {"email": email, "consent": True})
    event_id = UUID(answer.json()["event_id"])
    (contact,) = await web.rows("SELECT id FROM contact WHERE email = :e", e=email)
    due = now() + timedelta(days=1)
    for sequence in sequences:
        message = PlannedMessage(1, f"{sequence}_1", due, due, MessageState.SCHEDULED)
        plan = Plan(event_id, contact.id, "christmas", sequence, email, None, {}, now(), now(), None, (message,))
        async with web.ledger.transaction() as connection:
            await mails.enrol(connection, [plan], now())
    rows = {r.sequence: r.id for r in await web.rows("SELECT * FROM enrolment WHERE contact_id = :c", c=contact.id)}
    return [rows[s] for s in sequences]


def link(web: Web, enrolment: UUID) -> str:
    return str(web.app.state.parts.links.unsubscribe(enrolment)).removeprefix("https://t.tidings.test")


async def states(web: Web) -> dict[str, str]:
    return {m.sequence: m.state for m in await web.rows("SELECT * FROM message")}


# -- leaving -------------------------------------------------------------------------------------------------


async def test_f18_looking_at_the_page__changes_nothing(web: Web) -> None:
    (enrolment,) = await enrolled(web)

    for method in ("GET", "HEAD"):
        await web.http.request(method, link(web, enrolment))
    answer = await web.http.get(link(web, enrolment))

    assert answer.status_code == 200
    assert "Do you want to leave?" in answer.text
    assert '<form method="post">' in answer.text
    assert answer.headers["cache-control"] == "no-store"
    assert "form-action 'self'" in answer.headers["content-security-policy"]
    assert await states(web) == {"nurture": "scheduled"}
    assert await web.rows("SELECT * FROM suppression") == []


@pytest.mark.parametrize(
    "given",
    [
        {"data": {"List-Unsubscribe": "One-Click"}},
        {"files": {"List-Unsubscribe": (None, "One-Click")}},
        {"data": {"scope": "all"}},
        {},
    ],
)
async def test_f18_one_click__stops_everything_at_once(web: Web, given: dict[str, Any]) -> None:
    first, _ = await enrolled(web, ("nurture", "noshow"))

    answer = await web.http.post(link(web, first), **given)

    assert answer.status_code == 200
    assert "You have left" in answer.text
    assert await states(web) == {"nurture": "skipped", "noshow": "skipped"}
    assert (await web.rows("SELECT reason FROM message"))[0].reason == "the contact unsubscribed"


async def test_f18_only_this_series__leaves_the_others(web: Web) -> None:
    first, _ = await enrolled(web, ("nurture", "noshow"))

    await web.http.post(link(web, first), data={"scope": "series"})

    assert await states(web) == {"nurture": "skipped", "noshow": "scheduled"}


async def test_f18_only_this_series__leaves_the_series_of_the_same_name_in_another_campaign(web: Web) -> None:
    first, other = await enrolled(web, ("nurture", "noshow"))
    async with web.ledger.transaction() as connection:
        for table, key in (("enrolment", "id"), ("message", "enrolment_id")):
            change = f"UPDATE {table} SET campaign = 'winter', sequence = 'nurture' WHERE {key} = $1"
            await connection.exec_driver_sql(change, (other,))

    await web.http.post(link(web, first), data={"scope": "series"})

    rows = await web.rows("SELECT id, campaign, state FROM message ORDER BY campaign")
    assert [(r.campaign, r.state) for r in rows] == [("christmas", "skipped"), ("winter", "scheduled")]
    async with web.ledger.reading() as connection:
        for name, reasons in (("christmas", 1), ("winter", 0)):
            campaign = replace(web.app.state.parts.campaigns["christmas"], name=name)
            ids = [r.id for r in rows if r.campaign == name]
            assert len(await permission.stopped(connection, campaign, ids)) == reasons


async def test_f18_leaving_twice__is_fine(web: Web) -> None:
    (enrolment,) = await enrolled(web)

    answers = [await web.http.post(link(web, enrolment)) for _ in range(3)]

    assert {a.status_code for a in answers} == {200}
    assert len(await web.rows("SELECT * FROM suppression")) == 1


@pytest.mark.parametrize("method", ["GET", "POST"])
@pytest.mark.parametrize("token", ["x", "a.b", "é", "%2e%2e", "x" * 5000])
async def test_a_wrong_link__is_a_friendly_404(web: Web, method: str, token: str) -> None:
    answer = await web.http.request(method, f"/unsubscribe/{token}")

    assert answer.status_code == 404
    assert "This link is not complete" in answer.text


async def test_a_right_link_of_an_enrolment_that_is_gone__is_a_404(web: Web) -> None:
    assert (await web.http.post(link(web, uuid4()))).status_code == 404


# -- Resend's reports ----------------------------------------------------------------------------------------


def report(kind: str = "email.delivered", **data: Any) -> bytes:
    return json.dumps({"type": kind, "created_at": "2026-12-01T15:00:00Z", "data": {"email_id": "e1", **data}}).encode()


def signed(body: bytes, *, svix_id: str = "msg_1", at: datetime | None = None, secret: str = SECRET) -> dict[str, str]:
    at = at or datetime.now(UTC)
    return {
        "content-type": "application/json",
        "svix-id": svix_id,
        "svix-timestamp": str(int(at.timestamp())),
        "svix-signature": Webhook(secret).sign(svix_id, at, body.decode()),
    }


async def hear(web: Web, body: bytes, **changes: Any) -> Any:
    headers = {**signed(body), **changes}
    return await web.http.post("/webhook/resend", content=body, headers=headers)


async def sent_mail(web: Web) -> UUID:
    await enrolled(web)
    (row,) = await web.rows("SELECT id FROM message")
    async with web.ledger.transaction() as connection:
        await connection.exec_driver_sql("UPDATE message SET state = 'sent', provider_id = 'e1', sent_at = now()")
    return UUID(str(row.id))


async def test_a_signed_report__settles_the_mail(web: Web) -> None:
    await sent_mail(web)

    answer = await hear(web, report())

    assert (answer.status_code, answer.json()) == (200, {"message": "stored", "duplicate": False})
    assert await states(web) == {"nurture": "delivered"}


async def test_a_repeated_report__is_told_as_such(web: Web) -> None:
    await sent_mail(web)
    await hear(web, report())

    assert (await hear(web, report())).json()["duplicate"] is True


@pytest.mark.parametrize(
    "changes",
    [
        {"svix-signature": "v1,AAAA"},
        {"svix-signature": "nonsense"},
        {"svix-signature": ""},
        {"svix-id": "msg_2"},
        {"svix-timestamp": "1"},
    ],
)
async def test_f20_a_report_that_resend_did_not_sign__is_a_401_and_changes_nothing(
    web: Web, changes: dict[str, str]
) -> None:
    await sent_mail(web)

    answer = await hear(web, report("email.bounced"), **changes)

    assert answer.status_code == 401
    assert "RESEND_WEBHOOK_SECRET" in answer.json()["detail"]
    assert await states(web) == {"nurture": "sent"}


@pytest.mark.parametrize("secret", [SECRET, BEFORE])
async def test_a_report__is_known_by_any_of_the_secrets_while_one_is_replaced(web: Web, secret: str) -> None:
    await sent_mail(web)
    body = report()

    answer = await web.http.post("/webhook/resend", content=body, headers=signed(body, secret=secret))

    assert answer.status_code == 200, answer.text
    assert await states(web) == {"nurture": "delivered"}


async def test_f20_a_report_without_any_signature__is_a_401(web: Web) -> None:
    assert (await web.http.post("/webhook/resend", json={"type": "email.bounced"})).status_code == 401


async def test_f20_a_report_signed_long_ago__is_a_401(web: Web) -> None:
    body = report()
    old = signed(body, at=datetime.now(UTC) - timedelta(minutes=10))

    assert (await web.http.post("/webhook/resend", content=body, headers=old)).status_code == 401


@pytest.mark.parametrize("body", [b"[]", b"{}", b'{"type": 5}', b"not json"])
async def test_a_signed_body_that_is_no_event__is_a_400(web: Web, body: bytes) -> None:
    assert (await hear(web, body)).status_code == 400


@pytest.mark.parametrize("kind", ["contact.created", "email.clicked", "something.new"])
async def test_a_type_that_means_nothing_here__is_kept(web: Web, kind: str) -> None:
    assert (await hear(web, report(kind))).status_code == 200
    assert [r.type for r in await web.rows("SELECT type FROM outcome")] == [kind]


# -- operators -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("header", [{}, {"authorization": f"Bearer {TOKEN}"}, {"authorization": "Bearer "}])
@pytest.mark.parametrize("path", ["/api/events", "/api/contacts/a@b.co"])
async def test_f20_the_operators_api__is_closed_to_others(web: Web, path: str, header: dict[str, str]) -> None:
    assert (await web.http.get(path, headers=header)).status_code == 401


@pytest.mark.parametrize("token", ["", " "])
@pytest.mark.parametrize("header", [{}, {"authorization": "Bearer "}, {"authorization": "Bearer"}])
async def test_f20_an_empty_admin_token__lets_nobody_in(
    web: Web, monkeypatch: pytest.MonkeyPatch, token: str, header: dict[str, str]
) -> None:
    parts = web.app.state.parts
    settings = parts.settings.model_copy(update={"admin_token": SecretStr(token)})
    monkeypatch.setattr(parts, "settings", settings)

    assert (await web.http.get("/api/events", headers=header)).status_code == 403


async def test_operators__see_a_contacts_whole_story(web: Web) -> None:
    email = address()
    await enrolled(web, email=email)

    answer = await web.http.get(f"/api/contacts/{email}", headers=OPERATOR)

    told = answer.json()
    assert answer.status_code == 200
    assert (told["email"], told["consent"]) == (email, True)
    assert [m["state"] for m in told["messages"]] == ["scheduled"]
    assert [e["source"] for e in told["events"]] == ["christmas-signup"]
    assert (await web.http.get("/api/contacts/nobody@b.co", headers=OPERATOR)).status_code == 404


async def test_operators__list_events_by_state(web: Web) -> None:
    await enrolled(web)
    await web.post("/webhook/christmas-signup", {"email": address(), "consent": False})

    ignored = (await web.http.get("/api/events", params={"state": "ignored"}, headers=OPERATOR)).json()

    assert [e["state"] for e in ignored] == ["ignored"]
    assert len((await web.http.get("/api/events", headers=OPERATOR)).json()) == 2


async def test_operators__cancel_and_retry(web: Web) -> None:
    email = address()
    await enrolled(web, email=email)

    cancelled = await web.http.post(f"/api/contacts/{email}/cancel", json={"reason": "phoned"}, headers=OPERATOR)
    assert await states(web) == {"nurture": "cancelled"}
    retried = await web.http.post("/api/messages/retry", json={"email": email}, headers=OPERATOR)

    assert cancelled.json() == retried.json()
    assert await states(web) == {"nurture": "scheduled"}


@pytest.mark.parametrize("path", ["/api/messages/retry", "/api/events/replay"])
async def test_operators__are_asked_which(web: Web, path: str) -> None:
    assert (await web.http.post(path, json={}, headers=OPERATOR)).status_code == 422


async def test_operators__replay_while_prefect_is_away(web: Web) -> None:
    await enrolled(web)
    (event,) = await web.rows("SELECT id FROM event")

    answer = await web.http.post("/api/events/replay", json={"ids": [str(event.id)]}, headers=OPERATOR)

    (row,) = await web.rows("SELECT * FROM event")
    assert answer.json() == {str(event.id): "waits for Prefect"}
    assert answer.headers["tidings-remaining"] == "0"
    assert row.state == "accepted"
    async with web.ledger.reading() as connection:
        assert await inbox.events_of_dispatch(connection, row.dispatch_id) == [event.id]


async def test_operators__replay_more_than_one_answer_holds(web: Web, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(replay, "PAGE", 1)
    monkeypatch.setattr(operate, "LIMIT", 1)
    for _ in range(2):
        await enrolled(web)
    first, second = (str(e.id) for e in await web.rows("SELECT id FROM event ORDER BY received_at, id"))

    async def ask(**more: Any) -> httpx.Response:
        body = {"until": now().isoformat(), "dry_run": True, **more}
        return await web.http.post("/api/events/replay", json=body, headers=OPERATOR)

    one, two = await ask(), await ask(after=first)

    assert [(list(each.json()), each.headers["tidings-remaining"]) for each in (one, two)] == [
        ([first], "1"),
        ([second], "0"),
    ]
    assert (await ask(after=str(uuid4()))).status_code == 404


@pytest.mark.parametrize("forged", [{"webhook-id": "msg_1", "svix-id": "msg_forged"}, {"webhook-id": "msg_1"}])
async def test_f20_a_captured_report_under_another_id__is_a_401(web: Web, forged: dict[str, str]) -> None:
    """The id that is signed is the id that is counted: a repeat cannot be made to look new."""
    body = json.dumps({"type": "email.delivered", "created_at": now().isoformat(), "data": {}}).encode()
    headers = {**signed(body), **forged}
    if "svix-id" not in forged:
        headers = {name.replace("svix-", "webhook-"): value for name, value in headers.items()}

    answer = await web.http.post("/webhook/resend", content=body, headers=headers)

    assert answer.status_code == 401


@pytest.mark.parametrize(
    ("method", "path"), [("POST", "/api/events/replay"), ("POST", "/unsubscribe/x"), ("POST", "/confirm/x")]
)
@pytest.mark.parametrize("declared", [True, False])
async def test_a_body_without_end__is_a_413_before_anybody_is_asked_who_they_are(
    web: Web, method: str, path: str, declared: bool
) -> None:
    size, sent = 4_000_000, 0

    async def chunks() -> AsyncIterator[bytes]:
        nonlocal sent
        while sent < size:
            sent += 50_000
            yield b"a=" + b"x" * 49_998

    headers = {"content-type": "application/x-www-form-urlencoded"}
    if declared:
        answer = await web.http.request(method, path, content=b"x" * size, headers=headers)
    else:
        answer = await web.http.request(method, path, content=chunks(), headers=headers)

    assert answer.status_code in {404, 413}
    assert answer.status_code == 413 or path == "/confirm/x"


async def test_an_operator__starts_a_reconciliation(web: Web, monkeypatch: pytest.MonkeyPatch) -> None:
    run_id, asked = uuid4(), []

    async def start(since: datetime | None, *, dry_run: bool, now: datetime) -> UUID:
        asked.append((since, dry_run))
        return run_id

    monkeypatch.setattr(web.app.state.parts.runs, "start_reconcile", start)
    since = datetime(2026, 11, 1, 8, tzinfo=UTC)

    answers = [
        await web.http.post("/api/reconcile", json=body, headers=OPERATOR)
        for body in ({}, {"since": since.isoformat(), "dry_run": True})
    ]

    assert [a.status_code for a in answers] == [202, 202]
    assert answers[0].json() == {"flow_run_id": str(run_id)}
    assert asked == [(None, False), (since, True)]


async def test_a_reconciliation_while_prefect_is_away__is_not_started_and_says_so(web: Web) -> None:
    answer = await web.http.post("/api/reconcile", json={}, headers=OPERATOR)

    assert answer.status_code == 503
    assert "Not started: Prefect" in answer.json()["detail"]
    assert (await web.http.post("/api/reconcile", json={})).status_code == 401
