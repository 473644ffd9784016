"""The raw body of a request, as far as it may go."""

from __future__ import annotations

from fastapi import Request
from fastapi.exceptions import HTTPException


async def read_body(request: Request, limit: int) -> bytes:
    """The raw body of a JSON request, or the right 4xx."""
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind != "application/json":
        raise HTTPException(415, f"Send JSON with Content-Type: application/json; this was {kind or 'not given'!r}")
    chunks, size = [], 0
    async for chunk in request.stream():
        size += len(chunk)
        if size > limit:
            raise HTTPException(413, f"The body is larger than {limit} bytes (setting MAX_BODY_BYTES)")
        chunks.append(chunk)
    return b"".join(chunks)
