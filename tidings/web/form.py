"""The door of the public form: looks at each post before it is taken in, and counts what it turns away."""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from datetime import date, datetime
from typing import Any, NoReturn

from fastapi import Request
from fastapi.exceptions import HTTPException
from fastapi.responses import JSONResponse
from pydantic import ValidationError

from tidings.adapters.captcha import Captcha
from tidings.campaign import Campaign, Payload, Webhook, explain
from tidings.errors import LedgerUnavailable, ServiceError
from tidings.form import Signals, client_of, quota, seconds_left, suspicion
from tidings.ledger import Ledger, inbox, limits
from tidings.model import EventState, Over, Quota
from tidings.settings import Settings
from tidings.web.status import status_url

log = logging.getLogger("tidings.form")

#: How often what was turned away is written down.
TALLY_SECONDS = 5.0
#: Senders that are over a quota and remembered by this process, so that a flood of theirs does not reach the ledger.
REMEMBERED = 10_000
CLIENT, EMAIL = "client address", "email address"


@dataclass(frozen=True, slots=True)
class Visit:
    """A post that may be taken in: what it is counted against, or why it is taken for a bot's."""

    quotas: tuple[Quota, ...]
    #: For the tally, and for the event.
    bot: tuple[str, str] | None


#: Of a sender that is known: not counted, not suspected.
NO_VISIT = Visit((), None)


class Form:
    """One process's door. Its counts are shared through the ledger, its memory of who is over a quota is not."""

    def __init__(
        self, ledger: Ledger, settings: Settings, *, captcha: Captcha | None, now: Callable[[], datetime]
    ) -> None:
        self._ledger = ledger
        self._settings = settings
        self._captcha = captcha
        self._now = now
        self._over: dict[int, Over] = {}
        self._tally: Counter[tuple[date, str, str]] = Counter()
        self._warned = False

    async def look_at(self, request: Request, webhook: Webhook, payload: Payload, raw: bytes) -> Visit:
        """Raises 422 for fields that are missing or wrong, 429 for a sender who has to wait."""
        quotas = self._quotas(request, payload)
        for known in [self._over[q.bucket] for q in quotas if q.bucket in self._over]:
            if known.until > self._now():
                self.refuse(webhook, known)
        signals = self._signals(raw)
        bot = suspicion(signals, self._settings.form_min_seconds)
        if bot is None:
            await self._solved(webhook, signals)
        return Visit(quotas, bot)

    def _quotas(self, request: Request, payload: Payload) -> tuple[Quota, ...]:
        settings, found = self._settings, []
        secret = settings.secret_key.get_secret_value()
        if settings.form_limit_per_client:
            header = ",".join(request.headers.getlist("x-forwarded-for"))
            hops = [hop.strip() for hop in header.split(",") if hop.strip()]
            client = client_of(hops, request.client.host if request.client else None, settings.trusted_proxies)
            if client:
                found.append(quota(CLIENT, client, settings.form_limit_per_client, secret))
            elif settings.real and not self._warned:
                self._warned = True
                log.warning(
                    "form.clients_unknown", extra={"cure": "set TRUSTED_PROXIES; until then clients are not counted"}
                )
        contact = payload.contact()
        if contact and settings.form_limit_per_email:
            found.append(quota(EMAIL, contact.email, settings.form_limit_per_email, secret))
        return tuple(found)

    def _signals(self, raw: bytes) -> Signals:
        try:
            signals = Signals.model_validate_json(raw)
        except ValidationError as error:
            raise HTTPException(422, explain(error)) from error
        if self._settings.form_fields_required and (missing := signals.missing):
            raise _wrong(missing[0], f"The form must send {' and '.join(missing)} (setting FORM_FIELDS_REQUIRED)")
        return signals

    async def _solved(self, webhook: Webhook, signals: Signals) -> None:
        """Nothing when the captcha is solved, or cannot be asked: then people get in, and it is said loudly."""
        if self._captcha is None:
            return
        service = self._captcha.service
        token = signals.turnstile if service.field == "cf-turnstile-response" else signals.hcaptcha
        if not token:
            self.count(webhook, "captcha missing")
            raise _wrong(service.field, f"{service.name} has not confirmed that you are a person; load the page again")
        try:
            passed = await self._captcha.passed(token)
        except ServiceError as error:
            self.count(webhook, "let in although the captcha could not be asked")
            log.error("form.captcha_unavailable", extra={"source": webhook.path, "error": str(error)})
            return
        if not passed:
            self.count(webhook, "captcha not passed")
            raise _wrong(service.field, f"{service.name} did not confirm that you are a person; please try it again")

    async def keep_from(
        self, campaign: Campaign, webhook: Webhook, raw: bytes, visit: Visit, words: tuple[str, str]
    ) -> JSONResponse:
        """Keep what a bot sent, for an operator to see and to replay; answer it kindly, and start nothing."""
        now = self._now()
        async with self._ledger.transaction() as connection:
            (over,) = await limits.take(connection, [(visit.quotas, now)])
            if over is None:
                event_id = await inbox.quarantine(
                    connection,
                    source=webhook.path,
                    campaign=campaign.name,
                    deployment=webhook.deployment,
                    raw=raw,
                    reason=words[1],
                    now=now,
                    state=EventState.BLOCKED,
                )
        if over is not None:
            self.refuse(webhook, over)
        self.count(webhook, words[0])
        log.warning("form.blocked", extra={"source": webhook.path, "event_id": str(event_id), "why": words[0]})
        return JSONResponse(
            {
                "message": f"{webhook.noun} received",
                "event_id": str(event_id),
                "flow_run_id": None,
                "contact_created": False,
                "status_url": status_url(self._settings.public_url, event_id),
            }
        )

    def refuse(self, webhook: Webhook, over: Over) -> NoReturn:
        """429: wait, then send it again. Nothing was taken in."""
        now = self._now()
        if len(self._over) >= REMEMBERED:
            self._over = {bucket: known for bucket, known in self._over.items() if known.until > now}
        if len(self._over) < REMEMBERED:
            self._over[over.quota.bucket] = over
        self.count(webhook, f"too many of one {over.quota.kind}")
        seconds = seconds_left(over, now)
        log.warning("form.limited", extra={"source": webhook.path, "by": over.quota.kind, "seconds": seconds})
        raise HTTPException(
            429,
            f"Too many forms came from this {over.quota.kind}, so this one was not taken in. "
            f"Please send it again in {seconds} seconds.",
            headers={"Retry-After": str(seconds)},
        )

    def count(self, webhook: Webhook, reason: str) -> None:
        """One more that was turned away for this reason."""
        self._tally[self._now().date(), webhook.path, reason] += 1

    async def write_tally(self) -> None:
        """Write down what was counted since the last time; it is kept when the ledger is away."""
        if not self._tally:
            return
        counted, self._tally = self._tally, Counter()
        try:
            async with self._ledger.transaction() as connection:
                await limits.add_to_tally(connection, counted)
        except LedgerUnavailable:
            self._tally.update(counted)
            raise

    async def write_tally_always(self) -> None:
        """For ever, until cancelled."""
        while True:
            await asyncio.sleep(TALLY_SECONDS)
            try:
                await self.write_tally()
            except LedgerUnavailable as error:
                log.warning("form.tally_waits", extra={"error": str(error)})


def _wrong(field: str, words: str) -> HTTPException:
    item: dict[str, Any] = {"loc": ["body", field], "field": field, "msg": words, "type": "form"}
    return HTTPException(422, [item])
