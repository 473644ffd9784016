"""Findings in words: what is wrong, why, what to do, and where more is to be seen. No addresses."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

from tidings.alerts import Finding
from tidings.model import Allowance, Stuck

#: Of a longer reason its beginning is told.
LONGEST_REASON = 600


@dataclass
class Found:
    """What was found, of which kinds; and of which of their alerts nobody could tell (keys that begin so)."""

    findings: list[Finding] = field(default_factory=list)
    kinds: set[str] = field(default_factory=set)
    unknown: set[str] = field(default_factory=set)

    def add(self, kinds: Collection[str], findings: Sequence[Finding]) -> None:
        self.kinds |= set(kinds)
        self.findings += findings


def many(count: int, what: str) -> str:
    """1 mail, 2 mails."""
    return f"{count} {what}" + ("" if count == 1 else "s")


def _because(reason: str | None, reasons: int = 1) -> str:
    if not reason:
        return ""
    more = f" (and {many(reasons - 1, 'other reason')})" if reasons > 1 else ""
    return f"Because: {cut(reason)}{more}\n"


def cut(text: str) -> str:
    return text if len(text) <= LONGEST_REASON else f"{text[:LONGEST_REASON]}…"


def dead_events(row: Any) -> Finding:
    source, times, day = row.source, row.times, row.day
    state, reason, reasons = row.state, row.reason, row.reasons
    if state == "failed":
        title = f"{many(times, 'webhook')} of {source} failed: no mails will come of " + (
            "it" if times == 1 else "them"
        )
        cure = f"Mend that, then: tidings events replay --failed --since {day}"
    else:
        title = f"{many(times, 'webhook')} of {source} " + ("was" if times == 1 else "were") + " not understood"
        cure = (
            "Its sender is known, and its body is not valid: mend the sender, or update Tidings, then: "
            "tidings events replay <id>"
        )
    body = f"{_because(reason, reasons)}{cure}\nMore: tidings events list --state {state} --source {source}"
    return Finding("dead-letter", title, body, subject=f"events/{source}/{state}/{day}")


def dead_mails(row: Any) -> Finding:
    template, times, day = row.template, row.times, row.day
    state, reason, reasons = row.state, row.reason, row.reasons
    if state == "failed":
        title = f"{many(times, 'mail')} of {template} failed and will not go out"
        cure = f"Mend that, then: tidings messages retry --template {template}"
    else:
        title = f"Whether {many(times, 'mail')} of {template} left is not known"
        cure = (
            "Look into Resend's list. To send all the same: "
            f"tidings messages retry --template {template} --may-be-sent-twice"
        )
    body = f"{_because(reason, reasons)}{cure}\nMore: tidings messages retry --template {template} --dry-run"
    return Finding("dead-letter", title, body, subject=f"mails/{template}/{state}/{day}")


def late_mail(row: Any, now: datetime) -> Finding:
    template, times, since, reason = row.template, row.times, row.since, row.reason
    title = f"{many(times, 'mail')} of {template} " + ("is" if times == 1 else "are") + " late"
    body = (
        f"{_because(reason)}Due since {since.astimezone(UTC):%Y-%m-%d %H:%M:%S} UTC, for {length(now - since)}. "
        "What is late goes out by itself as soon as Prefect, a worker, Notion and Resend all work. Which of them does "
        "not: tidings doctor\n"
        "More: the runs of the sending deployment in Prefect"
    )
    return Finding("late-mail", title, body, subject=template)


def rate(kind: str, times: int, sent: int, limit: float) -> Finding:
    bounced = kind == "bounce-rate"
    title = f"{times} of {sent} mails of the last 24 h " + ("bounced" if bounced else "were called spam")
    cause = (
        "Addresses that do not exist, or a domain that receivers refuse. Look at where the addresses come from, and at "
        "SPF, DKIM and DMARC (tidings doctor)."
        if bounced
        else "People do not expect these mails, or do not see how to leave. Look at the form's consent and the copy."
    )
    shown = f"That is {times / sent:.1%}; the limit is {limit:.1%}, and Resend pauses accounts that stay above its own."
    return Finding(kind, title, f"{shown} {cause}\nMore: resend.com/emails, tidings suppress list")


def silence(source: str, last: datetime, longest: timedelta) -> Finding:
    """`longest` is for how long it was silent at most before."""
    at = f"{last.astimezone(UTC):%Y-%m-%d %H:%M} UTC"
    body = (
        f"Nothing came since {at}. In the four weeks before, it was never silent for more than "
        f"{length(longest)}. Is the website or calendar still posting to this address? Post a test, and "
        "look at the sender's own log of its webhooks: Calendly switches a webhook off after 24 h of failures.\n"
        f"More: tidings doctor, tidings events list --source {source}"
    )
    return Finding("source-silent", f"The webhook {source} is silent since {at}", body, subject=source)


def length(time: timedelta) -> str:
    """A time as people say it."""
    seconds = time.total_seconds()
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.0f} h"


def stuck(deployment: str, runs: Sequence[Stuck], now: datetime) -> Finding:
    oldest = min(runs, key=lambda run: run.since)
    waits = all(run.waits for run in runs)
    doing = "waiting for a worker although one is there" if waits else "under way without end"
    title = f"{many(len(runs), 'run')} of {deployment} {'is' if len(runs) == 1 else 'are'} {doing}"
    body = (
        f"The oldest is {oldest.id}, so for {length(now - oldest.since)}. The worker is stuck or has too "
        "much to do: look at its log and restart it (tidings worker). What a run leaves undone gets another run.\n"
        f"More: Prefect's dashboard, flow runs of {deployment}"
    )
    return Finding("stuck-run", title, body, subject=deployment)


def used_up() -> Finding:
    body = (
        "Mails wait, and go out by themselves when Resend takes mails again. Until then nothing leaves. Get a larger "
        "plan at resend.com/settings/billing if that is too late.\nMore: resend.com/settings/usage"
    )
    return Finding("quota", "Resend's quota is used up: mails wait", body, subject="used-up")


def near_end(allowance: Allowance) -> Finding:
    title = f"{allowance.used} of {allowance.limit} mails of Resend's {allowance.period} quota are used"
    body = (
        "When it is used up, mails wait until Resend counts anew. Get a larger plan at resend.com/settings/billing if "
        "more are due.\nMore: resend.com/settings/usage"
    )
    return Finding("quota", title, body, subject=allowance.period)
