"""The webhook server: routes follow from the campaigns."""

from __future__ import annotations

import asyncio
import gc
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from datetime import timedelta

from fastapi import Request
from fastapi.responses import JSONResponse

from tidings.accept import Intake
from tidings.adapters.blocks import settings_of_this_process
from tidings.adapters.captcha import Captcha
from tidings.adapters.deployed import expected_of
from tidings.adapters.notify import complain_apart
from tidings.errors import LedgerUnavailable, TidingsError
from tidings.logs import configure
from tidings.metrics import Board
from tidings.outcome import Reports
from tidings.settings import Settings
from tidings.web import confirm, docs, health, metrics, operate, resend_webhook, status, unsubscribe, verify, webhooks
from tidings.web.direct import Direct, Server
from tidings.web.form import Form
from tidings.web.gate import Gate
from tidings.web.keeper import keep_always, watch_always
from tidings.web.lines import Together
from tidings.web.middleware import BodyCap, Origins, SecurityHeaders, security_headers
from tidings.wiring import open_app, utc_now

log = logging.getLogger("tidings.web")

#: For pages and the operators' API, in bytes; what they are sent is some hundred.
LARGEST_BODY = 256 * 1024


def create_app() -> Server:
    """The application. Settings and campaigns are read when it starts, not when it is imported."""
    app = Server(
        title="Tidings",
        summary="Webhooks in, the right sequence of emails out.",
        lifespan=_lifespan,
        docs_url=None,
        redoc_url=None,
    )
    docs.add_to(app)
    app.include_router(health.router)
    app.include_router(metrics.router)
    app.include_router(status.router)
    app.include_router(resend_webhook.router)
    app.include_router(unsubscribe.router)
    app.include_router(confirm.router)
    app.include_router(operate.router)
    app.add_exception_handler(LedgerUnavailable, _unavailable)
    app.add_exception_handler(Exception, _broken)
    app.add_middleware(BodyCap, limit=LARGEST_BODY)
    app.add_middleware(Origins)
    app.add_middleware(SecurityHeaders)
    return app


@asynccontextmanager
async def _lifespan(app: Server) -> AsyncIterator[None]:
    settings = await asyncio.to_thread(settings_of_this_process)
    configure(as_json=settings.log_json)
    await asyncio.to_thread(verify.prepare, settings)
    if settings.alert_urls:
        await asyncio.to_thread(complain_apart, settings.alert_urls.get_secret_value())
    _no_lines_of_uvicorn()
    known = asyncio.create_task(_know_deployments(settings))
    async with open_app(settings, at_the_door=True) as parts:
        intake = Intake(parts.ledger, parts.runs, now=utc_now)
        reports = Reports(parts.ledger, now=utc_now)
        app.state.parts, app.state.intake, app.state.reports = parts, intake, reports
        app.state.accepted = Together(webhooks.log, webhooks.ACCEPTED)
        captcha = Captcha.of(settings)
        app.state.form = form = Form(parts.ledger, settings, captcha=captcha, now=utc_now)
        app.state.gate = gate = Gate(parts)
        app.state.instance = health.Instance(parts)
        app.state.readiness = health.Readiness(parts)
        late = timedelta(minutes=settings.late_after_minutes)
        app.state.looks = status.Looks()
        app.state.board = Board(parts.ledger, parts.campaigns, late=late)
        app.include_router(webhooks.router(parts.campaigns))
        app.direct = Direct(
            webhooks.direct(parts.campaigns),
            webhooks.sources(parts.campaigns),
            unavailable=_unavailable,
            broken=_broken,
        )
        app.openapi_schema = None
        looks = app.state.readiness.looks
        work = (keep_always(parts, utc_now), watch_always(parts, looks, utc_now), form.write_tally_always())
        always = [known, *(asyncio.create_task(each) for each in work)]
        _collect_less_garbage()
        log.info("server.started", extra={"webhooks": len(parts.campaigns.webhooks)})
        try:
            async with gate.watched():
                yield
        finally:
            for task in always:
                task.cancel()
                with suppress(asyncio.CancelledError):
                    await task
            await intake.drain()
            await reports.drain()
            if captcha:
                await captcha.close()
            with suppress(LedgerUnavailable):  # a figure is lost then, and no form
                await form.write_tally()


async def _know_deployments(settings: Settings) -> None:
    """Before a check asks: it takes seconds of a small machine."""
    with suppress(TidingsError):  # the check says so
        await expected_of(settings.campaign_folders)


def _no_lines_of_uvicorn() -> None:
    """tidings.web.middleware tells of what needs telling. Without a handler uvicorn does not even make a line up."""
    access = logging.getLogger("uvicorn.access")
    access.handlers.clear()
    access.propagate = False


def _collect_less_garbage() -> None:
    """What was imported stays for ever, so it is not looked through again; what a request leaves behind hardly ever
    has cycles, so it is looked through much less often: that was a tenth of a webhook's CPU (docs/performance.md)."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(10_000, 20, 20)


async def _unavailable(request: Request, error: Exception) -> JSONResponse:
    """Not stored, so not accepted: the sender is told to try again."""
    log.error("ledger.unavailable", extra={"path": request.url.path, "error": str(error)})
    return JSONResponse(
        {"detail": "The ledger cannot be written right now, so nothing was accepted. Try again in a few seconds."},
        status_code=503,
        headers={"Retry-After": "5"},
    )


async def _broken(request: Request, error: Exception) -> JSONResponse:
    """A fault of ours; its traceback is in the log. Told outside of all middleware, so with the headers here."""
    return JSONResponse(
        {"detail": "Something is wrong with this server. Send it again: what was taken in already is not doubled."},
        status_code=500,
        headers=dict(security_headers(request.scope)),
    )
