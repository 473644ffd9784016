"""Calendly: `Calendly-Webhook-Signature: t=…,v1=<hex>` over `<t>.<body>` (apis.md 3.1)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime

from tidings.web.verify.scheme import TIMESTAMP, Forged, fits_any, hmac_sha256

HEADER = "calendly-webhook-signature"
ADVICE = "sign with Calendly-Webhook-Signature and a key of CALENDLY_SIGNING_KEYS"
#: What Calendly suggests, in seconds.
TOLERANCE = 180


def shown(headers: Mapping[str, str]) -> bool:
    return HEADER in headers


def check(raw: bytes, headers: Mapping[str, str], secrets: Sequence[str], now: datetime) -> None:
    parts = [part.strip().partition("=") for part in headers[HEADER].split(",")]
    times = [value for name, _, value in parts if name == "t"]
    given = [value for name, _, value in parts if name == "v1"]
    if len(times) != 1 or not TIMESTAMP.fullmatch(times[0]) or not given:
        raise Forged("Calendly-Webhook-Signature is not of the form t=<seconds>,v1=<hex>")
    signed = times[0].encode() + b"." + raw
    if not fits_any(given, [hmac_sha256(key, signed).hex() for key in secrets]):
        raise Forged("Calendly's signature does not fit (check CALENDLY_SIGNING_KEYS)")
    if abs(now.timestamp() - int(times[0])) > TOLERANCE:
        raise Forged(f"Calendly's signature is more than {TOLERANCE} s away from this server's clock")
