"""The funnel in a real browser: what the visitor is told is what happened."""

import json
import shutil
import subprocess
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import httpx
import pytest
from sandbox_process import Sandbox

pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(not shutil.which("chromedriver"), reason="needs Chromium and chromedriver"),
]
FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)
FILL = """
form.first_name.value = "Ada"; form.email.value = "delivered+ada@resend.dev";
form.business_name.value = "Salon Ada"; form.revenue.selectedIndex = 3; form.challenge.value = "Time";
["red", "green", "orange", "red", "yellow", "green", "green", "orange"].forEach((rating, index) => {
  form.querySelector(`[name=${SYSTEMS[index]}][value=${rating}]`).checked = true;
});
form.consent.checked = arguments[0];
form.dispatchEvent(new Event("input", {bubbles: true}));
"""
SHOWN = """
const thanks = document.getElementById("thanks"), notice = document.getElementById("notice");
if (!thanks.hidden) return "thanks: " + document.getElementById("thanks-text").textContent;
if (!notice.hidden) return "sorry: " + document.getElementById("notice-text").textContent;
return null;
"""


class Website:
    """Answers the funnel's posts as told, with the CORS headers of the real webhook server."""

    def __init__(self) -> None:
        self.answer: tuple[int, Any] = (200, {})
        self.retry_after: str | None = None
        self.got: list[dict[str, Any]] = []
        #: What it answers when it is asked how far a post has come: one after the other, the last one for ever.
        self.statuses: list[tuple[int, Any]] = [(404, {})]
        website = self

        class Handler(BaseHTTPRequestHandler):
            def start(self, status: int) -> None:
                self.send_response(status)
                self.send_header("access-control-allow-origin", "*")
                self.send_header("access-control-allow-headers", "content-type")
                self.send_header("access-control-expose-headers", "retry-after")
                if website.retry_after:
                    self.send_header("retry-after", website.retry_after)
                self.send_header("content-type", "application/json")
                self.end_headers()

            def do_OPTIONS(self) -> None:
                self.start(204)

            def do_POST(self) -> None:
                website.got.append(json.loads(self.rfile.read(int(self.headers["content-length"]))))
                self.start(website.answer[0])
                self.wfile.write(json.dumps(website.answer[1]).encode())

            def do_GET(self) -> None:
                status, answer = website.statuses.pop(0) if len(website.statuses) > 1 else website.statuses[0]
                self.start(status)
                self.wfile.write(json.dumps(answer).encode())

            def log_message(self, format: str, *args: object) -> None:
                """Says nothing."""

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}/webhook/christmas-signup"
        self.status_url = f"http://127.0.0.1:{self.server.server_port}/webhook/status/1"
        threading.Thread(target=self.server.serve_forever, args=(0.02,), daemon=True).start()

    def close(self) -> None:
        self.server.shutdown()
        self.server.server_close()


class Browser:
    """As much of WebDriver as is needed here."""

    def __init__(self, port: int, profile: Path) -> None:
        self.http = httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=60, trust_env=False)
        options = {"args": [*FLAGS, f"--user-data-dir={profile}"]}
        wanted = {"capabilities": {"alwaysMatch": {"goog:chromeOptions": options}}}
        self.session = f"/session/{self.post('/session', wanted)['sessionId']}"

    def post(self, path: str, body: Any) -> Any:
        answer = self.http.post(path, json=body)
        assert answer.status_code == 200, answer.text
        return answer.json()["value"]

    def open(self, url: str) -> None:
        self.post(f"{self.session}/url", {"url": url})

    def run(self, script: str, *values: Any) -> Any:
        return self.post(f"{self.session}/execute/sync", {"script": script, "args": list(values)})

    def submit(self) -> str:
        self.run("document.getElementById('submit').click()")
        return self.wait(SHOWN)

    def wait(self, script: str) -> str:
        until = time.monotonic() + 10
        while time.monotonic() < until:
            if shown := self.run(script):
                return str(shown)
            time.sleep(0.05)
        raise AssertionError("the page says nothing")


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    driver = subprocess.Popen(["chromedriver", "--port=0"], stdout=subprocess.PIPE, text=True)
    assert driver.stdout is not None
    line = next(line for line in driver.stdout if "started successfully on port" in line)
    port = int(line.rsplit(" ", 1)[1].strip(" .\n"))
    browser = Browser(port, tmp_path_factory.mktemp("profile"))
    yield browser
    browser.http.delete(browser.session)
    browser.http.close()
    driver.terminate()
    driver.wait()
    driver.stdout.close()


@pytest.fixture
def website() -> Iterator[Website]:
    website = Website()
    yield website
    website.close()


def fill(sandbox: Sandbox, browser: Browser, website: Website, *, consent: bool = True) -> None:
    sandbox.set(signup_url=website.url)
    browser.open(f"{sandbox.url}/funnel")
    browser.run("localStorage.clear(); form.reset()")
    browser.run(FILL, consent)


@pytest.mark.parametrize(
    ("status", "answer", "consent", "told"),
    [
        (200, {"flow_run_id": "x"}, True, "thanks: Your first email is on its way to delivered+ada@resend.dev."),
        (200, {"flow_run_id": None}, False, "thanks: We have kept your answers, and will not email you."),
        (202, {"flow_run_id": None}, True, "thanks: We have your answers; the first email follows as soon as"),
        # accepted, but nothing was started: no mail is promised
        (200, {"flow_run_id": None}, True, "thanks: We have your answers."),
        (200, {"flow_run_id": "x", "duplicate": True}, True, "thanks: We already had these answers"),
        (500, {}, True, "sorry: Sorry, something went wrong"),
        (429, {}, True, "sorry: Sorry, we are very busy"),
        (422, {"detail": [{"loc": ["body", "email"], "msg": "No."}]}, True, "sorry: Please look at the marked"),
    ],
)
def test_visitor_is_told_what_happened(
    sandbox: Sandbox, browser: Browser, website: Website, status: int, answer: Any, consent: bool, told: str
) -> None:
    website.answer = (status, answer)
    fill(sandbox, browser, website, consent=consent)

    assert browser.submit().startswith(told)
    assert website.got[0]["consent"] is consent


def test_figures_come_from_the_answers(sandbox: Sandbox, browser: Browser, website: Website) -> None:
    fill(sandbox, browser, website)
    browser.submit()

    [sent] = website.got
    assert sent.pop("form_trap") == ""
    assert 0 < sent.pop("form_seconds") < 60
    assert sent == {
        "email": "delivered+ada@resend.dev",
        "first_name": "Ada",
        "business_name": "Salon Ada",
        "revenue": "$250k to $500k",
        "challenge": "Time",
        "consent": True,
        "assessment_score": 54,
        "red_systems": 2,
        "orange_systems": 2,
        "yellow_systems": 1,
        "green_systems": 3,
        "gps_score": 0,
        "money_score": 0,
        "weakest_system_1": "GPS",
        "weakest_system_2": "FUEL",
        "strongest_system": "CREW",
    }


def test_answers_outlive_a_failure_and_a_reload(sandbox: Sandbox, browser: Browser, website: Website) -> None:
    website.answer = (503, {})
    fill(sandbox, browser, website)
    assert browser.submit().startswith("sorry:")

    browser.open(f"{sandbox.url}/funnel")
    website.answer = (200, {"flow_run_id": "x"})

    assert browser.submit().startswith("thanks:")
    first, second = website.got
    assert second.pop("form_seconds") > first.pop("form_seconds")  # the visit before the reload counts
    assert first == second
    assert browser.run("return localStorage.getItem(KEPT)") is None


def test_unreachable_server_is_not_thanked_for(sandbox: Sandbox, browser: Browser, website: Website) -> None:
    fill(sandbox, browser, website)
    website.close()

    assert browser.submit().startswith("sorry: Sorry, our server could not be reached")


def test_server_s_complaint_stands_beside_its_field(sandbox: Sandbox, browser: Browser, website: Website) -> None:
    website.answer = (422, {"detail": [{"loc": ["body", "email"], "msg": "Cannot receive mail"}]})
    fill(sandbox, browser, website)
    browser.submit()

    assert browser.run("return document.getElementById('email-error').textContent") == "Cannot receive mail"
    assert browser.run("return document.activeElement.id") == "email"
    assert browser.run("return form.business_name.value") == "Salon Ada"


def test_empty_form_is_not_posted(sandbox: Sandbox, browser: Browser, website: Website) -> None:
    sandbox.set(signup_url=website.url)
    browser.open(f"{sandbox.url}/funnel")
    browser.run("localStorage.clear(); form.reset(); document.getElementById('submit').click()")

    assert browser.run("return document.querySelectorAll('.error:not(:empty)').length") == 12
    assert website.got == []


def test_the_field_for_bots__is_out_of_a_persons_way(sandbox: Sandbox, browser: Browser, website: Website) -> None:
    fill(sandbox, browser, website)
    trap = browser.run(
        "const t = form.form_trap, r = t.getBoundingClientRect();"
        "return [r.right < 0, t.tabIndex, t.closest('[aria-hidden=true]') !== null, t.autocomplete,"
        " document.documentElement.scrollWidth <= document.documentElement.clientWidth]"
    )
    browser.run("form.form_trap.value = 'https://spam.test'")
    browser.submit()

    assert trap == [True, -1, True, "off", True]
    assert website.got[0]["form_trap"] == "https://spam.test"


@pytest.mark.parametrize(("after", "told"), [("45", "in 45 seconds"), ("600", "in 10 minutes"), (None, "in a minute")])
def test_who_has_to_wait__is_told_how_long(
    sandbox: Sandbox, browser: Browser, website: Website, after: str | None, told: str
) -> None:
    website.answer, website.retry_after = (429, {"detail": "Too many"}), after
    fill(sandbox, browser, website)

    assert told in browser.submit()


MAIL = "const m = document.getElementById('mail'); return m.dataset.stage && m.dataset.stage + ': ' + m.textContent"
TEXT = "return document.getElementById('thanks-text').textContent"
ON_ITS_WAY = {"status": "working", "message": "The first email is on its way.", "final": False, "at": None}


def follow(sandbox: Sandbox, browser: Browser, website: Website, *statuses: tuple[int, Any]) -> None:
    website.answer = (200, {"flow_run_id": "x", "status_url": website.status_url})
    website.statuses, website.retry_after = list(statuses), "0.1"
    fill(sandbox, browser, website)
    browser.run("asking = 3000")
    browser.submit()


def test_f7_the_visitor_is_told_that_the_mail_has_left__when_it_has(
    sandbox: Sandbox, browser: Browser, website: Website
) -> None:
    sent = {**ON_ITS_WAY, "status": "sent"}
    follow(sandbox, browser, website, *[(200, ON_ITS_WAY)] * 3, (200, sent))

    assert browser.wait(MAIL) == "sent: Your first email has been sent to delivered+ada@resend.dev."
    assert browser.run(TEXT) == "We have your answers."
    assert browser.run("return localStorage.getItem(KEPT)") is None
    website.statuses = [(200, {**sent, "status": "delivered", "final": True})]
    browser.wait(f"const shown = (() => {{ {MAIL} }})(); return shown.includes('arrived')")


def test_f7_a_mail_that_could_not_be_sent__is_an_apology_and_the_answers_are_kept(
    sandbox: Sandbox, browser: Browser, website: Website
) -> None:
    words = "We have received this, but could not send the email."
    follow(sandbox, browser, website, (200, {"status": "failed", "message": words, "final": True, "at": None}))

    assert browser.wait(MAIL) == f"failed: Sorry. {words} If nothing has come by tomorrow, please write to us."
    assert browser.run(TEXT) == "We have your answers."
    assert "Salon Ada" in browser.run("return localStorage.getItem(KEPT)")
    browser.run("document.querySelector('#back button').click()")
    assert browser.run("return [form.hidden, document.activeElement.id, form.email.value]") == [
        False,
        "email",
        "delivered+ada@resend.dev",
    ]


@pytest.mark.parametrize("never", [(200, ON_ITS_WAY), (500, {}), (404, {})])
def test_f7_what_is_not_known__is_not_promised(
    sandbox: Sandbox, browser: Browser, website: Website, never: tuple[int, Any]
) -> None:
    follow(sandbox, browser, website, never)

    assert browser.wait(MAIL).startswith("waiting: We do not know yet that it has left")


def test_a_contact_who_gets_nothing_new__is_not_promised_anything(
    sandbox: Sandbox, browser: Browser, website: Website
) -> None:
    words = "No new email will be sent because of this."
    follow(sandbox, browser, website, (200, {"status": "nothing", "message": words, "final": True, "at": None}))

    assert browser.wait(MAIL) == f"waiting: {words}"
    assert browser.run(TEXT) == "We have your answers."


def test_a_mail_that_is_due_later__is_told_with_its_time(sandbox: Sandbox, browser: Browser, website: Website) -> None:
    planned = {"status": "planned", "message": "", "final": False, "at": "2026-12-24T17:30:00Z"}
    follow(sandbox, browser, website, (200, planned))

    assert "24" in browser.wait(MAIL)
