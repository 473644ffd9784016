"""`GET /webhook/status/<id>`: what became of a webhook, for the page that posted it."""

from __future__ import annotations

import asyncio
from datetime import datetime
from typing import Any
from uuid import UUID

from fastapi import APIRouter, Request
from fastapi.exceptions import HTTPException
from fastapi.responses import JSONResponse
from pydantic import BaseModel, Field

from tidings.progress import Progress, Stage, progress_of
from tidings.web.values import Problem
from tidings.wiring import App, utc_now

router = APIRouter(prefix="/webhook", tags=["webhooks"])

#: So many look at the ledger at once in one process, so that webhooks never wait for connections that pages hold.
LOOKS = 2
#: A page that waits longer than this for its turn is told to come again.
PATIENCE_SECONDS = 2.0
#: What became of one page's post is nobody else's to keep.
NOT_KEPT = {"cache-control": "no-store"}


class Status(BaseModel):
    """How far it has come. There is nothing personal in here."""

    status: Stage = Field(
        description="received: stored; working: the first email is on its way; planned: it is due later (`at`); "
        "sent; delivered: its recipient's server has taken it; nothing: no new email follows from this; "
        "failed: it could not be sent, or did not arrive"
    )
    message: str = Field(examples=["The first email has been sent."], description="Words that a page may show")
    final: bool = Field(description="true: asking again tells nothing new; else ask again after Retry-After seconds")
    at: datetime | None = Field(description="When the first email was sent, or is due")


RESPONSES: dict[int | str, dict[str, Any]] = {
    404: {"model": Problem, "description": "No webhook has this id"},
    503: {"model": Problem, "description": "The ledger cannot be read, or too many ask; try again after Retry-After"},
}


class Looks:
    """The turns at the ledger of one process's pages."""

    def __init__(self) -> None:
        self._turns = asyncio.Semaphore(LOOKS)

    async def of(self, parts: App, event_id: UUID, now: datetime) -> Progress | None:
        try:
            async with asyncio.timeout(PATIENCE_SECONDS):
                await self._turns.acquire()
        except TimeoutError as error:
            raise HTTPException(503, "Too many ask at the moment; ask again.", headers={"Retry-After": "5"}) from error
        try:
            return await progress_of(parts.ledger, event_id, now)
        finally:
            self._turns.release()


@router.get(
    "/status/{event_id}",
    summary="What became of a webhook: whether the first email has left",
    response_model=Status,
    responses=RESPONSES,
)
async def status(request: Request, event_id: str) -> JSONResponse:
    """The id is the answer's `event_id`; its `status_url` is this address. Nobody can guess one."""
    now, looks = utc_now(), request.app.state.looks
    known = _id(event_id)
    progress: Progress | None = await looks.of(request.app.state.parts, known, now) if known else None
    if progress is None:
        raise HTTPException(404, "No webhook has this id.", headers=NOT_KEPT)
    said = Status(status=progress.stage, message=progress.words, final=progress.final, at=progress.at)
    again = progress.ask_again(now)
    headers = NOT_KEPT if again is None else {**NOT_KEPT, "retry-after": str(again)}
    return JSONResponse(said.model_dump(mode="json"), headers=headers)


def status_url(public_url: str, event_id: UUID) -> str:
    """Where a page asks what became of its post."""
    return f"{public_url}/webhook/status/{event_id}"


def _id(given: str) -> UUID | None:
    try:
        return UUID(given)
    except ValueError:
        return None
