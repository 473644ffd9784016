"""Stacks for tests: free ports, a folder of their own, nothing of the user's settings."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from local_stacks import MakeConfig

from tidings.local.config import Part, StackConfig


@pytest.fixture
def make_config(tmp_path: Path) -> MakeConfig:
    """A StackConfig of some parts, without steps."""

    def make(*parts: Part, **given: Any) -> StackConfig:
        defaults: dict[str, Any] = {
            "data": tmp_path / "data",
            "web_port": 0,
            "prefect_port": 0,
            "sandbox_port": 0,
            "steps": frozenset(),
            "isolated": True,
        }
        return StackConfig(parts=frozenset(parts), **{**defaults, **given})

    return make
