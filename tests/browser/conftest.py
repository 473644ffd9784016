"""A browser, on the running stack that the tests share with tests/stack."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "stack"))
sys.path.insert(0, str(Path(__file__).parent))

import live_stack
from web_driver import Browser, open_browser


def pytest_configure(config: pytest.Config) -> None:
    if not config.pluginmanager.is_registered(live_stack):
        config.pluginmanager.register(live_stack, "live-stack")


@pytest.fixture(scope="session")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    with open_browser(tmp_path_factory.mktemp("profile")) as browser:
        yield browser


@pytest.fixture(scope="session")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where screenshots go: TIDINGS_SCREENSHOTS, or a temporary folder."""
    given = os.environ.get("TIDINGS_SCREENSHOTS")
    folder = Path(given) if given else tmp_path_factory.mktemp("screenshots")
    folder.mkdir(parents=True, exist_ok=True)
    return folder
