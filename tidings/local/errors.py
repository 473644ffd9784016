"""What can go wrong with a part of the local stack."""

from __future__ import annotations

from tidings.errors import TidingsError


class PartFailed(TidingsError):
    """A process of the stack ended early or never became ready. Names it and shows the end of its log."""

    def __init__(self, name: str, what: str, log_tail: str) -> None:
        self.name = name
        self.what = what
        self.log_tail = log_tail
        shown = "\n".join(f"    {line}" for line in log_tail.splitlines()) or "    (nothing was logged)"
        super().__init__(f"{name} {what}. The end of its log:\n{shown}")


class NotReady(Exception):
    """A process does not answer yet; said by a readiness probe, and why."""
