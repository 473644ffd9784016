"""Copy in Notion that cannot be sent: said before the first mail, with the cure; mended, then replayed."""

from __future__ import annotations

import pytest
from evidence import Evidence
from live_notion import BODY, SUBJECT, TEMPLATES, NotionDesk
from live_parts import Json, Live, address
from live_sequences import noshow, signup, template_of

pytestmark = pytest.mark.stack

DATABASE = "NOTION_TEMPLATES_DB_ID"


async def refused(live: Live, path: str, body: Json, *, state: str | None = "failed") -> tuple[str, Json]:
    """Post it; returns what the red run says, and the event. Nothing was sent, nobody is enrolled."""
    answer = await live.accepted(path, body)
    run = await live.prefect.ended(answer["flow_run_id"])
    assert run["state_type"] == "FAILED"
    if state:
        await live.event_is(answer["event_id"], state, within=15)
    event = await live.ledger.event(answer["event_id"])
    assert event["state"] != "handled"
    assert await live.ledger.messages(body["email"]) == []
    assert await live.sandbox.inbox(body["email"]) == []
    message: str = run["state"]["message"]
    assert body["email"] not in message
    return message, event


async def replayed(live: Live, email: str, count: int, *what: str) -> None:
    """Replay it, or all that failed: the contact gets the whole sequence."""
    said = await live.cli("events", "replay", *(what or ["--failed"]))
    assert ": replayed" in said
    mails = await live.mails(email, count)
    assert len(mails) == len({template_of(mail) for mail in mails}) == count


@pytest.mark.failure(
    "F2",
    now="Every template is fetched and rendered before the first mail: nothing is sent, the run is red, "
    "and `tidings events replay` makes up for it",
    noticed_by="the red run, the failed event and `/health/ready`",
    within=30,
    says="Template 'christmas_email_1' has an empty 'Subject Line' … Fill it in in Notion, then replay",
)
async def test_f2_all_templates_empty__nothing_is_sent_and_the_run_is_red(
    live: Live, desk: NotionDesk, evidence: Evidence
) -> None:
    email = address("f2")
    await desk.empty_all()
    evidence.broken()

    message, event = await refused(live, "christmas-signup", signup(email))

    evidence.read(message)
    assert DATABASE in message
    assert event["reason"] in message
    status, problems = await live.ready_afresh()
    assert status == 503
    assert all(f"christmas_email_{n}'" in problems["templates"] for n in range(1, 8))

    await desk.put_back()
    await replayed(live, email, 7)
    assert (await live.ledger.event(str(event["id"])))["state"] == "handled"


@pytest.mark.failure(
    "F3",
    now="Names are compared exactly; a template that is missing stops its sequence before the first mail",
    noticed_by="the red run, the failed event and `/health/ready`",
    within=30,
    says="Template 'christmas_email_1' is missing … tidings templates push",
)
async def test_f3_a_name_with_more_behind_it__is_not_the_template(
    live: Live, desk: NotionDesk, evidence: Evidence
) -> None:
    email = address("f3")
    evidence.broken()
    await desk.write("christmas_email_1", name="christmas_email_1: Your assessment")

    message, _ = await refused(live, "christmas-signup", signup(email))

    evidence.read(message)
    assert "Template Name" in message
    assert DATABASE in message


async def test_one_empty_body__stops_the_sequence_before_its_first_mail(live: Live, desk: NotionDesk) -> None:
    email = address("empty")
    await desk.write("noshow_recovery_email_3", body=" ")

    message, _ = await refused(live, "calendly-noshow", noshow(email))

    for part in ("noshow_recovery_email_3", BODY, DATABASE, "Fill it in in Notion, then replay"):
        assert part in message


async def test_a_duplicated_name__is_refused(live: Live, desk: NotionDesk) -> None:
    email = address("twice")
    await desk.copy_of("noshow_recovery_email_2")

    message, _ = await refused(live, "calendly-noshow", noshow(email))

    for part in ("noshow_recovery_email_2", "2 times", DATABASE, "Rename or delete all but one, then replay"):
        assert part in message


@pytest.mark.parametrize(
    ("part", "text", "told"),
    [
        ("body", "<p>Your score: {{ Score9 }}</p>", "'Score9' is undefined"),
        ("subject", "Only {{ spots }} spots left", "'spots' is undefined"),
        ("body", "<p>{{ first_name </p>", "unexpected"),
    ],
    ids=["undefined-in-body", "undefined-in-subject", "broken-tag"],
)
async def test_an_unrenderable_template__is_refused(
    live: Live, desk: NotionDesk, part: str, text: str, told: str
) -> None:
    email = address("broken")
    await desk.write("noshow_recovery_email_3", **{part: text})

    message, _ = await refused(live, "calendly-noshow", noshow(email))

    for words in ("noshow_recovery_email_3", f"({part})", told, "Mend it in Notion, then replay"):
        assert words in message


async def test_a_missing_property__is_named_with_the_cure(live: Live, desk: NotionDesk) -> None:
    email = address("property")
    await desk.rename_property(TEMPLATES, BODY, "Something else")

    message, event = await refused(live, "calendly-noshow", noshow(email), state=None)

    for part in (BODY, DATABASE, "tidings notion init"):
        assert part in message

    await desk.put_back()
    await replayed(live, email, 3, str(event["id"]))


async def test_an_unshared_database__is_named_with_the_cure(live: Live, desk: NotionDesk) -> None:
    email = address("unshared")
    await desk.unshare(TEMPLATES)

    message, event = await refused(live, "calendly-noshow", noshow(email), state=None)

    for part in (DATABASE, live.stack.environment[DATABASE], "not shared with the integration", "Connections"):
        assert part in message

    await desk.put_back()
    await replayed(live, email, 3, str(event["id"]))


@pytest.mark.failure(
    "F16",
    now="Long copy is written in as many pieces as Notion wants, read back whole, and a mail has every word of it",
)
@pytest.mark.parametrize("length", [6_000, 60_000])
async def test_f16_a_long_body__arrives_whole(live: Live, desk: NotionDesk, length: int) -> None:
    email = address("f16")
    words = [f"w{n:05}" for n in range(length // 7)]
    await desk.write("noshow_recovery_email_1", body=f"<p>{' '.join(words)}</p>")

    await live.accepted("calendly-noshow", noshow(email))

    mails = await live.mails(email, 3)
    [mail] = [mail for mail in mails if template_of(mail) == "noshow_recovery_email_1"]
    assert [word for word in mail["html"].split() if word.strip("<p>/").startswith("w0")]
    assert " ".join(words) in mail["html"]
    assert " ".join(words) in " ".join(mail["text"].split())


@pytest.mark.failure("F17", now="Values are text: escaped in HTML, never read as a pattern or as a template")
async def test_f17_a_hostile_name__is_only_text(live: Live, desk: NotionDesk) -> None:
    email, name = address("f17"), r"""<b>Bob & "Co"</b> \1 {{7*7}}"""
    await desk.write(
        "noshow_recovery_email_1", subject="For {{ business_name }}", body="<p>Dear {{ business_name }},</p>"
    )

    await live.accepted("calendly-noshow", noshow(email, business_name=name))

    mails = await live.mails(email, 3)
    [mail] = [mail for mail in mails if template_of(mail) == "noshow_recovery_email_1"]
    assert mail["subject"] == f"For {name}"
    assert f"Dear {name}," in mail["text"]
    assert r"Dear &lt;b&gt;Bob &amp; " in mail["html"]
    assert "<b>Bob" not in mail["html"]
    assert r"\1 {{7*7}}," in mail["html"]
    assert "49" not in mail["subject"] + mail["text"].split("http")[0]  # then come links, with any port and token


@pytest.mark.failure(
    "F10",
    now="Properties are found in any case; one that is renamed is named by `tidings doctor` and `/health/ready`",
)
async def test_f10_a_property_spelled_differently__is_found(live: Live, desk: NotionDesk) -> None:
    email = address("f10")
    await desk.rename_property(TEMPLATES, SUBJECT, "subject line")
    await desk.rename_property(TEMPLATES, BODY, "EMAIL BODY html")
    await desk.rename_property("NOTION_CONTACTS_DB_ID", "email", "Email")
    await desk.rename_property("NOTION_EMAIL_SEQUENCE_DB_ID", "Email", "email")

    await live.accepted("calendly-noshow", noshow(email))

    await live.mails(email, 3)
    await live.prefect.mirror()
    assert len(await desk.rows_of("NOTION_CONTACTS_DB_ID", "Email", email)) == 1
    assert len(await desk.rows_of("NOTION_EMAIL_SEQUENCE_DB_ID", "email", email)) == 1
