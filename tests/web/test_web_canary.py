"""The canary's own webhook: Tidings lets itself in, and nobody else."""

from __future__ import annotations

import json
from datetime import datetime, timedelta
from uuid import uuid4

import pytest
from standardwebhooks import Webhook as Standard
from web_client import TOKEN, Web
from worlds import now

from tidings.canary import signed
from tidings.model import Scheme


def canarys(web: Web, secret: str | None = None, at: datetime | None = None) -> tuple[str, dict[str, str]]:
    """A canary's body and headers, signed with this secret or with its own."""
    settings = web.app.state.parts.settings
    canary_id = uuid4()
    body = json.dumps({"canary_id": str(canary_id)})
    headers = signed(settings, canary_id, body, at or now())
    if secret:
        headers["webhook-signature"] = Standard(secret).sign(headers["webhook-id"], now(), body)
    return body, {"content-type": "application/json", **headers}


async def test_a_canary__is_let_in_by_our_own_signature(web: Web) -> None:
    body, headers = canarys(web)

    answer = await web.http.post("/webhook/canary", content=body, headers=headers)

    assert answer.status_code == 200, answer.text
    assert answer.json()["flow_run_id"]
    (event,) = await web.rows("SELECT * FROM event")
    assert (event.source, event.key) == ("canary", f"webhook-id:{headers['webhook-id']}")


@pytest.mark.parametrize("how", ["nothing", "token", "another sender's secret", "old"])
async def test_a_canary_of_somebody_else__is_refused(web: Web, how: str) -> None:
    body, headers = canarys(web, at=now() - timedelta(minutes=6) if how == "old" else None)
    if how == "another sender's secret":
        known = web.app.state.parts.settings.secrets_of(Scheme.STANDARD)[0]
        body, headers = canarys(web, known)
    if how in {"nothing", "token"}:
        headers = {"content-type": "application/json"}
    if how == "token":
        headers["authorization"] = f"Bearer {TOKEN}"

    answer = await web.http.post("/webhook/canary", content=body, headers=headers)

    assert answer.status_code == 401, answer.text
    assert await web.rows("SELECT * FROM event") == []


async def test_a_canarys_signature__opens_no_other_door(web: Web) -> None:
    body, headers = canarys(web)

    assert (await web.http.post("/webhook/postcall-maybe", content=body, headers=headers)).status_code == 401


async def test_the_canarys_webhook__is_in_no_documentation(web: Web) -> None:
    assert "canary" not in (await web.http.get("/openapi.json")).text


def test_what_signs_canaries__is_hidden_like_every_secret(web: Web) -> None:
    settings = web.app.state.parts.settings

    assert settings.canary_secret in settings.secrets
