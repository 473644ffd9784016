"""Settings with Prefect Secret blocks behind them."""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping
from functools import cache

import httpx
from prefect.client.orchestration import get_client
from prefect.client.schemas.filters import BlockTypeFilter, BlockTypeFilterSlug
from prefect.exceptions import PrefectHTTPStatusError

from tidings.settings import Settings, load_settings

log = logging.getLogger("tidings.settings")


def secret_blocks(names: list[str]) -> Mapping[str, str]:
    """The values of these Secret blocks, asked for once a process; those that do not exist are left out.

    When Prefect does not answer none is known. What is needed is then refused as missing; what is not needed is
    done without, and the log says so.
    """
    try:
        known = _all_blocks(os.environ.get("PREFECT_API_URL", ""))
    except (httpx.TransportError, PrefectHTTPStatusError) as error:
        log.warning("settings.blocks_unknown", extra={"blocks": ", ".join(names), "error": str(error)})
        return {}
    return {name: known[name] for name in names if name in known}


@cache
def _all_blocks(api_url: str) -> dict[str, str]:
    secrets = BlockTypeFilter(slug=BlockTypeFilterSlug(any_=["secret"]))
    with get_client(sync_client=True) as client:
        documents = client.request(
            "POST",
            "/block_documents/filter",
            json={"block_types": secrets.model_dump(mode="json"), "include_secrets": True, "limit": 200},
        ).json()
    return {d["name"]: str(d["data"].get("value", "")) for d in documents if d.get("name")}


def settings_of_this_process() -> Settings:
    """The settings, from the environment, files, .env, and Prefect Secret blocks."""
    return load_settings(secret_blocks)
