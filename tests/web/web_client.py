"""The application from outside, and what its settings hold."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import httpx
from fakes import FakeRuns
from fastapi import FastAPI
from sqlalchemy import text

from tidings.ledger import Ledger

#: Nobody listens here.
PREFECT = "http://127.0.0.1:9/api"
TOKEN, ADMIN = "token-of-a-sender", "token-of-an-operator"
#: Resend's: the secret in use, and the one that is being replaced.
SECRET, BEFORE = "whsec_d2ViLXRlc3RzLXdlYi10ZXN0cy13ZWI=", "whsec_dGhlLW9uZS1iZWZvcmUtdGhpcw=="
ORIGIN = "https://www.busos.test"


@dataclass
class Web:
    """The application from outside, and its ledger."""

    http: httpx.AsyncClient
    ledger: Ledger
    runs: FakeRuns
    app: FastAPI

    async def post(
        self, path: str, body: Any, *, token: str | None = TOKEN, headers: dict[str, str] | None = None
    ) -> httpx.Response:
        """JSON from a sender that shows a token."""
        shown = {"authorization": f"Bearer {token}"} if token else {}
        return await self.http.post(path, json=body, headers={**shown, **(headers or {})})

    async def rows(self, query: str, **values: Any) -> list[Any]:
        async with self.ledger.reading() as connection:
            return list((await connection.execute(text(query), values)).all())
