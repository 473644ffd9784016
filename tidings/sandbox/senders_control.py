"""The control routes of the calendars and of Stripe: what people do there, with or without a word to the webhooks."""

from collections.abc import Callable
from datetime import datetime
from typing import Any

from pydantic import AwareDatetime, BaseModel, ConfigDict, ValidationError
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from .store import Row
from .world import World


class Deed(BaseModel):
    """`webhook` false: it happens, and no webhook tells of it."""

    model_config = ConfigDict(extra="forbid")

    webhook: bool = True


class Booking(Deed):
    """A call that is booked. `created`: when, if not now; `before`: the one whose place it takes."""

    email: str
    name: str = "Robin Poole"
    title: str = "Diagnostic call"
    start: AwareDatetime
    created: AwareDatetime | None = None
    before: str | None = None


class Absence(Deed):
    """Someone who did not come: Calendly's invitee or Cal.com's booking. `absent` false takes it back."""

    of: str
    absent: bool = True
    at: AwareDatetime | None = None


class Cancellation(Deed):
    """A call that is called off: Calendly's invitee or Cal.com's booking."""

    of: str
    reason: str = ""


class Checkout(Deed):
    """A checkout at Stripe; `amount` in the smallest unit. `paid` false: the money takes days."""

    email: str
    name: str = "Kim Hart"
    amount: int = 200_000
    paid: bool = True
    created: AwareDatetime | None = None


class Settlement(Deed):
    """The payment of a checkout, named by its session's id, has come."""

    of: str


class Switch(BaseModel):
    """Calendly's subscriptions of this address, or all of them."""

    model_config = ConfigDict(extra="forbid")

    url: str | None = None


class SenderControl:
    """One method a route; each answers with what it made or changed."""

    def __init__(self, world: World) -> None:
        self._calendly, self._calcom, self._stripe = world.calendly, world.calcom, world.stripe
        self._store = world.store

    def routes(self) -> list[Route]:
        table: list[tuple[str, type[BaseModel], Callable[[Any], Any]]] = [
            ("calendly/bookings", Booking, self.calendly_booking),
            ("calendly/no-shows", Absence, self.calendly_absence),
            ("calendly/cancellations", Cancellation, self.calendly_cancellation),
            ("calendly/disable", Switch, lambda switch: {"disabled": self._calendly.disable(switch.url)}),
            ("calcom/bookings", Booking, self.calcom_booking),
            ("calcom/no-shows", Absence, lambda a: self._calcom.mark(a.of, absent=a.absent, webhook=a.webhook)),
            ("calcom/cancellations", Cancellation, self.calcom_cancellation),
            ("stripe/checkouts", Checkout, self.stripe_checkout),
            ("stripe/payments", Settlement, lambda s: self._stripe.settle(s.of, webhook=s.webhook)),
        ]
        posts = [Route(f"/control/{path}", _endpoint(model, act), methods=["POST"]) for path, model, act in table]
        return [*posts, Route("/control/subscriptions", self.subscriptions, methods=["GET"])]

    def calendly_booking(self, wanted: Booking) -> Row:
        made = self._calendly.book(old_invitee=wanted.before, **_given(wanted))
        if wanted.before:
            self._calendly.cancel(wanted.before, new_invitee=made["uri"], webhook=wanted.webhook)
        return made

    def calendly_absence(self, wanted: Absence) -> Row:
        if wanted.absent:
            return self._calendly.mark(wanted.of, at=wanted.at, webhook=wanted.webhook)
        return self._calendly.unmark(wanted.of, webhook=wanted.webhook)

    def calendly_cancellation(self, wanted: Cancellation) -> Row:
        return self._calendly.cancel(wanted.of, reason=wanted.reason, webhook=wanted.webhook)

    def calcom_booking(self, wanted: Booking) -> Row:
        return self._calcom.book(before=wanted.before, **_given(wanted))

    def calcom_cancellation(self, wanted: Cancellation) -> Row:
        return self._calcom.cancel(wanted.of, reason=wanted.reason, webhook=wanted.webhook)

    def stripe_checkout(self, wanted: Checkout) -> Row:
        given = wanted.model_dump(exclude={"created"})
        return self._stripe.check_out(**given, created=wanted.created.timestamp() if wanted.created else None)

    async def subscriptions(self, request: Request) -> Response:
        """Where the services post, and whether they still do."""
        return JSONResponse({"data": self._store.subscriptions(request.query_params.get("service"))})


def _given(wanted: Booking) -> dict[str, Any]:
    times: dict[str, datetime | None] = {"start": wanted.start, "created": wanted.created}
    return wanted.model_dump(exclude={"before", "start", "created"}) | times


def _endpoint(model: type[BaseModel], act: Callable[[Any], Any]) -> Callable[[Request], Any]:
    async def handle(request: Request) -> Response:
        try:
            return JSONResponse(act(model.model_validate_json(await request.body() or b"{}")), 201)
        except ValidationError as error:
            return JSONResponse({"error": str(error)}, 422)
        except LookupError as error:
            return JSONResponse({"error": str(error)}, 404)

    return handle
