"""Which deployments the code needs, as a process says that has imported the flows."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path
from typing import Any

import pytest

from tidings.adapters import deployed
from tidings.adapters.deploy import expected
from tidings.adapters.deployed import expected_of, signatures
from tidings.campaign import load_campaigns
from tidings.errors import CampaignError, RetryLater
from tidings.settings import ROOT


async def test_the_other_process__says_what_this_one_would() -> None:
    folders = [ROOT / "campaigns"]

    told = await expected_of(folders)

    assert told == expected(load_campaigns(folders))
    assert len(signatures(told)) > 10


async def test_many_who_ask_at_once__start_one_process(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    started: list[tuple[object, ...]] = []
    start = asyncio.create_subprocess_exec

    async def count(*args: Any, **given: Any) -> Any:
        started.append(args)
        return await start(*args, **given)

    monkeypatch.setattr(deployed, "_known", {})
    monkeypatch.setattr(asyncio, "create_subprocess_exec", count)
    folders = [ROOT / "campaigns" / "canary"]

    gone = asyncio.create_task(expected_of(folders))
    await asyncio.sleep(0)
    gone.cancel()
    first, second = await asyncio.gather(expected_of(folders), expected_of(folders))
    third = await expected_of(folders)

    assert first == second == third
    assert len(started) == 1


async def test_a_campaign_that_prints__is_not_in_the_way(tmp_path: Path) -> None:
    canary = ROOT / "campaigns" / "canary"
    for name in ("campaign.py", "payloads.py"):
        if (canary / name).exists():
            (tmp_path / name).write_text((canary / name).read_text(encoding="utf-8") + "\nprint('hello')\n")

    assert await expected_of([tmp_path])


@pytest.mark.parametrize(
    ("script", "words"),
    [(None, "does not start"), ("exec sleep 30", "nothing within 0.2 s"), ("kill -9 $$", "killed by signal 9")],
)
async def test_a_process_that_cannot_do_its_work__is_tried_again_later(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, script: str | None, words: str
) -> None:
    python = tmp_path / "python"
    if script:
        python.write_text(f"#!/bin/sh\n{script}\n")
        python.chmod(0o700)
    monkeypatch.setattr(sys, "executable", str(python))
    monkeypatch.setattr(deployed, "APART_SECONDS", 0.2 if script == "exec sleep 30" else 20)

    with pytest.raises(RetryLater, match=words):
        await expected_of([tmp_path])


async def test_a_campaign_that_cannot_be_loaded__is_told_in_its_own_words(tmp_path: Path) -> None:
    (tmp_path / "campaign.py").write_text("CAMPAIGN = 'none'\n")

    with pytest.raises(CampaignError, match=r"cannot be told: .*campaign.py does not define CAMPAIGN"):
        await expected_of([tmp_path])
