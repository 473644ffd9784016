"""What the sandbox has acknowledged is there after kill -9."""

import subprocess
import sys
import threading
from typing import Any

import pytest
import resend
from resend.exceptions import ResendError
from sandbox_process import ROOT, Sandbox, make_notion, make_source

Emails = type[resend.Emails]
Mail = dict[str, Any]


def test_every_acknowledged_mail_survives(own_sandbox: Sandbox, own_emails: Emails, mail: Mail) -> None:
    acknowledged: dict[str, str] = {}

    def send_on(sender: int) -> None:
        for number in range(10_000):
            key = f"{sender}/{number}"
            try:
                acknowledged[key] = own_emails.send(mail, {"idempotency_key": key})["id"]
            except ResendError:
                return

    threads = [threading.Thread(target=send_on, args=(sender,)) for sender in range(4)]
    for thread in threads:
        thread.start()
    own_sandbox.wait_for(lambda: len(acknowledged) > 100, "a hundred mails")
    own_sandbox.kill()
    for thread in threads:
        thread.join()
    own_sandbox.start()

    kept = {one["idempotency_key"]: one["id"] for one in own_sandbox.inbox(bodies="false", limit=1000)}
    assert acknowledged.items() <= kept.items()
    for key in list(acknowledged)[:5]:
        assert own_emails.send(mail, {"idempotency_key": key})["id"] == acknowledged[key]
    own_sandbox.wait_for(lambda: own_sandbox.get("stats")["events_planned"] == 0, "every delivery")
    assert own_sandbox.get("stats")["by_last_event"] == {"delivered": len(kept)}


def test_notion_faults_and_settings_survive(own_sandbox: Sandbox) -> None:
    notion = make_notion(own_sandbox)
    source = make_source(notion, own_sandbox)
    page = notion.pages.create(
        parent={"data_source_id": source},
        properties={"Score": {"number": 3}},
        children=[{"divider": {}}, {"paragraph": {"rich_text": []}}],
    )
    own_sandbox.fault("reset", service="resend", after=3)
    own_sandbox.set(truncate_rich_text_at=7, domains={"mail.salon.ca": "verified"})

    own_sandbox.kill()
    own_sandbox.start()

    notion.close()
    notion = make_notion(own_sandbox)
    [found] = notion.data_sources.query(source)["results"]
    assert (found["id"], found["properties"]["Score"]["number"]) == (page["id"], 3)
    blocks = notion.blocks.children.list(page["id"])["results"]
    assert [block["type"] for block in blocks] == ["divider", "paragraph"]
    assert own_sandbox.get("faults")["data"][0]["after"] == 3
    settings = own_sandbox.get("settings")
    assert settings["truncate_rich_text_at"] == 7
    assert settings["domains"] == {"mail.salon.ca": "verified", "tidings.test": "verified"}
    notion.close()


def test_sigterm_ends_it_cleanly(own_sandbox: Sandbox) -> None:
    assert own_sandbox.stop() == 0


def test_port_in_use_is_a_clear_error(own_sandbox: Sandbox, tmp_path_factory: pytest.TempPathFactory) -> None:
    data = tmp_path_factory.mktemp("second")
    command = [sys.executable, "-m", "tidings.sandbox", "--data", str(data), "--port", str(own_sandbox.port)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=20, check=False)

    assert done.returncode == 1
    assert f"cannot listen on 127.0.0.1:{own_sandbox.port}" in done.stderr
