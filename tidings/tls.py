"""One TLS context for all clients of a process: reading the list of authorities takes 40 ms of CPU, each time."""

from __future__ import annotations

import os
import ssl
from functools import cache
from pathlib import Path
from typing import Any

import certifi

_create = ssl.create_default_context


@cache
def _of(cafile: str) -> ssl.SSLContext:
    return _create(cafile=cafile)


def _shared(*args: Any, **given: Any) -> ssl.SSLContext:
    cafile = given.get("cafile")
    return _of(cafile) if isinstance(cafile, str) and len(given) == 1 and not args else _create(*args, **given)


def share_contexts() -> None:
    """From now on, libraries that ask for a context of the same authorities get the same one.

    httpx and Prefect make one for each client, with no way to hand them one everywhere: a run of half a second had
    six. Contexts asked for in any other way are their own, as before, because whoever makes those may change them:
    Prefect does so when certificates are not to be verified.
    """
    ssl.create_default_context = _shared


def prepare() -> None:
    """Read the authorities now: those of certifi, and those that httpx and Prefect take in their place."""
    share_contexts()
    _of(certifi.where())
    own = os.environ.get("SSL_CERT_FILE")
    if own and Path(own).is_file():
        _of(own)
