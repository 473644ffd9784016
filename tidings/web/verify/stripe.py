"""Stripe: `Stripe-Signature`, checked by Stripe's own library (apis.md 3.3)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime

from tidings.web.verify.scheme import Forged

HEADER = "stripe-signature"
ADVICE = "sign with Stripe-Signature and a secret of STRIPE_WEBHOOK_SECRETS"
#: Stripe's own, in seconds.
TOLERANCE = 300


def prepare() -> None:
    """Import Stripe's library ahead of the first request: it takes a fifth of a second, and few need it."""
    import stripe  # noqa: F401


def shown(headers: Mapping[str, str]) -> bool:
    return HEADER in headers


def check(raw: bytes, headers: Mapping[str, str], secrets: Sequence[str], now: datetime) -> None:
    import stripe

    header = headers[HEADER]
    if not header.isascii():
        raise Forged("Stripe-Signature holds characters that Stripe never sends")
    try:
        body = raw.decode()
    except UnicodeDecodeError as error:
        raise Forged("the body is not UTF-8, so Stripe has not sent it") from error
    for secret in secrets:
        try:
            stripe.WebhookSignature.verify_header(body, header, secret, TOLERANCE)
        except stripe.SignatureVerificationError:
            continue
        return
    raise Forged(f"Stripe's signature does not fit or is older than {TOLERANCE} s (check STRIPE_WEBHOOK_SECRETS)")
