"""The drill's verdict on messages that are made up; and that no kind of alert is left out."""

from __future__ import annotations

import ast
import importlib
from collections.abc import Iterator, Sequence
from dataclasses import replace
from types import ModuleType

import pytest

from tidings.drill.hands import HandSlipped
from tidings.drill.receiver import Told
from tidings.drill.verdict import Quiet, Result, alerts, judge
from tidings.drill.ways import WAYS, Way, chosen
from tidings.settings import ROOT

WAY = replace(WAYS[0], name="late", alert="* of hello is late", also=("Prefect does not answer",), recovers=True)
LATE = "Tidings: 1 mail of hello is late"
QUIET = Quiet(minutes=30, seconds=90, webhooks=30, mails=90, lacking=0, told=())


def told(title: str, message: str = "Because.") -> Told:
    return Told(title, message, "failure")


def result(*titles: str, way: Way = WAY) -> Result:
    return Result(way=way, alert="1 mail of hello is late", seconds=3, recovery=2, told=tuple(map(told, titles)))


def test_what_was_told_in_time_and_is_over__is_right() -> None:
    verdict = judge([result(LATE, "Tidings: Prefect does not answer", "Tidings: over: 1 mail of hello is late")], QUIET)

    assert verdict.right


def test_no_alert__is_missing() -> None:
    verdict = judge([Result(way=WAY)], QUIET)

    assert [line.partition(":")[0] for line in verdict.missing] == ["late"]
    assert "no alert" in verdict.missing[0]
    assert not verdict.right


def test_no_word_that_it_is_over__is_missing_where_one_is_due() -> None:
    never = replace(result(LATE), recovery=None)

    assert "nobody was told that it is over" in judge([never], QUIET).missing[0]
    assert judge([replace(never, way=replace(WAY, recovers=False))], QUIET).right


def test_an_alert_that_the_break_does_not_explain__is_false() -> None:
    assert "'A clock is wrong'" in judge([result(LATE, "Tidings: A clock is wrong")], QUIET).false[0]


def test_an_alert_that_is_told_again__is_false() -> None:
    assert "told 2 times" in judge([result(LATE, LATE)], QUIET).false[0]


@pytest.mark.parametrize("title", [LATE, "Tidings: over: 1 mail of hello is late"])
def test_anything_in_the_quiet_period__is_false(title: str) -> None:
    verdict = judge([result(LATE)], replace(QUIET, told=(told(title),)))

    assert verdict.false == ("quiet period: '1 mail of hello is late' came although nothing was broken",)


def test_what_the_drill_could_not_do__is_not_right() -> None:
    trouble = replace(result(LATE), trouble="it could not be mended")

    assert judge([trouble], QUIET).troubles == ("late: it could not be mended",)
    assert not judge([result(LATE)], replace(QUIET, lacking=2)).right


def test_a_message_of_several_alerts__is_read_one_by_one() -> None:
    several = told(
        "Tidings: 1 mail of a is late, and 1 more (late-mail)",
        "- 1 mail of a is late\n  Because.\n- 1 mail of b is late",
    )
    ended = told(
        "Tidings: over: 1 mail of a is late, and 1 more (late-mail)",
        "- 1 mail of a is late: over since 12:00:00 UTC, after 9 s\n- 1 mail of b is late: over since 12:00:01 UTC, "
        "after 9 s",
    )
    alone = told("Tidings: Notion cannot be read as it is", "- what is wrong")

    assert [(a.title, a.over) for a in alerts([several, ended, alone])] == [
        ("1 mail of a is late", False),
        ("1 mail of b is late", False),
        ("1 mail of a is late", True),
        ("1 mail of b is late", True),
        ("Notion cannot be read as it is", False),
    ]


def test_ways__have_names_of_their_own_and_are_chosen_by_them() -> None:
    names = [way.name for way in WAYS]

    assert len(set(names)) == len(names)
    assert chosen([]) == WAYS
    assert [way.name for way in chosen(["worker", "hot-lead"])] == ["hot-lead", "worker"]
    with pytest.raises(HandSlipped, match="wrong-name"):
        chosen(["wrong-name"])


#: What is given the kinds that were looked at, as a set: none is noted without.
TAKES_KINDS = {"note", "add", "Found", "_only"}


def kinds_of_the_product() -> set[str]:
    """The kinds of all findings that anybody notes, as the sources of the use cases and of the watch have them."""
    found: set[str] = set()
    for path in sorted((ROOT / "tidings").glob("*.py")):
        source = path.read_text(encoding="utf-8")
        if "import Finding" in source or "import Found" in source or "import alerts" in source:
            found |= set(kinds_in(ast.parse(source), importlib.import_module(f"tidings.{path.stem}")))
    return found


def kinds_in(tree: ast.AST, module: ModuleType) -> Iterator[str]:
    for call in [node for node in ast.walk(tree) if isinstance(node, ast.Call)]:
        name = ast.unparse(call.func).rpartition(".")[2]
        given = [*call.args, *(word.value for word in call.keywords if word.arg in {"kind", "kinds"})]
        if name in TAKES_KINDS:
            yield from (kind for each in given if isinstance(each, ast.Set) for kind in values(each.elts, module))
        elif name == "Finding":
            yield from values(given[:1] if call.args else given, module)


def values(nodes: Sequence[ast.expr], module: ModuleType) -> Iterator[str]:
    """Of constants and of a module's own names."""
    for node in nodes:
        value = node.value if isinstance(node, ast.Constant) else getattr(module, ast.unparse(node), None)
        if isinstance(value, str):
            yield value


def test_every_kind_of_alert__has_a_way() -> None:
    from_memory_and_by_prefect = {"ledger-down", "nobody-watches", "looking-after-fails"}

    assert len(kinds_of_the_product()) > 10
    assert {way.kind for way in WAYS} == kinds_of_the_product() | from_memory_and_by_prefect
