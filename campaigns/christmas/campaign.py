"""The Christmas campaign: five webhooks, five sequences, nineteen mails."""

from __future__ import annotations

from datetime import timedelta

from tidings.campaign import Campaign, Exit, Native, Sequence, Step, Webhook
from tidings.model import Scheme, Turn
from tidings.segment import Segment

from .calls import CALENDLY_TURNS, CalcomEvent, CalendlyEvent
from .examples import BOOKING, CALENDLY, DOCUSIGN, MAYBE, NO_SHOW, ONBOARDING, SIGNUP, STRIPE
from .payloads import Maybe, NoShow, Onboarding, Signup
from .purchase import DocusignEvent, StripeEvent
from .samples import SAMPLES


def _steps(prefix: str, *hours: float) -> tuple[Step, ...]:
    return tuple(Step(f"{prefix}_{n}", timedelta(hours=gap)) for n, gap in enumerate(hours, start=1))


BOOKED = "the contact has booked a call"
PAID = Exit(Turn.PAID, "the contact has paid", ever=True)

CAMPAIGN = Campaign(
    name="christmas",
    title="BusOS Christmas",
    sequences=(
        Sequence(
            "nurture",
            "Nurture",
            _steps("christmas_email", 0, 24, 72, 120, 168, 216, 264),
            priority=10,
            # Its one aim is a call: who has ever booked one gets no "last chance" after it either.
            exits=(Exit(Turn.BOOKED, BOOKED, ever=True), PAID),
            again_after=timedelta(days=180),
        ),
        Sequence(
            "noshow",
            "No-show recovery",
            _steps("noshow_recovery_email", 5 / 60, 24, 48),
            priority=20,
            # Whoever missed a call had booked it: only a booking after that counts.
            exits=(Exit(Turn.BOOKED, BOOKED), PAID),
        ),
        Sequence(
            "postcall",
            "Post-call maybe",
            _steps("postcall_maybe_email", 1, 72, 168),
            priority=30,
            exits=(PAID,),
        ),
        Sequence(
            "precall",
            "Pre-call preparation",
            _steps("precall_prep_email", -72, -24, -2),
            priority=40,
            exits=(PAID,),
        ),
        Sequence("onboarding", "Onboarding", _steps("onboarding_phase1_email", 1, 24, 72), priority=50),
    ),
    webhooks=(
        Webhook(
            path="christmas-signup",
            deployment="christmas-signup-handler",
            noun="Signup",
            sequence="nurture",
            payload=Signup,
            examples=SIGNUP,
            summary="The website's assessment form was sent",
            public=True,
        ),
        Webhook(
            path="calendly-noshow",
            deployment="christmas-noshow-recovery-handler",
            noun="No-show",
            sequence="noshow",
            payload=NoShow,
            examples=NO_SHOW,
            summary="A contact did not come to a booked call; or Calendly says what became of one",
            natives=(Native(Scheme.CALENDLY, CalendlyEvent, CALENDLY, events=tuple(CALENDLY_TURNS)),),
        ),
        Webhook(
            path="postcall-maybe",
            deployment="christmas-postcall-maybe-handler",
            noun="Post-call",
            sequence="postcall",
            payload=Maybe,
            examples=MAYBE,
            summary="A call ended with a maybe",
        ),
        Webhook(
            path="onboarding-start",
            deployment="christmas-onboarding-handler",
            noun="Onboarding",
            sequence="onboarding",
            payload=Onboarding,
            examples=ONBOARDING,
            summary="A customer has paid; or Stripe says so, or DocuSign that the customer has signed",
            natives=(
                Native(Scheme.STRIPE, StripeEvent, STRIPE),
                Native(Scheme.DOCUSIGN, DocusignEvent, DOCUSIGN),
            ),
        ),
        Webhook(
            path="calcom-booking",
            deployment="christmas-precall-handler",
            noun="Booking",
            sequence="precall",
            payload=CalcomEvent,
            examples=BOOKING,
            summary="Cal.com says what became of a call (Cal.com's own body)",
            natives=(Native(Scheme.CALCOM, CalcomEvent),),
        ),
    ),
    samples=SAMPLES,
    hot_segments=frozenset({Segment.CRITICAL}),
)
