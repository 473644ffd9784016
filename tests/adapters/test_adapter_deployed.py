"""Which deployments the code needs, as a process says that has imported the flows."""

from __future__ import annotations

from pathlib import Path

import pytest

from tidings.adapters.deploy import expected
from tidings.adapters.deployed import expected_of, signatures
from tidings.campaign import load_campaigns
from tidings.errors import CampaignError
from tidings.settings import ROOT


async def test_the_other_process__says_what_this_one_would() -> None:
    folders = [ROOT / "campaigns"]

    told = await expected_of(folders)

    assert told == expected(load_campaigns(folders))
    assert len(signatures(told)) > 10


async def test_a_campaign_that_cannot_be_loaded__is_told_in_its_own_words(tmp_path: Path) -> None:
    (tmp_path / "campaign.py").write_text("CAMPAIGN = 'none'\n")

    with pytest.raises(CampaignError, match=r"cannot be told: .*campaign.py does not define CAMPAIGN"):
        await expected_of([tmp_path])
