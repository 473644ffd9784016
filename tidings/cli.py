"""The `tidings` command."""

from __future__ import annotations

import asyncio
import json
import logging
import sys
from collections import Counter
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Annotated, Any
from uuid import UUID

import typer
from dotenv import dotenv_values

from tidings.commands.alerts import alerts_app
from tidings.commands.canary import canary
from tidings.commands.console import add, as_utc, err, minute, progress, say, second, show, table, tell_progress
from tidings.commands.doctor import doctor
from tidings.commands.reconcile import reconcile
from tidings.commands.wired import with_app
from tidings.errors import ConfigError, TidingsError

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="Webhooks in, the right sequence of emails out.",
)
notion_app = typer.Typer(no_args_is_help=True, help="Notion's databases.")
templates_app = typer.Typer(no_args_is_help=True, help="The copy in Notion.")
events_app = typer.Typer(no_args_is_help=True, help="Webhooks that came in.")
messages_app = typer.Typer(no_args_is_help=True, help="Mails to send.")
suppress_app = typer.Typer(no_args_is_help=True, help="Who may not be mailed.")
consent_app = typer.Typer(no_args_is_help=True, help="What contacts have agreed to.")
app.add_typer(notion_app, name="notion")
app.add_typer(templates_app, name="templates")
app.add_typer(events_app, name="events")
app.add_typer(messages_app, name="messages")
app.add_typer(suppress_app, name="suppress")
app.add_typer(consent_app, name="consent")
app.add_typer(alerts_app, name="alerts")
app.command()(doctor)
app.command()(canary)
app.command()(reconcile)


def main() -> None:
    """Entry point: our own errors are a message and exit code 1, not a traceback."""
    logging.basicConfig(level=logging.INFO, format="%(levelname)s %(name)s %(message)s", stream=sys.stderr)
    logging.getLogger("httpx").setLevel(logging.WARNING)
    logging.getLogger("alembic").setLevel(logging.WARNING)
    try:
        app()
    except TidingsError as error:
        say((type(error).__name__, "bold red"), f" {error}", to=err)
        sys.exit(1)


@app.command()
def migrate() -> None:
    """Bring the ledger's schema up to date. Harmless to repeat."""
    from tidings.ledger import Ledger
    from tidings.ledger.migrate import migrate as run
    from tidings.ledger.revisions import revision
    from tidings.ledger.store import unavailable_is_ours
    from tidings.settings import database_url

    async def go() -> str | None:
        ledger = Ledger(database_url())
        try:
            with unavailable_is_ours():
                await run(ledger.engine)
            return await revision(ledger)
        finally:
            await ledger.close()

    say(f"ledger at revision {asyncio.run(go())}")


@app.command()
def deploy() -> None:
    """Create or update Prefect's work pool, every deployment and automation. Harmless to repeat."""
    from tidings.adapters.blocks import settings_of_this_process
    from tidings.adapters.deploy import deploy as run
    from tidings.adapters.notify import complaints
    from tidings.adapters.prefect import PrefectRuns
    from tidings.adapters.prefect_api import open_api
    from tidings.campaign import load_campaigns
    from tidings.settings import PrefectAccess

    settings = settings_of_this_process()
    if settings.alert_urls and (problems := complaints(settings.alert_urls.get_secret_value())):
        raise ConfigError(problems)

    async def go() -> list[str]:
        names = await run(load_campaigns(settings.campaign_folders), settings)
        if settings.canary_hours:
            async with open_api(PrefectAccess.load()) as api:
                at = await PrefectRuns(api, {}).start_canary(datetime.now(UTC))
            names.append(f"… and a canary is sent at {at:%H:%M:%S} UTC")
        return names

    for name in asyncio.run(go()):
        say(f"deployed {name}")


@app.command()
def worker() -> None:
    """Run the warm worker until Ctrl-C or SIGTERM."""
    from tidings.lean import leave_out, share_letters

    leave_out()
    share_letters()

    from tidings.forking import start_fork_server
    from tidings.worker import PRELOAD, serve

    start_fork_server(PRELOAD)

    from tidings.adapters.blocks import settings_of_this_process
    from tidings.adapters.notify import complain_apart

    settings = settings_of_this_process()
    if settings.alert_urls:
        complain_apart(settings.alert_urls.get_secret_value())
    serve(settings)


@notion_app.command("init")
def notion_init(
    parent: Annotated[str, typer.Option(help="Id of the Notion page that the databases are created under")],
    write: Annotated[
        Path | None,
        typer.Option(
            help="File that each id is added to as it is made, as NAME=value; what it names is not made again"
        ),
    ] = None,
) -> None:
    """Create the databases under a page, or add missing properties to those that the settings name."""
    from tidings.adapters.notion import Notion
    from tidings.campaign import load_campaigns
    from tidings.notion_schema import databases
    from tidings.notion_setup import create_databases
    from tidings.settings import NotionAccess

    access = NotionAccess.load()
    campaigns = load_campaigns(access.campaign_folders)
    longest = max(len(s.steps) for c in campaigns.values() for s in c.sequences)
    written = dotenv_values(write) if write else {}
    wanted = [(d, access.ids.get(d.field) or written.get(d.setting) or None) for d in databases(longest)]

    async def go() -> None:
        notion = Notion(token=access.notion_token.get_secret_value(), api_url=access.notion_api_url)
        try:
            async for database, given, what in create_databases(notion, parent, wanted):
                say(f"{database.setting}={given}  # {database.title}: {what}")
                if write and written.get(database.setting) != given:
                    _add_line(write, f"{database.setting}={given}")
        finally:
            await notion.close()

    asyncio.run(go())


def _add_line(file: Path, line: str) -> None:
    """At once, so that nothing that was made is lost when the next one fails."""
    with file.open("a+", encoding="utf-8") as opened:
        opened.seek(0)
        begun = opened.read()[-1:] not in {"", "\n"}
        opened.write(("\n" if begun else "") + line + "\n")


@templates_app.command("push")
def templates_push(
    overwrite: Annotated[bool, typer.Option(help="Also replace copy that a person has edited in Notion")] = False,
) -> None:
    """Put the starter copy into Notion. Never overwrites what a person edited unless told to."""
    from tidings.notion_setup import push_templates

    async def go(parts: Any) -> None:
        database = parts.settings.notion_templates_db_id
        async for name, what in push_templates(parts.notion, database, parts.campaigns, overwrite=overwrite):
            say(f"{name}: {what}")

    with_app(go)


@templates_app.command("check")
def templates_check() -> None:
    """Check every template that any campaign names; exit code 1 when one cannot be sent."""
    from tidings.notion_setup import check_templates

    async def go(parts: Any) -> Any:
        database, facts = parts.settings.notion_templates_db_id, parts.settings.facts
        with progress("templates read") as told:
            return await check_templates(parts.notion, database, parts.campaigns, facts, datetime.now(UTC), told=told)

    results = with_app(go)
    bad = [r for r in results if r.problem]
    for result in results:
        mark = ("✗", "red") if result.problem else ("✓", "green")
        say(mark, f" {result.template}" + (f": {result.problem}" if result.problem else ""))
    say(f"{len(results) - len(bad)} of {len(results)} templates can be sent")
    if bad:
        raise typer.Exit(1)


Since = Annotated[datetime | None, typer.Option(help="From this moment on (UTC), such as 2026-12-01T08:00:00")]
Until = Annotated[datetime | None, typer.Option(help="Before this moment (UTC)")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Only say what would be done")]


@events_app.command("list")
def events_list(
    state: Annotated[
        str | None, typer.Option(help="accepted, dispatched, handled, ignored, quarantined, blocked or failed")
    ] = None,
    source: Annotated[str | None, typer.Option(help="The webhook's path, such as christmas-signup")] = None,
    since: Since = None,
    until: Until = None,
    limit: Annotated[int, typer.Option(min=1, max=1000)] = 50,
) -> None:
    """Webhooks that came in, newest first."""
    from tidings.ledger import inbox

    async def go(parts: Any) -> Any:
        async with parts.ledger.reading() as connection:
            return await inbox.list_events(
                connection, state=state, source=source, since=as_utc(since), until=as_utc(until), limit=limit
            )

    found = table("received", "id", "webhook", "contact", "state", "why")
    for row in with_app(go):
        add(found, second(row.received_at), str(row.id), row.source, row.email, row.state, row.reason)
    show(found)


@events_app.command("show")
def events_show(event_id: Annotated[UUID, typer.Argument(help="As `tidings events list` shows it")]) -> None:
    """One webhook with its body as it was sent, such as one that was taken for a bot's."""
    from tidings.ledger import inbox

    async def go(parts: Any) -> Any:
        async with parts.ledger.reading() as connection:
            return await inbox.find_events(connection, [event_id])

    for row in with_app(go):
        say(f"{row.source} {row.state}, received {second(row.received_at)} UTC")
        say(row.reason or "")
        say(row.body)
        return
    raise typer.BadParameter(f"event {event_id} is not known")


@app.command()
def stats(days: Annotated[int, typer.Option(min=1, max=90, help="How many days, today included (UTC)")] = 7) -> None:
    """What came in by webhook and state, and what the public forms turned away by day and reason."""
    from tidings.ledger import inbox, limits

    async def go(parts: Any) -> Any:
        today = datetime.now(UTC).replace(hour=0, minute=0, second=0, microsecond=0)
        since = today - timedelta(days=days - 1)
        async with parts.ledger.reading() as connection:
            return (
                await inbox.count_events(connection, since=since, without=parts.campaigns.internal),
                await limits.tally(connection, since=since.date()),
            )

    events, turned_away = with_app(go)
    came = table("webhook", "state", "why", "events")
    for row in events:
        add(came, row.source, row.state, row.why, str(row.events))
    show(came)
    refused = table("day", "public form", "turned away because", "times")
    for row in turned_away:
        add(refused, f"{row.day:%Y-%m-%d}", row.source, row.reason, str(row.times))
    show(refused)


@events_app.command("replay")
def events_replay(
    ids: Annotated[list[UUID] | None, typer.Argument(help="Events to replay")] = None,
    failed: Annotated[bool, typer.Option("--failed", help="All failed events (of the time that is given)")] = False,
    since: Since = None,
    until: Until = None,
    dry_run: DryRun = False,
) -> None:
    """Handle events again, such as those that failed for a template that is mended now. Nothing is sent twice."""
    from tidings.replay import WAITS, Wanted, replay

    wanted = Wanted(ids or [], failed, as_utc(since), as_utc(until))
    if not wanted:
        raise typer.BadParameter("name events, or say --failed, --since or --until")

    async def go(parts: Any) -> Counter[str]:
        count: Counter[str] = Counter()
        pages = replay(parts.ledger, parts.runs, parts.campaigns, wanted, dry_run=dry_run, now=datetime.now(UTC))
        async for page in pages:
            for event_id, what in page.told.items():
                say(f"{event_id}: {what}")
            count.update(page.told.values())
            tell_progress(count.total(), page.remaining, "events")
        return count

    count = with_app(go)
    say(f"{count.total()} events" + (" would be replayed" if dry_run else ""))
    if waiting := sum(times for what, times in count.items() if what.endswith(WAITS)):
        say(f"{waiting} of them are stored, and are handled when Prefect is back")


@messages_app.command("retry")
def messages_retry(
    ids: Annotated[list[UUID] | None, typer.Argument(help="Messages to send again")] = None,
    email: Annotated[str | None, typer.Option(help="All failed messages of this contact")] = None,
    template: Annotated[str | None, typer.Option(help="All failed messages of this template")] = None,
    may_be_sent_twice: Annotated[
        bool, typer.Option("--may-be-sent-twice", help="Also messages of which Resend's answer was never learned")
    ] = False,
    dry_run: DryRun = False,
) -> None:
    """Send failed or cancelled messages again: rendered anew, due at once."""
    from tidings.operate import retry_messages

    if not (ids or email or template):
        raise typer.BadParameter("name messages, or say --email or --template")

    count = 0

    def told(done: Sequence[UUID], remaining: int) -> None:
        nonlocal count
        count += len(done)
        for message_id in done:
            say(str(message_id))
        tell_progress(count, remaining, "messages")

    async def go(parts: Any) -> Any:
        return await retry_messages(
            parts.ledger,
            ids=ids or [],
            email=email,
            template=template,
            may_be_sent_twice=may_be_sent_twice,
            dry_run=dry_run,
            now=datetime.now(UTC),
            told=told,
        )

    with_app(go)
    _say_how_many(count, "retried", dry_run)


@app.command()
def cancel(
    email: Annotated[str, typer.Argument(help="The contact's address")],
    sequence: Annotated[str | None, typer.Option(help="Only this sequence, such as nurture")] = None,
    reason: Annotated[str, typer.Option(help="Why; kept with each message")] = "cancelled by an operator",
    dry_run: DryRun = False,
) -> None:
    """Cancel what a contact has still to get."""
    from tidings.operate import cancel_messages

    async def go(parts: Any) -> Any:
        return await cancel_messages(
            parts.ledger, email, sequence=sequence, reason=reason, dry_run=dry_run, now=datetime.now(UTC)
        )

    found = with_app(go)
    if found is None:
        raise typer.BadParameter(f"{email} is not known")
    for message_id in found:
        say(str(message_id))
    _say_how_many(len(found), "cancelled", dry_run)


def _say_how_many(count: int, what: str, dry_run: bool) -> None:
    say(f"{count} messages " + (f"would be {what}" if dry_run else what))


Email = Annotated[str, typer.Argument(help="The contact's address")]
OfSequence = Annotated[str | None, typer.Option(help="Only this sequence, such as nurture; else everything")]


@suppress_app.command("add")
def suppress_add(
    email: Email,
    reason: Annotated[str, typer.Option(help="Why; kept, and told with every mail that is not sent")],
    sequence: OfSequence = None,
    until: Annotated[datetime | None, typer.Option(help="Ends by itself at this moment (UTC)")] = None,
) -> None:
    """Stop mails to an address, at once; also to one that is not known yet."""
    from tidings.operate import suppress_contact

    if "@" not in email:
        raise typer.BadParameter(f"{email} is no address")

    async def go(parts: Any) -> Any:
        return await suppress_contact(
            parts.ledger, email, reason=reason, sequence=sequence, until=as_utc(until), now=datetime.now(UTC)
        )

    say(f"{email}: " + ("suppressed" if with_app(go) else "was suppressed before"))


@suppress_app.command("lift")
def suppress_lift(
    email: Email,
    reason: Annotated[str, typer.Option(help="Why; kept with the suppression")],
    sequence: OfSequence = None,
) -> None:
    """Let mails go again. What was skipped stays skipped; the suppression stays on record."""
    from tidings.operate import lift_suppression

    async def go(parts: Any) -> Any:
        return await lift_suppression(parts.ledger, email, reason=reason, sequence=sequence, now=datetime.now(UTC))

    lifted = with_app(go)
    if lifted is None:
        raise typer.BadParameter(f"{email} is not known")
    say(f"{email}: {lifted} lifted")


@suppress_app.command("list")
def suppress_list(
    ended: Annotated[bool, typer.Option("--all", help="Also those that have ended or were lifted")] = False,
    limit: Annotated[int, typer.Option(min=1, max=100_000)] = 1000,
) -> None:
    """Who may not be mailed, and why; newest first."""
    from tidings.ledger import people

    async def go(parts: Any) -> Any:
        async with parts.ledger.reading() as connection:
            return await people.list_suppressions(connection, now=datetime.now(UTC), ended=ended, limit=limit)

    listed = table("since", "contact", "of", "why", "by", "until", "lifted")
    for row in with_app(go):
        lifted = f"{minute(row.lifted_at)} {row.lifted_because or ''}" if row.lifted_at else ""
        of = row.sequence or "everything"
        add(listed, minute(row.created_at), row.email, of, row.reason, row.source, minute(row.until), lifted)
    show(listed)


@consent_app.command("export")
def consent_export(
    email: Email,
    as_json: Annotated[bool, typer.Option("--json", help="For machines, with the webhooks' bodies")] = False,
) -> None:
    """The proof that a contact might be mailed: what it agreed to, when, where and in which words."""
    from tidings.operate import consent_proof

    async def go(parts: Any) -> Any:
        return await consent_proof(parts.ledger, email)

    proof = with_app(go)
    if proof is None:
        raise typer.BadParameter(f"{email} is not known")
    if as_json:
        sys.stdout.write(json.dumps(proof, ensure_ascii=False, indent=2) + "\n")
        return
    word = proof["last_word"]
    say(f"{proof['email']}  known since {proof['known_since']}")
    say(f"last word on consent: {word['consent']} {word['at'] or ''}")
    for each in proof["enrolments"]:
        say(f"\n{each['campaign']}/{each['sequence']}")
        for name in ("basis", "source", "at", "wording", "address", "runs_out_at", "confirmed_at", "mails_sent"):
            said = each[name] if each[name] is not None else "not recorded" if name in EVIDENCE else "-"
            say(f"  {name}: {said}")
        say(f"  event: {each['event']['id']}, {each['event']['received_at']}")
    for each in proof["suppressions"]:
        until = f", lifted {each['lifted_at']}" if each["lifted_at"] else ""
        say(f"\nnot mailed ({each['of']}) since {each['at']}: {each['reason']}, by {each['source']}{until}")


#: What evidence of consent is made of; each of them says so where it was not kept.
EVIDENCE = {"basis", "source", "at", "wording", "address"}


@app.command()
def contact(email: Annotated[str, typer.Argument(help="The contact's address")]) -> None:
    """The whole story of one contact, with the reason for everything that was not sent."""
    from tidings.ledger import mails, people

    async def go(parts: Any) -> Any:
        async with parts.ledger.reading() as connection:
            person = await people.find_contact(connection, email)
            if person is None:
                return None
            return (
                person,
                await people.suppressions(connection, person.id),
                await people.events_of(connection, person.id),
                await mails.story(connection, email),
            )

    found = with_app(go)
    if found is None:
        raise typer.BadParameter(f"{email} is not known")
    _print_story(*found)


def _print_story(person: Any, suppressions: list[Any], events: list[Any], messages: list[Any]) -> None:
    say((person.email, "bold"), f"  {person.first_name or ''}  {person.business_name or ''}")
    say(f"known since {minute(person.created_at)} UTC; consent: {person.consent}")
    for each in suppressions:
        lifted = f", until {minute(each.until)}" if each.until else ""
        lifted += f", lifted {minute(each.lifted_at)}" if each.lifted_at else ""
        told = f" ({each.sequence or 'everything'}): {each.reason}, by {each.source}{lifted}"
        say(("not mailed", "yellow"), told)
    came = table("received", "webhook", "state", "why", "event")
    for row in events:
        add(came, second(row.received_at), row.source, row.state, row.reason, str(row.id))
    show(came)
    planned = table("due", "template", "state", "sent", "opened", "clicked", "why", "message")
    for row in messages:
        done = (second(row.sent_at), minute(row.opened_at), minute(row.clicked_at))
        add(planned, second(row.due_at), row.template, row.state, *done, row.reason, str(row.id))
    show(planned)
