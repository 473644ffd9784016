"""What Prefect is shown of a run (its end, its artifact, its log) tells of no address, whatever a service says."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pytest
from worlds import World

from flows import reporting
from flows.reporting import RunFailed, raise_failures, report
from tidings.errors import MessageRefused, Refused


class Telling:
    """A Resend that quotes the recipient in everything it says."""

    rate_limit = None

    async def send(self, payloads: Sequence[Mapping[str, Any]], key: str) -> list[str | Refused]:
        return [MessageRefused("Resend", f"Invalid `to`: {p['to'][0]} is unknown", status=422) for p in payloads]

    async def sent_since(self, since: Any) -> list[Mapping[str, Any]]:
        return []


async def test_a_refused_address__is_in_no_run_and_no_artifact(
    world: World, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    shown: list[str] = []

    async def artifact(markdown: str, **given: Any) -> None:
        shown.append(f"{markdown} {given}")

    monkeypatch.setattr(reporting, "acreate_markdown_artifact", artifact)
    emails = await world.enrolled(3)

    sent = await world.send(delivery=world.delivery(sender=Telling()))
    for each in sent:
        await report("sent-hello", "0 sent", each)
    with pytest.raises(RunFailed) as failed:
        raise_failures(sent[-1])

    told = "\n".join([*shown, str(failed.value), caplog.text, *world.runs.calls, str(world.runs.by_key)])
    assert "d…@resend.dev is unknown" in told
    assert [email for email in emails if email in told] == []
    (row, *_) = await world.messages()
    assert row.state == "failed"
