"""Cloudflare Turnstile and hCaptcha: was the widget's puzzle really solved? One protocol, two services."""

from __future__ import annotations

from dataclasses import dataclass
from uuid import NAMESPACE_URL, uuid5

import httpx

from tidings.adapters.http import ServiceClient
from tidings.errors import Refused, RetryLater, ServiceError
from tidings.settings import Settings

#: A visitor waits for this call, and it is made again by nobody.
TIMEOUT_SECONDS = 4.0
#: What they say when the fault is not the visitor's but ours.
OUR_FAULTS = {
    "missing-input-secret",
    "invalid-input-secret",
    "sitekey-secret-mismatch",
    "bad-request",
    "internal-error",
}


@dataclass(frozen=True, slots=True)
class Service:
    """Who is asked, where, and which field of the form its widget fills in."""

    name: str
    url: str
    field: str
    setting: str


TURNSTILE = Service(
    "Turnstile",
    "https://challenges.cloudflare.com/turnstile/v0/siteverify",
    "cf-turnstile-response",
    "TURNSTILE_SECRET",
)
HCAPTCHA = Service("hCaptcha", "https://api.hcaptcha.com/siteverify", "h-captcha-response", "HCAPTCHA_SECRET")


class Captcha:
    """The service that the settings name."""

    def __init__(self, service: Service, secret: str, transport: httpx.AsyncBaseTransport | None = None) -> None:
        self.service = service
        self._secret = secret
        self._client = ServiceClient(service.name, timeout=TIMEOUT_SECONDS, transport=transport)

    @classmethod
    def of(cls, settings: Settings) -> Captcha | None:
        """The one that is set, or None."""
        if settings.turnstile_secret:
            return cls(TURNSTILE, settings.turnstile_secret.get_secret_value())
        if settings.hcaptcha_secret:
            return cls(HCAPTCHA, settings.hcaptcha_secret.get_secret_value())
        return None

    async def passed(self, token: str) -> bool:
        """Whether the token is a solved puzzle's, used for the first time (or in a repeat of the same form).

        Raises RetryLater when the service gives no usable answer, Refused when it does not know our secret.
        """
        # With the same idempotency key, Turnstile takes a token again: a form that is sent twice stays one form.
        form = {"secret": self._secret, "response": token, "idempotency_key": str(uuid5(NAMESPACE_URL, token))}
        try:
            answer = await self._client.post(self.service.url, data=form)
            said = answer.json()
            codes = set(said.get("error-codes") or [])
            if said["success"] is True:
                return True
        except (httpx.HTTPError, ValueError, KeyError, AttributeError, TypeError) as error:
            raise self._failed(RetryLater, f"gave no usable answer ({type(error).__name__})") from error
        if codes & OUR_FAULTS or answer.is_error:
            words = ", ".join(sorted(codes)) or f"HTTP {answer.status_code}"
            raise self._failed(Refused, f"did not check the form: {words}; look at {self.service.setting}")
        return False

    def _failed(self, kind: type[ServiceError], words: str) -> ServiceError:
        return kind(self.service.name, words)

    async def close(self) -> None:
        await self._client.aclose()
