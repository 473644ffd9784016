"""Campaigns are data: what cannot work is refused when it is loaded, with words that say where."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from winter import HELLO, WINTER, Hello, webhook

from tidings.campaign import Campaign, Campaigns, Sequence, Step, load_campaigns
from tidings.errors import CampaignError
from tidings.settings import ROOT, folders

SECOND = """
from datetime import timedelta
from tidings.campaign import Campaign, Sequence, Step, Webhook
from .bodies import Hello

CAMPAIGN = Campaign(
    name="{name}",
    title="A second campaign",
    sequences=(Sequence("welcome", "Welcome", (Step("{template}", timedelta(0)), Step("{name}_2", timedelta(1)))),),
    webhooks=(Webhook("{name}-hello", "{name}-handler", "Hello", "welcome", Hello, {{}}, "A webhook"),),
)
"""
BODIES = """
from pydantic import EmailStr
from tidings.campaign import Payload
from tidings.model import ContactFacts

class Hello(Payload):
    email: EmailStr
    def contact(self): return ContactFacts(self.email)
    def enrolment_key(self): return self.email
"""


def write_campaign(folder: Path, name: str, template: str | None = None) -> Path:
    """A campaign in a folder, the way its author would write it."""
    place = folder / name
    (place / "copy").mkdir(parents=True)
    template = template or f"{name}_1"
    (place / "campaign.py").write_text(SECOND.format(name=name, template=template))
    (place / "bodies.py").write_text(BODIES)
    (place / "copy" / f"{template}.html").write_text(
        "Subject: Welcome {{ first_name }}\n\n<p>Hello</p>\n\n<p>Bye</p>\n"
    )
    return place


def sequence(name: str = "one", *templates: str) -> Sequence:
    return Sequence(name, name, tuple(Step(t, timedelta(0)) for t in templates or (f"{name}_1",)))


def campaign(**given: Any) -> Campaign:
    values = {
        "name": "spring",
        "title": "Spring",
        "sequences": (sequence(),),
        "webhooks": (webhook("hello", "one", Hello),),
    }
    return Campaign(**{**values, **given})


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"name": "Spring Time"}, "'Spring Time' is not a name: use lower-case letters"),
        ({"name": ""}, "'' is not a name"),
        ({"sequences": (sequence("one"), sequence("one", "other_1"))}, "the sequence 'one' is named twice"),
        ({"sequences": (sequence("one", "a_1", "a_1"),)}, "the template 'a_1' is named twice"),
        ({"sequences": (sequence("one"), sequence("two", "one_1"))}, "the template 'one_1' is named twice"),
        ({"sequences": (Sequence("one", "One", ()),)}, "sequence 'one' has no steps"),
        ({"webhooks": (webhook("hello", "two", Hello),)}, "webhook 'hello' starts 'two', which is none of ['one']"),
        ({"webhooks": (webhook("hello", "one", Hello),) * 2}, "the webhook path 'hello' is named twice"),
        ({"webhooks": (webhook("Hello There", "one", Hello),)}, "'Hello There' is not a name"),
        ({"webhooks": (webhook("../x", "one", Hello),)}, "'../x' is not a name"),
    ],
)
def test_a_campaign_that_cannot_work__is_refused_by_name(given: dict[str, Any], said: str) -> None:
    with pytest.raises(CampaignError) as told:
        campaign(**given)

    assert said in str(told.value)
    assert str(told.value).startswith(f"Campaign {given.get('name', 'spring')!r}: ")


def test_a_campaign_with_several_faults__is_told_all_of_them() -> None:
    with pytest.raises(CampaignError) as told:
        campaign(name="S P", webhooks=(webhook("hello", "two", Hello),))

    assert "'S P' is not a name" in str(told.value)
    assert "starts 'two'" in str(told.value)


@pytest.mark.parametrize(
    ("other", "said"),
    [
        (WINTER, "the same campaign name: winter"),
        (campaign(webhooks=(webhook("winter-hello", "one", Hello),)), "the same webhook path: winter-hello"),
        (
            campaign(webhooks=(replace(webhook("new", "one", Hello), deployment="winter-hello-handler"),)),
            "the same deployment: winter-hello-handler",
        ),
        (campaign(sequences=(sequence("one", HELLO[0]),)), f"the same template: {HELLO[0]}"),
    ],
)
def test_two_campaigns_that_clash__are_refused(other: Campaign, said: str) -> None:
    with pytest.raises(CampaignError, match=said):
        Campaigns([WINTER, other])


def test_a_second_campaign__is_loaded_from_a_folder_beside_the_first(tmp_path: Path) -> None:
    write_campaign(tmp_path, "autumn")

    found = load_campaigns([ROOT / "campaigns", tmp_path])

    assert list(found) == ["christmas", "autumn", "canary"]
    assert list(found.for_people) == ["christmas", "autumn"]
    assert "autumn-hello" in [w.path for _, w in found.webhooks]
    assert found.of_template("autumn_2") is found["autumn"]
    assert found["autumn"].send_deployment == "autumn-send-email"
    assert (
        found["autumn"].webhook("autumn-hello").payload.model_validate({"email": "a@b.co"}).enrolment_key() == "a@b.co"
    )


def test_one_campaigns_own_folder__can_be_named(tmp_path: Path) -> None:
    place = write_campaign(tmp_path, "midsummer")

    assert list(load_campaigns([place])) == ["midsummer"]


@pytest.mark.parametrize("listed", ["campaigns", "{place}", "campaigns/canary", "campaigns, {place}"])
def test_the_canary__is_there_whatever_the_campaigns_are(tmp_path: Path, listed: str) -> None:
    place = write_campaign(tmp_path, "midsummer")

    assert load_campaigns(folders(listed.format(place=place))).internal == ["canary"]


def test_campaigns_of_one_name_in_two_places__are_told_apart(tmp_path: Path) -> None:
    first = write_campaign(tmp_path / "a", "advent")
    second = write_campaign(tmp_path / "b", "advent", template="advent_other")
    (second / "bodies.py").write_text(BODIES.replace("return self.email", "return 'the second'"))

    one, two = load_campaigns([first])["advent"], load_campaigns([second])["advent"]

    assert [c.templates[0] for c in (one, two)] == ["advent_1", "advent_other"]
    bodies = [c.webhooks[0].payload.model_validate({"email": "a@b.co"}) for c in (one, two)]
    assert [b.enrolment_key() for b in bodies] == ["a@b.co", "the second"]


def test_starter_copy__is_subject_and_body(tmp_path: Path) -> None:
    found = load_campaigns([write_campaign(tmp_path, "lent")])["lent"]

    assert found.starter("lent_1") == ("Welcome {{ first_name }}", "<p>Hello</p>\n\n<p>Bye</p>")


def test_starter_copy__that_is_missing_is_named(tmp_path: Path) -> None:
    found = load_campaigns([write_campaign(tmp_path, "easter")])["easter"]

    with pytest.raises(CampaignError, match=r"'easter' has no starter copy .*easter_2\.html"):
        found.starter("easter_2")


@pytest.mark.parametrize("text", ["<p>no subject</p>", "Subject: x\n\n", "Subject: x\n<p>no empty line</p>"])
def test_starter_copy__without_subject_or_body_is_refused(tmp_path: Path, text: str) -> None:
    place = write_campaign(tmp_path, "harvest")
    (place / "copy/harvest_1.html").write_text(text)

    with pytest.raises(CampaignError, match=r"harvest_1\.html: the first line must be 'Subject: …'"):
        load_campaigns([place])["harvest"].starter("harvest_1")


def test_no_campaign_in_a_folder__is_told_with_what_one_is(tmp_path: Path) -> None:
    with pytest.raises(CampaignError, match=r"no campaign was found in .*a folder with a campaign\.py"):
        load_campaigns([tmp_path])


def test_a_campaign_file_without_a_campaign__is_named(tmp_path: Path) -> None:
    (tmp_path / "campaign.py").write_text("NAME = 'x'\n")

    with pytest.raises(CampaignError, match=r"campaign\.py does not define CAMPAIGN = Campaign"):
        load_campaigns([tmp_path])


def test_a_template_of_no_campaign__is_told_with_those_there_are() -> None:
    with pytest.raises(CampaignError, match=f"No campaign has a template 'nosuch'; it has {HELLO[0]}"):
        Campaigns([WINTER]).of_template("nosuch")
