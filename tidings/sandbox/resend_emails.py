"""Reading accepted mails back, and changing those still scheduled."""

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

from .clock import Clock
from .config import Settings
from .lifecycle import Lifecycle, message_id, outcome_of, plan_for
from .resend_checks import addresses, scheduled_time
from .resend_errors import ResendRefused, invalid, not_found
from .store import Row, Store
from .wire import Call, Reply

DEFAULT_LIMIT = 20
MAX_LIMIT = 100


def spaced(moment: float | None) -> str | None:
    """`2026-07-04 22:13:42.674981+00`: not quite ISO, as Resend's reads give it."""
    if moment is None:
        return None
    text = datetime.fromtimestamp(moment, UTC).isoformat(sep=" ", timespec="microseconds")
    return text.removesuffix(":00")


def page_size(call: Call) -> int:
    text = call.first("limit") or str(DEFAULT_LIMIT)
    if not text.isdigit() or not 1 <= int(text) <= MAX_LIMIT:
        raise invalid(f"The `limit` parameter must be a number between 1 and {MAX_LIMIT}.")
    return int(text)


def listing(rows: list[Any], limit: int) -> Reply:
    """`rows` holds one more than `limit` when there are more."""
    return Reply(200, {"object": "list", "has_more": len(rows) > limit, "data": rows[:limit]})


def summary(mail: Row) -> dict[str, Any]:
    payload = mail["payload"]
    return {
        "id": mail["id"],
        "message_id": message_id(mail["id"]),
        "to": addresses(payload["to"]),
        "from": payload["from"],
        "created_at": spaced(mail["created_at"]),
        "subject": payload.get("subject", ""),
        "bcc": addresses(payload.get("bcc")),
        "cc": addresses(payload.get("cc")),
        "reply_to": addresses(payload.get("reply_to")),
        "last_event": mail["last_event"],
        "scheduled_at": spaced(mail["scheduled_at"]),
    }


def whole(mail: Row) -> dict[str, Any]:
    payload = mail["payload"]
    body = {
        "html": payload.get("html"),
        "text": payload.get("text"),
        "tags": payload.get("tags") or [],
    }
    return {"object": "email"} | summary(mail) | body


class Emails:
    """GET, PATCH and cancel."""

    def __init__(self, store: Store, lifecycle: Lifecycle, *, settings: Callable[[], Settings], clock: Clock) -> None:
        self._store = store
        self._lifecycle = lifecycle
        self._settings = settings
        self._clock = clock

    def _mail(self, mail_id: str) -> Row:
        mail = self._store.mail(mail_id)
        if mail is None:
            raise not_found("Email")
        return mail

    def get(self, call: Call, id: str) -> Reply:
        return Reply(200, whole(self._mail(id)))

    def list(self, call: Call) -> Reply:
        limit = page_size(call)
        after, before = call.first("after"), call.first("before")
        if before:  # the mails just before the given one, so the extra row is at the newer end
            rows = self._store.mails_page(limit=limit + 1, after=None, before=before)
            return Reply(
                200,
                {
                    "object": "list",
                    "has_more": len(rows) > limit,
                    "data": [summary(mail) for mail in rows[-limit:]],
                },
            )
        rows = self._store.mails_page(limit=limit + 1, after=after, before=None)
        return listing([summary(mail) for mail in rows], limit)

    def update(self, call: Call, id: str) -> Reply:
        mail = self._scheduled(id)
        when = scheduled_time(call.json().get("scheduled_at"), self._clock())
        if when is None:
            raise ResendRefused(422, "missing_required_field", "Missing `scheduled_at` field.")
        self._reschedule(mail, when.timestamp())
        return Reply(200, {"object": "email", "id": id})

    def _reschedule(self, mail: Row, start: float) -> None:
        steps = plan_for(outcome_of(mail["payload"], ()), start=start, deliver_after=self._settings().deliver_after)
        with self._store.transaction():
            self._store.run("DELETE FROM planned WHERE mail_id = ?", mail["id"])
            self._store.run("UPDATE mails SET scheduled_at = ? WHERE id = ?", start, mail["id"])
            self._store.plan([(mail["id"], *step) for step in steps])
        self._lifecycle.wake()

    def cancel(self, call: Call, id: str) -> Reply:
        mail = self._scheduled(id)
        with self._store.transaction():
            self._store.run("DELETE FROM planned WHERE mail_id = ?", mail["id"])
            self._store.add_event(mail["id"], "canceled", self._clock().timestamp(), {})
        return Reply(200, {"object": "email", "id": id})

    def _scheduled(self, mail_id: str) -> Row:
        mail = self._mail(mail_id)
        if mail["last_event"] != "scheduled":
            raise invalid("The email is not scheduled, so it cannot be updated or canceled.")
        return mail
