"""Bodies that work as they stand: shown in OpenAPI, posted by the demo. All addresses are Resend's test inbox."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

Examples = dict[str, dict[str, Any]]

SIGNUP: Examples = {
    "assessment": {
        "email": "delivered+signup@resend.dev",
        "first_name": "Sam",
        "business_name": "Harbour Street Studio",
        "revenue": "10k-25k",
        "challenge": "Too much depends on me",
        "consent": True,
        "assessment_data": {
            "assessment_score": 52,
            "red_systems": 2,
            "orange_systems": 2,
            "yellow_systems": 3,
            "green_systems": 1,
            "gps_score": 33,
            "money_score": 67,
            "weakest_system_1": "GPS",
            "weakest_system_2": "AUTOPILOT",
            "strongest_system": "CABIN",
        },
    },
    "minimal": {"email": "delivered+minimal@resend.dev", "consent": True},
}

NO_SHOW: Examples = {
    "missed call": {
        "email": "delivered+noshow@resend.dev",
        "first_name": "Robin",
        "business_name": "Robin & Co",
        "calendly_event_uri": "https://api.calendly.com/scheduled_events/EXAMPLE",
        "scheduled_time": "2026-12-01T15:00:00Z",
        "event_type": "Diagnostic call",
        "reschedule_url": "https://calendly.com/reschedulings/EXAMPLE",
    }
}

MAYBE: Examples = {
    "maybe": {
        "email": "delivered+maybe@resend.dev",
        "first_name": "Alex",
        "business_name": "Alex's Bakery",
        "call_date": "2026-12-01",
        "call_outcome": "Maybe",
        "call_notes": "Wants to think about timing",
        "objections": ["timing"],
        "follow_up_priority": "medium",
    }
}

ONBOARDING: Examples = {
    "paid": {
        "email": "delivered+onboarding@resend.dev",
        "first_name": "Kim",
        "business_name": "Kim Hair",
        "payment_confirmed": True,
        "payment_amount": 2000,
        "payment_date": "2026-12-01",
        "docusign_completed": True,
        "salon_address": "1 Example Street",
        "observation_dates": ["2027-01-12", "2027-01-13"],
        "start_date": "2027-01-11",
        "package_type": "Phase 1",
    }
}


def _next_month() -> str:
    """A meeting far enough ahead for all three mails. Examples are made when the campaign is loaded."""
    start = datetime.now(UTC) + timedelta(days=30)
    return start.replace(minute=0, second=0, microsecond=0).isoformat().replace("+00:00", "Z")


BOOKING: Examples = {
    "booked": {
        "triggerEvent": "BOOKING_CREATED",
        "createdAt": "2026-11-22T12:00:00.000Z",
        "payload": {
            "type": "consult",
            "title": "Diagnostic call",
            "startTime": _next_month(),
            "attendees": [
                {
                    "email": "delivered+booking@resend.dev",
                    "name": "Jo Rivers",
                    "timeZone": "America/Toronto",
                    "language": {"locale": "en"},
                }
            ],
            "uid": "exampleBookingUid",
            "bookingId": 77,
            "status": "ACCEPTED",
            "metadata": {},
        },
    }
}
