"""Each of the five webhooks, posted once to a running stack: every mail of its sequence, and nothing twice."""

from __future__ import annotations

import itertools
import re

import pytest
from live_parts import Live
from live_sequences import BUSINESS, FIRST_NAME, PATHS, Posted, template_of

from tidings.campaign import load_campaigns
from tidings.settings import ROOT

pytestmark = [pytest.mark.stack, pytest.mark.parametrize("path", PATHS)]


def test_every_mail__is_delivered_once(path: str, five: dict[str, Posted]) -> None:
    posted = five[path]

    # on a busy machine a mail can overtake another that was due a second earlier, hence sorted
    assert sorted(map(template_of, posted.mails)) == list(posted.expected.templates)
    assert {mail["last_event"] for mail in posted.mails} == {"delivered"}
    assert {tuple(mail["to"]) for mail in posted.mails} == {(posted.email,)}


def test_the_ledger__has_what_the_provider_has(path: str, five: dict[str, Posted]) -> None:
    posted = five[path]

    assert [m["template"] for m in posted.messages] == list(posted.expected.templates)
    assert {m["state"] for m in posted.messages} == {"delivered"}
    assert {m["template"]: m["provider_id"] for m in posted.messages} == {
        template_of(mail): mail["id"] for mail in posted.mails
    }
    assert all(m["sent_at"] >= m["due_at"] for m in posted.messages)


def test_each_mail__leaves_a_testing_minute_after_the_one_before(path: str, five: dict[str, Posted]) -> None:
    dues = [m["due_at"] for m in five[path].messages]

    assert {(after - before).total_seconds() for before, after in itertools.pairwise(dues)} == {1.0}


def test_headers__offer_to_leave_with_one_click(path: str, five: dict[str, Posted], live: Live) -> None:
    for mail in five[path].mails:
        link = mail["headers"]["List-Unsubscribe"]
        assert re.match(rf"^<{re.escape(live.web)}/unsubscribe/[\w.-]+>, <mailto:hello@tidings\.test\?", link)
        assert mail["headers"]["List-Unsubscribe-Post"] == "List-Unsubscribe=One-Click"


def test_both_parts__say_the_same_with_nothing_left_over(path: str, five: dict[str, Posted]) -> None:
    for mail in five[path].mails:
        for part in (mail["subject"], mail["html"], mail["text"]):
            assert part.strip()
            assert not re.search(r"\{\{|\}\}|\{%|None\b|undefined", part)
        assert FIRST_NAME in mail["text"]
        assert "<p" not in mail["text"]
        assert "Sample Street 1" in mail["text"] and "Sample Street 1" in mail["html"]
        unsubscribe = re.search(r"Unsubscribe: (http\S+/unsubscribe/\S+)", mail["text"])
        assert unsubscribe and unsubscribe[1] in mail["html"]


def test_subjects__are_those_of_the_copy(path: str, five: dict[str, Posted]) -> None:
    christmas = load_campaigns([ROOT / "campaigns"])["christmas"]
    written = [christmas.starter(template)[0] for template in five[path].expected.templates]
    filled = [
        re.sub(r"\{\{ (\w+).*?\}\}", lambda m: {"first_name": FIRST_NAME, "business_name": BUSINESS}.get(m[1], m[0]), s)
        for s in written
    ]

    subjects = [mail["subject"] for mail in sorted(five[path].mails, key=template_of)]
    assert len(set(subjects)) == len(subjects)
    for subject, expected in zip(subjects, filled, strict=True):
        assert subject == expected or "{{" in expected
