"""A reconciliation as a whole: each service stands alone, and what is wrong is told for as long as it is so."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

import pytest
from fakes import FakeRuns
from sqlalchemy import text
from worlds import now

from tidings import reconciliation
from tidings.alerts import Finding
from tidings.errors import LedgerUnavailable, Refused, RetryLater, TidingsError
from tidings.gaps import KIND, Checked, Scope
from tidings.ledger import Ledger
from tidings.reconciliation import Outcome, Step, reconcile
from tidings.wiring import App

LOST = Finding(KIND, "A subscription was lost", "Look", subject="one/lost")


class Service:
    """A step that does what it is told to."""

    def __init__(self, name: str, *results: Checked | TidingsError) -> None:
        self.step = Step(name.title(), name, self.check)
        self._results = list(results)

    async def check(self, scope: Scope) -> Checked:
        result = self._results.pop(0) if len(self._results) > 1 else self._results[0]
        if isinstance(result, TidingsError):
            raise result
        return result


@pytest.fixture
def run(ledger: Ledger, monkeypatch: pytest.MonkeyPatch) -> Any:
    app = cast(App, SimpleNamespace(ledger=ledger, runs=FakeRuns()))

    async def reconciled(*services: Service, dry_run: bool = False) -> Outcome:
        monkeypatch.setattr(reconciliation, "steps", lambda app, intake: [s.step for s in services])
        return await reconcile(app, Scope(now(), dry_run=dry_run), lambda step, scope: step.check(scope))

    return reconciled


async def open_alerts(ledger: Ledger) -> dict[str, str]:
    async with ledger.reading() as connection:
        rows = await connection.execute(text("SELECT key, body FROM alert WHERE recovered_at IS NULL"))
        return {row.key: row.body for row in rows}


async def test_one_service_that_is_away__keeps_none_of_the_others(run: Any, ledger: Ledger) -> None:
    away = Service("one", RetryLater("One", "cannot be reached"))
    there = Service("two", Checked(taken=2))

    outcome = await run(away, there)

    assert (set(outcome.failed), outcome.total("taken")) == ({"One"}, 2)
    alerts = await open_alerts(ledger)
    assert list(alerts) == ["reconciliation:one/away"]
    assert "cannot be reached" in alerts["reconciliation:one/away"]
    assert "tidings reconcile" in alerts["reconciliation:one/away"]


async def test_a_service_that_is_back__is_told_of_as_over(run: Any, ledger: Ledger) -> None:
    service = Service("one", Refused("One", "no", status=401), Checked())

    await run(service)
    assert "cannot help" in (await open_alerts(ledger))["reconciliation:one/away"]
    await run(service)

    assert await open_alerts(ledger) == {}


async def test_what_was_wrong_there__stays_open_while_nobody_can_look(run: Any, ledger: Ledger) -> None:
    service = Service("one", Checked(findings=(LOST,)), RetryLater("One", "away"), Checked())

    await run(service)
    await run(service)
    assert set(await open_alerts(ledger)) == {"reconciliation:one/lost", "reconciliation:one/away"}
    await run(service)

    assert await open_alerts(ledger) == {}


async def test_a_dry_run__notes_nothing(run: Any, ledger: Ledger) -> None:
    await run(Service("one", Checked(findings=(LOST,))), dry_run=True)

    assert await open_alerts(ledger) == {}


async def test_without_the_ledger__nothing_goes_on(run: Any, ledger: Ledger) -> None:
    with pytest.raises(LedgerUnavailable):
        await run(Service("one", LedgerUnavailable("away")), Service("two", Checked()))
