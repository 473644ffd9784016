"""Who may operate and who may read the figures: a bearer token each, compared in constant time."""

from __future__ import annotations

from typing import Annotated

from fastapi import Depends, Request
from fastapi.exceptions import HTTPException
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer
from pydantic import SecretStr

from tidings.web.verify import CHALLENGE, bearer
from tidings.web.verify.scheme import fits_any

#: Only tells OpenAPI of the scheme; what is right or wrong is decided below.
BEARER = HTTPBearer(scheme_name="bearer", auto_error=False)


Shown = Annotated[HTTPAuthorizationCredentials | None, Depends(BEARER)]


def operator(request: Request, _: Shown) -> None:
    """A dependency: only who shows ADMIN_TOKEN gets through."""
    secret = _token(request.app.state.parts.settings.admin_token)
    if secret is None:
        raise HTTPException(403, "ADMIN_TOKEN is not set, so this API is closed; set it and restart")
    _check(request, secret, "ADMIN_TOKEN")


def scraper(request: Request, _: Shown) -> None:
    """A dependency: only who shows METRICS_TOKEN gets through, and anybody in the sandbox where it is not set."""
    settings = request.app.state.parts.settings
    secret = _token(settings.metrics_token)
    if secret is not None:
        _check(request, secret, "METRICS_TOKEN")
    elif settings.real:
        raise HTTPException(404, "METRICS_TOKEN is not set, so there are no figures here; set it and restart")


def _token(value: SecretStr | None) -> str | None:
    """A token that is set; nobody shows nothing by accident."""
    secret = value.get_secret_value() if value else ""
    return secret if secret.strip() else None


def _check(request: Request, secret: str, name: str) -> None:
    if not fits_any([bearer.token(request.headers)], [secret]):
        raise HTTPException(401, f"Send 'Authorization: Bearer <{name}>'", headers=CHALLENGE)
