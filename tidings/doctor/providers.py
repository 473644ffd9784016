"""Notion and Resend: keys, properties, templates, the domain, and the reports of what became of mails."""

from __future__ import annotations

from collections.abc import Awaitable
from datetime import datetime
from email.utils import parseaddr
from typing import TypeVar

from tidings.adapters.resend import Domain
from tidings.doctor.check import Word, all_of, cure, ok, unknown, wrong
from tidings.errors import Refused
from tidings.notion_setup import check_templates, property_problems
from tidings.wiring import App, mirrored

T = TypeVar("T")

#: Without these an outcome is never learned. `email.sent` and openings are figures only.
EVENTS = frozenset({"email.delivered", "email.bounced", "email.complained", "email.failed", "email.suppressed"})
VERIFIED = "verified"
#: Resend's own domain, for trying: it is verified, and reaches nobody but the account's owner.
TRIAL_DOMAIN = "resend.dev"


class _MayOnlySend(Exception):
    """The key cannot look, and is a good choice for all that."""


async def _seen(call: Awaitable[T]) -> T:
    try:
        with cure("set RESEND_API_KEY to a key of resend.com/api-keys", 401, 403):
            return await call
    except Refused as error:
        if error.code == "restricted_api_key":
            raise _MayOnlySend from error
        raise


async def notion(parts: App, now: datetime) -> Word:
    """The token is good, and every database has the properties that the code needs."""
    with cure("set NOTION_TOKEN to the secret of the integration", 401):
        await parts.notion.whoami()
    found, databases = [], mirrored(parts.settings, parts.campaigns).values()
    for database, given in databases:
        found += await property_problems(parts.notion, database, given)
    return all_of(found, f"{len(databases)} databases")


async def templates(parts: App, now: datetime) -> Word:
    """Every template of every campaign can be sent to every kind of contact."""
    settings = parts.settings
    results = await check_templates(parts.notion, settings.notion_templates_db_id, parts.campaigns, settings.facts, now)
    return all_of([r.problem for r in results if r.problem], f"{len(results)} templates")


async def resend(parts: App, now: datetime) -> Word:
    """The key is good, and the sender's domain is verified: SPF and DKIM as Resend sees them."""
    wanted = parseaddr(parts.settings.sender)[1].rpartition("@")[2].lower()
    try:
        domains = {d.name.lower(): d for d in await _seen(parts.resend.domains())}
        if wanted == TRIAL_DOMAIN:
            return ok("Resend's own domain: mails reach the owner of the account and nobody else")
        if wanted not in domains:
            return wrong(
                f"the domain {wanted} of SENDER is not among its domains at Resend; add its DNS records and verify it "
                "at resend.com/domains"
            )
        return await _domain(parts, domains[wanted])
    except _MayOnlySend:
        return unknown(f"the key may only send, so Resend does not say whether {wanted} is verified")


async def _domain(parts: App, domain: Domain) -> Word:
    records = await _seen(parts.resend.dns_records(domain))
    lacking = [f"{r.purpose} ({r.type} {r.name}: {r.status})" for r in records if r.status != VERIFIED]
    if domain.status == VERIFIED and not lacking:
        return ok(f"{domain.name}: {', '.join(sorted({r.purpose for r in records})) or VERIFIED}")
    which = f", which lacks {', '.join(lacking)}" if lacking else ""
    return wrong(
        f"the domain {domain.name} of SENDER is {domain.status!r} at Resend{which}; add its DNS records and verify it "
        "at resend.com/domains"
    )


async def resend_webhook(parts: App, now: datetime) -> Word:
    """Resend tells us what became of each mail: registered, enabled, with our secret."""
    settings = parts.settings
    ours = f"{settings.public_url}/webhook/resend"
    if settings.resend_webhook_secret is None:
        return wrong(
            f"RESEND_WEBHOOK_SECRET is not set, so no delivery or bounce is learned; add {ours} at "
            "resend.com/webhooks and set it to the signing secret that is shown there"
        )
    try:
        registered = await _seen(parts.resend.endpoints())
        mine = next((e for e in registered if e.url.rstrip("/") == ours), None)
        if mine is None:
            return wrong(
                f"Resend knows no webhook {ours}; add it at resend.com/webhooks with the events "
                f"{', '.join(sorted(EVENTS))}, and set RESEND_WEBHOOK_SECRET to its signing secret"
            )
        full = await _seen(parts.resend.endpoint(mine.id))
    except _MayOnlySend:
        return unknown(f"the key may only send, so Resend does not say whether {ours} is registered there")
    if not mine.enabled:
        return wrong(f"the webhook {ours} is disabled at Resend; mend what made it fail and enable it there")
    if lacking := EVENTS - mine.events:
        return wrong(f"the webhook {ours} is not told of {', '.join(sorted(lacking))}; add them at resend.com/webhooks")
    if full.secret and full.secret not in settings.resend_webhook_secrets:
        return wrong(
            f"RESEND_WEBHOOK_SECRET is not the signing secret of {ours}; copy it from resend.com/webhooks and restart"
        )
    return ok("registered and enabled")
