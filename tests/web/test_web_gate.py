"""What cannot work takes no traffic in production; what has ever worked is never closed."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field, replace
from typing import Any

import pytest
from sandbox_process import Sandbox
from sqlalchemy import text
from web_client import TOKEN, Web
from worlds import add_template, address, make_templates

from tidings.adapters.notion import Notion
from tidings.adapters.resend import Resend
from tidings.campaign import load_campaigns
from tidings.errors import RetryLater
from tidings.ledger.revisions import head, lacks
from tidings.settings import ROOT
from tidings.web import gate as gates
from tidings.web.gate import Gate

CHRISTMAS = load_campaigns([ROOT / "campaigns"])["christmas"]
SIGNUP, MAYBE = "/webhook/christmas-signup", "/webhook/postcall-maybe"
MISSING = "deployment 'christmas-signup-handler' is missing in Prefect; run: tidings deploy"


@dataclass
class Prefect:
    """What Prefect has of our deployments."""

    found: dict[str, str] = field(default_factory=dict)
    away: bool = False

    async def problems(self, *_: object) -> dict[str, str]:
        if self.away:
            raise RetryLater("Prefect", "cannot be reached")
        return self.found


@pytest.fixture
def prefect(monkeypatch: pytest.MonkeyPatch) -> Prefect:
    there = Prefect()
    monkeypatch.setattr(gates, "problems", there.problems)
    return there


Production = Callable[..., Any]


@pytest.fixture
async def production(
    web: Web, box: Sandbox, notion: Notion, resend: Resend, prefect: Prefect
) -> AsyncIterator[Production]:
    """Starts the gate as a server with the real Resend would; all is well but for what the test changes."""
    copy = {name: CHRISTMAS.starter(name) for name in CHRISTMAS.templates}

    async def start(
        *, real: bool = True, without: str = "", sender: str = "Tidings <hello@tidings.test>", away: str = ""
    ) -> Gate:
        database = await make_templates(notion, box, {n: c for n, c in copy.items() if n != without})
        go_away(away, prefect, box)
        parts = web.app.state.parts
        changed = {"notion_templates_db_id": database, "sender": sender, "calendly_link": "https://cal.test/x",
                   "portal_url": "https://portal.test", "pdf_download_link": "https://pdf.test/x"}  # fmt: skip
        if real:
            changed["resend_api_url"] = "https://api.resend.com"  # the SDK still speaks to the sandbox
        gate = Gate(replace(parts, settings=parts.settings.model_copy(update=changed)))
        await gate.look()
        web.app.state.gate = gate
        return gate

    before = web.app.state.gate
    yield start
    web.app.state.gate = before


async def statuses(web: Web) -> tuple[int, int]:
    body = {"email": address(), "consent": True, "first_name": "Ada"}
    signup = await web.http.post(SIGNUP, json=body)
    maybe = await web.post(MAYBE, body)
    return signup.status_code, maybe.status_code


async def test_f4_a_webhook_without_its_deployment__takes_nothing_in_until_it_is_there(
    web: Web, production: Production, prefect: Prefect
) -> None:
    prefect.found = {"christmas-signup-handler": MISSING}
    gate = await production()

    answer = await web.http.post(SIGNUP, json={"email": address(), "consent": True})
    ready = (await web.http.get("/health/ready")).json()

    assert answer.status_code == 503
    assert int(answer.headers["retry-after"]) > 0
    assert MISSING in answer.json()["detail"]
    assert await web.rows("SELECT * FROM event") == []
    assert (ready["ready"], ready["closed"]) == (False, {"christmas-signup": MISSING})
    assert (await statuses(web))[1] == 200

    prefect.found = {}
    await gate.look()

    assert (await statuses(web))[0] == 200
    assert "closed" not in (await web.http.get("/health/ready")).json()


async def test_f4_the_senders_deployment__is_needed_by_every_webhook(
    web: Web, production: Production, prefect: Prefect
) -> None:
    prefect.found = {"christmas-send-email": "deployment 'christmas-send-email' has other parameters than the code"}
    gate = await production()

    assert set(gate.closed) == {w.path for w in CHRISTMAS.webhooks}
    assert await statuses(web) == (503, 503)


async def test_f2_a_webhook_without_its_templates__takes_nothing_in_until_they_are_there(
    web: Web, production: Production, notion: Notion
) -> None:
    gate = await production(without="postcall_maybe_email_2")

    assert "'postcall_maybe_email_2' is missing" in gate.closed["postcall-maybe"]
    assert set(gate.closed) == {"postcall-maybe"}
    assert await statuses(web) == (200, 503)

    name = "postcall_maybe_email_2"
    await add_template(notion, gate._parts.settings.notion_templates_db_id, name, *CHRISTMAS.starter(name))
    await gate.look()

    assert gate.closed == {}


async def test_f11_a_sender_without_a_verified_domain__closes_all(web: Web, production: Production) -> None:
    gate = await production(sender="Clinic <hello@unverified.test>")

    assert len(gate.closed) == len(CHRISTMAS.webhooks)
    assert all("unverified.test of SENDER is not among its domains" in why for why in gate.closed.values())
    assert await statuses(web) == (503, 503)


async def test_what_has_ever_worked__is_not_closed(web: Web, production: Production, prefect: Prefect) -> None:
    await statuses(web)
    async with web.ledger.transaction() as connection:
        await connection.execute(text("UPDATE event SET state = 'handled' WHERE source = 'christmas-signup'"))
    prefect.found = {"christmas-send-email": "deployment 'christmas-send-email' is missing in Prefect"}

    gate = await production()

    assert "christmas-signup" not in gate.closed
    assert "postcall-maybe" in gate.closed
    assert await statuses(web) == (200, 503)


def go_away(who: str, prefect: Prefect, box: Sandbox) -> None:
    if who == "prefect":
        prefect.away = True
    elif who:
        box.fault("status", service=who, status=503)


AWAY = pytest.mark.parametrize("who", ["prefect", "notion", "resend"])


@AWAY
async def test_who_is_away__closes_nothing(
    web: Web, production: Production, prefect: Prefect, box: Sandbox, who: str
) -> None:
    gate = await production(away=who)

    assert gate.closed == {}
    assert len(gate._unproven) == len(CHRISTMAS.webhooks)
    assert await statuses(web) == (200, 200)

    prefect.away = False
    box.http.delete(f"{box.url}/control/faults")
    await gate.look()

    assert gate._unproven == []


@AWAY
async def test_who_goes_away__mends_nothing(production: Production, prefect: Prefect, box: Sandbox, who: str) -> None:
    prefect.found = {"christmas-signup-handler": MISSING}
    gate = await production(without="postcall_maybe_email_2")
    before = dict(gate.closed)
    go_away(who, prefect, box)

    await gate.look()

    assert gate.closed == before
    assert set(before) == {"christmas-signup", "postcall-maybe"}


async def test_what_was_proven_once__stays_open_while_the_server_runs(
    production: Production, prefect: Prefect, web: Web
) -> None:
    gate = await production()
    assert gate._unproven == []
    prefect.found = {"christmas-signup-handler": MISSING}

    await gate.look()

    assert await statuses(web) == (200, 200)


async def test_the_sandbox__is_lenient(web: Web, production: Production, prefect: Prefect) -> None:
    prefect.found = {"christmas-signup-handler": MISSING}

    await production(real=False, without="postcall_maybe_email_2")

    assert await statuses(web) == (200, 200)


async def test_a_ledger_older_than_the_code__closes_all_and_the_health_check_says_so(
    web: Web, production: Production
) -> None:
    gate = await production()
    async with web.ledger.transaction() as connection:
        await connection.execute(text("UPDATE alembic_version SET version_num = '0001'"))
    try:
        gate = await production()
        health = await web.http.get("/health")
        answer = await web.http.post(SIGNUP, json={"email": address(), "consent": True})
    finally:
        async with web.ledger.transaction() as connection:
            await connection.execute(text("UPDATE alembic_version SET version_num = :head"), {"head": head()})
    await gate.look()

    assert (health.status_code, answer.status_code) == (503, 503)
    assert "run: tidings migrate" in health.json()["status"]
    assert "run: tidings migrate" in answer.json()["detail"]
    assert (await web.http.get("/health")).status_code == 200
    assert await statuses(web) == (200, 200)


async def test_a_ledger_newer_than_the_code__is_no_reason_to_refuse() -> None:
    assert [lacks(at) for at in (head(), "9999_of_the_future", "0001", None)] == [False, False, True, True]


async def test_a_stranger__is_not_told_why_a_guarded_webhook_is_closed(
    web: Web, production: Production, prefect: Prefect
) -> None:
    prefect.found = {"christmas-send-email": "deployment 'christmas-send-email' is missing in Prefect"}
    await production()

    assert (await web.post(MAYBE, {"email": address()}, token=None)).status_code == 401
    assert (await web.post(MAYBE, {"email": address()}, token=TOKEN)).status_code == 503
