"""Webhooks out: signed, repeated until taken, and troubled on demand."""

import json
from typing import Any

import pytest
import resend
from sandbox_process import Receiver, Sandbox
from svix.webhooks import Webhook

Emails = type[resend.Emails]
Mail = dict[str, Any]
SECRET = "whsec_c2FuZGJveC1zYW5kYm94LXNhbmRib3gh"


def listen(sandbox: Sandbox, receiver: Receiver, **settings: Any) -> None:
    sandbox.set(webhook_url=receiver.url, webhook_secret=SECRET, webhook_retry_factor=0.01, **settings)


def verified(receiver: Receiver) -> list[tuple[str, Any]]:
    for headers, body in receiver.got:
        Webhook(SECRET).verify(body, headers)
    return [(headers["svix-id"], json.loads(body)) for headers, body in receiver.got]


def test_events_are_signed_and_complete(sandbox: Sandbox, emails: Emails, mail: Mail, receiver: Receiver) -> None:
    listen(sandbox, receiver)
    tags = [{"name": "flow", "value": "signup"}]
    mail_id = emails.send(mail | {"to": "bounced+ada@resend.dev", "tags": tags})["id"]

    sandbox.wait_for(lambda: len(receiver.got) == 2, "two events")
    events = {event["type"]: event["data"] for _, event in verified(receiver)}
    assert set(events) == {"email.sent", "email.bounced"}
    assert events["email.bounced"]["email_id"] == mail_id
    assert events["email.bounced"]["tags"] == {"flow": "signup"}
    assert events["email.bounced"]["bounce"]["type"] == "Permanent"
    headers, body = receiver.got[0]
    names = ("id", "timestamp", "signature")
    assert resend.Webhooks.verify(
        {
            "payload": body.decode(),
            "headers": {name: headers[f"svix-{name}"] for name in names},  # type: ignore[typeddict-item]
            "webhook_secret": SECRET,
        }
    )


def test_endpoint_made_through_the_api_gets_what_it_asked_for(
    sandbox: Sandbox, emails: Emails, mail: Mail, receiver: Receiver
) -> None:
    made = resend.Webhooks.create({"endpoint": receiver.url, "events": ["email.delivered"]})
    emails.send(mail)

    sandbox.wait_for(lambda: receiver.got, "an event")
    headers, body = receiver.got[0]
    Webhook(made["signing_secret"]).verify(body, headers)
    assert json.loads(body)["type"] == "email.delivered"
    resend.Webhooks.remove(made["id"])
    assert resend.Webhooks.list()["data"] == []


def test_refused_event_comes_again_with_its_id(
    sandbox: Sandbox, emails: Emails, mail: Mail, receiver: Receiver
) -> None:
    listen(sandbox, receiver)
    receiver.status = 500
    emails.send(mail | {"to": "suppressed@resend.dev"})
    sandbox.wait_for(lambda: receiver.got, "the first attempt")
    receiver.status = 204

    sandbox.wait_for(lambda: sandbox.get("webhooks", state="done")["data"], "an accepted attempt")
    assert len(receiver.got) >= 2
    assert len({svix_id for svix_id, _ in verified(receiver)}) == 1


def test_duplicates_share_an_id(sandbox: Sandbox, emails: Emails, mail: Mail, receiver: Receiver) -> None:
    listen(sandbox, receiver, webhook_duplicate=1)
    emails.send(mail | {"to": "suppressed@resend.dev"})

    sandbox.wait_for(lambda: len(receiver.got) == 2, "the event twice")
    assert len({svix_id for svix_id, _ in verified(receiver)}) == 1


def test_dropped_event_can_be_replayed(sandbox: Sandbox, emails: Emails, mail: Mail, receiver: Receiver) -> None:
    listen(sandbox, receiver, webhook_drop=1)
    emails.send(mail | {"to": "suppressed@resend.dev"})
    [dropped] = sandbox.wait_for(lambda: sandbox.get("webhooks", state="dropped")["data"], "a drop")
    assert receiver.got == []

    sandbox.http.post(f"{sandbox.url}/control/webhooks/{dropped['msg_id']}/replay")

    sandbox.wait_for(lambda: receiver.got, "the replay")
    assert verified(receiver)[0][0] == dropped["msg_id"]


def test_reordering_loses_nothing(sandbox: Sandbox, emails: Emails, mail: Mail, receiver: Receiver) -> None:
    listen(sandbox, receiver, webhook_reorder=0.4)
    for _ in range(10):
        emails.send(mail)

    sandbox.wait_for(lambda: len(receiver.got) == 20, "all twenty")
    order = [event["type"] for _, event in verified(receiver)]
    assert order != sorted(order, reverse=True)


@pytest.mark.parametrize("down", ["killed", "stopped"])
def test_undelivered_events_survive_a_restart(
    own_sandbox: Sandbox, own_emails: Emails, mail: Mail, receiver: Receiver, down: str
) -> None:
    own_sandbox.set(deliver_after=0.6)
    listen(own_sandbox, receiver)
    own_emails.send(mail)

    if down == "killed":
        own_sandbox.kill()
    else:
        assert own_sandbox.stop() == 0
    assert receiver.got == []
    own_sandbox.start()

    own_sandbox.wait_for(lambda: len(receiver.got) >= 2, "both events")
    assert {event["type"] for _, event in verified(receiver)} == {"email.sent", "email.delivered"}
