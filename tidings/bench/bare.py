"""The baseline of acceptance: the same payload model, validated by FastAPI, and nothing else done with it."""

from __future__ import annotations

from uuid import uuid4

from fastapi import FastAPI

from tidings.campaign import load_campaigns
from tidings.settings import ROOT

SIGNUP = load_campaigns([ROOT / "campaigns"])["christmas"].webhook("christmas-signup").payload

app = FastAPI()


@app.post("/signup")
async def signup(payload: SIGNUP) -> dict[str, str | bool]:  # type: ignore[valid-type]
    """As large an answer as Tidings' own."""
    return {"message": "Signup processed", "event_id": str(uuid4()), "flow_run_id": str(uuid4()), "created": True}
