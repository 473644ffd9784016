"""The faults that are injected at Notion and Resend, as the sandbox's rules (`POST /control/faults`)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

RESEND, NOTION = "resend", "notion"
#: Answers slower than this outlast the lease of a run's claim (LEASE_SECONDS of the run).
LEASE = 15.0


@dataclass(frozen=True)
class Fault:
    """Either a rule, or changed settings of the sandbox for as long as it lasts."""

    service: str
    name: str
    rule: Mapping[str, Any] | None = None
    settings: Mapping[str, Any] | None = None

    @property
    def title(self) -> str:
        return f"{self.service}: {self.name}"


def _resend(name: str, kind: str, **more: Any) -> Fault:
    return Fault(RESEND, name, {"service": RESEND, "path": "^/emails", "times": 3, "kind": kind, **more})


def _notion(name: str, kind: str, **more: Any) -> Fault:
    return Fault(NOTION, name, {"service": NOTION, "times": 6, "kind": kind, **more})


DELIVERY_TROUBLE = Fault(
    RESEND,
    "duplicate, reordered and dropped delivery webhooks",
    settings={"webhook_duplicate": 0.5, "webhook_reorder": 4.0, "webhook_drop": 0.3},
)
NO_TROUBLE = {"webhook_duplicate": 0.0, "webhook_reorder": 0.0, "webhook_drop": 0.0}

FAULTS: tuple[Fault, ...] = (
    _resend("429 with Retry-After", "status", status=429, code="rate_limit_exceeded", retry_after=3),
    _resend("429 with a long Retry-After", "status", status=429, code="rate_limit_exceeded", retry_after=70, times=1),
    _resend("500", "status", status=500),
    _resend("500 after the work was done", "work_then_status", status=500),
    _resend("502 with HTML", "html", status=502),
    _resend("502 with HTML after the work was done", "work_then_html", status=502),
    _resend("529", "status", status=529),
    _resend("timeout after the work was done", "work_then_timeout", delay=5),
    _resend("timeout longer than the lease, after the work was done", "work_then_timeout", delay=LEASE + 10, times=2),
    _resend("connection reset", "reset"),
    _resend("connection reset after the work was done", "work_then_reset"),
    _resend("truncated JSON after the work was done", "work_then_truncated", cut="json"),
    _resend("body cut short after the work was done", "work_then_truncated", cut="body"),
    _resend("200 with an empty body", "empty"),
    _resend("200 with an empty body after the work was done", "work_then_empty"),
    _resend("slow answers", "delay", delay=3, times=6),
    _resend("answers slower than the lease", "delay", delay=LEASE + 3, times=2),
    DELIVERY_TROUBLE,
    _notion("429 with Retry-After", "status", status=429, retry_after=3),
    _notion("500", "status", status=500),
    _notion("502 with HTML", "html", status=502),
    _notion("529", "status", status=529),
    _notion("timeout", "silence", delay=5),
    _notion("connection reset", "reset"),
    _notion("truncated JSON", "truncated", cut="json"),
    _notion("200 with an empty body", "empty"),
    _notion("slow answers", "delay", delay=3),
)
