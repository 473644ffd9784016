"""Words as Notion's rich text and back: nothing cut, no character split (F16), properties of any case (F10)."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tidings.adapters.notion import PropertyMissing, plain, rich_text, spelled, title_of
from tidings.errors import Refused
from tidings.mirror import property_value


def units(text: str) -> int:
    return len(text.encode("utf-16-le")) // 2


def contents(items: list[dict[str, Any]]) -> list[str]:
    return [item["text"]["content"] for item in items]


@pytest.mark.parametrize("length", [0, 1, 1999, 2000, 2001, 4000, 50_001, 199_999, 200_000])
@pytest.mark.parametrize("character", ["x", "é"])
def test_f16_words__are_whole_whatever_their_length(length: int, character: str) -> None:
    parts = contents(rich_text(character * length))

    assert "".join(parts) == character * length
    assert all(units(part) <= 2000 for part in parts)
    assert len(parts) == -(-length // 2000)


def test_f16_an_emoji_at_the_cut__is_not_split() -> None:
    parts = contents(rich_text("x" * 1999 + "🎄" + "y"))

    assert parts == ["x" * 1999, "🎄y"]


@given(st.text(alphabet=st.sampled_from("xé🎄\n"), max_size=4500))
def test_f16_any_words__come_back_in_parts_that_notion_takes(words: str) -> None:
    parts = contents(rich_text(words))

    assert "".join(parts) == words
    assert all(0 < units(part) <= 2000 for part in parts)


def test_f16_words_that_a_property_cannot_hold__are_refused_and_not_cut() -> None:
    with pytest.raises(Refused, match=r"200001 characters is longer than a property holds"):
        rich_text("x" * 200_001)


def test_runs_of_one_sentence__are_joined() -> None:
    row = {
        "properties": {
            "Body": {"type": "rich_text", "rich_text": [{"plain_text": "{{first"}, {"plain_text": "_name}}"}]}
        }
    }

    assert plain(row, "Body") == "{{first_name}}"


def test_a_title__is_found_under_whatever_name() -> None:
    row = {
        "properties": {
            "Words": {"type": "rich_text", "rich_text": [{"plain_text": "no"}]},
            "Titel": {"type": "title", "title": [{"plain_text": "yes"}]},
        }
    }

    assert title_of(row) == "yes"


@pytest.mark.parametrize("there", ["email", "Email", "EMAIL", "eMail"])
@pytest.mark.parametrize("wanted", ["email", "Email"])
def test_f10_a_property__is_found_by_any_case(there: str, wanted: str) -> None:
    assert spelled({there: {}, "Name": {}}, wanted, "NOTION_CONTACTS_DB_ID") == there


def test_f10_of_two_spellings__the_exact_one_counts() -> None:
    assert spelled({"email": {}, "Email": {}}, "Email", "X") == "Email"


@pytest.mark.parametrize("there", [{"Name": {}, "Mail": {}}, {"EMAIL": {}, "email": {}}])
def test_f10_a_missing_or_doubtful_property__is_told_with_property_setting_and_cure(there: dict[str, Any]) -> None:
    with pytest.raises(PropertyMissing) as told:
        spelled(there, "Email", "NOTION_CONTACTS_DB_ID")

    assert "the database of NOTION_CONTACTS_DB_ID has no property 'Email'" in str(told.value)
    assert ", ".join(sorted(there)) in str(told.value)
    assert "tidings notion init" in str(told.value)


@pytest.mark.parametrize("kind", ["title", "rich_text"])
def test_a_mirrored_text__fits_whatever_it_holds(kind: str) -> None:
    (item,) = property_value(kind, "🎄" * 1500)[kind]

    assert units(item["text"]["content"]) <= 2000


@pytest.mark.parametrize(
    ("kind", "value", "written"),
    [
        ("number", "52", {"number": 52.0}),
        ("number", None, {"number": None}),
        ("number", 0, {"number": 0.0}),
        ("checkbox", True, {"checkbox": True}),
        ("checkbox", None, {"checkbox": False}),
        ("select", "URGENT", {"select": {"name": "URGENT"}}),
        ("select", "a,b", {"select": {"name": "a b"}}),
        ("select", None, {"select": None}),
        ("date", "2026-12-01", {"date": {"start": "2026-12-01"}}),
        ("date", None, {"date": None}),
        ("email", "a@b.co", {"email": "a@b.co"}),
        ("email", None, {"email": None}),
        ("rich_text", None, {"rich_text": []}),
    ],
)
def test_a_mirrored_value__has_the_form_of_its_property(kind: str, value: Any, written: dict[str, Any]) -> None:
    assert property_value(kind, value) == written
