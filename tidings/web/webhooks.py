"""`POST /webhook/<path>`: one route a webhook of each campaign."""

from __future__ import annotations

import asyncio
import hashlib
import json
import logging
from collections.abc import Mapping
from typing import Any
from uuid import UUID

from fastapi import APIRouter, Depends, Request
from fastapi.exceptions import HTTPException
from fastapi.responses import Response
from pydantic import BaseModel, Field, ValidationError
from pydantic_core import to_json

from tidings.accept import Intake, answer, arrivals
from tidings.campaign import Campaign, Campaigns, Payload, Webhook, explain
from tidings.form import Signals
from tidings.ledger import inbox
from tidings.model import Arrival, Receipt, Scheme
from tidings.web.direct import Endpoint
from tidings.web.form import NO_VISIT, Form
from tidings.web.gate import RETRY_AFTER, Gate
from tidings.web.lines import Together
from tidings.web.status import status_url
from tidings.web.values import Problem
from tidings.web.verify import Delivery, Verified
from tidings.wiring import App, utc_now

log = logging.getLogger("tidings.web")
#: The line of each that is taken in.
ACCEPTED = "webhook.accepted"

#: Headers in which senders put an id of their own, the same in every repeat of an event: by how the sender is known.
ID_HEADERS: Mapping[Scheme | None, tuple[str, ...]] = {
    None: ("webhook-id", "svix-id", "idempotency-key"),
    Scheme.STANDARD: ("webhook-id",),
    **dict.fromkeys((Scheme.CALENDLY, Scheme.CALCOM, Scheme.STRIPE, Scheme.DOCUSIGN), ()),
}


class Accepted(BaseModel):
    """The answer to a webhook."""

    message: str = Field(examples=["Signup processed successfully"])
    event_id: str = Field(description="What `tidings events` knows it by")
    flow_run_id: str | None = Field(description="The run in Prefect; null when there is none (yet)")
    contact_created: bool
    status_url: str = Field(description="Where to ask whether the first email has left")
    duplicate: bool | None = Field(None, description="true for a repeat of an event that is known already")


RESPONSES: dict[int | str, dict[str, Any]] = {
    202: {"model": Accepted, "description": "Stored; Prefect is away and gets it as soon as it is back"},
    400: {"model": Problem, "description": "The body is not JSON"},
    401: {"model": Problem, "description": "No token or signature, or a wrong one; the answer says what is accepted"},
    409: {"model": Problem, "description": "This signed webhook-id has come in by another route before"},
    413: {"model": Problem, "description": "The body is too large"},
    415: {"model": Problem, "description": "The body is not declared as application/json"},
    422: {"model": Problem, "description": "A field is missing or wrong; the answer names it"},
    429: {"model": Problem, "description": "Too many public forms of one sender; send it again after Retry-After"},
    503: {"model": Problem, "description": "Not stored, and why; try again after the time in Retry-After"},
}


def direct(campaigns: Campaigns) -> dict[str, Endpoint]:
    """What serves the routes of all campaigns, by path."""
    return {f"/webhook/{w.path}": _directly(campaign, w) for campaign, w in campaigns.webhooks}


def sources(campaigns: Campaigns) -> dict[str, str]:
    """The routes whose webhooks are counted, each under its name: canaries are no person's."""
    return {f"/webhook/{w.path}": w.path for campaign, w in campaigns.webhooks if not campaign.internal}


def _directly(campaign: Campaign, webhook: Webhook) -> Endpoint:
    verified, receive = Verified(webhook, internal=campaign.internal), _endpoint(campaign, webhook)

    async def verify_and_receive(request: Request) -> Response:
        answered: Response = await receive(request, await verified(request))
        return answered

    return verify_and_receive


def router(campaigns: Campaigns) -> APIRouter:
    """The routes of all campaigns as OpenAPI shows them."""
    routes = APIRouter(prefix="/webhook", tags=["webhooks"])
    for campaign, webhook in campaigns.for_people.webhooks:
        routes.add_api_route(
            f"/{webhook.path}",
            _endpoint(campaign, webhook),
            methods=["POST"],
            summary=webhook.summary,
            operation_id=webhook.path,
            response_model=None,
            responses={200: {"model": Accepted}, **RESPONSES},
            openapi_extra={**_request_body(webhook), "security": [] if webhook.public else [{"bearer": []}]},
        )
    return routes


def _request_body(webhook: Webhook) -> dict[str, Any]:
    """The bodies that a route takes. With a service's own, any body is valid that is one of them."""
    schemas = [_schema(webhook.payload, webhook.public)]
    schemas += [_schema(n.payload, False) for n in webhook.natives if n.payload is not webhook.payload]
    examples = {**webhook.examples, **{name: body for n in webhook.natives for name, body in n.examples.items()}}
    return {
        "requestBody": {
            "required": True,
            "content": {
                "application/json": {
                    "schema": schemas[0] if len(schemas) == 1 else {"anyOf": schemas},
                    "examples": {name: {"value": body} for name, body in examples.items()},
                }
            },
        }
    }


def _schema(payload: type[Payload], public: bool) -> dict[str, Any]:
    schema = payload.model_json_schema(ref_template="#/components/schemas/{model}")
    if public:
        schema["properties"] |= Signals.model_json_schema()["properties"]
    return _inline(schema)


def _inline(schema: dict[str, Any]) -> dict[str, Any]:
    """The schema without references: each route's body stands by itself in the OpenAPI file."""
    parts = schema.pop("$defs", {})

    def resolve(node: Any) -> Any:
        if isinstance(node, dict):
            if "$ref" in node:
                return resolve(parts[node["$ref"].rpartition("/")[2]])
            return {k: resolve(v) for k, v in node.items()}
        return [resolve(v) for v in node] if isinstance(node, list) else node

    resolved: dict[str, Any] = resolve(schema)
    return resolved


def _endpoint(campaign: Campaign, webhook: Webhook) -> Any:
    verified = Depends(Verified(webhook))

    async def receive(request: Request, delivery: Delivery = verified) -> Response:
        parts: App = request.app.state.parts
        intake: Intake = request.app.state.intake
        gate: Gate = request.app.state.gate
        if closed := gate.reason(webhook.path):
            raise HTTPException(503, f"This webhook cannot work yet, so it takes nothing in: {closed}", RETRY_AFTER)
        raw = delivery.raw
        try:
            payload = parse(webhook, raw, delivery.scheme)
        except HTTPException as refusal:
            if delivery.scheme:
                await _quarantine(parts, campaign, webhook, raw, refusal, _signed_id(request, delivery.scheme))
            raise
        form: Form = request.app.state.form
        visit = await form.look_at(request, webhook, payload, raw) if webhook.public else NO_VISIT
        if visit.bot:
            request.scope["result"] = "blocked"
            return await form.keep_from(campaign, webhook, raw, visit, visit.bot)
        events = arrivals(
            campaign,
            webhook,
            payload,
            body=raw.decode(),
            key=_sender_id(request, delivery.scheme),
            now=utc_now(),
            testing_minute=parts.settings.testing_minute,
            quotas=visit.quotas,
            signed_id=_signed_id(request, delivery.scheme),
        )
        # Most bodies are one event, which needs no task of its own to wait for.
        receipt, *others = (
            [await intake.take(events[0])]
            if len(events) == 1
            else await asyncio.gather(*[intake.take(event) for event in events])
        )
        if receipt.over:
            form.refuse(webhook, receipt.over)
        if receipt.elsewhere:
            raise HTTPException(409, _REPLAYED.format(path=receipt.elsewhere))
        run_id = await _handed_on(intake, events[0], receipt)
        for event, other in zip(events[1:], others, strict=True):
            await _handed_on(intake, event, other)  # the answer tells of the first
        told: Together = request.app.state.accepted
        told.add(
            {"source": webhook.path, "campaign": campaign.name, "event_id": receipt.event_id, "run_id": run_id,
             "duplicate": receipt.duplicate}
        )  # fmt: skip
        if receipt.duplicate or receipt.ignored_because:
            request.scope["result"] = "duplicate" if receipt.duplicate else "ignored"
        done = run_id is not None or receipt.ignored_because is not None
        where = status_url(parts.settings.public_url, receipt.event_id)
        said = to_json(answer(webhook, receipt, run_id, where))
        return Response(said, 200 if done else 202, media_type="application/json")

    return receive


async def _handed_on(intake: Intake, event: Arrival, receipt: Receipt) -> UUID | None:
    """The run that handles an event, started now if there is none yet."""
    if receipt.flow_run_id is None and receipt.dispatch_id is not None:
        return await intake.dispatch(event.deployment, receipt.dispatch_id)
    return receipt.flow_run_id


_REPLAYED = (
    "This webhook-id has come in at /webhook/{path} before, and what is signed says of no route that it is meant; "
    "sign each message with an id of its own"
)


async def _quarantine(
    parts: App, campaign: Campaign, webhook: Webhook, raw: bytes, refusal: HTTPException, signed_id: str | None
) -> None:
    """Keep what a known sender sent although it is refused: it may be us who are wrong, and it is not sent again."""
    async with parts.ledger.transaction() as connection:
        event_id = await inbox.quarantine(
            connection,
            source=webhook.path,
            campaign=campaign.name,
            deployment=webhook.deployment,
            raw=raw,
            reason=str(refusal.detail),
            now=utc_now(),
            signed_id=signed_id,
        )
    log.warning(
        "webhook.quarantined",
        extra={"source": webhook.path, "campaign": campaign.name, "event_id": str(event_id),
               "status": refusal.status_code},
    )  # fmt: skip


def parse(webhook: Webhook, raw: bytes, scheme: Scheme | None) -> Payload:
    """The validated body, or 400 for what is not JSON and 422 for what does not fit, naming each field."""
    if b"\\u0000" in raw and _has_nul(_loads(raw)):
        raise HTTPException(
            422,
            [{"loc": ["body"], "field": "", "type": "nul", "msg": "Text must not contain the NUL character"}],
        )
    model = _model(webhook, raw, scheme)
    try:
        return model.model_validate_json(raw)
    except ValidationError as error:
        _loads(raw)  # read a second time only when something is wrong: is it the fields, or is it no JSON at all?
        raise HTTPException(422, explain(error)) from error


def _model(webhook: Webhook, raw: bytes, scheme: Scheme | None) -> type[Payload]:
    """Whose body this is. What a service has signed must look like that service's: stored, it is known by its looks."""
    if not webhook.natives:
        return webhook.payload
    given = _loads(raw)
    model = webhook.model_of(given, scheme)
    if model is not webhook.model_of(given):
        what = f"This is not a body of {scheme}, which signed it"
        raise HTTPException(422, [{"loc": ["body"], "field": "", "type": "service", "msg": what}])
    return model


def _loads(raw: bytes) -> Any:
    try:
        return json.loads(raw)
    except (ValueError, RecursionError) as error:
        raise HTTPException(400, f"The body is not valid JSON: {error}") from error


def _has_nul(value: Any) -> bool:
    """Whether any text in there holds the one character that PostgreSQL cannot store."""
    left = [value]  # and no recursion: whoever posts decides how deep it goes
    while left:
        part = left.pop()
        if isinstance(part, dict):
            left += [*part.keys(), *part.values()]
        elif isinstance(part, list):
            left += part
        elif isinstance(part, str) and "\x00" in part:
            return True
    return False


def _sender_id(request: Request, scheme: Scheme | None) -> str | None:
    """The sender's own id of this event, if it sent one that can be kept.

    Of a signed body only what is signed counts: with an id of a forger's choice, a replay would be a new event.
    """
    for name in ID_HEADERS.get(scheme, ID_HEADERS[None]):
        value = request.headers.get(name, "").strip()
        if value and len(value) <= 200 and value.isprintable():
            return f"{name}:{value}"
    return None


def _signed_id(request: Request, scheme: Scheme | None) -> str | None:
    """A digest of a Standard Webhook's id, which may be long: it is signed with the body, and the route is not."""
    if scheme is not Scheme.STANDARD:
        return None
    return hashlib.sha256(request.headers["webhook-id"].encode()).hexdigest()
