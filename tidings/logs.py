"""Log lines that can be joined on: an event name, and what it concerns as fields. No addresses, no secrets."""

from __future__ import annotations

import json
import logging
from datetime import UTC, datetime
from typing import Any

from tidings.redact import redact

_STANDARD = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName", "color_message"}
#: uvicorn's formatter takes this logger's arguments apart, so they stay what they are.
_ACCESS = "uvicorn.access"
#: Our own formatters redact the whole line, fields and all.
_OURS = "tidings."


def _fields(record: logging.LogRecord) -> dict[str, object]:
    return {k: v for k, v in vars(record).items() if k not in _STANDARD}


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


class PlainFormatter(logging.Formatter):
    """For people: time, level, event, fields."""

    def format(self, record: logging.LogRecord) -> str:
        fields = " ".join(f"{k}={v}" for k, v in _fields(record).items())
        time = datetime.fromtimestamp(record.created, UTC).strftime("%H:%M:%S")
        line = f"{time} {record.levelname.lower():7} {record.name}: {record.getMessage()} {fields}".rstrip()
        if record.exc_info:
            line += "\n" + (record.exc_text or self.formatException(record.exc_info))
        return redact(line)


class _Redacted(logging.LogRecord):
    """Any library's log record, without what is hidden. Handlers and their formats are left as they are."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        if self.name == _ACCESS and isinstance(self.args, tuple):
            self.args = tuple(redact(arg) if isinstance(arg, str) else arg for arg in self.args)
        elif self.args or not self.name.startswith(_OURS):  # an event's name of ours hides nothing
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
    """Send Tidings' own log lines to standard error; other libraries keep their settings."""
    redact_all_logs()
    handler = logging.StreamHandler()
    handler.setFormatter(JsonFormatter() if as_json else PlainFormatter())
    logger = logging.getLogger("tidings")
    logger.handlers = [handler]
    logger.setLevel(logging.INFO)
    logger.propagate = False
