"""How Calendly, Cal.com and Stripe post what happens: signed in their own ways, repeated for as long as each does.

apis.md 3.1 to 3.3; developer.calendly.com/docs/webhooks/overview and docs.stripe.com/webhooks (Nov 2026).
"""

import hashlib
import hmac
import json
from datetime import datetime
from typing import Any

from .store import Row

ACTIVE, DISABLED = "active", "disabled"

#: Seconds before each further attempt. Calendly doubles the pause and gives up after 24 h, Cal.com sends once, Stripe
#: goes on for three days.
RETRIES: dict[str, tuple[float, ...]] = {
    "calendly": (*(60.0 * 2**n for n in range(10)), 25_020.0),
    "calcom": (),
    "stripe": (300.0, 1800.0, 7200.0, 18_000.0, 36_000.0, 43_200.0, 72_000.0, 72_000.0),
}


def wants(subscription: Row, kind: str) -> bool:
    """Whether it is told of this; without a list it is told of everything."""
    return subscription["status"] == ACTIVE and (not subscription["events"] or kind in subscription["events"])


def as_sent(body: dict[str, Any]) -> str:
    return json.dumps(body, ensure_ascii=False, separators=(",", ":"))


def stamp(moment: datetime) -> str:
    """`2026-07-04T18:20:11.000000Z`, as Calendly writes times."""
    return moment.isoformat(timespec="microseconds").replace("+00:00", "Z")


def headers(subscription: Row, body: str, now: datetime) -> dict[str, str]:
    """Signed at the moment of posting. Without a secret Calendly sends no signature at all."""
    kind = {"content-type": "application/json"}
    secret, at = subscription["secret"], int(now.timestamp())
    match subscription["service"]:
        case "calcom":
            return {**kind, "X-Cal-Signature-256": _hex(secret, body) if secret else "no-secret-provided"}
        case "stripe":
            return {**kind, "Stripe-Signature": f"t={at},v1={_hex(secret or '', f'{at}.{body}')}"}
        case _:
            signature = {"Calendly-Webhook-Signature": f"t={at},v1={_hex(secret, f'{at}.{body}')}"} if secret else {}
            return {**kind, **signature}


def _hex(secret: str, text: str) -> str:
    return hmac.new(secret.encode(), text.encode(), hashlib.sha256).hexdigest()


def after_failure(endpoint: Row, result: str, now: datetime, *, over: bool) -> Row | None:
    """What Calendly makes of a subscription whose delivery failed: the last failure switches it off, and nobody is
    told (F22). None when nothing changes; other services go on."""
    if endpoint.get("service") != "calendly":
        return None
    changed = endpoint | {"retry_started_at": endpoint["retry_started_at"] or stamp(now)}
    return changed | {"status": DISABLED, "updated_at": stamp(now)} if over else changed
