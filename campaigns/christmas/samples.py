"""Contacts of every kind, as bodies: `tidings templates check` renders every template for each of them."""

from __future__ import annotations

from typing import Any

from .examples import BOOKING, MAYBE, NO_SHOW, ONBOARDING, SIGNUP

_ADDRESS = {"email": "delivered+sample@resend.dev"}


def _assessed(red: int, orange: int) -> dict[str, Any]:
    return {**SIGNUP["assessment"], "assessment_data": {"red_systems": red, "orange_systems": orange}}


#: By sequence: what a contact is called in the report, and the body that enrolled them.
SAMPLES: dict[str, dict[str, Any]] = {
    "nurture": {
        "a CRITICAL contact": _assessed(2, 0),
        "an URGENT contact": _assessed(1, 0),
        "an OPTIMIZE contact": _assessed(0, 0),
        "a full assessment": SIGNUP["assessment"],
        "a contact with nothing but an address": {**_ADDRESS, "consent": True},
    },
    "noshow": {"a full no-show": NO_SHOW["missed call"], "a contact with nothing but an address": _ADDRESS},
    "postcall": {"a full maybe": MAYBE["maybe"], "a contact with nothing but an address": _ADDRESS},
    "onboarding": {
        "a full onboarding": ONBOARDING["paid"],
        "a contact with nothing but an address": {**_ADDRESS, "payment_confirmed": True},
    },
    "precall": {"a booking": BOOKING["booked"]},
}
