"""The real resend SDK against the sandbox."""

import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import resend
from resend.exceptions import ResendError
from sandbox_process import Sandbox

Emails = type[resend.Emails]
Mail = dict[str, Any]


def refusal(call: Any, *arguments: Any) -> ResendError:
    with pytest.raises(ResendError) as caught:
        call(*arguments)
    return caught.value


class TestSend:
    def test_mail_is_accepted_delivered_and_readable(self, sandbox: Sandbox, emails: Emails, mail: Mail) -> None:
        sent = emails.send({**mail, "tags": [{"name": "flow", "value": "signup"}]})

        sandbox.wait_for(lambda: sandbox.event_of(sent["id"]) == "delivered", "delivery")
        read = emails.get(sent["id"])
        assert (read["html"], read["last_event"]) == ("<p>Hello</p>", "delivered")
        assert read["created_at"].endswith("+00")
        [kept] = sandbox.inbox(to="delivered+ada@resend.dev")
        assert [event["type"] for event in kept["events"]] == ["sent", "delivered"]
        assert kept["tags"] == [{"name": "flow", "value": "signup"}]

    async def test_async_client(self, emails: Emails, mail: Mail) -> None:
        sent = await emails.send_async(mail)

        assert (await emails.get_async(sent["id"]))["id"] == sent["id"]

    @pytest.mark.parametrize(
        ("change", "code", "name", "text"),
        [
            ({"from": None}, 422, "missing_required_field", "Missing `from` field."),
            ({"to": []}, 422, "missing_required_field", "Missing `to` field."),
            ({"subject": ""}, 422, "missing_required_field", "Missing `subject` field."),
            ({"html": None, "text": None}, 422, "missing_required_field", "`html` or `text`"),
            ({"to": "ada"}, 422, "validation_error", "Invalid `to` field. The email address needs"),
            ({"to": "a@example.com"}, 422, "validation_error", "testing email address instead of domains"),
            ({"to": ["a@resend.dev"] * 51}, 422, "validation_error", "at most 50"),
            ({"tags": [{"name": "flöw", "value": "x"}]}, 422, "validation_error", "Tags should only"),
            ({"headers": {"X-A": 1}}, 422, "validation_error", "header values must be strings"),
            ({"from": "a@other.ca"}, 403, "validation_error", "The other.ca domain is not verified."),
            (
                {"from": "onboarding@resend.dev", "to": "ada@salon.ca"},
                403,
                "validation_error",
                "You can only send testing emails to your own email address",
            ),
        ],
    )
    def test_refusals(
        self, sandbox: Sandbox, emails: Emails, mail: Mail, change: Mail, code: int, name: str, text: str
    ) -> None:
        error = refusal(emails.send, mail | change)

        assert (error.code, error.error_type) == (code, name)
        assert text in str(error)
        assert sandbox.inbox() == []

    def test_example_com_is_accepted_when_switched_off(self, sandbox: Sandbox, emails: Emails, mail: Mail) -> None:
        sandbox.set(refuse_example_domains=False)

        assert emails.send(mail | {"to": "a@example.com"})["id"]

    def test_domain_status_decides(self, sandbox: Sandbox, emails: Emails, mail: Mail) -> None:
        sandbox.set(domains={"tidings.test": "pending"})
        assert refusal(emails.send, mail).code == 403

        [domain] = resend.Domains.list()["data"]
        resend.Domains.verify(domain["id"])
        assert emails.send(mail)["id"]

    def test_half_a_surrogate_pair_does_no_harm(self, sandbox: Sandbox, emails: Emails, mail: Mail) -> None:
        sent = emails.send(mail | {"subject": "a\ud83d", "html": "whole 😀"})

        assert emails.get(sent["id"])["subject"] == "a?"
        assert emails.get(sent["id"])["html"] == "whole 😀"


class TestKeys:
    @pytest.mark.parametrize(
        ("key", "code", "name"),
        [
            (None, 403, "invalid_api_key"),
            ("sk_wrong", 403, "invalid_api_key"),
            ("", 401, "missing_api_key"),
        ],
    )
    def test_refused(
        self, emails: Emails, mail: Mail, monkeypatch: pytest.MonkeyPatch, key: str, code: int, name: str
    ) -> None:
        monkeypatch.setattr(resend, "api_key", key)

        error = refusal(emails.send, mail)

        assert (error.code, error.error_type) == (code, name)

    def test_restricted_key_only_sends(self, emails: Emails, mail: Mail, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(resend, "api_key", "re_restricted_1")

        sent = emails.send(mail)

        assert refusal(emails.get, sent["id"]).error_type == "restricted_api_key"

    def test_accepted_keys_can_be_listed(self, sandbox: Sandbox, emails: Emails, mail: Mail) -> None:
        sandbox.set(resend_tokens=["re_other"])

        assert refusal(emails.send, mail).error_type == "invalid_api_key"


class TestIdempotency:
    def test_same_key_same_payload_is_one_mail(self, sandbox: Sandbox, emails: Emails, mail: Mail) -> None:
        first = emails.send(mail, {"idempotency_key": "flow/1"})
        again = emails.send(mail, {"idempotency_key": "flow/1"})

        assert first["id"] == again["id"]
        assert len(sandbox.inbox(idempotency_key="flow/1")) == 1

    def test_same_key_other_payload_is_refused(self, sandbox: Sandbox, emails: Emails, mail: Mail) -> None:
        emails.send(mail, {"idempotency_key": "flow/1"})

        error = refusal(emails.send, mail | {"subject": "Other"}, {"idempotency_key": "flow/1"})

        assert (error.code, error.error_type) == (409, "invalid_idempotent_request")
        assert len(sandbox.inbox()) == 1

    def test_same_key_while_the_first_runs_is_refused(self, sandbox: Sandbox, emails: Emails, mail: Mail) -> None:
        sandbox.fault("delay", service="resend", delay=0.5)
        with ThreadPoolExecutor() as pool:
            first = pool.submit(emails.send, mail, {"idempotency_key": "flow/1"})
            time.sleep(0.2)

            error = refusal(emails.send, mail, {"idempotency_key": "flow/1"})

        assert (error.code, error.error_type) == (409, "concurrent_idempotent_requests")
        assert [kept["id"] for kept in sandbox.inbox()] == [first.result()["id"]]

    def test_refused_mail_does_not_burn_its_key(self, emails: Emails, mail: Mail) -> None:
        refusal(emails.send, mail | {"to": "nobody"}, {"idempotency_key": "flow/1"})

        assert emails.send(mail, {"idempotency_key": "flow/1"})["id"]

    @pytest.mark.parametrize("key", ["x" * 257, ""])
    def test_key_has_1_to_256_characters(self, emails: Emails, mail: Mail, key: str) -> None:
        assert refusal(emails.send, mail, {"idempotency_key": key}).error_type == "invalid_idempotency_key"


class TestBatch:
    def mails(self, mail: Mail, count: int) -> list[Mail]:
        return [mail | {"to": [f"delivered+{number}@resend.dev"]} for number in range(count)]

    def test_hundred_mails_in_order(self, sandbox: Sandbox, emails: Emails, mail: Mail) -> None:
        sent = resend.Batch.send(self.mails(mail, 100), {"idempotency_key": "batch/1"})
        again = resend.Batch.send(self.mails(mail, 100), {"idempotency_key": "batch/1"})

        assert sent["data"] == again["data"]
        kept = sandbox.inbox(order="asc", limit=1000)
        assert [one["id"] for one in kept] == [one["id"] for one in sent["data"]]
        assert [one["batch_index"] for one in kept] == list(range(100))
        assert len({one["batch_id"] for one in kept}) == 1

    def test_strict_refuses_all_for_one(self, sandbox: Sandbox, emails: Emails, mail: Mail) -> None:
        mails = [*self.mails(mail, 2), mail | {"to": "a@example.com"}]

        assert refusal(resend.Batch.send, mails).code == 422
        assert sandbox.inbox() == []

    def test_permissive_names_the_bad_ones(self, sandbox: Sandbox, emails: Emails, mail: Mail) -> None:
        mails = [mail, mail | {"to": "nobody"}, mail]

        sent = resend.Batch.send(mails, {"batch_validation": "permissive"})

        assert len(sent["data"]) == 2
        assert [error["index"] for error in sent["errors"]] == [1]
        assert sorted(one["batch_index"] for one in sandbox.inbox()) == [0, 2]

    @pytest.mark.parametrize("count", [0, 101])
    def test_one_to_a_hundred(self, emails: Emails, mail: Mail, count: int) -> None:
        assert refusal(resend.Batch.send, self.mails(mail, count)).code == 422


class TestLimits:
    def test_too_many_a_second(self, sandbox: Sandbox, emails: Emails, mail: Mail) -> None:
        sandbox.set(resend_rate=2)
        headers = [emails.send(mail)["http_headers"] for _ in range(2)]

        error = refusal(emails.send, mail)

        assert [one["ratelimit-remaining"] for one in headers] == ["1", "0"]
        assert headers[0]["ratelimit-policy"] == "2;w=1"
        assert (error.code, error.error_type) == (429, "rate_limit_exceeded")
        assert error.headers["retry-after"] == "1"
        time.sleep(1.05)
        assert emails.send(mail)["id"]

    def test_daily_quota_counts_recipients(self, sandbox: Sandbox, emails: Emails, mail: Mail) -> None:
        sandbox.set(daily_quota=3)
        sent = emails.send(mail | {"cc": ["delivered+b@resend.dev"]})

        error = refusal(emails.send, mail | {"cc": ["delivered+b@resend.dev"]})

        assert sent["http_headers"]["x-resend-daily-quota"] == "2"
        assert (error.code, error.error_type) == (429, "daily_quota_exceeded")
        assert emails.send(mail)["id"]


class TestLifecycle:
    @pytest.mark.parametrize(
        ("recipient", "events"),
        [
            ("ada@salon.ca", ["sent", "delivered"]),
            ("bounced+x@resend.dev", ["sent", "bounced"]),
            ("complained+x@resend.dev", ["sent", "delivered", "complained"]),
            ("suppressed@resend.dev", ["suppressed"]),
        ],
    )
    def test_recipient_decides(
        self, sandbox: Sandbox, emails: Emails, mail: Mail, recipient: str, events: list[str]
    ) -> None:
        mail_id = emails.send(mail | {"to": recipient})["id"]

        sandbox.wait_for(lambda: sandbox.event_of(mail_id) == events[-1], events[-1])
        shown = sandbox.get(f"inbox/{mail_id}")["events"]
        assert [event["type"] for event in shown] == events

    def test_suppressed_address_gets_nothing(self, sandbox: Sandbox, emails: Emails, mail: Mail) -> None:
        resend.Suppressions.add({"email": "Ada@salon.ca"})
        mail_id = emails.send(mail | {"to": "ada@salon.ca"})["id"]

        sandbox.wait_for(lambda: sandbox.event_of(mail_id) == "suppressed", "suppression")
        assert resend.Suppressions.get("ada@salon.ca")["origin"] == "manual"
        resend.Suppressions.remove("ada@salon.ca")
        assert resend.Suppressions.list()["data"] == []

    def test_bounce_suppresses_when_asked_to(self, sandbox: Sandbox, emails: Emails, mail: Mail) -> None:
        sandbox.set(auto_suppress=True)
        bounced = mail | {"to": "bounced+x@resend.dev"}
        first = emails.send(bounced)["id"]
        sandbox.wait_for(lambda: sandbox.event_of(first) == "bounced", "the bounce")

        second = emails.send(bounced)["id"]

        sandbox.wait_for(lambda: sandbox.event_of(second) == "suppressed", "suppression")
        assert resend.Suppressions.get("bounced+x@resend.dev")["origin"] == "bounce"

    def test_scheduled_mail_can_be_moved_and_cancelled(self, sandbox: Sandbox, emails: Emails, mail: Mail) -> None:
        mail_id = emails.send(mail | {"scheduled_at": "in 5 min"})["id"]
        sandbox.wait_for(lambda: sandbox.event_of(mail_id) == "scheduled", "scheduling")

        emails.update({"id": mail_id, "scheduled_at": "in 2 hours"})
        emails.cancel(mail_id)

        assert emails.get(mail_id)["last_event"] == "canceled"
        assert sandbox.get("stats")["events_planned"] == 0
        assert refusal(emails.cancel, mail_id).code == 422


class TestReading:
    def test_list_pages_both_ways(self, emails: Emails, mail: Mail) -> None:
        ids = [emails.send(mail)["id"] for _ in range(5)][::-1]

        first = emails.list({"limit": 2})
        rest = emails.list({"limit": 3, "after": ids[1]})
        newer = emails.list({"limit": 2, "before": ids[3]})

        assert ([one["id"] for one in first["data"]], first["has_more"]) == (ids[:2], True)
        assert ([one["id"] for one in rest["data"]], rest["has_more"]) == (ids[2:], False)
        assert ([one["id"] for one in newer["data"]], newer["has_more"]) == (ids[1:3], True)

    def test_unknown_mail_and_path(self, sandbox: Sandbox, emails: Emails) -> None:
        error = refusal(emails.get, "49a3999c-0ce1-4ea6-ab68-afcd6dc2e794")

        assert (error.code, error.message) == (404, "Email not found")
        answer = sandbox.http.get(f"{sandbox.url}/resend/nope", headers={"authorization": "Bearer re_x"})
        assert answer.json()["name"] == "not_found"

    def test_domains_have_records(self, emails: Emails) -> None:
        made = resend.Domains.create({"name": "mail.salon.ca"})

        assert {record["record"] for record in made["records"]} == {"SPF", "DKIM"}
        assert resend.Domains.get(made["id"])["status"] == "not_started"
        resend.Domains.remove(made["id"])
        assert refusal(resend.Domains.get, made["id"]).code == 404
