"""The tests here share one running stack with tests/browser: see live_stack.py."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

import live_stack


def pytest_configure(config: pytest.Config) -> None:
    if not config.pluginmanager.is_registered(live_stack):
        config.pluginmanager.register(live_stack, "live-stack")
