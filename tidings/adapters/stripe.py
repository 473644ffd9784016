"""Stripe's API: the events of checkouts that were paid, as its webhooks post them.

Events rather than checkout sessions: an event of the list is, with its id, what the webhook has posted, and tells when
a payment that took days has come. Stripe lists those of the last 30 days (docs.stripe.com/api/events/list, Nov 2026).

Stripe's library is imported when it is first asked: 11 MB and a tenth of a second that no process needs at its start.
"""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING, Any

from tidings.errors import OutcomeUnknown, Refused, RetryLater, ServiceError
from tidings.model import Found, Scheme

if TYPE_CHECKING:
    import stripe

SERVICE = "Stripe"
TIMEOUT_SECONDS = 20.0
PAGE = 100
#: The events that tell of a payment: at once, or after days.
PAYMENTS = ("checkout.session.completed", "checkout.session.async_payment_succeeded")


class Stripe:
    """The account of the settings' key. Retries are off here: one layer retries, and that is Prefect."""

    scheme = Scheme.STRIPE

    def __init__(self, api_key: str, api_url: str) -> None:
        self._key = api_key
        self._url = api_url

    async def found(self, since: datetime, now: datetime) -> list[Found]:
        """Payments since then, oldest first, as Stripe's webhooks would tell them.

        Raises RetryLater or OutcomeUnknown while Stripe gives no usable answer, Refused when it does not let us in.
        """
        import stripe

        http = stripe.HTTPXClient(timeout=TIMEOUT_SECONDS)
        try:
            return await self._payments(http, since)
        except stripe.StripeError as error:
            raise classify(error) from error
        finally:
            await http.close_async()  # type: ignore[no-untyped-call]

    async def _payments(self, http: stripe.HTTPXClient, since: datetime) -> list[Found]:
        import stripe

        client = stripe.StripeClient(
            self._key, http_client=http, base_addresses={"api": self._url}, max_network_retries=0
        )
        page = await client.v1.events.list_async(
            {"types": list(PAYMENTS), "created": {"gte": int(since.timestamp())}, "limit": PAGE}
        )
        events = [event.to_dict() async for event in page.auto_paging_iter()]
        return [_found(event, since) for event in reversed(events) if _paid(event)]


def _paid(event: dict[str, Any]) -> bool:
    return bool(event["data"]["object"].get("payment_status") == "paid")


def _found(event: dict[str, Any], since: datetime) -> Found:
    return Found(event, datetime.fromtimestamp(event["created"], since.tzinfo))


def classify(error: stripe.StripeError) -> ServiceError:
    """What each of Stripe's errors means for us (docs.stripe.com/api/errors)."""
    status, message = error.http_status, error.user_message or str(error)
    known: dict[str, Any] = {"status": status, "code": error.code or ""}
    if status is None:
        return RetryLater(SERVICE, f"cannot be reached: {message}", retry_after=2.0)
    if status == 429:
        return RetryLater(SERVICE, message, retry_after=_pause(error), **known)
    if status in {401, 403}:
        cure = "set STRIPE_API_KEY to a restricted key (rk_…) that may read events and checkout sessions"
        return Refused(SERVICE, f"{message}; {cure}", **known)
    if 400 <= status < 500:
        return Refused(SERVICE, message, **known)
    return OutcomeUnknown(SERVICE, message, **known)


def _pause(error: stripe.StripeError) -> float:
    """What Retry-After asks for, in seconds."""
    said = str({k.lower(): v for k, v in dict(error.headers or {}).items()}.get("retry-after", ""))
    return float(said) if said.isdigit() else 2.0
