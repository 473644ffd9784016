"""Settings with Prefect Secret blocks behind them."""

from __future__ import annotations

from collections.abc import Mapping

import httpx
from prefect.client.orchestration import get_client
from prefect.exceptions import ObjectNotFound, PrefectHTTPStatusError

from tidings.errors import ConfigError
from tidings.settings import Settings, load_settings


def secret_blocks(names: list[str]) -> Mapping[str, str]:
    """The values of these Secret blocks; those that do not exist are left out."""
    found: dict[str, str] = {}
    with get_client(sync_client=True) as client:
        for name in names:
            try:
                block = client.read_block_document_by_name(name, "secret")
            except ObjectNotFound:
                continue
            except (httpx.TransportError, PrefectHTTPStatusError) as error:
                raise ConfigError(
                    [f"the Prefect Secret block {name!r} cannot be read, as Prefect's API does not answer: {error}"]
                ) from error
            found[name] = str(block.data.get("value", ""))
    return found


def settings_of_this_process() -> Settings:
    """The settings, from the environment, .env, files, and Prefect Secret blocks."""
    return load_settings(secret_blocks)
