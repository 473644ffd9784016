"""`Authorization: Bearer <token>`: for every sender that cannot sign."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime

from tidings.web.verify.scheme import Forged, fits_any

ADVICE = "send 'Authorization: Bearer <token>' with a token of WEBHOOK_TOKENS"


def shown(headers: Mapping[str, str]) -> bool:
    return bool(token(headers))


def token(headers: Mapping[str, str]) -> str:
    """The token that is shown, or nothing."""
    scheme, _, given = headers.get("authorization", "").partition(" ")
    return given.strip() if scheme.lower() == "bearer" else ""


def check(raw: bytes, headers: Mapping[str, str], secrets: Sequence[str], now: datetime) -> None:
    if not fits_any([token(headers)], secrets):
        raise Forged("the bearer token is none of WEBHOOK_TOKENS")
