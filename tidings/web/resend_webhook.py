"""`POST /webhook/resend`: what became of each mail."""

from __future__ import annotations

import logging
from typing import Any

from fastapi import APIRouter, Request
from fastapi.exceptions import HTTPException

from tidings.adapters import resend
from tidings.outcome import Reports
from tidings.web.body import read_body
from tidings.wiring import App, utc_now

log = logging.getLogger("tidings.web")
router = APIRouter(tags=["resend"])

#: Resend's largest event is a few KB; this leaves room.
LIMIT = 256 * 1024


RESPONSES: dict[int | str, dict[str, Any]] = {
    400: {"description": "The body is not an event of Resend's"},
    401: {"description": "The signature does not fit, or is too old"},
    413: {"description": "The body is too large"},
    415: {"description": "The body is not declared as application/json"},
    503: {"description": "RESEND_WEBHOOK_SECRET is not set, or the ledger cannot be written right now"},
}


@router.post("/webhook/resend", summary="Resend reports what became of a mail", responses=RESPONSES)
async def receive(request: Request) -> dict[str, bool | str]:
    """Signed by Resend (Svix); a repeat changes nothing; types that mean nothing here are fine."""
    parts: App = request.app.state.parts
    request.scope["source"] = "resend"
    secrets = parts.settings.resend_webhook_secrets
    if not secrets:
        raise HTTPException(503, "RESEND_WEBHOOK_SECRET is not set, so Resend's reports cannot be trusted")
    raw = await read_body(request, LIMIT)
    try:
        resend.verify(raw, request.headers, secrets)
    except resend.InvalidSignature as error:
        raise HTTPException(401, str(error)) from error
    try:
        report = resend.understand(request.headers["svix-id"], raw, utc_now())
    except ValueError as error:
        raise HTTPException(400, f"The body is not a Resend event: {error}") from error
    reports: Reports = request.app.state.reports
    new = await reports.take(report, raw.decode())
    if not new:
        request.scope["result"] = "duplicate"
    message_id = str(report.message_id) if report.message_id else None
    log.info(
        "resend.reported",
        extra={"type": report.type, "message_id": message_id, "svix_id": report.id, "duplicate": not new},
    )
    return {"message": "stored", "duplicate": not new}
