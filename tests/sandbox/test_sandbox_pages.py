"""The pages as served; how the funnel behaves in a browser is in test_sandbox_funnel.py."""

import re
from typing import Any

import pytest
import resend
from sandbox_process import Sandbox

Emails = type[resend.Emails]
Mail = dict[str, Any]


def page(sandbox: Sandbox, path: str) -> str:
    answer = sandbox.http.get(sandbox.url + path)
    assert answer.status_code == 200
    return answer.text


@pytest.mark.parametrize("path", ["/", "/inbox", "/funnel"])
def test_pages_load_nothing_from_elsewhere(sandbox: Sandbox, path: str) -> None:
    html = page(sandbox, path)

    assert not re.search(r"<(script|link|img)[^>]+(src|href)=[\"']?(https?:)?//", html)
    assert 'name="viewport"' in html


def test_index_names_the_notion_root(sandbox: Sandbox) -> None:
    assert sandbox.get("health")["notion_root_page_id"] in page(sandbox, "/")


def test_mail_is_escaped_and_its_html_stays_in_the_frame(sandbox: Sandbox, emails: Emails, mail: Mail) -> None:
    evil = '"><script>alert(1)</script>'
    mail_id = emails.send(mail | {"subject": evil, "html": evil, "text": evil, "headers": {"X-A": evil}})["id"]

    html = page(sandbox, f"/inbox/{mail_id}")

    assert "<script>alert" not in html
    assert 'sandbox="allow-popups allow-popups-to-escape-sandbox" srcdoc="&lt;base' in html
    assert html.count("<script>") == 1


def test_unknown_mail_has_a_page_too(sandbox: Sandbox) -> None:
    assert sandbox.http.get(f"{sandbox.url}/inbox/nope").status_code == 404


def test_inbox_json_filters_and_pages(sandbox: Sandbox, emails: Emails, mail: Mail) -> None:
    for number in range(3):
        emails.send(mail | {"to": f"delivered+{number}@resend.dev", "subject": f"Number {number}"})
    newest = sandbox.inbox()[0]

    assert [one["subject"] for one in sandbox.inbox(to="delivered+1@resend.dev")] == ["Number 1"]
    assert [one["subject"] for one in sandbox.inbox(to="delivered@resend.dev")] == []
    assert [one["subject"] for one in sandbox.inbox(q="number 2")] == ["Number 2"]
    assert [one["id"] for one in sandbox.inbox(since=newest["created_at"])] == [newest["id"]]
    assert [one["subject"] for one in sandbox.inbox(order="asc", limit=1, offset=1)] == ["Number 1"]
    assert "html" not in sandbox.inbox(bodies="false")[0]


def test_funnel_posts_where_it_is_told(sandbox: Sandbox) -> None:
    sandbox.set(signup_url='http://127.0.0.1:9/"x')

    assert 'data-signup-url="http://127.0.0.1:9/&#34;x"' in page(sandbox, "/funnel")


def test_unknown_settings_are_refused_and_change_nothing(sandbox: Sandbox) -> None:
    before = sandbox.get("settings")

    answer = sandbox.http.put(f"{sandbox.url}/control/settings", json={"resend_rate": 1, "nope": 1})

    assert answer.status_code == 422
    assert sandbox.get("settings") == before
