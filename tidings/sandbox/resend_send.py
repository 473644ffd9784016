"""Accepting mails: one or a batch, once a key, and committed before the answer."""

import asyncio
import hashlib
import json
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any

from .clock import Clock
from .config import Settings
from .lifecycle import Lifecycle, outcome_of, plan_for
from .resend_checks import Mail, Rules, addresses, bare, check_mail, recipients, scheduled_time
from .resend_errors import ResendRefused, invalid
from .store import Row, Store
from .wire import Call, Reply

KEY_LIFETIME = 24 * 3600  # seconds (resend.com/docs/dashboard/emails/idempotency-keys)
MAX_KEY = 256
MAX_BATCH = 100

Accept = Callable[[Call, Any, str | None], dict[str, Any]]


def payload_hash(call: Call, payload: Any) -> str:
    text = json.dumps([call.path, payload], sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()


class Sending:
    """POST /emails and POST /emails/batch."""

    def __init__(self, store: Store, lifecycle: Lifecycle, *, settings: Callable[[], Settings], clock: Clock) -> None:
        self._store = store
        self._lifecycle = lifecycle
        self._settings = settings
        self._clock = clock
        self._running: set[str] = set()

    async def send(self, call: Call) -> Reply:
        return await self._once(call, self._accept_one)

    async def send_batch(self, call: Call) -> Reply:
        return await self._once(call, self._accept_batch)

    # -- once a key --------------------------------------------------------------------------------------

    async def _once(self, call: Call, accept: Accept) -> Reply:
        payload = call.json()
        key = call.headers.get("idempotency-key")
        if key is None:
            await asyncio.sleep(call.work_delay)
            return Reply(200, self._committed(call, payload, None, accept))
        digest = payload_hash(call, payload)
        kept = self._kept(key, digest)
        if kept is not None:
            return Reply(200, kept)
        with self._claimed(key):
            await asyncio.sleep(call.work_delay)
            return Reply(200, self._committed(call, payload, (key, digest), accept))

    def _kept(self, key: str, digest: str) -> Any:
        if not 1 <= len(key) <= MAX_KEY:
            raise ResendRefused(400, "invalid_idempotency_key", "The key must be between 1-256 chars.")
        kept = self._store.kept_answer(key, self._clock().timestamp() - KEY_LIFETIME)
        if kept is None:
            return None
        if kept["payload_hash"] != digest:
            raise ResendRefused(
                409,
                "invalid_idempotent_request",
                "This idempotency key has been used on a request to this endpoint with a different request body.",
            )
        return json.loads(kept["response"])

    @contextmanager
    def _claimed(self, key: str) -> Iterator[None]:
        if key in self._running:
            raise ResendRefused(
                409,
                "concurrent_idempotent_requests",
                "Another request with the same idempotency key is currently in progress.",
            )
        self._running.add(key)
        try:
            yield
        finally:
            self._running.discard(key)

    def _committed(self, call: Call, payload: Any, kept_as: tuple[str, str] | None, accept: Accept) -> Any:
        """Mails, their plan and the key's answer in one transaction: a refusal burns nothing."""
        with self._store.transaction():
            answer = accept(call, payload, kept_as[0] if kept_as else None)
            if kept_as:
                self._store.keep_answer(*kept_as, answer, self._clock().timestamp())
        self._lifecycle.wake()
        return answer

    # -- accepting ---------------------------------------------------------------------------------------

    def _accept_one(self, call: Call, payload: Any, key: str | None) -> dict[str, Any]:
        check_mail(payload, self._rules(in_batch=False))
        return {"id": self._take([payload], key, batch=False)[0]}

    def _accept_batch(self, call: Call, payload: Any, key: str | None) -> dict[str, Any]:
        if not isinstance(payload, list) or not payload:
            raise invalid("The request body must be a non-empty array of emails.")
        if len(payload) > MAX_BATCH:
            raise invalid(f"You can only send up to {MAX_BATCH} emails at once.")
        mode = call.headers.get("x-batch-validation", "strict")
        if mode not in ("strict", "permissive"):
            raise invalid("The `x-batch-validation` header must be `strict` or `permissive`.")
        return self._strict(payload, key) if mode == "strict" else self._permissive(payload, key)

    def _strict(self, mails: list[Any], key: str | None) -> dict[str, Any]:
        rules = self._rules(in_batch=True)
        for mail in mails:
            check_mail(mail, rules)
        return {"data": [{"id": mail_id} for mail_id in self._take(mails, key, batch=True)]}

    def _permissive(self, mails: list[Any], key: str | None) -> dict[str, Any]:
        rules = self._rules(in_batch=True)
        good, errors = [], []
        for index, mail in enumerate(mails):
            try:
                check_mail(mail, rules)
            except ResendRefused as refusal:
                errors.append({"index": index, "message": refusal.message})
            else:
                good.append((index, mail))
        ids = self._take([mail for _, mail in good], key, batch=True, places=[place for place, _ in good])
        return {"data": [{"id": mail_id} for mail_id in ids], "errors": errors}

    def _rules(self, *, in_batch: bool) -> Rules:
        knobs = self._settings()
        verified = self._store.rows("SELECT name FROM domains WHERE status = 'verified'")
        return Rules(
            now=self._clock(),
            verified_domains=frozenset(row["name"] for row in verified),
            refuse_example_domains=knobs.refuse_example_domains,
            owner=knobs.owner_email.lower(),
            in_batch=in_batch,
        )

    def _take(
        self, mails: Sequence[Mail], key: str | None, *, batch: bool, places: Sequence[int] | None = None
    ) -> list[str]:
        now = self._clock()
        self._charge(sum(len(recipients(mail)) for mail in mails), now)
        batch_id = str(uuid.uuid4()) if batch else None
        rows = [
            _mail_row(mail, now, key, batch_id, place if batch else None)
            for place, mail in zip(places or range(len(mails)), mails, strict=True)
        ]
        self._store.add_mails(rows)
        self._plan(rows, now.timestamp())
        return [row["id"] for row in rows]

    def _charge(self, count: int, now: datetime) -> None:
        knobs = self._settings()
        today = now.astimezone(UTC).date().isoformat()
        for quota, since, period in (
            (knobs.daily_quota, today, "daily"),
            (knobs.monthly_quota, today[:8] + "01", "monthly"),
        ):
            if quota is not None and self._store.recipients_since(since) + count > quota:
                text = f"You have reached your {period} email sending quota."
                raise ResendRefused(429, f"{period}_quota_exceeded", text)
        self._store.count_recipients(today, count)

    def _plan(self, rows: list[Row], now: float) -> None:
        suppressed = {row["email"] for row in self._store.rows("SELECT email FROM suppressions")}
        deliver_after = self._settings().deliver_after
        for row in rows:
            start = row["scheduled_at"] or now
            steps = plan_for(outcome_of(row["payload"], suppressed), start=start, deliver_after=deliver_after)
            if row["scheduled_at"]:
                steps.insert(0, ("scheduled", now, {}))
            self._store.plan([(row["id"], *step) for step in steps])


def _mail_row(mail: Mail, now: datetime, key: str | None, batch_id: str | None, place: int | None) -> Row:
    when = scheduled_time(mail.get("scheduled_at"), now)
    return {
        "id": str(uuid.uuid4()),
        "recipients": "," + ",".join(bare(address) for address in addresses(mail["to"])) + ",",
        "subject": mail.get("subject"),
        "created_at": now.timestamp(),
        "last_event": "scheduled" if when else "queued",
        "scheduled_at": when.timestamp() if when else None,
        "idempotency_key": key,
        "batch_id": batch_id,
        "batch_index": place,
        "payload": mail,
    }
