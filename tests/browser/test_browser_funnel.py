"""A visitor in a real browser: from the assessment form to seven mails, and out again."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import pytest
from live_notion import NotionDesk
from live_parts import Json, Live, address
from live_sequences import signup, template_of
from web_driver import PHONE, WIDE, Browser

pytestmark = [
    pytest.mark.browser,
    pytest.mark.stack,
    pytest.mark.skipif(not shutil.which("chromedriver"), reason="needs Chromium and chromedriver"),
]

RATINGS = {
    "GPS": "red", "CREW": "green", "ENGINE": "orange", "FUEL": "red",
    "CABIN": "yellow", "COCKPIT": "green", "RADAR": "green", "AUTOPILOT": "orange",
}  # fmt: skip


#: What the page says of the first mail.
SAID = "document.getElementById('mail').textContent"


def fill_in(browser: Browser, funnel: str, email: str) -> None:
    browser.open(funnel)
    browser.run("localStorage.clear(); form.reset()")
    browser.type("#first_name", "Zephyrine")
    browser.type("#email", email)
    browser.type("#business_name", "Quillfeather & Daughters")
    browser.run("form.revenue.selectedIndex = 3")
    browser.type("#challenge", "Too much depends on me")
    for system, rating in RATINGS.items():
        browser.click(f"input[name={system}][value={rating}]")
    browser.click("#consent")
    browser.wait("return seconds() >= 3")  # as long as a person takes at the very least


def links_of(mail: Json) -> set[str]:
    """Every http link of a mail: in its HTML, in its text and in its headers."""
    in_html = re.findall(r'href="(https?://[^"]+)"', mail["html"])
    in_text = re.findall(r"https?://[^\s)>\]]+", mail["text"])
    in_headers = re.findall(r"<(https?://[^>]+)>", mail["headers"]["List-Unsubscribe"])
    return {*in_html, *in_text, *in_headers}


async def test_a_visitor__gets_seven_mails_whose_links_work(live: Live, browser: Browser, pictures: Path) -> None:
    email = address("visitor")
    browser.width(WIDE)
    fill_in(browser, f"{live.stack.addresses.sandbox}/funnel", email)
    browser.picture(pictures / "funnel-1280.png")
    browser.click("#submit")
    thanks = browser.wait("const said = document.getElementById('thanks'); return said.hidden ? null : said.innerText")
    browser.picture(pictures / "thanks-1280.png")

    assert f"Your first email is on its way to {email}" in thanks
    browser.wait(f"const said = ({SAID}); return said.includes(arguments[0])", f"arrived at the mail server of {email}")
    browser.picture(pictures / "sent-1280.png")
    browser.width(PHONE, height=844)
    browser.picture(pictures / "sent-390.png")
    assert not browser.overflows()
    browser.width(WIDE)
    assert browser.complaints() == []
    mails = await live.mails(email, 7)
    assert sorted(map(template_of, mails)) == [f"christmas_email_{n}" for n in range(1, 8)]
    assert {mail["last_event"] for mail in mails} == {"delivered"}
    links: set[str] = set()
    for mail in mails:
        for part in (mail["subject"], mail["html"], mail["text"]):
            assert not re.search(r"\{\{|\}\}|\{%", part)
        links |= links_of(mail)
    assert any("/unsubscribe/" in link for link in links)
    for link in sorted(links):
        answer = await live.http.get(link)
        assert answer.status_code == 200, link
    assert await live.ledger.states(email) == ["delivered"] * 7  # following every link has unsubscribed nobody


async def test_f7_a_mail_that_cannot_be_sent__is_an_apology_and_no_promise(
    live: Live, browser: Browser, desk: NotionDesk, pictures: Path
) -> None:
    email = address("apology")
    await desk.write("christmas_email_1", name="somewhere else")
    browser.width(PHONE, height=844)
    fill_in(browser, f"{live.stack.addresses.sandbox}/funnel", email)

    browser.click("#submit")
    browser.wait(f"return ({SAID}).includes('could not send the email')")
    browser.picture(pictures / "apology-390.png")

    shown = browser.run("return document.getElementById('thanks').innerText")
    assert "Sorry. We have received this, but could not send the email." in shown
    assert "on its way" not in shown
    assert "christmas_email_1" not in shown
    assert not browser.overflows()
    assert await live.ledger.messages(email) == []
    browser.click("#back button")
    assert browser.run("return form.business_name.value") == "Quillfeather & Daughters"
    browser.picture(pictures / "apology-back-390.png")
    browser.width(WIDE)


async def test_a_visitor_who_leaves__gets_no_further_mail(
    live: Live, browser: Browser, real_time: str, pictures: Path
) -> None:
    email = address("leaver")
    answer = await live.accepted("christmas-signup", signup(email), web=real_time)
    [mail] = await live.mails(email, 1)
    await live.prefect.ended(answer["flow_run_id"])
    [link] = [link for link in links_of(mail) if "/unsubscribe/" in link]

    browser.width(PHONE, height=844)
    browser.open(link)
    browser.picture(pictures / "unsubscribe-390.png")
    assert "Do you want to leave?" in browser.text
    assert not browser.overflows()
    assert await live.ledger.states(email) == ["delivered", *["scheduled"] * 6]  # looking is not leaving
    browser.click("button[value=all]")
    browser.wait("return document.body.innerText.includes('You have left')")
    browser.picture(pictures / "left-390.png")

    assert browser.complaints() == []
    messages = await live.ledger.messages(email)
    assert [m["state"] for m in messages] == ["delivered", *["skipped"] * 6]
    assert {m["reason"] for m in messages[1:]} == {"the contact unsubscribed"}
    [second] = await live.prefect.runs_of([messages[1]])
    assert (await live.run_now(second["id"]))["state_type"] == "COMPLETED"
    assert len(await live.sandbox.inbox(email)) == 1


async def test_the_funnel__fits_a_phone(live: Live, browser: Browser, pictures: Path) -> None:
    browser.width(PHONE, height=844)
    fill_in(browser, f"{live.stack.addresses.sandbox}/funnel", address("phone"))

    browser.picture(pictures / "funnel-390.png")
    assert not browser.overflows()


@pytest.mark.parametrize("width", [WIDE, PHONE])
async def test_the_inbox__shows_mails_at_any_width(
    live: Live, browser: Browser, pictures: Path, width: int, five: Json
) -> None:
    posted = five["christmas-signup"]
    first = next(mail for mail in posted.mails if template_of(mail) == "christmas_email_1")
    browser.width(width)

    browser.open(f"{live.stack.addresses.sandbox}/inbox?q=nurture-")
    browser.wait("return document.querySelectorAll('#mails li').length >= 7")
    browser.picture(pictures / f"inbox-{width}.png")
    assert not browser.overflows()

    browser.open(f"{live.stack.addresses.sandbox}/inbox/{first['id']}")
    browser.picture(pictures / f"mail-{width}.png")
    assert first["subject"] in browser.text
    assert not browser.overflows()
    assert browser.complaints() == []

    (pictures / "mail.html").write_text(first["html"])
    browser.open((pictures / "mail.html").as_uri())
    browser.picture(pictures / f"mail-alone-{width}.png")
    assert not browser.overflows()


async def test_prefects_dashboard_and_the_api_page__show_what_there_is(
    live: Live, browser: Browser, pictures: Path, real_time: str
) -> None:
    email = address("dashboard")
    answer = await live.accepted("christmas-signup", signup(email), web=real_time)
    await live.prefect.ended(answer["flow_run_id"])
    browser.width(WIDE, height=1400)

    browser.open(f"{live.stack.addresses.prefect}/runs")
    browser.wait("return document.body.innerText.includes('christmas_email_')", within=90)
    browser.picture(pictures / "prefect-runs-1280.png", whole=False)
    assert email not in browser.text
    browser.complaints()  # the dashboard's own


async def test_the_api_page__works_under_its_policy_and_can_be_tried(
    live: Live, browser: Browser, pictures: Path
) -> None:
    browser.width(WIDE, height=1400)
    browser.complaints()  # those of the page before

    browser.open(f"{live.web}/docs")
    assert browser.run("return document.title") == "Tidings - Swagger UI"
    browser.wait("return document.querySelectorAll('.opblock').length >= 10")
    browser.picture(pictures / "docs-1280.png", whole=False)
    health = "#operations-health-live_health_get"
    browser.click(f"{health} .opblock-summary-control")
    browser.wait("return document.querySelector(arguments[0])", f"{health} .try-out__btn")
    browser.click(f"{health} .try-out__btn")
    browser.wait("return document.querySelector(arguments[0])", f"{health} button.execute")
    browser.click(f"{health} button.execute")
    said = browser.wait(
        "const e = document.querySelector(arguments[0]); return e && e.innerText",
        f"{health} .live-responses-table tr.response td.response-col_description",
    )
    browser.picture(pictures / "docs-tried-1280.png", whole=False)

    assert '"status": "ok"' in said
    assert browser.complaints() == []
    assert browser.run("return [...document.scripts].every(s => !s.src || s.src.startsWith(location.origin))")
