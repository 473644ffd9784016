"""DocuSign Connect: `X-DocuSign-Signature-1…N: <base64>` over the body, one for each key (apis.md 3.4).

It has no time: the event's key catches replays.
"""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from datetime import datetime

from tidings.web.verify.scheme import Forged, fits_any, hmac_sha256

PREFIX = "x-docusign-signature-"
#: As many keys as DocuSign lets an account have.
MOST = 100
ADVICE = "sign with X-DocuSign-Signature-1 and a key of DOCUSIGN_HMAC_KEYS"


def shown(headers: Mapping[str, str]) -> bool:
    return any(name.lower().startswith(PREFIX) for name in headers)


def check(raw: bytes, headers: Mapping[str, str], secrets: Sequence[str], now: datetime) -> None:
    given = [value for name, value in headers.items() if name.lower().startswith(PREFIX)]
    wanted = [base64.b64encode(hmac_sha256(key, raw)).decode() for key in secrets]
    if not fits_any(given[:MOST], wanted):
        raise Forged("none of DocuSign's signatures fits (check DOCUSIGN_HMAC_KEYS)")
