"""The five webhooks: a body for each, and what is posted once for all tests that only look."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from live_parts import Json, Live, address

#: Names that occur nowhere else, so that finding one of them anywhere means that it was leaked there.
FIRST_NAME, BUSINESS = "Zephyrine", "Quillfeather & Daughters"


def signup(email: str, **more: Any) -> Json:
    assessment = {
        "assessment_score": 47,
        "red_systems": 2,
        "orange_systems": 1,
        "yellow_systems": 3,
        "green_systems": 2,
        "gps_score": 33,
        "weakest_system_1": "GPS",
        "weakest_system_2": "RADAR",
        "strongest_system": "CABIN",
    }
    return {
        "email": email,
        "first_name": FIRST_NAME,
        "business_name": BUSINESS,
        "consent": True,
        "assessment_data": assessment,
        **more,
    }


def noshow(email: str, **more: Any) -> Json:
    return {
        "email": email,
        "first_name": FIRST_NAME,
        "business_name": BUSINESS,
        "calendly_event_uri": f"https://api.calendly.com/scheduled_events/{uuid.uuid4()}",
        "scheduled_time": "2026-12-01T15:00:00Z",
        "reschedule_url": "https://calendly.com/reschedulings/EXAMPLE",
        **more,
    }


def maybe(email: str, **more: Any) -> Json:
    person = {"email": email, "first_name": FIRST_NAME, "business_name": BUSINESS}
    return {**person, "call_date": "2026-12-01", "call_outcome": "Maybe", "objections": ["timing"], **more}


def onboarding(email: str, **more: Any) -> Json:
    person = {"email": email, "first_name": FIRST_NAME, "business_name": BUSINESS}
    paid = {"payment_confirmed": True, "payment_amount": 2000, "payment_date": "2026-12-01"}
    return {**person, **paid, "start_date": "2027-01-11", "observation_dates": ["2027-01-12"], **more}


def booking(email: str, **more: Any) -> Json:
    start = (datetime.now(UTC) + timedelta(days=30)).replace(microsecond=0)
    return {
        "triggerEvent": "BOOKING_CREATED",
        "createdAt": datetime.now(UTC).isoformat(),
        "payload": {
            "type": "consult",
            "title": "Diagnostic call",
            "startTime": start.isoformat(),
            "attendees": [{"email": email, "name": f"{FIRST_NAME} Okonkwo", "timeZone": "America/Toronto"}],
            "uid": uuid.uuid4().hex,
            "status": "ACCEPTED",
            "metadata": {},
        },
        **more,
    }


@dataclass(frozen=True)
class Expected:
    """What product.md 2 and 3 say of a webhook."""

    path: str
    deployment: str
    noun: str
    sequence: str
    templates: tuple[str, ...]
    body: Callable[..., Json]


def _templates(prefix: str, count: int) -> tuple[str, ...]:
    return tuple(f"{prefix}_{n}" for n in range(1, count + 1))


WEBHOOKS = (
    Expected(
        "christmas-signup", "christmas-signup-handler", "Signup", "nurture",
        _templates("christmas_email", 7), signup,
    ),
    Expected(
        "calendly-noshow", "christmas-noshow-recovery-handler", "No-show", "noshow",
        _templates("noshow_recovery_email", 3), noshow,
    ),
    Expected(
        "postcall-maybe", "christmas-postcall-maybe-handler", "Post-call", "postcall",
        _templates("postcall_maybe_email", 3), maybe,
    ),
    Expected(
        "onboarding-start", "christmas-onboarding-handler", "Onboarding", "onboarding",
        _templates("onboarding_phase1_email", 3), onboarding,
    ),
    Expected(
        "calcom-booking", "christmas-precall-handler", "Booking", "precall",
        _templates("precall_prep_email", 3), booking,
    ),
)  # fmt: skip
PATHS = [webhook.path for webhook in WEBHOOKS]


@dataclass(frozen=True)
class Posted:
    """One webhook that was posted, and all that came of it."""

    expected: Expected
    email: str
    body: Json
    answer: Json
    mails: list[Json]
    messages: list[Json]


async def post_all(live: Live) -> dict[str, Posted]:
    return {posted.expected.path: posted for posted in await asyncio.gather(*(_post(live, w) for w in WEBHOOKS))}


async def _post(live: Live, webhook: Expected) -> Posted:
    email = address(webhook.sequence)
    body = webhook.body(email)
    answer = await live.accepted(webhook.path, body)
    mails = await live.mails(email, len(webhook.templates))
    return Posted(webhook, email, body, answer, mails, await live.ledger.messages(email))


async def post_bare(live: Live) -> list[Json]:
    email = address("bare")
    await live.accepted("christmas-signup", {"email": email, "consent": True})
    return await live.mails(email, 7)


def template_of(mail: Json) -> str:
    """Which template a mail was made from, by the tag that it carries."""
    return next(str(tag["value"]) for tag in mail["tags"] if tag["name"] == "template")
