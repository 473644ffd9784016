"""Who sent a webhook: known by its body as it came, before anything reads what is in it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import cast

from fastapi import Request
from fastapi.exceptions import HTTPException

from tidings.campaign import Webhook
from tidings.model import Scheme
from tidings.settings import Settings
from tidings.web.body import read_body
from tidings.web.verify import bearer, calcom, calendly, docusign, standard, stripe
from tidings.web.verify.scheme import Forged, Verifier
from tidings.wiring import App, utc_now

CHALLENGE = {"WWW-Authenticate": "Bearer"}

VERIFIERS: Mapping[Scheme, Verifier] = {
    Scheme.BEARER: cast(Verifier, bearer),
    Scheme.STANDARD: cast(Verifier, standard),
    Scheme.CALENDLY: cast(Verifier, calendly),
    Scheme.CALCOM: cast(Verifier, calcom),
    Scheme.STRIPE: cast(Verifier, stripe),
    Scheme.DOCUSIGN: cast(Verifier, docusign),
}


@dataclass(frozen=True, slots=True)
class Delivery:
    """A body as it came, and how its sender showed who they are; None where nobody has to."""

    raw: bytes
    scheme: Scheme | None


class Verified:
    """A dependency: what comes to this route is from whom it may come from, or is refused."""

    def __init__(self, webhook: Webhook, *, internal: bool = False) -> None:
        self._webhook = webhook
        self._internal = internal

    async def __call__(self, request: Request) -> Delivery:
        """Raises 401 for a wrong sender and 503 where nobody could be right.

        The public form is never authenticated. Without any secret, only the local sandbox setting lets senders in.
        """
        parts: App = request.app.state.parts
        settings, limit = parts.settings, parts.settings.max_body_bytes
        if self._internal:
            return await self._from_ourselves(request, settings)
        if self._webhook.public or not self._guarded(settings):
            return Delivery(await read_body(request, limit), None)
        shown = [scheme for scheme in self._webhook.schemes if VERIFIERS[scheme].shown(request.headers)]
        if not shown:
            raise self._refusal(settings, "")
        if shown == [Scheme.BEARER]:
            self._check([Scheme.BEARER], b"", request, settings)  # before anything is read
        raw = await read_body(request, limit)
        return Delivery(raw, self._check(shown, raw, request, settings))

    async def _from_ourselves(self, request: Request, settings: Settings) -> Delivery:
        """Signed with a key of our own, whatever else the settings let in."""
        raw = await read_body(request, settings.max_body_bytes)
        try:
            standard.check(raw, request.headers, [settings.canary_secret], utc_now())
        except Forged as error:
            what = "Not signed by this Tidings: has who sent it another SECRET_KEY, or a clock that is 5 minutes off?"
            raise HTTPException(401, what, headers=CHALLENGE) from error
        return Delivery(raw, Scheme.STANDARD)

    def _guarded(self, settings: Settings) -> bool:
        """Whether there is a secret to be known by. Raises 503 where there must be one."""
        if any(settings.secrets_of(scheme) for scheme in self._webhook.schemes):
            return True
        if settings.real:
            names = " or ".join(settings.secret_name(scheme) for scheme in self._webhook.schemes)
            raise HTTPException(503, f"{names} is not set, so no sender can be told from a forger; set it and restart")
        return False

    def _check(self, shown: list[Scheme], raw: bytes, request: Request, settings: Settings) -> Scheme:
        wrong = []
        for scheme in shown:
            if not (secrets := settings.secrets_of(scheme)):
                continue
            try:
                VERIFIERS[scheme].check(raw, request.headers, secrets, utc_now())
            except Forged as error:
                wrong.append(str(error))
                continue
            return scheme
        if not wrong:
            names = " or ".join(settings.secret_name(scheme) for scheme in shown)
            raise HTTPException(503, f"{names} is not set, so this sender cannot be told from a forger")
        raise self._refusal(settings, "; ".join(wrong))

    def _refusal(self, settings: Settings, wrong: str) -> HTTPException:
        ways = [VERIFIERS[scheme].ADVICE for scheme in self._webhook.schemes if settings.secrets_of(scheme)]
        what = f"{wrong}. " if wrong else ""
        return HTTPException(401, f"{what}To be let in, {', or '.join(ways)}", headers=CHALLENGE)


def prepare(settings: Settings) -> None:
    """Load what the first request of a kind would otherwise wait for."""
    if settings.secrets_of(Scheme.STRIPE):
        stripe.prepare()
