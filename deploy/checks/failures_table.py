"""docs/failures.md, made from the marks of the tests: one account for each failure F1 to F22."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from tidings.settings import ROOT

FILE = ROOT / "docs" / "failures.md"
MAKE = "deploy/check failures --write"
TESTS = ROOT / "tests"
MARK = "failure"
#: What varies, in words that are quoted.
GAP = "…"

#: What went wrong in the system that Tidings replaces.
FAILURES = {
    "F1": "The webhook server was never deployed; the website posted to nothing for weeks, and nobody noticed",
    "F2": "All templates in Notion were empty; flows were green; a real signup got no mail",
    "F3": "Code asked for `5-Day E1`, Notion had `5-Day E1: Your…`",
    "F4": "Webhooks answered 200 while three of four sequences had no deployment",
    "F5": "16 sends were reported as successful; Resend had none",
    "F6": "On Python 3.12 the worker crashed with uvloop installed; the first mail after each restart was lost",
    "F7": 'The website said "your results have been emailed" and had called nothing',
    "F8": "A flow parameter was added in one place only; Prefect accepted the runs and failed them days later",
    "F9": "Naive datetimes were scheduled as UTC",
    "F10": "A Notion property was `email` in one database and `Email` in another",
    "F11": "The sending domain was not verified; placeholders went out unreplaced as `{{Score1}}`",
    "F12": "A flow caught every exception and returned a status; Prefect showed Completed and never retried",
    "F13": "Sent first, recorded after: a Notion error after the send meant a second mail",
    "F14": "Accepted webhooks lived in memory; none survived a restart",
    "F15": 'Tests of "idempotency" passed on HTTP 200 alone',
    "F16": "Templates were cut at Notion's 2,000 characters when they were uploaded",
    "F17": r"Values were not HTML-escaped; `\1` in a business name crashed the renderer",
    "F18": 'People who had booked or paid kept getting "last chance"; nobody could unsubscribe; consent was dropped',
    "F19": 'Plausible inventions were sent as facts ("12 spots left")',
    "F20": "No webhook was authenticated, CORS was `*`, and the Prefect API was open to the internet",
    "F21": "`/health` was green whenever environment variables were set",
    "F22": "Calendly switches a webhook subscription off after 24 h of failures and tells nobody",
}
HEAD = f"""# Failures that cannot happen again unnoticed

Each of these happened in the system that Tidings replaces. For each there is a test on the running stack that does it
again. *Impossible* means that the test shows it to be so; otherwise the test shows who notices it, how soon, and with
which words ("{GAP}" stands for what varies). The seconds are the bound that the test holds on a machine that is not
busy.

What is noticed by a red run, a failed event, `/health/ready` or the reconciliation is also looked for every 20 s, and
told to whoever reads the channels of `ALERT_URLS`, within two minutes ([decision 0014](decisions/0014-alerts.md)).
`make drill` breaks a running stack in each way and shows the alerts that arrive.

Made from the tests by `{MAKE}`.

| | what happened | what happens now | noticed by | what a person reads | test |
|---|---|---|---|---|---|
"""


@dataclass(frozen=True, kw_only=True)
class Account:
    """What a test shows of one failure: the arguments of its mark `failure`."""

    failure: str
    #: What happens now, in a line.
    now: str
    #: Who or what notices it, and after how many seconds at the latest; empty: it cannot happen.
    noticed_by: str = ""
    within: float = 0
    #: The words that somebody gets to read. Everything between two "…" has to be there, in this order.
    says: str = ""

    def said_in(self, text: str) -> bool:
        """Whether these words are in a text, however its lines are broken."""
        rest = " ".join(text.split())
        for part in filter(None, (" ".join(each.split()) for each in self.says.split(GAP))):
            _, found, rest = rest.partition(part)
            if not found:
                return False
        return True


@dataclass(frozen=True)
class Marked:
    """A test with a mark."""

    account: Account
    test: str
    path: Path
    #: The fixtures that it is given.
    given: tuple[str, ...]


def marked() -> Iterator[Marked]:
    """Every test with the mark. Its arguments are literals, so no test has to be imported."""
    for path in sorted(TESTS.rglob("test_*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.name.startswith("test_"):
                given = tuple(argument.arg for argument in node.args.args)
                yield from (Marked(account, node.name, path, given) for account in _accounts(node))


def _accounts(node: ast.FunctionDef | ast.AsyncFunctionDef) -> Iterator[Account]:
    for mark in node.decorator_list:
        if isinstance(mark, ast.Call) and isinstance(mark.func, ast.Attribute) and mark.func.attr == MARK:
            named = {k.arg: ast.literal_eval(k.value) for k in mark.keywords if k.arg}
            yield Account(failure=ast.literal_eval(mark.args[0]), **named)


def made() -> str:
    found = {each.account.failure: each for each in marked()}
    return HEAD + "".join(_row(found[name]) for name in FAILURES if name in found)


def _row(each: Marked) -> str:
    account = each.account
    noticed = f"{account.noticed_by}, within {account.within:g} s" if account.noticed_by else "*impossible*"
    link = f"[`{each.test}`](../{each.path.relative_to(ROOT).as_posix()})"
    cells = (account.failure, FAILURES[account.failure], account.now, noticed, account.says, link)
    return "| " + " | ".join(cell.replace("|", "\\|").replace("<", "&lt;") for cell in cells) + " |\n"


def write() -> None:
    FILE.write_text(made(), encoding="utf-8")


def problems() -> list[str]:
    found = list(marked())
    names = [each.account.failure for each in found]
    return [
        *(f"no test has the mark {MARK}({name!r})" for name in FAILURES if name not in names),
        *(f"{name}: {names.count(name)} tests have its mark" for name in FAILURES if names.count(name) > 1),
        *(f"{name} of {MARK}({name!r}) is not known" for name in names if name not in FAILURES),
        *(wrong for each in found for wrong in _wrong(each)),
        *([] if _written() == made() else [f"{FILE.relative_to(ROOT)} does not fit the tests; run: {MAKE}"]),
    ]


def _wrong(each: Marked) -> Iterator[str]:
    account = each.account
    if account.noticed_by and not (account.within and account.says):
        yield f"{each.test} says who notices it, and neither how soon nor in which words"
    if account.says and "evidence" not in each.given:
        yield f"{each.test} quotes words, and shows them to nobody: use the fixture evidence"


def _written() -> str:
    return FILE.read_text(encoding="utf-8") if FILE.exists() else ""
