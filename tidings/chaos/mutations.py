"""Products with one guarantee taken out: what the harness must notice."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Change:
    """Replace this very text, which must be there exactly once."""

    file: str
    old: str
    new: str


MUTATIONS: dict[str, tuple[Change, ...]] = {}
