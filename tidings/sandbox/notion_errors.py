"""Notion's refusals, with the message grammar of the live API (recordings of June–July 2026)."""

import json
from typing import Any

from .wire import Reply

INTEGRATION_ID = "1f0b2c3d-0000-4000-8000-0000000000aa"
INTEGRATION = "Tidings"

#: HTTP status → the code Notion gives it when nothing more is known
USUAL_CODES = {
    400: "validation_error",
    401: "unauthorized",
    403: "restricted_resource",
    404: "object_not_found",
    409: "conflict_error",
    429: "rate_limited",
    500: "internal_server_error",
    502: "bad_gateway",
    503: "service_unavailable",
    504: "gateway_timeout",
    529: "service_overload",
}


class NotionRefused(Exception):
    """Notion says no."""

    def __init__(
        self,
        status: int,
        code: str,
        message: str,
        *,
        more: dict[str, Any] | None = None,
        headers: dict[str, str] | None = None,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.code = code
        self.message = message
        self.more = more
        self.headers = headers or {}

    def reply(self) -> Reply:
        body = {"object": "error", "status": self.status, "code": self.code, "message": self.message}
        if self.more:
            body["additional_data"] = self.more
        return Reply(self.status, body, self.headers)


def refused(message: str) -> NotionRefused:
    return NotionRefused(400, "validation_error", message)


def shown(value: Any) -> str:
    """A value as Notion quotes it: back-ticks around JSON, `undefined` for what is missing."""
    return "`undefined`" if value is None else f"`{json.dumps(value, ensure_ascii=False)}`"


def wrong(where: str, should: str, value: Any) -> NotionRefused:
    return refused(f"body failed validation: {where} should be {should}, instead was {shown(value)}.")


def too_long(where: str, limit: int, actual: int) -> NotionRefused:
    return refused(f"body failed validation: {where}.length should be ≤ `{limit}`, instead was `{actual}`.")


def not_found(noun: str, object_id: str) -> NotionRefused:
    text = (
        f"Could not find {noun} with ID: {object_id}. Make sure the relevant pages and databases are shared "
        f'with your integration "{INTEGRATION}".'
    )
    return NotionRefused(404, "object_not_found", text, more={"integration_id": INTEGRATION_ID})


def archived() -> NotionRefused:
    return refused("Can't edit block that is archived. You must unarchive the block before editing.")


def unknown_property(name: str) -> NotionRefused:
    return refused(f"Could not find property with name or id: {name}")
