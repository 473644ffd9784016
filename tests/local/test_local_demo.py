"""`make demo` and `make up` as a person runs them."""

from __future__ import annotations

import io
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import httpx
import pytest
from local_stacks import MakeConfig, eventually
from rich.console import Console

from tidings.local import procfs
from tidings.local.config import Part, Step
from tidings.local.demo import Demo, DemoFailed, expectation, missing
from tidings.local.demo_ledger import Arrived, Mail
from tidings.local.entrance import campaigns_of
from tidings.local.services import online_workers
from tidings.local.stack import Stack
from tidings.local.up import curl_lines
from tidings.settings import ROOT

CAMPAIGNS = campaigns_of({})
MAIL = Mail(
    email="delivered+a@resend.dev",
    template="hello",
    state="delivered",
    reason=None,
    due_at=datetime(2026, 12, 1, tzinfo=UTC),
    sent_at=None,
    provider_id="1",
    arrived=Arrived("Hello", "delivered", None),
)
KEY = (MAIL.email, MAIL.template)


def test_expected__is_every_step_of_every_webhook() -> None:
    examples = [(w, next(iter(w.examples.values()))) for _, w in CAMPAIGNS.webhooks]
    posted = [expectation(CAMPAIGNS, webhook, body) for webhook, body in examples]

    assert sum(len(p.templates) for p in posted) == len(CAMPAIGNS.templates)
    assert len({p.email for p in posted}) == len(posted)


def test_missing__says_nothing_of_a_delivered_mail() -> None:
    assert missing({KEY}, [MAIL]) == []


def test_missing__names_the_mail_its_state_and_the_reason() -> None:
    failed = replace(MAIL, state="failed", reason="TemplateEmpty: hello", arrived=None)

    (said,) = missing({KEY}, [failed])

    assert said == ("delivered+a@resend.dev hello: failed in the ledger (TemplateEmpty: hello), not there in the inbox")


def test_missing__names_a_mail_that_was_never_planned() -> None:
    (said,) = missing({KEY}, [])

    assert "no enrolment has planned it" in said


def test_missing__wants_resends_report_in_the_ledger_too() -> None:
    (said,) = missing({KEY}, [replace(MAIL, state="sent")])

    assert "sent in the ledger, delivered in the inbox" in said


@pytest.mark.slow
@pytest.mark.stack
async def test_the_demo__ends_well_and_says_why_when_not(make_config: MakeConfig) -> None:
    """One stack: first with no time at all for the mails, then, the same webhooks again, with enough."""
    config = make_config(*Part, steps=frozenset(Step), testing=True, testing_minute=1.0)
    said = io.StringIO()
    console = Console(file=said, width=160)
    async with Stack(config) as stack, httpx.AsyncClient(timeout=30, trust_env=False) as client:
        assert await Demo(stack, CAMPAIGNS, console, client).run(0) == 1
        failure = said.getvalue()
        assert await Demo(stack, CAMPAIGNS, console, client).run(90) == 0
        await _a_killed_worker_is_back_only_when_prefect_has_heard_of_it(stack)

    assert "The demo failed" in failure
    assert "delivered+signup@resend.dev christmas_email_7: " in failure
    assert "End of the log of worker" in failure
    assert "All 19 mails were delivered, each once; the ledger and the inbox agree" in said.getvalue()


async def _a_killed_worker_is_back_only_when_prefect_has_heard_of_it(stack: Stack) -> None:
    api, began = stack.addresses.prefect_api, datetime.now(UTC)
    before = await online_workers(api, datetime.min.replace(tzinfo=UTC))

    stack.kill("worker")
    await stack.restart("worker")

    assert await online_workers(api, began) - before


async def test_a_webhook_that_is_refused__ends_the_demo_with_the_answer(make_config: MakeConfig) -> None:
    refusal = httpx.MockTransport(lambda request: httpx.Response(422, json={"detail": "email is missing"}))
    async with Stack(make_config(Part.POSTGRES)) as stack, httpx.AsyncClient(transport=refusal) as client:
        with pytest.raises(DemoFailed, match=r"christmas-signup → 422 (.|\n)*email is missing"):
            await Demo(stack, CAMPAIGNS, Console(file=io.StringIO()), client).run(1)


@pytest.fixture
def running(tmp_path: Path) -> Iterator[subprocess.Popen[bytes]]:
    """`up` as a shell's background job starts it: with SIGINT ignored."""
    ports = dict.fromkeys(("TIDINGS_PORT", "TIDINGS_PREFECT_PORT", "TIDINGS_SANDBOX_PORT"), "0")
    with (tmp_path / "said").open("wb") as said:
        process = subprocess.Popen(
            [sys.executable, "-m", "tidings.local", "up", "--data", str(tmp_path / "data")],
            cwd=ROOT,
            env={**os.environ, **ports, "NOTION_TOKEN": "", "RESEND_API_KEY": ""},
            stdout=said,
            stderr=subprocess.STDOUT,
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_IGN),
        )
    yield process
    process.kill()
    process.wait()


@pytest.mark.slow
@pytest.mark.stack
async def test_up__says_a_curl_line_that_works_and_ends_on_ctrl_c(
    running: subprocess.Popen[bytes], tmp_path: Path
) -> None:
    said = tmp_path / "said"
    assert await eventually(lambda: "curl -sS" in said.read_text() or running.poll() is not None, 120)
    lines = re.findall(r"^curl -sS .*$", said.read_text(), re.MULTILINE)
    assert len(lines) == 2, said.read_text()

    answers = [subprocess.run(["sh", "-c", line], capture_output=True, text=True) for line in lines]  # noqa: ASYNC221
    stranger = subprocess.run(["sh", "-c", lines[1].replace("Bearer ", "Bearer x")], capture_output=True, text=True)  # noqa: ASYNC221
    began = time.monotonic()
    running.send_signal(signal.SIGINT)
    assert await eventually(lambda: running.poll() is not None, 15)

    assert all("processed successfully" in answer.stdout for answer in answers)
    assert "is none of WEBHOOK_TOKENS" in stranger.stdout
    assert running.returncode == 0
    assert time.monotonic() - began < 12
    assert not _left_in(tmp_path / "data")


def _left_in(folder: Path) -> list[str]:
    """Processes that still have something to do with this folder."""
    pids = (int(entry.name) for entry in Path("/proc").glob("[0-9]*"))
    return [text for pid in pids if str(folder) in (text := procfs.command(pid) or "")]


async def test_the_curl_lines__are_one_line_each_for_you(make_config: MakeConfig) -> None:
    async with Stack(make_config(Part.POSTGRES)) as stack:
        public, private = curl_lines(stack.addresses, CAMPAIGNS, "token-1")

    assert "\n" not in public + private
    assert all("delivered+you@resend.dev" in line for line in (public, private))
    assert "Bearer" not in public
    assert '-H "Authorization: Bearer token-1"' in private
