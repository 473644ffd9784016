"""`/confirm/<token>`: the click of double opt-in, and only a click (scanners follow links, so GET changes nothing)."""

from __future__ import annotations

import logging

from fastapi import APIRouter, Request
from fastapi.responses import HTMLResponse

from tidings.confirm import confirm
from tidings.web.pages import page
from tidings.wiring import App, utc_now

log = logging.getLogger("tidings.web")
router = APIRouter(tags=["confirm"], responses={404: {"description": "The link is not one of ours"}})

BUTTON = '<form method="post"><button>Yes, send me these emails</button></form>'


@router.get("/confirm/{token}", response_class=HTMLResponse, summary="Asks; changes nothing")
async def ask(request: Request, token: str) -> HTMLResponse:
    parts: App = request.app.state.parts
    if parts.links.read_confirmation(token) is None:
        return _unknown()
    return page("Do you want these emails?", "One click and they begin. You can leave at any time.", BUTTON)


@router.post("/confirm/{token}", response_class=HTMLResponse, summary="Confirms; a repeat changes nothing")
async def agree(request: Request, token: str) -> HTMLResponse:
    parts: App = request.app.state.parts
    enrolment_id = parts.links.read_confirmation(token)
    if enrolment_id is None or not await confirm(parts.ledger, parts.campaigns, enrolment_id, utc_now()):
        return _unknown()
    log.info("contact.confirmed", extra={"enrolment_id": str(enrolment_id)})
    return page("Thank you", "Your emails are on their way. Nothing else to do.", "")


def _unknown() -> HTMLResponse:
    return page("This link is not complete", "Please use the button in the email, or sign up again.", "", status=404)
