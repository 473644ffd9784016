"""Log lines: the same names everywhere, a run's id on each of its lines, and one object a line for machines."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator

import pytest

from tidings import logs
from tidings.logs import FEW, JsonFormatter, ShortFormatter, bound, tell


def line(formatter: logging.Formatter, *, name: str = "tidings.x", **fields: object) -> str:
    return formatter.format(logging.makeLogRecord({"name": name, "msg": "thing.done", "levelno": 20, **fields}))


def test_a_runs_id__is_on_every_line_inside_and_on_none_outside() -> None:
    with bound(run_id="r-1"):
        with bound(campaign="winter"):
            inner = json.loads(line(JsonFormatter(), event_id="e-1"))
        after = json.loads(line(JsonFormatter()))

    assert (inner["run_id"], inner["campaign"], inner["event_id"], inner["event"]) == (
        "r-1",
        "winter",
        "e-1",
        "thing.done",
    )
    assert after["run_id"] == "r-1"
    assert "campaign" not in after
    assert "run_id" not in json.loads(line(JsonFormatter()))


def test_prefects_own_lines__have_the_runs_id_under_our_name() -> None:
    said = json.loads(line(JsonFormatter(), name="prefect.flow_runs", flow_run_id="r-2"))

    assert said["run_id"] == "r-2"
    assert "flow_run_id" not in said


def test_what_is_not_known__is_left_out() -> None:
    assert line(ShortFormatter(), run_id=None, event_id="e") == "thing.done event_id=e"


@pytest.fixture
def heard() -> Iterator[list[logging.LogRecord]]:
    records: list[logging.LogRecord] = []

    class Ear(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            records.append(record)

    log, ear = logging.getLogger("tidings.test"), Ear()
    log.addHandler(ear)
    log.setLevel(logging.INFO)
    yield records
    log.removeHandler(ear)


def test_a_few_things__have_a_line_each(heard: list[logging.LogRecord]) -> None:
    tell(logging.getLogger("tidings.test"), "message.sent", [{"message_id": str(n)} for n in range(FEW)])

    assert [vars(record)["message_id"] for record in heard] == [str(n) for n in range(FEW)]


def test_many__have_one_line_with_their_number_and_what_they_have_in_common(heard: list[logging.LogRecord]) -> None:
    about = [{"message_id": str(n), "campaign": "winter"} for n in range(FEW + 1)]

    tell(logging.getLogger("tidings.test"), "message.sent", about)

    (record,) = heard
    assert (vars(record)["count"], vars(record)["campaign"]) == (FEW + 1, "winter")
    assert not hasattr(record, "message_id")


def test_nothing__is_not_told(heard: list[logging.LogRecord]) -> None:
    tell(logging.getLogger("tidings.test"), "message.sent", [])

    assert heard == []


def test_where_json_is_asked_for__other_libraries_write_it_too(monkeypatch: pytest.MonkeyPatch) -> None:
    other, handler = logging.getLogger("some.library"), logging.StreamHandler()
    other.addHandler(handler)
    # What the test session itself logs with stays as it is.
    monkeypatch.setattr(logging.root.manager, "loggerDict", {"some.library": other})
    monkeypatch.setattr(logging.root, "handlers", [])
    ours = logging.getLogger("tidings")
    for name in ("handlers", "level", "propagate"):
        monkeypatch.setattr(ours, name, getattr(ours, name))
    before = logging.getLogRecordFactory()
    try:
        logs.configure(as_json=False)
        assert not isinstance(handler.formatter, JsonFormatter)
        logs.configure(as_json=True)
        assert isinstance(handler.formatter, JsonFormatter)
    finally:
        logging.setLogRecordFactory(before)
        other.removeHandler(handler)
