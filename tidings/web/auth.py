"""Who may post and who may operate: bearer tokens, compared in constant time."""

from __future__ import annotations

import hmac
from typing import Annotated

from fastapi import Depends, Request
from fastapi.exceptions import HTTPException
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer

from tidings.campaign import Webhook
from tidings.settings import Settings

#: Only tells OpenAPI of the scheme; what is right or wrong is decided below.
BEARER = HTTPBearer(scheme_name="bearer", auto_error=False)
CHALLENGE = {"WWW-Authenticate": "Bearer"}


def shows(request: Request, tokens: list[str]) -> bool:
    """Whether the request carries one of these tokens."""
    scheme, _, given = request.headers.get("authorization", "").partition(" ")
    if scheme.lower() != "bearer":
        return False
    # Every token is compared, so that the time taken says nothing of which one was near.
    matches = [hmac.compare_digest(given.strip().encode(), token.encode()) for token in tokens]
    return any(matches)


def authenticated(request: Request, webhook: Webhook, settings: Settings) -> bool:
    """Whether the sender is known. Raises 401 for a wrong one, 503 where nobody could be right.

    The public form is never authenticated. Without tokens, only the local sandbox setting lets senders in.
    """
    if webhook.public:
        return False
    if settings.tokens:
        if not shows(request, settings.tokens):
            raise HTTPException(
                401, "Send 'Authorization: Bearer <token>' with a token of WEBHOOK_TOKENS", headers=CHALLENGE
            )
        return True
    if settings.real:
        raise HTTPException(
            503, "WEBHOOK_TOKENS is not set, so no sender can be told from a forger; set it and restart"
        )
    return False


def operator(request: Request, _: Annotated[HTTPAuthorizationCredentials | None, Depends(BEARER)]) -> None:
    """A dependency: only who shows ADMIN_TOKEN gets through."""
    secret = request.app.state.parts.settings.admin_token
    if secret is None:
        raise HTTPException(403, "ADMIN_TOKEN is not set, so this API is closed; set it and restart")
    if not shows(request, [secret.get_secret_value()]):
        raise HTTPException(401, "Send 'Authorization: Bearer <ADMIN_TOKEN>'", headers=CHALLENGE)
