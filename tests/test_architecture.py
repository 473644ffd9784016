"""The arrows of design.md 3: who may import whom, held by reading the sources."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Collection, Iterator
from functools import cache
from pathlib import Path

import pytest

from tidings.settings import ROOT

CODE = ("tidings", "flows", "tasks", "campaigns", "server.py")
USE_CASES = (
    "accept",
    "alerts",
    "canary",
    "confirm",
    "enrol",
    "deliver",
    "outcome",
    "replay",
    "reconcile",
    "mirror",
    "operate",
    "gather",
    "instance",
    "metrics",
    "progress",
    "telling",
    "watch",
)
PURE = (
    "consent",
    "segment",
    "schedule",
    "render",
    "model",
    "errors",
    "campaign",
    "unsubscribe",
    "notion_schema",
    "ports",
    "form",
    "redact",
    "counts",
    "logs",
)
ABOVE = {"server", "flows", "campaigns", "tasks"}
OUTSIDE = {"httpx", "notion_client", "resend", "prefect", "fastapi", "starlette"}
#: The parts of the product that only its entrances may know.
WIRED = ("tidings.adapters", "tidings.web", "tidings.wiring")
MAY_IMPORT_FLOWS = {"tidings/adapters/deploy.py", "tidings/warm.py"}
MAY_IMPORT_PREFECT = {
    "tidings/adapters/automations.py",
    "tidings/adapters/deploy.py",
    "tidings/worker.py",
    "tidings/warm.py",
}


def sources(*places: str) -> list[str]:
    """Python files, as paths from the checkout."""
    found: list[Path] = []
    for place in places:
        path = ROOT / place
        found += [path] if path.is_file() else sorted(path.rglob("*.py"))
    assert found, f"nothing in {places}"
    return [str(path.relative_to(ROOT)) for path in found]


@cache
def tree(file: str) -> ast.Module:
    return ast.parse((ROOT / file).read_text(encoding="utf-8"))


def modules_of(node: ast.AST) -> Iterator[str]:
    if isinstance(node, ast.Import):
        yield from (alias.name for alias in node.names)
    elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
        yield node.module
        yield from (f"{node.module}.{alias.name}" for alias in node.names)


@cache
def imports(file: str) -> frozenset[str]:
    """Every module that a file imports, wherever in the file."""
    return frozenset(module for node in ast.walk(tree(file)) for module in modules_of(node))


def roots(file: str) -> set[str]:
    return {module.partition(".")[0] for module in imports(file)}


def breaking(files: list[str], forbidden: Collection[str], *, inside: tuple[str, ...] = ()) -> dict[str, list[str]]:
    """Files that import what they must not: packages by their root, or modules of ours by how they begin."""
    found = {
        file: sorted(
            {m for m in imports(file) if m.partition(".")[0] in forbidden or (inside and m.startswith(inside))}
        )
        for file in files
    }
    return {file: modules for file, modules in found.items() if modules}


def test_the_product__imports_none_of_the_folders_above_it() -> None:
    found = breaking(sources("tidings"), ABOVE)

    assert set(found) <= MAY_IMPORT_FLOWS
    assert all(m.startswith("flows") for modules in found.values() for m in modules)


def test_fastapi__stays_at_the_web() -> None:
    found = breaking(sources(*CODE), {"fastapi", "starlette"})

    baselines = {"tidings/bench/bare.py", "tidings/bench/rival.py"}  # servers to be measured beside
    assert [f for f in found if not f.startswith(("tidings/web/", "tidings/sandbox/"))] == sorted(baselines)


def test_prefect__stays_in_its_places() -> None:
    found = breaking(sources(*CODE), {"prefect"})

    assert {f for f in found if not f.startswith(("flows/", "tasks/"))} == MAY_IMPORT_PREFECT


def test_the_ledger__knows_nothing_of_the_outside() -> None:
    assert breaking(sources("tidings/ledger"), OUTSIDE, inside=WIRED) == {}


def test_a_use_case__is_given_its_adapters() -> None:
    assert breaking([f"tidings/{name}.py" for name in USE_CASES], OUTSIDE, inside=WIRED) == {}


def test_what_is_pure__touches_neither_ledger_nor_the_outside() -> None:
    files = [f"tidings/{name}.py" for name in PURE]

    assert breaking(files, OUTSIDE | {"sqlalchemy", "asyncpg", "asyncio"}, inside=(*WIRED, "tidings.ledger")) == {}


@pytest.mark.parametrize("service", ["notion_client", "resend"])
def test_an_sdk__is_known_to_its_adapter_alone(service: str) -> None:
    adapter = f"tidings/adapters/{service.removesuffix('_client')}.py"

    assert set(breaking(sources(*CODE), {service})) == {adapter}


def handlers() -> Iterator[tuple[str, ast.ExceptHandler, set[str]]]:
    for file in sources(*CODE):
        for node in ast.walk(tree(file)):
            if isinstance(node, ast.ExceptHandler):
                names = ast.unparse(node.type).strip("()").split(",") if node.type else [""]
                yield f"{file}:{node.lineno}", node, {name.strip() for name in names}


def test_f12_no_exception__is_caught_whatever_it_is() -> None:
    """`except Exception` that goes on is how the old system stayed green."""
    assert [where for where, _, names in handlers() if names & {"", "Exception"}] == []


def test_f12_whatever_is_caught_as_base_exception__is_handed_on() -> None:
    found = [
        (where, ast.unparse(ast.Module(node.body, []))) for where, node, names in handlers() if "BaseException" in names
    ]

    assert [where for where, body in found if "raise" not in body and "_fail(" not in body] == []


def test_f12_nothing__suppresses_every_exception() -> None:
    calls = [
        (file, ast.unparse(item.context_expr))
        for file in sources(*CODE)
        for node in ast.walk(tree(file))
        if isinstance(node, ast.With | ast.AsyncWith)
        for item in node.items
    ]

    assert [c for c in calls if c[1] in {"suppress(Exception)", "suppress(BaseException)"}] == []


def test_f9_no_naive_clock__is_read() -> None:
    naive = {"datetime.utcnow", "datetime.now()", "datetime.today()", "datetime.utcfromtimestamp"}

    assert [f for f in sources(*CODE) if any(word in (ROOT / f).read_text(encoding="utf-8") for word in naive)] == []


def test_every_flow__tells_that_it_runs_and_under_which_id() -> None:
    """By `flows.reporting.running`: its log lines have the run's id, and its end is counted."""
    bodies = {f: (ROOT / f).read_text(encoding="utf-8") for f in sources("flows")}

    flows = {f: body for f, body in bodies.items() if "@flow(" in body}
    assert len(flows) >= 4
    assert [f for f, body in flows.items() if body.count("@flow(") != body.count("with running() as app")] == []


def test_every_service__is_called_by_a_client_that_counts() -> None:
    """`ServiceClient` does; so a service that fails is seen in the figures."""
    bodies = {f: (ROOT / f).read_text(encoding="utf-8") for f in sources("tidings/adapters")}

    uncounted = {"tidings/adapters/http.py", "tidings/adapters/prefect.py"}  # the latter asks as a stranger would
    assert {f for f, body in bodies.items() if "httpx.AsyncClient(" in body} - uncounted == set()


def test_the_webhook_server__imports_nothing_that_only_others_need() -> None:
    """Memory that it would hold for ever: 36 MB for Prefect, 7 MB for Alembic (docs/performance.md)."""
    others = ("prefect", "flows", "alembic", "svix", "sqlalchemy.orm", "rich")
    code = f"import sys, server\nprint(*(n for n in {others} if n in sys.modules))"

    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)

    assert (done.stdout.strip(), done.stderr) == ("", "")
