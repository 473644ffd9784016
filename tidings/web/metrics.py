"""`/metrics`: for Prometheus, and for nobody else."""

from __future__ import annotations

from fastapi import APIRouter, Depends, Request
from fastapi.responses import Response

from tidings.metrics import Board
from tidings.web.auth import scraper

router = APIRouter(tags=["health"])


@router.get(
    "/metrics",
    summary="Figures for Prometheus",
    dependencies=[Depends(scraper)],
    response_class=Response,
    responses={
        200: {"content": {"text/plain": {}}},
        401: {"description": "Not the token of METRICS_TOKEN"},
        404: {"description": "METRICS_TOKEN is not set, and this is not the sandbox"},
    },
)
async def metrics(request: Request) -> Response:
    board: Board = request.app.state.board
    page, kind = await board.text(request.headers.get("accept", ""))
    return Response(page, headers={"content-type": kind, "cache-control": "no-store"})
