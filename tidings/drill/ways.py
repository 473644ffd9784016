"""The ways in which the running stack is broken, and the alert that has to come of each."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

from tidings.adapters.notion import TEMPLATES
from tidings.drill.hands import Hands, HandSlipped, address, until
from tidings.local import ports
from tidings.local.config import HOST

Deed = Callable[[Hands], Awaitable[object]]

ENROLMENTS = "NOTION_EMAIL_SEQUENCE_DB_ID"
NOSHOW, MAYBE, ONBOARDING, SIGNUP = "calendly-noshow", "postcall-maybe", "onboarding-start", "christmas-signup"
NOSHOW_DEPLOYMENT = "christmas-noshow-recovery-handler"
#: A source that no other way posts to, so that it can be silent.
SILENT = ONBOARDING
#: Enough mails for a share to mean something, and enough of them that bounce for it to be above 5 %.
ORDINARY, BOUNCING, COMPLAINING = 7, 12, 3

#: What further alerts are right, because the same cause has these effects too.
COPY = "Templates in Notion cannot be sent"
LATE = "* of * late"
NO_CANARY = "A canary did not come back"
NO_MIRROR = "tidings-notion-mirror fails again and again"
NO_PREFECT = "Prefect does not answer"
NO_WEB = "Nobody reaches Tidings at"
NO_WORKER = "No worker is there"
STUCK = "* waiting for a worker although one is there"


@dataclass(frozen=True, kw_only=True)
class Way:
    """One thing that goes wrong, what somebody has to be told of it, and how it is mended."""

    name: str
    #: What happens, in words.
    failure: str
    #: Which of the product's kinds of alerts it has to raise.
    kind: str
    #: How the alert's title begins; "*" stands for anything.
    alert: str
    do: Deed
    mend: Deed = Hands.put_back
    #: Words that the alert must have, because they name what is broken.
    says: tuple[str, ...] = ()
    #: Further alerts that are right.
    also: tuple[str, ...] = ()
    #: False: it is told once, and no message says that it is over.
    recovers: bool = True
    #: It shows in this check of `/health/ready` rather than at the channel, which is what is broken.
    on_ready: str = ""
    #: Seconds that the alert, and then its recovery, may take.
    within: float = 90.0


# -- breaking ------------------------------------------------------------------------------------------------------


async def _hot_lead(hands: Hands) -> None:
    await hands.accepted(SIGNUP, address())


async def _mute_channel(hands: Hands) -> None:
    hands.receiver.refuses = True
    await _hot_lead(hands)


async def _failing_event(hands: Hands) -> None:
    name = "noshow_recovery_email_3"
    await hands.edit(name, title=f"{name} of last year")
    await _event(hands, await hands.accepted(NOSHOW, address()), "failed")


async def _invalid_body(hands: Hands) -> None:
    answer = await hands.post(MAYBE, address(), call_date="soon")
    if answer.status_code != 422:
        raise HandSlipped(f"an invalid body was answered {answer.status_code}: {answer.text[:500]}")


async def _event(hands: Hands, event_id: str, state: str) -> None:
    async def reached() -> bool:
        return bool(await hands.sql("SELECT 1 FROM event WHERE id = $1 AND state = $2", UUID(event_id), state))

    await until(f"event {event_id} to be {state}", reached)


async def _refused_mail(hands: Hands) -> None:
    email = address()
    this = f"(?=.*{email.replace('+', '.')})(?=.*noshow_recovery_email_1)"
    await hands.fault("status", status=422, service="resend", path="^/emails", body=this)
    await hands.accepted(NOSHOW, email)


async def _resend_down(hands: Hands) -> None:
    await hands.fault("status", status=500, service="resend", path="^/emails")
    await hands.accepted(NOSHOW, address())


async def _quota_used_up(hands: Hands) -> None:
    await hands.provider(daily_quota=1)
    await hands.accepted(NOSHOW, address())
    await hands.accepted(NOSHOW, address())


async def _quota_near(hands: Hands) -> None:
    """Six mails at least, of a quota that is a little larger than what has been used today."""
    emails = [address(), address()]
    for email in emails:
        await hands.accepted(NOSHOW, email)
        await hands.delivered(email, 3)
    used = int((await hands.resend("GET", "usage"))["emails"]["daily"]["used"])
    await hands.provider(daily_quota=used + max(1, used // 10))


async def _outcomes(hands: Hands, outcome: str, count: int) -> None:
    emails = [address() for _ in range(ORDINARY)] + [address(outcome) for _ in range(count)]
    await asyncio.gather(*[hands.accepted(NOSHOW, email) for email in emails])


async def _silence(hands: Hands) -> None:
    """A sender that has posted every hour for a fortnight has not for two days."""
    await hands.sql(
        "INSERT INTO event (id, source, key, campaign, deployment, state, body, contact_created, received_at) "
        "SELECT gen_random_uuid(), $1, 'drill:' || n, 'christmas', 'christmas-onboarding-handler', "
        "'ignored', '{}', false, now() - interval '2 days' - n * interval '1 hour' FROM generate_series(0, 335) n",
        SILENT,
    )


async def _lost_canary(hands: Hands) -> None:
    await hands.tidings("canary", fails=True, PUBLIC_URL=f"http://{HOST}:{ports.free_port()}")


async def _frozen_run(hands: Hands) -> None:
    """Resend's answer is kept back for so long that the run can be caught."""
    await hands.fault("delay", delay=10, service="resend", path="^/emails")
    event_id = await hands.accepted(NOSHOW, address())

    async def sending() -> Any:
        return await hands.sql(
            "SELECT c.flow_run_id FROM claim c JOIN message m ON m.claim_id = c.id "
            "JOIN enrolment e ON e.id = m.enrolment_id "
            "WHERE e.event_id = $1 AND c.settled_at IS NULL AND c.first_sent_at IS NOT NULL",
            UUID(event_id),
        )

    [row, *_] = await until("the run to be sending", sending)
    await hands.freeze(str(row[0]))


async def _failing_mirror(hands: Hands) -> None:
    state = {"type": "FAILED", "name": "Failed", "message": "Notion is away."}
    for _ in range(3):
        later = {"type": "SCHEDULED", "state_details": {"scheduled_time": "2100-01-01T00:00:00Z"}}
        run = await hands.start("tidings-notion-mirror", state=later)
        await hands.prefect("POST", f"/flow_runs/{run}/set_state", {"state": state, "force": True})


async def _old_ledger(hands: Hands) -> None:
    [row] = await hands.sql("SELECT version_num FROM alembic_version")
    change = "UPDATE alembic_version SET version_num = $1"
    hands.later(lambda: hands.sql(change, row[0]))
    await hands.sql(change, "0001")


# -- the calendars and reconciliation ----------------------------------------------------------------------------------


async def _reconciled(hands: Hands) -> None:
    """What happens every hour."""
    await hands.ended(await hands.start("tidings-reconcile"))


async def _no_subscription(hands: Hands) -> None:
    await hands.control("POST", "calendly/disable", {})
    await _reconciled(hands)


async def _missed(hands: Hands) -> None:
    start = datetime.now(UTC) - timedelta(minutes=40)
    call = {"email": address(), "start": start.isoformat(), "created": (start - timedelta(days=1)).isoformat()}
    made = await hands.control("POST", "calendly/bookings", {**call, "webhook": False})
    await hands.control("POST", "calendly/no-shows", {"of": made["uri"], "webhook": False})
    await _reconciled(hands)


async def _calendly_refuses(hands: Hands) -> None:
    await hands.fault("status", status=401, service="calendly")
    await _reconciled(hands)


# -- mending -------------------------------------------------------------------------------------------------------


def _then(*deeds: Deed) -> Deed:
    """Everything is put back, and then this is done."""

    async def do(hands: Hands) -> None:
        for deed in (Hands.put_back, *deeds):
            await deed(hands)

    return do


async def _open_channel(hands: Hands) -> None:
    hands.receiver.refuses = False


async def _replay(hands: Hands) -> None:
    await hands.tidings("events", "replay", "--failed")


async def _retry(hands: Hands) -> None:
    await hands.tidings("messages", "retry", "--template", "noshow_recovery_email_1")


async def _set_aside(hands: Hands) -> None:
    """What the sender has mended and posted again."""
    await hands.sql("UPDATE event SET state = 'ignored' WHERE state = 'quarantined'")


async def _sweep(hands: Hands) -> None:
    """What happens every five minutes."""
    await hands.start("tidings-sweep")


async def _canary(hands: Hands) -> None:
    await hands.tidings("canary")


async def _a_day_passes(hands: Hands) -> None:
    await hands.sql("UPDATE message SET sent_at = sent_at - interval '2 days' WHERE state IN ('bounced', 'complained')")


async def _post_again(hands: Hands) -> None:
    await hands.accepted(SILENT, address())


async def _an_hour_passes(hands: Hands) -> None:
    """What waits for the quota is tried again."""
    await hands.sql("UPDATE claim SET lease_until = now() WHERE settled_at IS NULL")
    await hands.accepted(NOSHOW, address())


WAYS: tuple[Way, ...] = (
    Way(
        name="hot-lead",
        failure="a critical contact signs up",
        kind="hot-lead",
        alert="A CRITICAL contact has come in by christmas-signup",
        do=_hot_lead,
        recovers=False,
    ),
    Way(
        name="template-broken",
        failure="an edit in Notion names a variable that there is not",
        kind="not-ready",
        alert=COPY,
        says=("postcall_maybe_email_2", "'Score9' is undefined"),
        do=lambda hands: hands.edit("postcall_maybe_email_2", body="<p>Your score: {{ Score9 }}</p>"),
    ),
    Way(
        name="template-missing",
        failure="a template is renamed in Notion",
        kind="not-ready",
        alert=COPY,
        says=("postcall_maybe_email_3", "missing"),
        do=lambda hands: hands.edit("postcall_maybe_email_3", title="postcall_maybe_email_3 (old)"),
    ),
    Way(
        name="template-empty",
        failure="a template is emptied in Notion",
        kind="not-ready",
        alert=COPY,
        says=("postcall_maybe_email_1", "empty"),
        do=lambda hands: hands.edit("postcall_maybe_email_1", body=""),
    ),
    Way(
        name="templates-unshared",
        failure="the templates are no longer shared with the integration",
        kind="not-ready",
        alert="Notion cannot be read as it is",
        says=(TEMPLATES, "not shared"),
        do=lambda hands: hands.unshare(TEMPLATES),
    ),
    Way(
        name="database-unshared",
        failure="a database is no longer shared with the integration",
        kind="not-ready",
        alert="Notion cannot be read as it is",
        says=(ENROLMENTS, "not shared"),
        also=(NO_MIRROR,),
        do=lambda hands: hands.unshare(ENROLMENTS),
    ),
    Way(
        name="property-renamed",
        failure="a property that the code needs is renamed in Notion",
        kind="not-ready",
        alert="Notion cannot be read as it is",
        says=("Campaign",),
        also=(NO_MIRROR,),
        do=lambda hands: hands.rename_property(ENROLMENTS, "Campaign", "Which campaign"),
    ),
    Way(
        name="notion-token",
        failure="Notion refuses the token",
        kind="not-ready",
        alert="Notion cannot be read as it is",
        says=("NOTION_TOKEN",),
        also=(NO_MIRROR,),
        do=lambda hands: hands.provider(notion_tokens=["ntn_other"]),
    ),
    Way(
        name="resend-key",
        failure="Resend refuses the key",
        kind="not-ready",
        alert="Resend is not ready to send",
        says=("RESEND_API_KEY",),
        do=lambda hands: hands.provider(resend_tokens=["re_other"]),
    ),
    Way(
        name="domain",
        failure="the sender's domain is no longer verified",
        kind="not-ready",
        alert="Resend is not ready to send",
        says=("tidings.test",),
        do=lambda hands: hands.provider(domains={"tidings.test": "failed"}),
    ),
    Way(
        name="reports-off",
        failure="Resend has switched its webhook off",
        kind="not-ready",
        alert="Resend's reports do not arrive",
        says=("disabled",),
        do=Hands.switch_reports_off,
    ),
    Way(
        name="late-mail",
        failure="Resend answers 500 to every mail",
        kind="late-mail",
        alert="1 mail of noshow_recovery_email_1 is late",
        also=(LATE,),
        do=_resend_down,
        within=120,
    ),
    Way(
        name="failed-mail",
        failure="Resend refuses one mail for good",
        kind="dead-letter",
        alert="1 mail of noshow_recovery_email_1 failed",
        says=("tidings messages retry",),
        # What is retried goes out within a minute, which is late by the accelerated clock.
        also=(LATE,),
        do=_refused_mail,
        mend=_then(_retry),
    ),
    Way(
        name="failed-event",
        failure="a webhook comes in while its template is missing",
        kind="dead-letter",
        alert="1 webhook of calendly-noshow failed",
        says=("tidings events replay --failed",),
        also=(COPY,),
        do=_failing_event,
        mend=_then(_replay),
    ),
    Way(
        name="invalid-body",
        failure="a known sender posts what cannot be understood",
        kind="dead-letter",
        alert="1 webhook of postcall-maybe was not understood",
        says=("call_date",),
        do=_invalid_body,
        mend=_then(_set_aside),
    ),
    Way(
        name="quota-near",
        failure="Resend's daily quota is nearly used",
        kind="quota",
        alert="* mails of Resend's daily quota are used",
        do=_quota_near,
    ),
    Way(
        name="quota-used-up",
        failure="Resend's daily quota is used up",
        kind="quota",
        alert="Resend's quota is used up",
        also=("* mails of Resend's daily quota are used", LATE, NO_CANARY),
        do=_quota_used_up,
        mend=_then(_an_hour_passes),
    ),
    Way(
        name="bounces",
        failure=f"{BOUNCING} of {ORDINARY + BOUNCING} addresses do not exist",
        kind="bounce-rate",
        alert="* mails of the last 24 h bounced",
        do=lambda hands: _outcomes(hands, "bounced", BOUNCING),
        mend=_then(_a_day_passes),
        within=120,
    ),
    Way(
        name="complaints",
        failure=f"{COMPLAINING} of {ORDINARY + COMPLAINING} people call their mails spam",
        kind="complaint-rate",
        alert="* mails of the last 24 h were called spam",
        do=lambda hands: _outcomes(hands, "complained", COMPLAINING),
        mend=_then(_a_day_passes),
        within=120,
    ),
    Way(
        name="source-silent",
        failure="a sender that posts every hour is silent for two days",
        kind="source-silent",
        alert=f"The webhook {SILENT} is silent",
        do=_silence,
        mend=_then(_post_again),
    ),
    Way(
        name="canary",
        failure="the public address leads nowhere when a canary is sent",
        kind="canary",
        alert=NO_CANARY,
        do=_lost_canary,
        mend=_then(_canary),
    ),
    Way(
        name="subscription-off",
        failure="Calendly has switched its subscription off",
        kind="reconciliation",
        alert="Calendly's webhook subscription was switched off; it was made anew",
        do=_no_subscription,
        recovers=False,
    ),
    Way(
        name="webhook-lost",
        failure="Calendly has a no-show that never arrived",
        kind="reconciliation",
        alert="* never arrived from Calendly and * found in its list",
        do=_missed,
        recovers=False,
    ),
    Way(
        name="calendly-token",
        failure="Calendly refuses the token",
        kind="reconciliation",
        alert="Reconciliation with Calendly failed",
        says=("CALENDLY_TOKEN",),
        also=("Reconciliation with Calendly's subscription failed",),
        do=_calendly_refuses,
        mend=_then(_reconciled),
    ),
    Way(
        name="deployment-deleted",
        failure="a deployment is deleted in Prefect",
        kind="not-ready",
        alert="Prefect's deployments do not fit the code",
        says=(NOSHOW_DEPLOYMENT, "tidings deploy"),
        do=lambda hands: hands.delete_deployment(NOSHOW_DEPLOYMENT),
    ),
    Way(
        name="stuck-run",
        failure="a run hangs (SIGSTOP)",
        kind="stuck-run",
        alert="1 run of christmas-* is under way without end",  # the handler's, or the one that sends
        also=(LATE,),
        do=_frozen_run,
        within=180,
    ),
    Way(
        name="mirror-fails",
        failure="the mirror to Notion fails three times",
        kind="looking-after-fails",
        alert=NO_MIRROR,
        says=("Notion is away.",),
        do=_failing_mirror,
        recovers=False,
    ),
    Way(
        name="ledger-old",
        failure="the ledger is older than the code",
        kind="not-ready",
        alert="The ledger (PostgreSQL) is not as this code needs it",
        says=("tidings migrate",),
        do=_old_ledger,
    ),
    Way(
        name="read-only",
        failure="PostgreSQL is read-only",
        kind="ledger-down",
        alert="the ledger (PostgreSQL) does not work",
        says=("read-only",),
        do=Hands.read_only,
    ),
    Way(
        name="channel",
        failure="the channel for alerts answers 503 to a hot lead",
        kind="not-ready",
        alert="Not everybody can be told of alerts",
        also=("A CRITICAL contact has come in",),
        on_ready="alerts",
        do=_mute_channel,
        mend=_then(_open_channel),
        within=120,
    ),
    Way(
        name="prefect",
        failure="Prefect is killed",
        kind="prefect-down",
        alert=NO_PREFECT,
        also=(NO_WORKER, STUCK),
        do=lambda hands: hands.kill("prefect"),
    ),
    Way(
        name="postgres",
        failure="PostgreSQL is killed",
        kind="ledger-down",
        alert="the ledger (PostgreSQL) does not work",
        also=(NO_PREFECT, NO_WORKER, STUCK),
        do=lambda hands: hands.kill("postgres"),
    ),
    Way(
        name="web",
        failure="the web server is killed",
        kind="web-down",
        alert=NO_WEB,
        also=(NO_CANARY,),
        do=lambda hands: hands.kill("web"),
        mend=_then(_sweep),
    ),
    Way(
        name="worker",
        failure="the worker is killed",
        kind="not-ready",
        alert=NO_WORKER,
        also=(STUCK, NO_CANARY),
        do=lambda hands: hands.kill("worker"),
        within=180,
    ),
    Way(
        name="web-and-worker",
        failure="the web server and the worker are killed",
        kind="nobody-watches",
        alert="nobody watches",
        also=(NO_WORKER, NO_WEB, STUCK, NO_CANARY),
        do=lambda hands: hands.kill("web", "worker"),
        mend=_then(_sweep),
        recovers=False,
        within=120,
    ),
)


def chosen(names: list[str]) -> tuple[Way, ...]:
    """The ways of these names, in their order; all when none is named. Raises HandSlipped."""
    unknown = sorted(set(names) - {way.name for way in WAYS})
    if unknown:
        raise HandSlipped(f"no way is called {', '.join(unknown)}; --list shows all")
    return tuple(way for way in WAYS if not names or way.name in names)
