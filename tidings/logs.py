"""Log lines that can be joined on: an event name, and what it concerns as fields. No addresses, no secrets.

Fields have the same names everywhere: event_id, enrolment_id, message_id, claim_id, dispatch_id, contact_id, campaign,
sequence, template; run_id is the Prefect run that the line was written in, or that handles the event; other_run_id is
another run that a line is about.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from datetime import UTC, datetime
from typing import Any

from tidings.redact import redact

_STANDARD = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName", "color_message"}
#: uvicorn's formatter takes this logger's arguments apart, so they stay what they are.
_ACCESS = "uvicorn.access"
#: Our own formatters redact the whole line, fields and all.
_OURS = "tidings."
#: Up to so many things each have a line of their own; more have one together, with their number.
FEW = 10

_bound: ContextVar[dict[str, object]] = ContextVar("bound", default={})  # noqa: B039  (never changed, only replaced)


@contextmanager
def bound(**fields: object) -> Iterator[None]:
    """In here every line has these fields, whoever writes it."""
    before = _bound.set({**_bound.get(), **fields})
    try:
        yield
    finally:
        _bound.reset(before)


def tell(log: logging.Logger, what: str, about: Sequence[Mapping[str, object]], level: int = logging.INFO) -> None:
    """A line for each of a few things; of many one with their number, and with the fields that all have in common."""
    if len(about) <= FEW:
        for each in about:
            log.log(level, what, extra=each)
        return
    common = {k: v for k, v in about[0].items() if all(other.get(k) == v for other in about)}
    log.log(level, what, extra={**common, "count": len(about)})


def _fields(record: logging.LogRecord) -> dict[str, object]:
    own = {k: v for k, v in vars(record).items() if k not in _STANDARD}
    if "flow_run_id" in own:  # as Prefect's own lines call it
        own["run_id"] = own.pop("flow_run_id")
    return {k: v for k, v in {**_bound.get(), **own}.items() if v is not None}


class JsonFormatter(logging.Formatter):
    """One JSON object a line."""

    def format(self, record: logging.LogRecord) -> str:
        line = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "event": record.getMessage(),
            **_fields(record),
        }
        if record.exc_info:
            line["error"] = record.exc_text or self.formatException(record.exc_info)
        return redact(json.dumps(line, default=str, ensure_ascii=False))


class ShortFormatter(logging.Formatter):
    """Event and fields, for where the rest stands beside them."""

    def format(self, record: logging.LogRecord) -> str:
        fields = " ".join(f"{k}={v}" for k, v in _fields(record).items())
        line = f"{record.getMessage()} {fields}".rstrip()
        if record.exc_info:
            line += "\n" + (record.exc_text or self.formatException(record.exc_info))
        return redact(line)


class PlainFormatter(ShortFormatter):
    """For people: time, level, event, fields."""

    def format(self, record: logging.LogRecord) -> str:
        time = datetime.fromtimestamp(record.created, UTC).strftime("%H:%M:%S")
        return f"{time} {record.levelname.lower():7} {record.name}: {super().format(record)}"


class _Redacted(logging.LogRecord):
    """Any library's log record, without what is hidden. Handlers and their formats are left as they are."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        if self.name == _ACCESS and isinstance(self.args, tuple):
            self.args = tuple(redact(arg) if isinstance(arg, str) else arg for arg in self.args)
        elif self.args or not (self.name or "").startswith(_OURS):  # an event's name of ours hides nothing
            said = self._said()
            shown = redact(said)
            if shown != said:
                self.msg, self.args = shown, ()
        if self.exc_info and self.exc_info[0] is not None:
            self.exc_text = redact(logging.Formatter().formatException(self.exc_info))

    def _said(self) -> str:
        try:
            return self.getMessage()
        except (TypeError, ValueError, KeyError):  # arguments that do not fit: logging says so itself, later
            return str(self.msg)


def redact_all_logs() -> None:
    """Every record of this process from now on, whoever logs it, is without what `tidings.redact` hides."""
    logging.setLogRecordFactory(_Redacted)


def configure(*, as_json: bool) -> None:
    """Send Tidings' own log lines to standard error. Other libraries keep their settings, and write JSON where it is
    asked for: one line that is none spoils a whole log for whoever reads it by machine."""
    redact_all_logs()
    if as_json:
        _let_all_write_json()
    handler = logging.StreamHandler()
    handler.setFormatter(JsonFormatter() if as_json else PlainFormatter())
    logger = logging.getLogger("tidings")
    logger.handlers = [handler]
    logger.setLevel(logging.INFO)
    logger.propagate = False


def _let_all_write_json() -> None:
    known = (logging.getLogger(name) for name in ("", *logging.root.manager.loggerDict))
    for handler in {handler for logger in known for handler in logger.handlers}:
        if isinstance(handler, logging.StreamHandler):
            handler.setFormatter(JsonFormatter())
