"""The plan of a run is the same for the same seed, and has everything in it that it promises."""

from __future__ import annotations

from collections import Counter
from datetime import UTC, datetime
from pathlib import Path

import pytest

from tidings.campaign import Campaigns
from tidings.chaos import scenario
from tidings.chaos.disturb import Disturbance
from tidings.chaos.faults import FAULTS
from tidings.chaos.mutants import MutationFailed, mutated
from tidings.chaos.mutations import MUTATIONS, Change
from tidings.chaos.observe import Backlog
from tidings.chaos.recovery import Recovery, lines, recover
from tidings.chaos.scenario import FULL, QUICK, Scenario, Target
from tidings.local.entrance import campaigns_of
from tidings.settings import ROOT

NOW = datetime(2026, 11, 22, 12, 0, tzinfo=UTC)


@pytest.fixture(scope="module")
def campaigns() -> Campaigns:
    return campaigns_of({})


@pytest.fixture(scope="module")
def full(campaigns: Campaigns) -> Scenario:
    return scenario.make(7, FULL, campaigns, NOW)


def test_the_seed_decides_everything(campaigns: Campaigns, full: Scenario) -> None:
    assert scenario.make(7, FULL, campaigns, NOW) == full
    assert scenario.make(8, FULL, campaigns, NOW) != full


def test_a_full_run_has_what_it_promises(full: Scenario, campaigns: Campaigns) -> None:
    assert len(full.rounds) == 20
    assert len(full.webhooks) == 2000
    assert full.postings > 2300, "repeats come on top"
    assert {w.path for w in full.webhooks} == {w.path for _, w in campaigns.webhooks}
    assert {k.target for r in full.rounds for k in r.kills} == set(Target)
    assert {i.fault.title for r in full.rounds for i in r.injections} == {f.title for f in FAULTS}


def test_each_mail_is_asked_for_once(full: Scenario) -> None:
    mails = Counter((w.email, template) for w in full.webhooks for template in w.templates)
    assert max(mails.values()) == 1


def test_some_webhooks_come_again_and_some_start_nothing(full: Scenario) -> None:
    times = Counter(p.webhook.number for r in full.rounds for p in r.postings)
    assert sum(count > 1 for count in times.values()) > 200
    assert sum(not w.templates for w in full.webhooks) > 50


def test_every_body_is_valid(full: Scenario, campaigns: Campaigns) -> None:
    kinds = {w.path: w for _, w in campaigns.webhooks}
    for webhook in full.webhooks:
        payload = kinds[webhook.path].payload.model_validate_json(webhook.body)
        contact = payload.contact()
        assert contact is not None
        assert contact.email == webhook.email


def test_the_quick_run_is_small(campaigns: Campaigns) -> None:
    quick = scenario.make(7, QUICK, campaigns, NOW)
    assert (len(quick.rounds), len(quick.webhooks)) == (3, 150)


@pytest.mark.parametrize("name", MUTATIONS)
def test_every_mutation_fits_the_product(name: str, tmp_path: Path) -> None:
    for file in {change.file for change in MUTATIONS[name]}:
        copy = tmp_path / file
        copy.parent.mkdir(parents=True, exist_ok=True)
        copy.write_text((ROOT / file).read_text(encoding="utf-8"), encoding="utf-8")
    mutated(tmp_path, MUTATIONS[name])
    for file in {change.file for change in MUTATIONS[name]}:
        text = (tmp_path / file).read_text(encoding="utf-8")
        assert text != (ROOT / file).read_text(encoding="utf-8")
        compile(text, file, "exec")


def test_a_mutation_that_does_not_fit_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.py").write_text("x = 1\n")
    with pytest.raises(MutationFailed, match=r"a\.py has this text 0 times instead of once"):
        mutated(tmp_path, (Change("a.py", "y = 1", "y = 2"),))


def look(at: float, since: float) -> Backlog:
    return Backlog(at, since, events=0, scheduled=0, overdue=0, sending=0, out=0, claims=0, next_due=None)


def test_times_to_recover_count_from_the_beginning() -> None:
    killed = Disturbance("SIGKILL it", began=100.0, ended=103.0, struck=1)
    # Sent before the kill and answered after it says nothing; nor does a backlog from before its end.
    answered = [(99.0, 101.0), (100.5, 104.0), (102.0, 103.5)]
    looks = [look(102.0, 102.0), look(110.0, 102.9), look(120.0, 118.0)]
    assert recover(killed, answered, [90.0, 105.0], looks) == Recovery(webhook=3.5, mail=5.0, drained=20.0)
    assert recover(killed, [], [], []) == Recovery(None, None, None)


def test_disturbances_of_one_kind_are_one_line() -> None:
    twice = [Disturbance("a", 2.0, 3.0, 4), Disturbance("b", 1.0, 1.0, 1), Disturbance("a", 0.5, 1.0, 2)]
    found = lines(twice, [(2.5, 2.75)], [], [])
    assert [(line.title, line.times, line.struck) for line in found] == [("a", 2, 6), ("b", 1, 1)]
    assert found[0].worst("webhook") == 2.25
    assert found[0].worst("mail") is None
