"""`/docs`: the API to look at and to try. Its scripts are this server's own, and its policy lets no other run."""

from __future__ import annotations

import hashlib
import re
from base64 import b64encode
from importlib.resources import files

from fastapi import FastAPI
from fastapi.openapi.docs import get_swagger_ui_html
from fastapi.responses import HTMLResponse
from fastapi.staticfiles import StaticFiles

FILES = "/docs/files"


def add_to(app: FastAPI) -> None:
    """Serve the page and its files."""
    page = bytes(
        get_swagger_ui_html(
            openapi_url="/openapi.json",
            title=f"{app.title} - Swagger UI",
            swagger_js_url=f"{FILES}/swagger-ui-bundle.js",
            swagger_css_url=f"{FILES}/swagger-ui.css",
            swagger_favicon_url=f"{FILES}/favicon.png",
        ).body
    )
    policy = (
        f"default-src 'none'; script-src 'self' {' '.join(_hashes(page))}; style-src 'self' 'unsafe-inline'; "
        "img-src 'self' data:; connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    )

    @app.get("/docs", include_in_schema=False)
    async def docs() -> HTMLResponse:
        return HTMLResponse(page, headers={"Content-Security-Policy": policy})

    app.mount(FILES, StaticFiles(directory=str(files("fastapi_offline") / "static")), name="docs-files")


def _hashes(page: bytes) -> list[str]:
    """The inline scripts of the page as a policy names them."""
    scripts = re.findall(rb"<script>(.*?)</script>", page, re.DOTALL)
    return [f"'sha256-{b64encode(hashlib.sha256(script).digest()).decode()}'" for script in scripts]
