"""Which Tidings this is: the same for all processes on one ledger with one SECRET_KEY, and no other's (F1)."""

from __future__ import annotations

import hashlib
import hmac
from uuid import uuid4

from tidings.ledger import Ledger
from tidings.ledger.memory import Memory

#: The memo that names a ledger; it is made when it is first asked for.
LEDGER_ID = "ledger-id"


async def instance_of(ledger: Ledger, secret_key: str) -> str:
    """What `GET /health` says of itself. A keyed digest, so it tells a stranger nothing.

    Raises LedgerUnavailable when the ledger's id cannot be read.
    """
    ledger_id = await Memory(ledger).once(LEDGER_ID, uuid4().hex)
    return hmac.new(secret_key.encode(), f"instance:{ledger_id}".encode(), hashlib.sha256).hexdigest()[:16]
