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


def _calendly(event: str, invitee: str) -> dict[str, Any]:
    return {
        "event": event,
        "created_at": "2026-12-01T15:20:11.000000Z",
        "created_by": "https://api.calendly.com/users/EXAMPLE",
        "payload": {
            "uri": f"https://api.calendly.com/scheduled_events/EXAMPLE/invitees/{invitee}",
            "event": "https://api.calendly.com/scheduled_events/EXAMPLE",
            "email": "delivered+calendly@resend.dev",
            "name": "Robin Poole",
            "first_name": None,
            "last_name": None,
            "status": "active",
            "timezone": "America/Toronto",
            "rescheduled": False,
            "old_invitee": None,
            "new_invitee": None,
            "cancel_url": "https://calendly.com/cancellations/EXAMPLE",
            "reschedule_url": "https://calendly.com/reschedulings/EXAMPLE",
            "scheduled_event": {
                "uri": "https://api.calendly.com/scheduled_events/EXAMPLE",
                "name": "Diagnostic call",
                "status": "active",
                "start_time": "2026-12-01T15:00:00.000000Z",
                "end_time": "2026-12-01T15:30:00.000000Z",
                "location": {"type": "google_conference", "status": "pushed", "join_url": "https://meet.example.net/a"},
            },
        },
    }


CALENDLY: Examples = {"Calendly: missed call": _calendly("invitee_no_show.created", "EXAMPLE")}

STRIPE: Examples = {
    "Stripe: paid": {
        "id": "evt_example",
        "object": "event",
        "api_version": "2026-10-28.endive",
        "created": 1796137200,
        "livemode": False,
        "type": "checkout.session.completed",
        "data": {
            "object": {
                "id": "cs_test_example",
                "object": "checkout.session",
                "mode": "payment",
                "status": "complete",
                "payment_status": "paid",
                "amount_total": 200000,
                "currency": "cad",
                "customer_email": None,
                "customer_details": {"email": "delivered+stripe@resend.dev", "name": "Kim Hart"},
                "metadata": {},
            }
        },
    }
}

DOCUSIGN: Examples = {
    "DocuSign: signed": {
        "event": "envelope-completed",
        "apiVersion": "v2.1",
        "uri": "/restapi/v2.1/accounts/EXAMPLE/envelopes/EXAMPLE",
        "retryCount": 0,
        "configurationId": 10055427,
        "generatedDateTime": "2026-12-01T15:22:53.4580747Z",
        "data": {
            "accountId": "EXAMPLE",
            "userId": "EXAMPLE",
            "envelopeId": "EXAMPLE",
            "envelopeSummary": {
                "status": "completed",
                "emailSubject": "Please sign: Agreement",
                "completedDateTime": "2026-12-01T15:22:52.92Z",
                "sender": {"userName": "Host", "email": "delivered+host@resend.dev"},
                "recipients": {
                    "signers": [
                        {
                            "recipientId": "1",
                            "name": "Kim Hart",
                            "email": "delivered+docusign@resend.dev",
                            "status": "completed",
                        }
                    ]
                },
            },
        },
    }
}
