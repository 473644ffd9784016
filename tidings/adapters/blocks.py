"""Settings with Prefect Secret blocks behind them."""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping, Sequence
from functools import cache, partial

import httpx
from pydantic import BaseModel, TypeAdapter

from tidings.adapters.prefect_api import PAUSES, client_arguments, translated
from tidings.errors import RetryLater, ServiceError
from tidings.settings import PrefectAccess, Settings, load_settings

log = logging.getLogger("tidings.settings")


class _Block(BaseModel):
    name: str | None = None
    data: dict[str, object] = {}


_BLOCKS = TypeAdapter(list[_Block])


def secret_blocks(names: list[str], pauses: Sequence[float] = ()) -> Mapping[str, str]:
    """The values of these Secret blocks, asked for once a process; those that do not exist are left out.

    `pauses`: seconds to wait before each further attempt while Prefect is away.

    When Prefect does not answer none is known. What is needed is then refused as missing; what is not needed is
    done without, and the log says so.
    """
    try:
        known = _all_blocks(PrefectAccess.load().prefect_api_url, tuple(pauses))
    except ServiceError as error:
        log.warning("settings.blocks_unknown", extra={"blocks": ", ".join(names), "error": str(error)})
        return {}
    return {name: known[name] for name in names if name in known}


@cache
def _all_blocks(api_url: str, pauses: tuple[float, ...]) -> dict[str, str]:
    for pause in pauses:
        try:
            return _ask(api_url)
        except RetryLater as error:
            time.sleep(max(pause, error.retry_after))
    return _ask(api_url)


def _ask(api_url: str) -> dict[str, str]:
    access = PrefectAccess.load(prefect_api_url=api_url)
    wanted = {"block_types": {"slug": {"any_": ["secret"]}}, "include_secrets": True, "limit": 200}
    with translated("Secret blocks"), httpx.Client(**client_arguments(access)) as client:
        answer = client.post("/block_documents/filter", json=wanted).raise_for_status()
        found = _BLOCKS.validate_json(answer.content)
    return {block.name: str(block.data.get("value", "")) for block in found if block.name}


_kept: list[Settings] = []


def settings_of_this_process() -> Settings:
    """The settings, from the environment, files, .env, and Prefect Secret blocks."""
    return _kept[-1] if _kept else load_settings(secret_blocks)


def keep_settings() -> Settings:
    """From now on this process's settings are what they are now: to read them takes 12 ms of CPU, and what a run has
    been given does not change while it runs."""
    _kept.append(load_settings(partial(secret_blocks, pauses=PAUSES)))
    return _kept[-1]
