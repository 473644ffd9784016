"""Cal.com: `X-Cal-Signature-256: <hex>` over the body (apis.md 3.2).

It has no time: the event's key catches replays.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime

from tidings.web.verify.scheme import Forged, fits_any, hmac_sha256

HEADER = "x-cal-signature-256"
#: What Cal.com sends for a webhook that was given no secret.
UNSIGNED = "no-secret-provided"
ADVICE = "sign with X-Cal-Signature-256 and a secret of CALCOM_WEBHOOK_SECRETS"


def shown(headers: Mapping[str, str]) -> bool:
    return headers.get(HEADER, UNSIGNED) != UNSIGNED


def check(raw: bytes, headers: Mapping[str, str], secrets: Sequence[str], now: datetime) -> None:
    if not fits_any([headers[HEADER]], [hmac_sha256(secret, raw).hex() for secret in secrets]):
        raise Forged("Cal.com's signature does not fit (check CALCOM_WEBHOOK_SECRETS)")
