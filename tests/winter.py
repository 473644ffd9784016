"""A small campaign for tests: one mail at once, one after an hour, one after a day; and one before a meeting."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Any

from pydantic import AwareDatetime, EmailStr

from tidings.campaign import Campaign, Campaigns, Payload, Sequence, Step, Webhook
from tidings.model import ContactFacts

HELLO = ("winter_hello_1", "winter_hello_2", "winter_hello_3")
MEETING = ("winter_meeting_1", "winter_meeting_2")


class Hello(Payload):
    email: EmailStr
    first_name: str | None = None
    business_name: str | None = None
    consent: bool | None = True
    sent_at: AwareDatetime | None = None
    mood: str | None = None

    def contact(self) -> ContactFacts | None:
        return ContactFacts(self.email.lower(), self.first_name, self.business_name, self.consent)

    def enrolment_key(self) -> str:
        return self.email.lower()

    def ignored_because(self) -> str | None:
        return None if self.consent is not False else "the contact gave no consent to be mailed"

    def segment(self) -> str | None:
        return self.mood

    def sent_elsewhere(self) -> Mapping[int, datetime]:
        return {1: self.sent_at} if self.sent_at else {}

    def variables(self, settings: Mapping[str, Any], now: datetime) -> dict[str, Any]:
        return {**settings, "first_name": self.first_name, "business_name": self.business_name}


class Meeting(Hello):
    starts: AwareDatetime

    def anchor(self, received_at: datetime) -> datetime:
        return self.starts


def webhook(path: str, sequence: str, payload: type[Payload]) -> Webhook:
    body = {"email": "delivered+winter@resend.dev"}
    return Webhook(path, f"{path}-handler", "Greeting", sequence, payload, {"one": body}, "A test's webhook")


WINTER = Campaign(
    name="winter",
    title="Winter",
    sequences=(
        Sequence("hello", "Hello", tuple(Step(n, timedelta(hours=h)) for n, h in zip(HELLO, (0, 1, 24), strict=True))),
        Sequence(
            "meeting", "Meeting", tuple(Step(n, timedelta(hours=h)) for n, h in zip(MEETING, (-24, -1), strict=True))
        ),
    ),
    webhooks=(webhook("winter-hello", "hello", Hello), webhook("winter-meeting", "meeting", Meeting)),
)
CAMPAIGNS = Campaigns([WINTER])
