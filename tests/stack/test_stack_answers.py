"""What the sender of a webhook is told, and that it is what happened."""

from __future__ import annotations

import time

import pytest
from evidence import in_time
from live_parts import Json, Live, address
from live_sequences import WEBHOOKS, Expected, Posted, onboarding, signup

pytestmark = pytest.mark.stack


@pytest.mark.parametrize("webhook", WEBHOOKS, ids=lambda webhook: str(webhook.path))
async def test_answer__names_a_run_of_the_right_deployment(
    live: Live, five: dict[str, Posted], webhook: Expected
) -> None:
    posted = five[webhook.path]
    assert posted.answer["message"] == f"{webhook.noun} processed successfully"
    assert posted.answer["contact_created"] is True
    assert "duplicate" not in posted.answer

    run = await live.prefect.run(posted.answer["flow_run_id"])
    deployment = await live.prefect.deployment(webhook.deployment)
    assert deployment is not None
    assert run["deployment_id"] == deployment["id"]
    assert (await live.ledger.event(posted.answer["event_id"]))["state"] == "handled"


@pytest.mark.failure(
    "F15", now="A repeat is answered the same and starts nothing: no run, no message and no mail more are there"
)
@pytest.mark.parametrize("webhook", WEBHOOKS, ids=lambda webhook: str(webhook.path))
async def test_f15_a_repeat__is_answered_the_same_and_starts_nothing(
    live: Live, five: dict[str, Posted], webhook: Expected
) -> None:
    posted = five[webhook.path]
    before = await live.prefect.runs_of_deployment(webhook.deployment)

    again = await live.post(webhook.path, dict(reversed(posted.body.items())))

    assert again.status_code == 200
    assert again.json() == {**posted.answer, "duplicate": True}
    assert len(await live.prefect.runs_of_deployment(webhook.deployment)) == len(before)
    assert len(await live.ledger.messages(posted.email)) == len(webhook.templates)
    assert len(await live.sandbox.inbox(posted.email)) == len(webhook.templates)


async def test_another_signup_of_the_same_contact__is_handled_and_sends_nothing_twice(
    live: Live, five: dict[str, Posted]
) -> None:
    first = five["christmas-signup"]

    answer = await live.accepted("christmas-signup", {**first.body, "challenge": "Another one"})
    event = await live.event_is(answer["event_id"], "handled")

    assert answer["contact_created"] is False
    assert answer["event_id"] != first.answer["event_id"]
    assert event["reason"].startswith("the contact has had this sequence, and may enter it again from ")
    assert (await live.prefect.ended(answer["flow_run_id"]))["state_type"] == "COMPLETED"
    assert len(await live.sandbox.inbox(first.email)) == 7


@pytest.mark.parametrize(
    ("path", "body", "why"),
    [
        ("christmas-signup", {**signup(address("no-consent")), "consent": False}, "the contact gave no consent"),
        ("onboarding-start", {**onboarding(address("unpaid")), "payment_confirmed": False}, "the payment is not"),
    ],
    ids=["no-consent", "unpaid"],
)
async def test_what_starts_nothing__is_stored_and_says_so(live: Live, path: str, body: Json, why: str) -> None:
    before = await live.prefect.all("flow_runs", flows={"name": {"like_": "handler"}})
    answer = (await live.post(path, body)).json()

    assert answer["flow_run_id"] is None
    assert answer["contact_created"] is True
    assert "no email will be sent" in answer["message"]
    assert why in answer["message"]
    event = await live.ledger.event(answer["event_id"])
    assert event["state"] == "ignored"
    assert event["dispatch_id"] is None  # so nothing will ever dispatch it
    assert why in event["reason"]
    contact = await live.ledger.contact(body["email"])
    assert contact["first_name"] == body["first_name"]
    assert len(await live.prefect.all("flow_runs", flows={"name": {"like_": "handler"}})) == len(before)
    assert await live.ledger.messages(body["email"]) == []
    assert await live.sandbox.inbox(body["email"]) == []


async def test_prefect_away__is_answered_at_once_and_made_up_for(live: Live) -> None:
    email = address("away")
    body = signup(email)
    live.stack.kill("prefect")

    began = time.monotonic()
    answer = await live.post("christmas-signup", body)
    took = time.monotonic() - began
    again = await live.post("christmas-signup", body)

    assert answer.status_code == 202
    assert answer.json()["flow_run_id"] is None
    assert answer.json()["contact_created"] is True
    assert "as soon as the scheduler is back" in answer.json()["message"]
    assert again.status_code == 202
    assert again.json() == {**answer.json(), "duplicate": True}
    assert took < in_time(3)
    assert await live.not_ready("prefect")

    await live.stack.restart("prefect")
    back = time.monotonic()
    await live.mails(email, 1, within=30)
    assert time.monotonic() - back < in_time(10)

    event = await live.ledger.event(answer.json()["event_id"])
    run = await live.prefect.run(str(event["flow_run_id"]))
    assert run["name"].startswith("christmas-signup-handler · ")
    mails = await live.mails(email, 7)
    assert len(mails) == 7
    after = await live.post("christmas-signup", body)
    assert after.status_code == 200
    assert after.json()["flow_run_id"] == str(event["flow_run_id"])
