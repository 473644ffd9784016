"""Every hour: what never arrived is taken in, a lost subscription is made anew, and differences are told.

Each service stands alone: one that is away keeps none of the others from being looked at.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from urllib.parse import urlsplit

from tidings import alerts
from tidings.accept import Intake
from tidings.alerts import Finding
from tidings.differences import NotionRows, SentMails
from tidings.errors import LedgerUnavailable, TidingsError
from tidings.gaps import KIND, NAMES, Checked, Gaps, Scope, Source, Wanted, mend_subscriptions, taking
from tidings.ledger.memory import Memory
from tidings.model import Scheme
from tidings.pace import Pace
from tidings.settings import LOOPBACK
from tidings.wiring import App, mirrored, utc_now


@dataclass(frozen=True)
class Step:
    """One service, or one thing about it. `subject` begins the subjects of its findings."""

    name: str
    subject: str
    check: Callable[[Scope], Awaitable[Checked]]


#: How a step is done: as it is, or as a task of Prefect's that is tried again.
Doing = Callable[[Step, Scope], Awaitable[Checked]]


@dataclass
class Outcome:
    """What became of each step, by its name."""

    done: dict[str, Checked] = field(default_factory=dict)
    failed: dict[str, TidingsError] = field(default_factory=dict)

    def total(self, what: str) -> int:
        """Of all steps together: taken, remade or differences."""
        return sum(int(getattr(checked, what)) for checked in self.done.values())


async def reconcile(app: App, scope: Scope, doing: Doing) -> Outcome:
    """All steps, one after the other; what they found is noted, unless this is a dry run.

    Raises LedgerUnavailable: without the ledger nothing can be compared.
    """
    outcome = Outcome()
    intake = Intake(app.ledger, app.runs, now=utc_now)
    listed = list(steps(app, intake))
    try:
        for step in listed:
            try:
                outcome.done[step.name] = await doing(step, scope)
            except LedgerUnavailable:
                raise
            except TidingsError as error:
                outcome.failed[step.name] = error
    finally:
        await intake.drain()
    if not scope.dry_run:
        await _note(app, listed, outcome, scope)
    return outcome


def steps(app: App, intake: Intake) -> Iterator[Step]:
    """What there is to look at, as far as the settings have the keys for it."""
    gaps = Gaps(app.ledger, intake, app.campaigns, app.settings.testing_minute)
    if app.calendly and (wanted := _wanted(app)).events:
        calendly = app.calendly
        yield Step(
            "Calendly's subscription",
            f"{Scheme.CALENDLY.value}-subscription",
            lambda scope: mend_subscriptions(calendly, wanted, scope),
        )
    sources: Sequence[Source | None] = (app.calendly, app.calendar, app.stripe)
    for source in sources:
        if source and any(taking(app.campaigns, source.scheme)):
            yield Step(NAMES[source.scheme], source.scheme.value, _closing(gaps, source))
    turns = Pace(app.ledger, Memory(app.ledger), rate=app.settings.resend_requests_per_second)
    yield Step("Resend", "resend", SentMails(app.ledger, app.resend, turns, app.settings.sender).compare)
    databases = mirrored(app.settings, app.campaigns)
    yield Step("Notion", "notion", NotionRows(app.ledger, app.notion, databases).compare)


def _closing(gaps: Gaps, source: Source) -> Callable[[Scope], Awaitable[Checked]]:
    return lambda scope: gaps.close(source, scope)


def _wanted(app: App) -> Wanted:
    """The subscriptions that the campaigns need. Calendly itself reaches https addresses, the sandbox any."""
    settings = app.settings
    events = {
        f"{settings.public_url}/webhook/{webhook.path}": native.events
        for _, webhook in taking(app.campaigns, Scheme.CALENDLY)
        for native in webhook.natives
        if native.scheme is Scheme.CALENDLY and native.events
    }
    local = urlsplit(settings.calendly_api_url).hostname in LOOPBACK
    key = next(iter(settings.secrets_of(Scheme.CALENDLY)), None)
    return Wanted(events, key, reachable=local or settings.public_url.startswith("https://"))


async def _note(app: App, listed: Sequence[Step], outcome: Outcome, scope: Scope) -> None:
    """Findings of steps that failed stay as they were: nobody could look."""
    failed = [step for step in listed if step.name in outcome.failed]
    findings = [finding for checked in outcome.done.values() for finding in checked.findings]
    findings += [_away(step, outcome.failed) for step in failed]
    unknown = [f"{KIND}:{step.subject}/" for step in failed]
    await alerts.note(app.ledger, findings, {KIND}, scope.now, unknown=unknown)


def _away(step: Step, failed: Mapping[str, TidingsError]) -> Finding:
    error = failed[step.name]
    again = "It is tried again within the hour" if error.retryable else "Trying again cannot help before that is mended"
    return Finding(
        kind=KIND,
        subject=f"{step.subject}/away",
        title=f"Reconciliation with {step.name} failed",
        body=f"{error}. {again}; to try it now: tidings reconcile. Until it works, what never arrives from there is "
        "not noticed.",
    )
