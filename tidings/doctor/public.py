"""What the world finds at PUBLIC_URL: this very Tidings, which lets the website post."""

from __future__ import annotations

from datetime import datetime
from urllib.parse import urlsplit

from tidings.adapters.public import PublicSide
from tidings.campaign import Campaigns
from tidings.doctor.check import Word, all_of, ok, unknown, wrong
from tidings.errors import LedgerUnavailable, ServiceError
from tidings.instance import instance_of
from tidings.settings import LOOPBACK
from tidings.wiring import App

CURE = "check its DNS name, its certificate and the proxy's rule for it, or correct PUBLIC_URL"


async def public(parts: App, now: datetime) -> Word:
    """The public address is reached, and answers as this instance (F1)."""
    settings = parts.settings
    where = urlsplit(settings.public_url)
    if settings.real and (where.scheme != "https" or where.hostname in LOOPBACK):
        return wrong(
            f"PUBLIC_URL is {settings.public_url}, which nobody else reaches safely; set it to the https address that "
            "the website and Resend post to"
        )
    async with PublicSide(settings.public_url) as side:
        try:
            answer = await side.get("/health")
        except ServiceError as error:
            return wrong(f"{error.detail}; {CURE}")
    said = answer.body.get("instance") if isinstance(answer.body, dict) else None
    if not isinstance(answer.body, dict) or "instance" not in answer.body:
        return wrong(f"{settings.public_url}/health answers {answer.status}, and not as Tidings does; {CURE}")
    return await _same(parts, said)


async def _same(parts: App, said: str | None) -> Word:
    try:
        ours = await instance_of(parts.ledger, parts.settings.secret_key.get_secret_value())
    except LedgerUnavailable as error:
        return unknown(f"a Tidings answers at the public address; whether it is this one is not known: {error}")
    if said is None:
        return unknown("a Tidings answers at the public address, and cannot reach its ledger to say which it is")
    if said != ours:
        return wrong(
            f"another Tidings answers at {parts.settings.public_url}: it has another ledger or another SECRET_KEY than "
            f"is set here; {CURE}"
        )
    return ok(parts.settings.public_url)


async def cors(parts: App, now: datetime) -> Word:
    """A page of each website of CORS_ORIGINS may post a public form, through the public address."""
    path = _public_form(parts.campaigns)
    if path is None:
        return ok("no form is public")
    origins = parts.settings.origins
    if not origins:
        return unknown(
            "CORS_ORIGINS is empty, so no page may post a public form from a browser; set it to the website's "
            "address, unless the website's own server posts"
        )
    async with PublicSide(parts.settings.public_url) as side:
        try:
            answers = {origin: await side.preflight(path, origin) for origin in origins}
        except ServiceError as error:
            return unknown(error.detail)
    refused = [o for o, a in answers.items() if a.headers.get("access-control-allow-origin") not in {o, "*"}]
    problems = [
        f"a page of {origin} may not post to {parts.settings.public_url}{path}: its preflight gets "
        f"{answers[origin].status} without Access-Control-Allow-Origin; let the proxy hand OPTIONS on, and restart "
        "the server after a change of CORS_ORIGINS"
        for origin in refused
    ]
    return all_of(problems, ", ".join(origins))


def _public_form(campaigns: Campaigns) -> str | None:
    return next((f"/webhook/{webhook.path}" for _, webhook in campaigns.webhooks if webhook.public), None)
