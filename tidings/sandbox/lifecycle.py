"""What becomes of an accepted mail, and when each step of it is told to the webhooks."""

import asyncio
import logging
import uuid
from collections.abc import Callable, Collection
from datetime import UTC, datetime
from typing import Any

from .clock import Clock
from .config import Settings
from .postman import Postman
from .resend_checks import Mail, recipients
from .store import Row, Store

log = logging.getLogger(__name__)

Planned = tuple[str, float, dict[str, Any]]

#: Resend's test recipients (dashboard docs, "Send test emails"); the first three also take +labels
TEST_OUTCOMES = ("suppressed", "bounced", "complained")
BOUNCE = {
    "type": "Permanent",
    "subType": "General",
    "message": (
        "The recipient's email provider sent a hard bounce message, but didn't specify the reason for the hard bounce."
    ),
}
SUPPRESSED = {
    "message": ("Resend has suppressed sending to this address because it is on the account-level suppression list."),
    "type": "OnAccountSuppressionList",
    "reason": "previous_bounce",
}
EVENTS_AT_ONCE = 500
IDLE = 1.0  # seconds between looks when nothing is planned


def outcome_of(mail: Mail, suppressed: Collection[str]) -> str:
    """One outcome a mail, the gravest of its recipients': Resend keeps one `last_event` too."""
    everyone = recipients(mail)
    if any(address in suppressed for address in everyone):
        return "suppressed"
    labels = {address.split("@")[0].split("+")[0] for address in everyone if address.endswith("@resend.dev")}
    return next((outcome for outcome in TEST_OUTCOMES if outcome in labels), "delivered")


def plan_for(outcome: str, *, start: float, deliver_after: float) -> list[Planned]:
    done = start + deliver_after
    if outcome == "suppressed":
        return [("suppressed", done, {"suppressed": SUPPRESSED})]
    plan: list[Planned] = [("sent", start + deliver_after / 2, {})]
    if outcome == "bounced":
        return [*plan, ("bounced", done, {"bounce": BOUNCE})]
    plan.append(("delivered", done, {}))
    if outcome == "complained":
        plan.append(("complained", done + deliver_after, {}))
    return plan


def iso(moment: float) -> str:
    return datetime.fromtimestamp(moment, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def event_body(mail: Row, kind: str, at: float, detail: dict[str, Any]) -> dict[str, Any]:
    """The webhook body. `tags` is a map here, though a list when sending."""
    payload = mail["payload"]
    data = {
        "created_at": iso(mail["created_at"]),
        "email_id": mail["id"],
        "message_id": message_id(mail["id"]),
        "from": payload["from"],
        "to": payload["to"] if isinstance(payload["to"], list) else [payload["to"]],
        "subject": payload.get("subject", ""),
    }
    if payload.get("tags"):
        data["tags"] = {tag["name"]: tag["value"] for tag in payload["tags"]}
    return {"type": f"email.{kind}", "created_at": iso(at), "data": data | detail}


def message_id(mail_id: str) -> str:
    return f"<{mail_id}@sandbox.tidings.test>"


class Lifecycle:
    """Carries out the planned events when they fall due; they wait in the store, so a restart loses none."""

    def __init__(self, store: Store, postman: Postman, *, settings: Callable[[], Settings], clock: Clock) -> None:
        self._store = store
        self._postman = postman
        self._settings = settings
        self._clock = clock
        self._news = asyncio.Event()

    def wake(self) -> None:
        self._news.set()

    async def run(self) -> None:
        while True:
            self._news.clear()
            if self.carry_out_due():
                await asyncio.sleep(0)  # requests go between two helpings
            else:
                await self._until_next()

    async def _until_next(self) -> None:
        due = self._store.next_event_due()
        wait = IDLE if due is None else min(IDLE, max(0.005, due - self._clock().timestamp()))
        try:
            await asyncio.wait_for(self._news.wait(), wait)
        except TimeoutError:
            return

    def carry_out_due(self) -> int:
        now = self._clock().timestamp()
        due = self._store.due_events(now, EVENTS_AT_ONCE)
        if not due:
            return 0
        endpoints = self._postman.subscribers()
        with self._store.transaction():
            for event in due:
                self.carry_out(event["mail_id"], event["type"], event["detail"], now, endpoints)
            self._store.forget_planned(event["seq"] for event in due)
        self._postman.wake()
        return len(due)

    def carry_out(self, mail_id: str, kind: str, detail: dict[str, Any], now: float, endpoints: list[Row]) -> None:
        self._store.add_event(mail_id, kind, now, detail)
        heard = [endpoint for endpoint in endpoints if f"email.{kind}" in endpoint["events"]]
        if heard or kind in ("bounced", "complained"):
            mail = self._store.mail(mail_id)
            assert mail is not None, mail_id
            self._postman.post(event_body(mail, kind, now, detail), endpoints=heard, now=now, email_id=mail_id)
            self._suppress(mail, kind, now)

    def _suppress(self, mail: Row, kind: str, now: float) -> None:
        origin = {"bounced": "bounce", "complained": "complaint"}.get(kind)
        if origin is None or not self._settings().auto_suppress:
            return
        for address in recipients(mail["payload"]):
            self._store.run(
                "INSERT OR IGNORE INTO suppressions VALUES (?, ?, ?, ?, ?)",
                str(uuid.uuid4()),
                address,
                origin,
                mail["id"],
                now,
            )
