"""The few pages that contacts see."""

from __future__ import annotations

import html
from pathlib import Path

from fastapi.responses import HTMLResponse

PAGE = (Path(__file__).parent / "page.html").read_text(encoding="utf-8")


def page(title: str, words: str, form: str, *, status: int = 200) -> HTMLResponse:
    """A page with a title, a sentence and a form of ours; never kept, never indexed."""
    body = PAGE.replace("<!-- title -->", html.escape(title)).replace("<!-- words -->", html.escape(words))
    return HTMLResponse(
        body.replace("<!-- form -->", form),
        status_code=status,
        headers={"Content-Security-Policy": "default-src 'none'; style-src 'unsafe-inline'; form-action 'self'; "
                 "base-uri 'none'; frame-ancestors 'none'",
                 "Cache-Control": "no-store", "X-Robots-Tag": "noindex"},
    )  # fmt: skip
