"""Who may operate: a bearer token, compared in constant time."""

from __future__ import annotations

from typing import Annotated

from fastapi import Depends, Request
from fastapi.exceptions import HTTPException
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer

from tidings.web.verify import CHALLENGE, bearer
from tidings.web.verify.scheme import fits_any

#: Only tells OpenAPI of the scheme; what is right or wrong is decided below.
BEARER = HTTPBearer(scheme_name="bearer", auto_error=False)


def operator(request: Request, _: Annotated[HTTPAuthorizationCredentials | None, Depends(BEARER)]) -> None:
    """A dependency: only who shows ADMIN_TOKEN gets through."""
    secret = request.app.state.parts.settings.admin_token
    if secret is None or not secret.get_secret_value().strip():  # nobody shows nothing by accident
        raise HTTPException(403, "ADMIN_TOKEN is not set, so this API is closed; set it and restart")
    if not fits_any([bearer.token(request.headers)], [secret.get_secret_value()]):
        raise HTTPException(401, "Send 'Authorization: Bearer <ADMIN_TOKEN>'", headers=CHALLENGE)
