"""A canary on the real ledger, template and sender: where it is, where it was lost, and that it leaves no trace."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

import httpx
import pytest
from fakes import FakeRuns
from pydantic import SecretStr
from sandbox_process import Sandbox
from test_mirror import Shown
from worlds import TABLES, World, make_templates, now

from tidings import canary
from tidings.accept import arrival
from tidings.adapters.deadman import DeadmanUrl
from tidings.adapters.notion import Notion
from tidings.adapters.resend import Resend
from tidings.campaign import load_campaigns
from tidings.canary import BACK_WITHIN, KEPT, canary_findings, look_after, send, stations, where_lost
from tidings.deliver import Selection, send_next
from tidings.errors import RetryLater
from tidings.ledger import Ledger, canaries, inbox
from tidings.ledger import mirror as rows
from tidings.ledger.canaries import Journey
from tidings.model import MessageState, Report
from tidings.notion_schema import databases
from tidings.outcome import take_reports
from tidings.settings import CANARY, Settings
from tidings.web.verify import standard

CANARIES = load_campaigns([CANARY])
CAMPAIGN = CANARIES["canary"]
SETTINGS = Settings.model_construct(
    secret_key=SecretStr("s" * 32), public_url="https://t.tidings.test", canary_hours=24.0
)


@dataclass
class FakeDeadman:
    told: list[str] = field(default_factory=list)

    async def well(self) -> None:
        self.told.append("well")

    async def failed(self, why: str) -> None:
        self.told.append(why)


@dataclass
class Birdcage:
    """The parts of the chain, to be gone through one by one."""

    world: World
    deadman: FakeDeadman = field(default_factory=FakeDeadman)
    #: What the door does instead of letting it in.
    refuses: tuple[int, Mapping[str, Any]] | RetryLater | None = None
    #: The answer to its webhook is lost.
    mute: bool = False

    async def post(self, path: str, body: str, headers: Mapping[str, str]) -> tuple[int, Mapping[str, Any]]:
        """The door: what the web server does with it."""
        assert path == f"/webhook/{CAMPAIGN.webhooks[0].path}"
        standard.check(body.encode(), headers, [SETTINGS.canary_secret], now())
        if isinstance(self.refuses, RetryLater):
            raise self.refuses
        if self.refuses:
            return self.refuses
        payload = CAMPAIGN.webhooks[0].payload.model_validate_json(body)
        key = f"webhook-id:{headers['webhook-id']}"
        made = arrival(CAMPAIGN, CAMPAIGN.webhooks[0], payload, body=body, key=key, now=now(), testing_minute=None)
        await self.world.accept(made)
        if self.mute:
            raise RetryLater("PUBLIC_URL", "the answer was lost")
        return 200, {"event_id": str(made.id)}

    async def send(self, at: datetime | None = None) -> UUID:
        return await send(self.world.ledger, self, SETTINGS, self.deadman, at or now())

    async def handle(self) -> None:
        (event,) = await self.world.events()
        assert len((await self.world.enrol(event.id)).new) == 1

    async def mail(self) -> None:
        selection = Selection("canary", now() + timedelta(seconds=1))
        assert await send_next(self.world.delivery(), selection, uuid4())

    async def report(self, state: MessageState = MessageState.DELIVERED, reason: str | None = None) -> None:
        message = await self.world.message("tidings_canary")
        said = Report(f"msg_{uuid4().hex}", f"email.{state}", message.provider_id, state, now(), reason)
        await take_reports(self.world.ledger, [(said, "{}")], now())

    async def look(self, at: datetime | None = None) -> None:
        await look_after(self.world.ledger, self.deadman, at or now())

    async def journey(self, canary_id: UUID) -> Journey:
        async with self.world.ledger.reading() as connection:
            return await canaries.journey(connection, canary_id)

    async def findings(self, at: datetime | None = None, **settings: Any) -> list[str]:
        found = await canary_findings(self.world.ledger, SETTINGS.model_copy(update=settings), at or now())
        assert {f.key for f in found} <= {"canary"}
        return [f"{f.title}. {f.body}" for f in found]

    async def there_and_back(self) -> UUID:
        canary_id = await self.send()
        for step in (self.handle, self.mail, self.report, self.look):
            await step()
        return canary_id


@pytest.fixture
async def cage(ledger: Ledger, box: Sandbox, notion: Notion, resend: Resend) -> Birdcage:
    templates = await make_templates(notion, box, {t: CAMPAIGN.starter(t) for t in CAMPAIGN.templates})
    return Birdcage(World(ledger, box, notion, resend, FakeRuns(), templates, CANARIES))


def test_the_canarys_campaign__is_where_the_use_case_posts() -> None:
    assert (canary.PATH, CAMPAIGN.internal) == ("/webhook/canary", True)


async def test_a_canary__goes_to_resends_test_address_and_comes_back(cage: Birdcage) -> None:
    canary_id = await cage.there_and_back()

    (mail,) = cage.world.inbox()
    journey = await cage.journey(canary_id)
    assert mail["to"] == [f"delivered+canary-{canary_id}@resend.dev"]
    assert all(station.at is not None for station in stations(journey))
    assert journey.problem is None
    assert cage.deadman.told == ["well"]
    assert await cage.findings() == []


async def test_a_canary_that_is_back__is_told_once(cage: Birdcage) -> None:
    await cage.there_and_back()

    await cage.look()
    await cage.look(now() + 2 * BACK_WITHIN)

    assert cage.deadman.told == ["well"]
    assert await cage.findings(now() + 2 * BACK_WITHIN) == []


async def test_a_canary_whose_answer_was_lost__is_found_by_its_key(cage: Birdcage) -> None:
    cage.mute = True
    canary_id = await cage.send()
    cage.mute = False
    for step in (cage.handle, cage.mail, cage.report, cage.look):
        await step()

    assert (await cage.journey(canary_id)).returned_at is not None
    assert await cage.findings() == []


# -- lost ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("refuses", "said"),
    [
        (RetryLater("PUBLIC_URL", "https://t.tidings.test cannot be reached: refused"), "cannot be reached: refused"),
        ((503, {"detail": "The ledger cannot be written"}), "was answered 503 at https://t.tidings.test: The ledger"),
        ((404, {}), "was answered 404 at https://t.tidings.test: no JSON"),
        ((200, {"welcome": "to our new website"}), "was answered 200 at https://t.tidings.test: no JSON"),
    ],
)
async def test_a_canary_that_is_not_let_in__is_told_at_once(
    cage: Birdcage, refuses: tuple[int, Mapping[str, Any]] | RetryLater, said: str
) -> None:
    cage.refuses = refuses

    canary_id = await cage.send()

    (finding,) = await cage.findings()
    assert said in ((await cage.journey(canary_id)).problem or "")
    assert said in finding
    assert "tidings doctor" in finding
    assert [said in told for told in cage.deadman.told] == [True]


@pytest.mark.parametrize(
    ("steps", "said"),
    [
        ([], "Prefect has no run of it"),
        (["run"], "has not done it: is a worker polling"),
        (["fail"], "its handler run failed: Template 'tidings_canary' is missing"),
        (["handle"], "its mail is scheduled and was not sent"),
        (["handle", "refuse"], "its mail is failed and was not sent, because the domain is not verified"),
        (["handle", "mail"], "Resend has taken its mail and reported no delivery"),
        (["handle", "mail", "bounce"], "its mail is bounced: Resend: Permanent"),
    ],
)
async def test_a_canary_that_does_not_come_back__is_told_with_its_station(
    cage: Birdcage, steps: list[str], said: str
) -> None:
    world = cage.world

    async def bounce() -> None:
        await cage.report(MessageState.BOUNCED, "Resend: Permanent")

    ways = {
        "run": lambda: world.run_sql("UPDATE event SET flow_run_id = gen_random_uuid()"),
        "fail": lambda: world.run_sql(
            "UPDATE event SET state = 'failed', reason = 'Template ''tidings_canary'' is missing'"
        ),
        "refuse": lambda: world.run_sql("UPDATE message SET state = 'failed', reason = 'the domain is not verified'"),
        "handle": cage.handle,
        "mail": cage.mail,
        "bounce": bounce,
    }
    canary_id = await cage.send(now() - BACK_WITHIN + timedelta(seconds=20))
    for step in steps:
        await ways[step]()

    await cage.look()
    early = await cage.findings()
    later = now() + timedelta(seconds=30)
    before_it_is_noted = await cage.findings(later)
    await cage.look(later)
    await cage.look(later)
    (finding,) = await cage.findings(later)

    assert early == []
    assert before_it_is_noted == [finding]
    assert said in finding
    assert said in where_lost(await cage.journey(canary_id))
    assert len(cage.deadman.told) == 1


async def test_a_lost_canary__is_told_once_however_many_have_seen_it(cage: Birdcage) -> None:
    canary_id = await cage.send()

    async with cage.world.ledger.transaction() as connection:
        told = [await canaries.give_up(connection, canary_id, why) for why in ("seen by the server", "by the sweep")]

    assert told == [True, False]
    assert (await cage.journey(canary_id)).problem == "seen by the server"


async def test_a_canary_that_comes_back_late__ends_the_alarm(cage: Birdcage) -> None:
    canary_id = await cage.send(now() - BACK_WITHIN - timedelta(minutes=1))
    await cage.look()
    assert len(await cage.findings()) == 1

    for step in (cage.handle, cage.mail, cage.report, cage.look):
        await step()

    assert await cage.findings() == []
    assert "Prefect has no run of it" in ((await cage.journey(canary_id)).problem or "")
    assert cage.deadman.told[-1] == "well"


# -- not even started ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(("hours", "told"), [(24.0, False), (24.9, False), (25.1, True)])
async def test_a_canary_that_is_not_even_sent__is_told(cage: Birdcage, hours: float, told: bool) -> None:
    await cage.there_and_back()

    found = await cage.findings(now() + timedelta(hours=hours))

    assert bool(found) is told
    if told:
        assert "No canary was sent although it is time" in found[0]
        assert "tidings deploy" in found[0]


async def test_a_canary_that_was_never_sent__is_told_as_well(cage: Birdcage) -> None:
    assert await cage.findings() == []  # this ledger does not yet know of any server
    await cage.world.run_sql("INSERT INTO memo VALUES ('ledger-id', 'x', :at)", at=now())

    assert await cage.findings() == []
    assert "None was ever sent" in (await cage.findings(now() + timedelta(hours=1.1)))[0]
    assert await cage.findings(now() + timedelta(days=9), canary_hours=0.0) == []


# -- no trace ------------------------------------------------------------------------------------------------


async def test_a_canary__is_in_nobodys_figures(cage: Birdcage) -> None:
    await cage.there_and_back()

    async with cage.world.ledger.reading() as connection:
        assert await rows.waiting(connection, 10) == 0
        assert len(await inbox.count_events(connection, since=now() - timedelta(days=1))) == 1
        assert await inbox.count_events(connection, since=now() - timedelta(days=1), without=CANARIES.internal) == []


async def test_a_canary__is_not_shown_in_notion(cage: Birdcage) -> None:
    root = cage.world.box.get("health")["notion_root_page_id"]
    found = {}
    for database in databases(1):
        given, _ = await cage.world.notion.create_database(root, database.title, database.properties)
        found[database.field] = (database, given)
    await cage.there_and_back()

    assert set((await Shown(cage.world, found).mirror.run(100)).values()) == {0}


async def test_old_canaries__are_forgotten_with_all_that_came_of_them(cage: Birdcage) -> None:
    await cage.there_and_back()
    await cage.look(now() + KEPT - timedelta(minutes=1))
    assert len(await cage.world.rows("SELECT * FROM canary")) == 1

    await cage.look(now() + KEPT + timedelta(minutes=1))

    left = {t: len(await cage.world.rows(f"SELECT * FROM {t}")) for t in TABLES}
    assert {t: count for t, count in left.items() if count} == {}


async def test_other_peoples_rows__outlive_old_canaries(cage: Birdcage) -> None:
    await cage.there_and_back()
    await cage.world.run_sql(
        "INSERT INTO contact (id, email, created_at, updated_at) VALUES (gen_random_uuid(), 'a@b.co', now(), now())"
    )

    await cage.look(now() + KEPT + timedelta(minutes=1))

    assert [c.email for c in await cage.world.rows("SELECT email FROM contact")] == ["a@b.co"]


# -- the deadman ---------------------------------------------------------------------------------------------


async def test_the_deadman__is_asked_at_its_address_and_again_when_it_does_not_answer(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("tidings.adapters.deadman.PAUSE_SECONDS", 0.0)
    asked: list[tuple[str, str, str]] = []
    answers = [httpx.Response(500), httpx.Response(200), httpx.Response(200), *[httpx.Response(404)] * 3]

    async def answer(request: httpx.Request) -> httpx.Response:
        asked.append((request.method, str(request.url), request.content.decode()))
        return answers[len(asked) - 1]

    deadman = DeadmanUrl("https://hc-ping.test/a-secret-uuid?rid=1", httpx.MockTransport(answer))
    await deadman.well()
    await deadman.failed("its webhook was answered 503")
    caplog.clear()
    await deadman.failed("again")

    assert asked[:3] == [
        ("GET", "https://hc-ping.test/a-secret-uuid?rid=1", ""),
        ("GET", "https://hc-ping.test/a-secret-uuid?rid=1", ""),
        ("POST", "https://hc-ping.test/a-secret-uuid/fail?rid=1", "its webhook was answered 503"),
    ]
    assert len(asked) == 6
    assert "deadman.unreached" in caplog.text
    assert "a-secret-uuid" not in "".join(r.getMessage() for r in caplog.records if r.name.startswith("tidings"))
