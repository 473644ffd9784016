"""What somebody has to be told of, kind by kind, on the real ledger; and that nothing is told when all is well."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import uuid4

import pytest
from winter import CAMPAIGNS, HELLO, WINTER
from worlds import World, now, replay_named

from tidings.alerts import Finding
from tidings.campaign import Campaigns
from tidings.errors import QuotaExhausted, Refused, RetryLater
from tidings.findings import Found
from tidings.looks import START_SECONDS, Checks, Look
from tidings.model import Allowance, Stuck
from tidings.watch import Limits, Watch

HOUR, DAY = timedelta(hours=1), timedelta(days=1)
LIMITS = Limits(late_after=timedelta(minutes=5), bounce_rate=0.05, complaint_rate=0.001)
PATH = "winter-hello"
INTERNAL = Campaigns([replace(WINTER, internal=True), replace(WINTER, name="other", sequences=(), webhooks=())])


def watching(world: World, campaigns: Campaigns = CAMPAIGNS) -> Watch:
    return Watch(world.ledger, campaigns, LIMITS)


async def look(world: World, at: datetime | None = None, campaigns: Campaigns = CAMPAIGNS) -> dict[str, Finding]:
    """What the ledger shows, by key."""
    return by_key(await watching(world, campaigns).ledger(at or now()))


def by_key(found: Found) -> dict[str, Finding]:
    assert len({f.key for f in found.findings}) == len(found.findings)
    for each in found.findings:
        assert "@" not in each.title + each.body
        assert "More: " in each.body
    return {each.key: each for each in found.findings}


async def posted(world: World, at: datetime, path: str = PATH) -> Any:
    """A webhook that came in at this time and starts nothing."""
    arrival = replace(world.arrival(path, at=at), ignored_because="only a test")
    [receipt] = await world.accept(arrival)
    return receipt


async def sent(world: World, count: int, **state: int) -> None:
    """So many mails of the last hours, and what became of some."""
    await world.enrolled(count)
    await world.run_sql(
        "UPDATE message SET sent_at = now() - interval '1 hour', state = 'delivered' WHERE position = 1"
    )
    for what, times in state.items():
        await world.run_sql(
            "UPDATE message SET state = :what WHERE id IN (SELECT id FROM message WHERE state = 'delivered' LIMIT :n)",
            what=what,
            n=times,
        )


# -- all is well -----------------------------------------------------------------------------------------------------


async def test_an_empty_ledger__has_nothing_to_tell(world: World) -> None:
    found = await watching(world).ledger(now())

    assert found.findings == []
    assert found.kinds == {"dead-letter", "late-mail", "bounce-rate", "complaint-rate", "source-silent"}


async def test_what_goes_its_way__is_not_told(world: World) -> None:
    await world.enrolled(3)
    await world.send()
    await world.run_sql("UPDATE message SET state = 'delivered' WHERE state = 'sent'")
    await posted(world, now() - 30 * DAY)

    assert await look(world) == {}
    assert by_key(await watching(world).runs(world.runs, now(), worker=True)) == {}


# -- dead letters ----------------------------------------------------------------------------------------------------


async def failed_event(world: World, reason: str = "Template 'x' is missing", at: datetime | None = None) -> Any:
    arrival = world.arrival(at=at or now())
    [receipt] = await world.accept(arrival)
    await world.run_sql(
        "UPDATE event SET state = 'failed', reason = :why WHERE id = :id", why=reason, id=receipt.event_id
    )
    return receipt.event_id


async def test_failed_webhooks__are_one_finding_a_source_and_day_with_the_cure(world: World) -> None:
    at = datetime(2026, 12, 1, 12, tzinfo=UTC)
    await failed_event(world, at=at)
    await failed_event(world, at=at)
    await failed_event(world, "another reason", at=at + DAY)

    found = await look(world)

    assert set(found) == {f"dead-letter:events/{PATH}/failed/2026-12-0{n}" for n in (1, 2)}
    one = found[f"dead-letter:events/{PATH}/failed/2026-12-01"]
    assert one.title == f"2 webhooks of {PATH} failed: no mails will come of them"
    assert "Template 'x' is missing" in one.body
    assert "tidings events replay --failed --since 2026-12-01" in one.body


async def test_a_failed_webhook_that_is_replayed__is_no_dead_letter_any_more(world: World) -> None:
    event_id = await failed_event(world)
    assert len(await look(world)) == 1

    await replay_named(world.ledger, world.runs, world.campaigns, event_id)

    assert await look(world) == {}


async def test_a_body_that_was_not_understood__is_a_dead_letter(world: World) -> None:
    event_id = await failed_event(world)
    await world.run_sql("UPDATE event SET state = 'quarantined', reason = 'email: missing' WHERE id = :id", id=event_id)

    [found] = (await look(world)).values()

    assert found.title == f"1 webhook of {PATH} was not understood"
    assert "email: missing" in found.body
    assert "tidings events replay <id>" in found.body


@pytest.mark.parametrize(
    ("state", "cure"),
    [("failed", f"tidings messages retry --template {HELLO[0]}"), ("unknown", "--may-be-sent-twice")],
)
async def test_mails_that_wait_for_a_person__are_dead_letters_until_they_are_retried(
    world: World, state: str, cure: str
) -> None:
    await world.enrolled(2)
    await world.run_sql("UPDATE message SET state = :s, reason = 'because' WHERE position = 1", s=state)

    [found] = (await look(world)).values()

    assert found.subject.startswith(f"mails/{HELLO[0]}/{state}/")
    assert "Because: because\n" in found.body
    assert cure in found.body
    await world.run_sql("UPDATE message SET state = 'scheduled', slot_at = now(), due_at = now()")
    assert await look(world) == {}


# -- late mails ------------------------------------------------------------------------------------------------------


async def test_a_mail_is_late__five_minutes_after_its_time_and_until_it_has_left(world: World) -> None:
    await world.enrolled()

    assert await look(world, now() + timedelta(minutes=4)) == {}
    [found] = (await look(world, now() + timedelta(minutes=6))).values()
    await world.send()

    assert found.key == f"late-mail:{HELLO[0]}"
    assert found.title == f"1 mail of {HELLO[0]} is late"
    assert "tidings doctor" in found.body
    assert await look(world, now() + timedelta(minutes=6)) == {}


async def test_a_mail_that_a_run_has_taken_and_not_got_rid_of__is_late_too(world: World) -> None:
    await world.enrolled()
    world.box.fault("status", status=500, service="resend", path="/emails")
    with pytest.raises(Exception, match="Resend"):
        await world.send()
    assert (await world.message()).state == "sending"

    assert set(await look(world, now() + timedelta(minutes=6))) == {f"late-mail:{HELLO[0]}"}


async def test_a_mail_that_resend_refuses_for_our_set_up__is_late_with_its_reason(world: World) -> None:
    """It gets a new time every two minutes, so its time alone would never be past."""
    await world.enrolled(ago=timedelta(minutes=10))
    await world.run_sql(
        "UPDATE message SET slot_at = now() + interval '1 minute', reason = 'the domain is not verified' "
        "WHERE position = 1"
    )

    [found] = (await look(world)).values()

    assert "Because: the domain is not verified" in found.body


async def test_a_mail_whose_run_is_at_the_end_of_its_minute__is_not_late_before(world: World) -> None:
    await world.enrolled(ago=timedelta(minutes=10))
    await world.run_sql("UPDATE message SET slot_at = now() + interval '50 seconds' WHERE position = 1")

    assert await look(world) == {}


# -- quota -----------------------------------------------------------------------------------------------------------


class Plan:
    def __init__(self, *allowances: Allowance, error: Exception | None = None) -> None:
        self._allowances, self._error = allowances, error

    async def allowances(self) -> list[Allowance]:
        if self._error:
            raise self._error
        return list(self._allowances)


async def quota(world: World, plan: Any, at: datetime | None = None) -> Found:
    return await watching(world).quota(plan, at or now())


async def test_mails_that_wait_for_a_quota__are_told_as_that_and_not_as_late(world: World) -> None:
    await world.enrolled(2, ago=timedelta(minutes=10))
    world.box.set(daily_quota=1)
    with pytest.raises(QuotaExhausted):
        await world.send()

    assert await look(world) == {}
    assert set(by_key(await quota(world, Plan()))) == {"quota:used-up"}


async def test_a_quota_that_mails_go_by_again__is_not_used_up_and_the_rest_is_late_only_after_its_time(
    world: World,
) -> None:
    await world.enrolled(2, ago=timedelta(minutes=10))
    world.box.set(daily_quota=1)
    with pytest.raises(QuotaExhausted):
        await world.send()
    world.box.set(daily_quota=None)
    await world.enrolled()
    await world.send()

    assert by_key(await quota(world, Plan())) == {}
    assert await look(world) == {}
    assert set(await look(world, now() + 2 * HOUR)) == {f"late-mail:{HELLO[0]}"}


@pytest.mark.parametrize(("used", "told"), [(79, False), (80, True), (100, True)])
async def test_a_quota_near_its_end__is_told_from_four_fifths_on(world: World, used: int, told: bool) -> None:
    found = by_key(await quota(world, Plan(Allowance("daily", used, 100), Allowance("monthly", 10, 3000))))

    assert set(found) == ({"quota:daily"} if told else set())


@pytest.mark.parametrize("error", [RetryLater("Resend", "slow down"), Refused("Resend", "no")])
async def test_a_quota_that_nobody_can_ask_for__leaves_its_alerts_as_they_are(world: World, error: Exception) -> None:
    found = await quota(world, Plan(error=error))

    assert (found.findings, found.kinds, found.unknown) == ([], {"quota"}, {"quota:"})


async def test_resend_tells_the_quota__or_its_headers_do(world: World) -> None:
    await world.enrolled(2)
    world.box.set(daily_quota=100, monthly_quota=3000)
    await world.send()

    asked = await world.resend.allowances()
    world.box.fault("status", status=401, service="resend", path="/usage")
    seen = await world.resend.allowances()

    assert asked == seen == [Allowance("daily", 2, 100), Allowance("monthly", 2, 3000)]


# -- rates -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("mails", "bounced", "told"), [(100, 6, True), (100, 5, False), (19, 10, False), (20, 3, True), (20, 2, False)]
)
async def test_a_bounce_rate__is_told_above_the_limit_and_never_for_a_few(
    world: World, mails: int, bounced: int, told: bool
) -> None:
    await sent(world, mails, bounced=bounced)

    found = await look(world)

    dead = {key for key in found if not key.startswith("dead-letter")}
    assert dead == ({"bounce-rate"} if told else set())
    if told:
        assert found["bounce-rate"].title == f"{bounced} of {mails} mails of the last 24 h bounced"


@pytest.mark.parametrize(("complained", "told"), [(2, True), (1, False)])
async def test_complaints__are_told_from_the_second_on(world: World, complained: int, told: bool) -> None:
    await sent(world, 20, complained=complained)

    assert set(await look(world)) == ({"complaint-rate"} if told else set())


async def test_what_bounced_before_yesterday__is_not_counted(world: World) -> None:
    await sent(world, 20, bounced=10)

    assert await look(world, now() + DAY) == {}


# -- silence ---------------------------------------------------------------------------------------------------------


async def habit(world: World, last: datetime, *, every: timedelta, days: int) -> None:
    """A source that posted so often for so long, until then."""
    await world.run_sql(
        "INSERT INTO event (id, source, key, campaign, deployment, state, body, received_at, contact_created) "
        "SELECT gen_random_uuid(), :path, 'h' || n, 'winter', 'winter-hello-handler', 'ignored', '{}', "
        "CAST(:last AS timestamptz) - n * CAST(:every AS interval), false FROM generate_series(0, :count) n",
        path=PATH,
        last=last,
        every=every,
        count=int(timedelta(days=days) / every),
    )


async def test_a_source_is_silent__after_twice_its_longest_silence(world: World) -> None:
    last = now() - 9 * HOUR
    await habit(world, last, every=4 * HOUR, days=14)
    watch = watching(world)

    assert by_key(await watch.ledger(last + 7 * HOUR)) == {}
    [found] = (await watch.ledger(last + 9 * HOUR)).findings

    assert found.key == f"source-silent:{PATH}"
    assert "never silent for more than 4 h" in found.body
    await posted(world, last + 9 * HOUR)
    assert (await watch.ledger(last + 10 * HOUR)).findings == []


async def test_a_source_that_posts_every_minute__is_not_silent_within_the_hour(world: World) -> None:
    last = now()
    await habit(world, last, every=timedelta(minutes=5), days=8)

    assert await look(world, last + timedelta(minutes=59)) == {}
    assert set(await look(world, last + timedelta(minutes=61))) == {f"source-silent:{PATH}"}


@pytest.mark.parametrize(("every", "days"), [(HOUR, 6), (DAY, 18)])
async def test_a_source_without_a_habit__is_not_missed(world: World, every: timedelta, days: int) -> None:
    """A young source, and one that posts so seldom that nothing can be said of it."""
    last = now() - 100 * DAY
    await habit(world, last, every=every, days=days)

    assert await look(world) == {}


async def test_what_was_found_in_a_services_list__does_not_break_a_silence(world: World) -> None:
    last = now() - 9 * HOUR
    await habit(world, last, every=HOUR, days=14)
    receipt = await posted(world, now())
    await world.run_sql("UPDATE event SET origin = 'calendly' WHERE id = :id", id=receipt.event_id)

    assert set(await look(world)) == {f"source-silent:{PATH}"}


# -- runs ------------------------------------------------------------------------------------------------------------


async def test_runs_that_do_not_get_on__are_told_by_deployment(world: World) -> None:
    at = now()
    world.runs.halted = [
        Stuck(uuid4(), "winter-send-email", at - timedelta(minutes=31), waits=False),
        Stuck(uuid4(), "winter-hello-handler", at - timedelta(minutes=6), waits=True),
        Stuck(uuid4(), "winter-hello-handler", at - timedelta(minutes=7), waits=True),
        Stuck(uuid4(), "tidings-sweep", at - timedelta(minutes=29), waits=False),
    ]

    found = by_key(await watching(world).runs(world.runs, at, worker=True))

    assert {key: each.title for key, each in found.items()} == {
        "stuck-run:winter-send-email": "1 run of winter-send-email is under way without end",
        "stuck-run:winter-hello-handler": "2 runs of winter-hello-handler are waiting for a worker although one is "
        "there",
    }
    assert str(world.runs.halted[2].id) in found["stuck-run:winter-hello-handler"].body


async def test_runs_that_wait_where_no_worker_is__are_told_as_that(world: World) -> None:
    world.runs.halted = [Stuck(uuid4(), "winter-hello-handler", now() - HOUR, waits=True)]

    assert (await watching(world).runs(world.runs, now(), worker=False)).findings == []


async def test_prefect_away__leaves_its_alerts_as_they_are(world: World) -> None:
    world.runs.away = True

    found = await watching(world).runs(world.runs, now(), worker=True)

    assert (found.findings, found.kinds) == ([], set())


# -- hot leads -------------------------------------------------------------------------------------------------------


async def test_a_hot_lead__is_told_once_by_its_event_and_without_its_address(world: World) -> None:
    world.campaigns = Campaigns([replace(WINTER, hot_segments=frozenset({"hot"}))])
    [email] = await world.enrolled(mood="hot")
    await world.enrolled(mood="cold")
    event = next(e for e in await world.events() if email in e.body)
    await replay_named(world.ledger, world.runs, world.campaigns, event.id)
    await world.enrol(event.id)

    [row] = await world.rows("SELECT * FROM alert")

    assert row.key == f"hot-lead:{event.id}"
    assert (row.told_at, row.recovered_at is None) == (None, False)
    assert str(event.id) in row.body
    assert "tidings contact" in row.body
    assert email not in row.title + row.body


# -- a campaign of Tidings' own --------------------------------------------------------------------------------------


async def test_an_internal_campaign__is_in_nobodys_figures(world: World) -> None:
    await sent(world, 30, bounced=20, failed=2)
    await failed_event(world)
    await habit(world, now() - 9 * HOUR, every=HOUR, days=14)
    assert len(await look(world, now() + timedelta(minutes=6))) == 3

    assert await look(world, now() + timedelta(minutes=6), INTERNAL) == {}


# -- checks ----------------------------------------------------------------------------------------------------------

WELL: dict[str, str | None] = dict.fromkeys(["ledger", "prefect", "deployments", "worker", "notion", "templates"])


class Judged:
    """Checks that are looked at every 20 s."""

    def __init__(self, *, starting: bool = False) -> None:
        self._checks = Checks(starting=starting)
        self.at = 0.0

    def look(self, **problems: str) -> Found:
        self.at += 20
        return self._checks.judge({name: Look(self.at, problem) for name, problem in (WELL | problems).items()})


def test_a_check_that_fails_once__wakes_nobody() -> None:
    judged = Judged()
    judged.look()

    found = judged.look(resend="away")

    assert found.findings == []
    assert "not-ready:resend" in found.unknown


def test_a_check_that_fails_twice__is_told_until_it_is_well_twice() -> None:
    judged = Judged()
    judged.look(templates="Template 'x' is empty")
    [found] = judged.look(templates="Template 'x' is empty").findings

    assert (found.key, found.title) == ("not-ready:templates", "Templates in Notion cannot be sent")
    assert "Template 'x' is empty" in found.body
    assert "not-ready:templates" in judged.look().unknown
    last = judged.look()
    assert (last.findings, last.unknown) == ([], set())


def test_the_same_look_seen_twice__is_one() -> None:
    checks, looks = Checks(starting=False), {"resend": Look(1.0, "away")}

    assert [checks.judge(looks).findings for _ in range(3)] == [[], [], []]


def test_what_hangs_on_another_check__is_not_told_beside_it() -> None:
    judged = Judged()
    for _ in range(2):
        found = judged.look(prefect="Prefect: the API: cannot be reached", worker="no worker", deployments="Prefect: …")

    assert [f.key for f in found.findings] == ["prefect-down"]
    assert {"not-ready:worker", "not-ready:deployments"} <= found.unknown


def test_a_key_that_resend_refuses__is_not_told_as_reports_that_do_not_arrive() -> None:
    judged = Judged()
    for _ in range(2):
        found = judged.look(**{"resend": "Resend: 401", "resend-webhook": "Resend: 401"})

    assert [f.key for f in found.findings] == ["not-ready:resend"]
    assert "not-ready:resend-webhook" in found.unknown


def test_an_open_prefect__is_not_one_that_is_down() -> None:
    judged = Judged()
    for _ in range(2):
        found = judged.look(prefect="Prefect's API lets anyone in without a password; set …")

    assert [f.key for f in found.findings] == ["not-ready:prefect"]


def test_what_is_still_starting__is_given_time_and_then_told() -> None:
    judged = Judged(starting=True)
    while judged.at < START_SECONDS:
        assert judged.look(worker="no worker is polling the work pool").findings == []

    [found] = judged.look(worker="no worker is polling the work pool").findings

    assert found.title == "No worker is there: mails do not leave"


def test_what_was_well_since_the_start__is_told_at_once() -> None:
    judged = Judged(starting=True)
    judged.look()
    judged.look(worker="no worker is polling the work pool")

    assert len(judged.look(worker="no worker is polling the work pool").findings) == 1
