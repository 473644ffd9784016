"""F1, F7 and F21: a chain that is broken at its beginning, in its middle or at its ends, and who says so."""

from __future__ import annotations

from uuid import uuid4

import pytest
from evidence import Evidence
from live_notion import NotionDesk
from live_parts import Json, Live, address, until
from live_sequences import signup

from tidings.local import ports

pytestmark = pytest.mark.stack


@pytest.mark.failure(
    "F1",
    now="A canary is posted to the public address every day and after every deployment, or with `tidings canary`",
    noticed_by="the canary",
    within=30,
    says="it did not come back: its webhook could not be posted to …: … cannot be reached",
)
async def test_f1_a_server_that_is_not_there__loses_the_canary(live: Live, evidence: Evidence) -> None:
    elsewhere = await live.cli("canary", fails=True, PUBLIC_URL=live.stack.addresses.sandbox)
    assert f"its webhook was answered 404 at {live.stack.addresses.sandbox}" in elsewhere

    evidence.broken()
    nowhere = await live.cli("canary", fails=True, PUBLIC_URL=f"http://127.0.0.1:{ports.free_port()}")

    evidence.read(nowhere)
    assert "it is back" in await live.cli("canary")


@pytest.mark.failure(
    "F21",
    now="`/health` says that the process lives and nothing more; `/health/ready` proves each part with its service",
    noticed_by="`/health/ready`",
    within=30,
    says="notion: Notion: 401 …; set NOTION_TOKEN to the secret of the integration … "
    "resend: Resend: …; set RESEND_API_KEY to a key of resend.com/api-keys",
)
async def test_f21_keys_that_are_set_and_good_for_nothing__are_not_ready(live: Live, evidence: Evidence) -> None:
    await live.sandbox.change(notion_tokens=["ntn_sandbox"], resend_tokens=["re_sandbox"])
    evidence.broken()

    async with live.web_server(NOTION_TOKEN="ntn_anything", RESEND_API_KEY="re_anything") as url:
        alive = await live.http.get(f"{url}/health")
        status, problems = await live.ready(url)

    assert (alive.status_code, status) == (200, 503)
    assert problems.keys() == {"notion", "templates", "resend", "resend-webhook"}
    evidence.read("\n".join(f"{name}: {problems[name]}" for name in ("notion", "resend")))


@pytest.mark.failure(
    "F7",
    now="The answer says what happened, and its `status_url` tells a page whether the first mail has left",
    noticed_by="the visitor, on the website",
    within=30,
    says="We have received this, but could not send the email.",
)
async def test_f7_a_website_that_asks__is_told_the_truth(live: Live, desk: NotionDesk, evidence: Evidence) -> None:
    well = await live.accepted("christmas-signup", signup(address("f7")))
    assert await told(live, well, "delivered") == "The first email has been delivered."

    await desk.write("christmas_email_4", body="")
    evidence.broken()
    ill = await live.accepted("christmas-signup", signup(address("f7")))
    evidence.read(await told(live, ill, "failed"))

    assert (await live.http.get(f"{live.web}/webhook/status/{uuid4()}")).status_code == 404


async def told(live: Live, answer: Json, status: str) -> str:
    """What the website can say of its post, once this has become of it."""

    async def now() -> str | None:
        said = (await live.http.get(answer["status_url"])).json()
        return str(said["message"]) if said["status"] == status else None

    return await until(f"the status to be {status}", now)
