"""How a run ends: a short artifact, and red with the reason when something failed."""

from __future__ import annotations

from uuid import UUID

from prefect.artifacts import acreate_markdown_artifact
from prefect.runtime import flow_run

from tidings.deliver import Sent
from tidings.errors import TidingsError


class RunFailed(TidingsError):
    """Part of a run's work failed; the rest was done. The message says what and why."""


def run_id() -> UUID | None:
    """This run's id in Prefect."""
    return UUID(flow_run.id) if flow_run.id else None


async def report(key: str, title: str, sent: Sent, *, notes: list[str] | None = None) -> None:
    """What was sent, skipped and failed, where the dashboard shows it. Counts and reasons, no addresses."""
    rows = [("sent", "", sent.sent)]
    rows += [("skipped", reason, count) for reason, count in sorted(sent.skipped.items())]
    rows += [("failed", reason, count) for reason, count in sorted(sent.failed.items())]
    lines = [f"## {title}", "", *[f"- {n}" for n in notes or []], "", "| | why | mails |", "|---|---|---|"]
    lines += [f"| {what} | {cell(why)} | {count} |" for what, why, count in rows]
    await acreate_markdown_artifact("\n".join(lines), key=key, description=title)


def cell(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")


def raise_failures(sent: Sent, extra: dict[str, int] | None = None) -> None:
    """A failure stays a failure: the run is red, and its message says why."""
    reasons = {**sent.failed, **(extra or {})}
    if reasons:
        raise RunFailed("; ".join(f"{count} × {reason}" for reason, count in reasons.items())[:2000])
