"""What every way of showing who one is has in common."""

from __future__ import annotations

import hashlib
import hmac
import re
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Protocol

#: Seconds since 1970, as senders write them. Longer ones are no time, and `int` refuses some of them.
TIMESTAMP = re.compile(r"[0-9]{1,12}")


class Forged(Exception):
    """A request that cannot be from whom it says. The text says what to check, and never holds a secret."""


class Verifier(Protocol):
    """One scheme. Modules satisfy this."""

    #: What a sender is told to do, such as "sign with Stripe-Signature".
    ADVICE: str

    def shown(self, headers: Mapping[str, str]) -> bool:
        """Whether the request claims to be from such a sender."""
        ...

    def check(self, raw: bytes, headers: Mapping[str, str], secrets: Sequence[str], now: datetime) -> None:
        """Raises Forged unless one of the secrets fits the body as it came, and the time where there is one."""
        ...


def hmac_sha256(key: str, message: bytes) -> bytes:
    return hmac.new(key.encode(), message, hashlib.sha256).digest()


def fits_any(given: Sequence[str], wanted: Sequence[str]) -> bool:
    """Whether any of these is any of those. All are compared, so that the time taken says nothing of a near miss."""
    # As bytes: headers may hold characters that compare_digest refuses in text.
    matches = [hmac.compare_digest(g.encode(), w.encode()) for g in given for w in wanted]
    return any(matches)
