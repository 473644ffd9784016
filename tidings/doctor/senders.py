"""Those who send webhooks: each can be told from a forger, and still sends."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from datetime import datetime

from tidings.campaign import Campaigns
from tidings.doctor.check import Word, all_of, ok
from tidings.model import Scheme
from tidings.ports import Subscriptions
from tidings.settings import Settings
from tidings.wiring import App

#: What a service has to tell of, by its own names; more does no harm.
EVENTS = {Scheme.CALENDLY: frozenset({"invitee.created", "invitee.canceled", "invitee_no_show.created"})}


async def secrets(parts: App, now: datetime) -> Word:
    """Every webhook that is not public has a secret by which its sender is known (F20)."""
    settings = parts.settings
    if not settings.real:
        return ok("the sandbox lets every sender in")
    found = []
    for _, webhook in parts.campaigns.for_people.webhooks:
        if not webhook.public and not any(settings.secrets_of(scheme) for scheme in webhook.schemes):
            names = " or ".join(settings.secret_name(scheme) for scheme in webhook.schemes)
            found.append(f"/webhook/{webhook.path} lets nobody in: set {names}, and give the sender the same")
    return all_of(found)


def subscriptions(
    senders: Callable[[App], Mapping[Scheme, Subscriptions]],
) -> Callable[[App, datetime], Awaitable[Word]]:
    """A proof that each of these services has a subscription that posts to us and is switched on (F22)."""

    async def proof(parts: App, now: datetime) -> Word:
        asked = senders(parts)
        found = [await _problem(parts, scheme, service) for scheme, service in asked.items()]
        problems = [problem for problem in found if problem]
        return all_of(problems, ", ".join(asked) or "no service's API token is set")

    return proof


async def _problem(parts: App, scheme: Scheme, service: Subscriptions) -> str | None:
    path = _path_of(parts.campaigns, scheme)
    if path is None:
        return None
    ours = f"{parts.settings.public_url}{path}"
    there = [s for s in await service.subscriptions() if s.url.rstrip("/") == ours]
    if not there:
        return (
            f"{scheme} has no webhook subscription that posts to {ours}; run: tidings reconcile, or create one with a "
            f"key of {Settings.secret_name(scheme)}"
        )
    if not any(s.active for s in there):
        return (
            f"{scheme} has switched off the subscription that posts to {ours}, as it does after 24 h of failures; "
            "run: tidings reconcile, which makes it anew and takes in what was missed"
        )
    told = frozenset().union(*(s.events for s in there if s.active))
    if lacking := EVENTS.get(scheme, frozenset()) - told:
        names = ", ".join(sorted(lacking))
        return f"{scheme}'s subscription to {ours} does not tell of {names}; delete it, and run: tidings reconcile"
    return None


def _path_of(campaigns: Campaigns, scheme: Scheme) -> str | None:
    """Where a service posts its own bodies."""
    for _, webhook in campaigns.webhooks:
        if any(native.scheme is scheme for native in webhook.natives):
            return f"/webhook/{webhook.path}"
    return None
