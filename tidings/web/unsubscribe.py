"""`/unsubscribe/<token>`: leaving is one click, and only a click (scanners follow links, so GET changes nothing)."""

from __future__ import annotations

import logging
from typing import Annotated
from uuid import UUID

from fastapi import APIRouter, Form, Request
from fastapi.responses import HTMLResponse

from tidings.ledger import people
from tidings.web.pages import page
from tidings.wiring import App, utc_now

log = logging.getLogger("tidings.web")
router = APIRouter(tags=["unsubscribe"], responses={404: {"description": "The link is not one of ours"}})

BUTTONS = """
<form method="post"><button name="scope" value="all">Stop all emails</button>
<button class="second" name="scope" value="series">Stop only this series</button></form>
"""


@router.get("/unsubscribe/{token}", response_class=HTMLResponse, summary="Asks; changes nothing")
async def ask(request: Request, token: str) -> HTMLResponse:
    parts: App = request.app.state.parts
    if parts.links.read(token) is None:
        return _unknown()
    return page("Do you want to leave?", "One click and you get no more emails from us.", BUTTONS)


@router.post("/unsubscribe/{token}", response_class=HTMLResponse, summary="Unsubscribes at once")
async def leave(request: Request, token: str, scope: Annotated[str, Form()] = "all") -> HTMLResponse:
    """Mail programs post `List-Unsubscribe=One-Click` here (RFC 8058), people press the button."""
    parts: App = request.app.state.parts
    enrolment_id = parts.links.read(token)
    if enrolment_id is None or not await _suppress(parts, enrolment_id, only_series=scope == "series"):
        return _unknown()
    what = "this series of emails" if scope == "series" else "our emails"
    return page("You have left", f"You will get no more of {what}. Nothing else to do.", "")


async def _suppress(parts: App, enrolment_id: UUID, *, only_series: bool) -> bool:
    async with parts.ledger.transaction() as connection:
        who = await people.of_enrolment(connection, enrolment_id)
        if who is None:
            return False
        sequence = who.sequence if only_series else None
        await people.suppress(
            connection,
            who.id,
            reason="the contact unsubscribed",
            source="link",
            now=utc_now(),
            sequence=sequence,
            campaign=who.campaign if only_series else None,
        )
    log.info("contact.unsubscribed", extra={"contact_id": str(who.id), "sequence": sequence or "all"})
    return True


def _unknown() -> HTMLResponse:
    words = "Please use the link of the newest email, or just answer it and ask us to stop."
    return page("This link is not complete", words, "", status=404)
