"""`/api`: what operators do on the command line, over HTTP with a token."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any
from uuid import UUID

from fastapi import APIRouter, Depends, Query, Request, Response
from fastapi.exceptions import HTTPException
from pydantic import BaseModel, Field

from tidings.errors import ServiceError
from tidings.ledger import alerts as ledger_alerts
from tidings.ledger import inbox, mails, people
from tidings.operate import (
    cancel_messages,
    consent_proof,
    lift_suppression,
    retry_messages,
    suppress_contact,
)
from tidings.replay import Wanted, replay
from tidings.web.auth import operator
from tidings.web.values import Moment, Problem, Word
from tidings.wiring import App, utc_now

#: Said of every route here.
RESPONSES: dict[int | str, dict[str, Any]] = {
    401: {"description": "No token of an operator"},
    403: {"description": "ADMIN_TOKEN is not set"},
    404: {"description": "Not known"},
    422: {"model": Problem, "description": "A field is missing or wrong; the answer names it"},
}
#: Of events in one answer: a page more at most.
LIMIT = 10_000
REMAINING = "Tidings-Remaining"
router = APIRouter(prefix="/api", tags=["operators"], dependencies=[Depends(operator)], responses=RESPONSES)

MESSAGE_FIELDS = (
    "id", "campaign", "sequence", "position", "template", "due_at", "state", "reason", "sent_at", "delivered_at",
    "delayed_at", "opened_at", "clicked_at",
)  # fmt: skip


class Event(BaseModel):
    """A webhook that came in."""

    id: UUID
    source: str
    state: str
    reason: str | None
    received_at: datetime
    flow_run_id: UUID | None
    email: str | None


class Alert(BaseModel):
    """Something that is wrong, or was; or that somebody wanted to know of."""

    id: UUID
    key: str
    kind: str
    title: str
    body: str
    times: int
    opened_at: datetime
    seen_at: datetime
    told_at: datetime | None
    recovered_at: datetime | None
    recovery_told_at: datetime | None


class Replay(BaseModel):
    """Which events to handle again; at least one of ids, failed, since, until is needed."""

    ids: list[UUID] = Field(default_factory=list, max_length=10_000)
    failed: bool = False
    since: Moment | None = None
    until: Moment | None = None
    after: UUID | None = Field(
        None, description="Only those received after this event: the last of an answer that left some over"
    )
    dry_run: bool = False


class Retry(BaseModel):
    """Which messages to send again; at least one of ids, email, template is needed."""

    ids: list[UUID] = Field(default_factory=list, max_length=10_000)
    email: Word | None = None
    template: Word | None = None
    may_be_sent_twice: bool = False
    dry_run: bool = False


class Cancel(BaseModel):
    """What to cancel of a contact."""

    sequence: Word | None = None
    reason: Word = Field("cancelled by an operator", min_length=1, max_length=500)
    dry_run: bool = False


class Reconcile(BaseModel):
    """How far back to look in the services' lists; without `since` as far as the hourly run does."""

    since: Moment | None = None
    dry_run: bool = False


class Lift(BaseModel):
    """Why mails may go again; of one series, or of everything."""

    reason: Word = Field(min_length=1, max_length=500)
    sequence: Word | None = None


class Suppress(Lift):
    """Why mails stop, and until when; without an end until that is lifted."""

    until: Moment | None = None


@router.get("/alerts", summary="What is wrong now, or was; newest first")
async def alerts(
    request: Request,
    history: Annotated[bool, Query(alias="all", description="Also what is over")] = False,
    limit: Annotated[int, Query(ge=1, le=1000)] = 100,
) -> list[Alert]:
    parts: App = request.app.state.parts
    async with parts.ledger.reading() as connection:
        rows = await ledger_alerts.listed(connection, history=history, limit=limit)
    return [Alert.model_validate(row, from_attributes=True) for row in rows]


@router.get("/events", summary="Webhooks that came in, newest first")
async def events(
    request: Request,
    state: Word | None = None,
    source: Word | None = None,
    since: Moment | None = None,
    until: Moment | None = None,
    limit: Annotated[int, Query(ge=1, le=1000)] = 50,
) -> list[Event]:
    parts: App = request.app.state.parts
    async with parts.ledger.reading() as connection:
        rows = await inbox.list_events(connection, state=state, source=source, since=since, until=until, limit=limit)
    return [Event.model_validate(row, from_attributes=True) for row in rows]


@router.post(
    "/events/replay",
    summary="Handle events again; nothing is sent twice",
    responses={
        200: {
            "description": "What becomes of each event: those in `ids` first, the others from the oldest on",
            "headers": {
                REMAINING: {"description": "How many events are left over", "schema": {"type": "integer"}},
            },
        }
    },
)
async def replay_events(request: Request, response: Response, wanted: Replay) -> dict[str, str]:
    """An answer tells of some 10,000 events; ask again with `after` for the rest."""
    chosen = await _chosen(request, wanted)
    if not chosen:
        raise HTTPException(422, "Name events in 'ids', or set 'failed', 'since' or 'until'")
    parts: App = request.app.state.parts
    told: dict[str, str] = {}
    pages = replay(parts.ledger, parts.runs, parts.campaigns, chosen, dry_run=wanted.dry_run, now=utc_now())
    async for page in pages:
        told |= {str(event_id): what for event_id, what in page.told.items()}
        response.headers[REMAINING] = str(page.remaining)
        if len(told) >= LIMIT:
            break
    return told


async def _chosen(request: Request, wanted: Replay) -> Wanted:
    after = None
    if wanted.after:
        parts: App = request.app.state.parts
        async with parts.ledger.reading() as connection:
            found = await inbox.find_events(connection, [wanted.after])
        if not found:
            raise HTTPException(404, f"No event has the id {wanted.after}")
        after = (found[0].received_at, found[0].id)
    return Wanted(wanted.ids, wanted.failed, wanted.since, wanted.until, after)


@router.post(
    "/reconcile",
    summary="Compare with the services' own lists now",
    status_code=202,
    responses={503: {"model": Problem, "description": "Prefect is away, so no run was started"}},
)
async def reconcile(request: Request, wanted: Reconcile) -> dict[str, UUID]:
    """The answer names the run in Prefect, whose artifact says what was found."""
    parts: App = request.app.state.parts
    try:
        run_id = await parts.runs.start_reconcile(wanted.since, dry_run=wanted.dry_run, now=utc_now())
    except ServiceError as error:
        raise HTTPException(503, f"Not started: {error}", headers={"Retry-After": "5"}) from error
    return {"flow_run_id": run_id}


@router.post("/messages/retry", summary="Send failed or cancelled messages again")
async def retry(request: Request, wanted: Retry) -> dict[str, list[UUID]]:
    if not (wanted.ids or wanted.email or wanted.template):
        raise HTTPException(422, "Name messages in 'ids', or give 'email' or 'template'")
    parts: App = request.app.state.parts
    return {"messages": await retry_messages(parts.ledger, **wanted.model_dump(), now=utc_now())}


@router.get("/contacts/{email}", summary="The whole story of one contact")
async def story(request: Request, email: Word) -> dict[str, Any]:
    parts: App = request.app.state.parts
    async with parts.ledger.reading() as connection:
        person = await people.find_contact(connection, email)
        if person is None:
            raise HTTPException(404, f"No contact has the address {email}")
        stopped = await people.suppressions(connection, person.id)
        theirs = await people.events_of(connection, person.id)
        messages = await mails.story(connection, email)
    return {
        "email": person.email,
        "first_name": person.first_name,
        "business_name": person.business_name,
        "consent": person.consent,
        "created_at": person.created_at,
        "suppressions": [
            {
                "sequence": s.sequence,
                "campaign": s.campaign,
                "reason": s.reason,
                "source": s.source,
                "at": s.created_at,
                "until": s.until,
                "lifted": s.lifted_at,
                "lifted_because": s.lifted_because,
            }
            for s in stopped
        ],
        "events": [
            {"id": e.id, "source": e.source, "state": e.state, "reason": e.reason, "received_at": e.received_at}
            for e in theirs
        ],
        "messages": [{name: getattr(m, name) for name in MESSAGE_FIELDS} for m in messages],
    }


@router.get("/contacts/{email}/consent", summary="The proof that a contact might be mailed")
async def consent(request: Request, email: Word) -> dict[str, Any]:
    parts: App = request.app.state.parts
    proof = await consent_proof(parts.ledger, email)
    if proof is None:
        raise HTTPException(404, f"No contact has the address {email}")
    return proof


@router.post("/contacts/{email}/suppress", summary="Stop mails to an address, known or not")
async def suppress(request: Request, email: Word, wanted: Suppress) -> dict[str, bool]:
    if "@" not in email:
        raise HTTPException(422, f"{email} is no address")
    parts: App = request.app.state.parts
    return {"new": await suppress_contact(parts.ledger, email, **wanted.model_dump(), now=utc_now())}


@router.post("/contacts/{email}/lift", summary="Let mails go to a contact again")
async def lift(request: Request, email: Word, wanted: Lift) -> dict[str, int]:
    parts: App = request.app.state.parts
    lifted = await lift_suppression(parts.ledger, email, **wanted.model_dump(), now=utc_now())
    if lifted is None:
        raise HTTPException(404, f"No contact has the address {email}")
    return {"lifted": lifted}


@router.post("/contacts/{email}/cancel", summary="Cancel what a contact has still to get")
async def cancel(request: Request, email: Word, wanted: Cancel) -> dict[str, list[UUID]]:
    parts: App = request.app.state.parts
    found = await cancel_messages(parts.ledger, email, **wanted.model_dump(), now=utc_now())
    if found is None:
        raise HTTPException(404, f"No contact has the address {email}")
    return {"messages": found}
