"""Each fault as the real SDKs see it, and what it leaves behind."""

import json
from typing import Any

import httpx
import notion_client
import pytest
import resend
from notion_client.errors import APIResponseError, RequestTimeoutError, UnknownHTTPResponseError
from resend.exceptions import ApplicationError, RateLimitError, ResendError
from sandbox_process import Sandbox, make_notion

Emails = type[resend.Emails]
Mail = dict[str, Any]
KEY = {"idempotency_key": "flow/1"}


def failure(emails: Emails, mail: Mail) -> ResendError:
    with pytest.raises(ResendError) as caught:
        emails.send(mail, KEY)  # type: ignore[arg-type]
    return caught.value


class TestResend:
    def test_status_with_retry_after(self, sandbox: Sandbox, emails: Emails, mail: Mail) -> None:
        sandbox.fault("status", service="resend", path="^/emails$", status=429, retry_after=2)

        error = failure(emails, mail)

        assert isinstance(error, RateLimitError)
        assert error.headers["retry-after"] == "2"
        assert sandbox.inbox() == []
        assert emails.send(mail)["id"]

    def test_a_rule_on_the_body_strikes_only_what_fits(self, sandbox: Sandbox, emails: Emails, mail: Mail) -> None:
        sandbox.fault("status", service="resend", path="^/emails$", body="refuse.*me", status=503)

        assert emails.send(mail)["id"]
        failure(emails, mail | {"subject": "refuse\nme"})

    @pytest.mark.parametrize(
        ("kind", "code", "text"),
        [
            ("html", 502, "Expected JSON response but got: text/html"),
            ("empty", 500, "Failed to decode JSON"),
            ("truncated", 500, "IncompleteRead"),
            ("reset", 500, "Connection reset by peer"),
        ],
    )
    def test_no_work_done(self, sandbox: Sandbox, emails: Emails, mail: Mail, kind: str, code: int, text: str) -> None:
        sandbox.fault(kind, service="resend", status=502)

        error = failure(emails, mail)

        assert (error.code, text in str(error)) == (code, True)
        assert sandbox.inbox() == []

    @pytest.mark.parametrize("kind", ["status", "html", "empty", "truncated", "reset", "timeout"])
    def test_work_done_and_answer_lost(
        self, sandbox: Sandbox, emails: Emails, mail: Mail, kind: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(resend, "default_http_client", resend.RequestsClient(timeout=1))
        sandbox.fault(f"work_then_{kind}", service="resend", method="POST", status=503)
        failure(emails, mail)
        [kept] = sandbox.inbox()

        again = emails.send(mail, KEY)  # type: ignore[arg-type]

        assert again["id"] == kept["id"]
        assert len(sandbox.inbox()) == 1

    def test_cut_json_with_the_right_length(self, sandbox: Sandbox, emails: Emails, mail: Mail) -> None:
        sandbox.fault("work_then_truncated", cut="json")

        assert isinstance(failure(emails, mail), ApplicationError)
        assert len(sandbox.inbox()) == 1

    async def test_reset_seen_by_the_async_client(self, sandbox: Sandbox, emails: Emails, mail: Mail) -> None:
        sandbox.fault("work_then_reset", service="resend")

        with pytest.raises(ResendError) as caught:
            await emails.send_async(mail, KEY)  # type: ignore[arg-type]

        assert caught.value.error_type == "HttpClientError"
        assert len(sandbox.inbox()) == 1


class TestNotion:
    def test_status_in_notions_words(self, sandbox: Sandbox, notion: notion_client.Client) -> None:
        sandbox.fault("status", service="notion", status=529, retry_after=7)

        with pytest.raises(UnknownHTTPResponseError) as caught:
            notion.users.me()

        assert json.loads(caught.value.body)["code"] == "service_overload"
        assert caught.value.headers["retry-after"] == "7"

    def test_conflict(self, sandbox: Sandbox, notion: notion_client.Client) -> None:
        sandbox.fault("status", service="notion", status=409)

        with pytest.raises(APIResponseError) as caught:
            notion.users.me()

        assert caught.value.code == "conflict_error"

    def test_reset(self, sandbox: Sandbox, notion: notion_client.Client) -> None:
        sandbox.fault("reset", service="notion")

        with pytest.raises(httpx.ReadError):
            notion.users.me()

    def test_truncated(self, sandbox: Sandbox, notion: notion_client.Client) -> None:
        sandbox.fault("truncated", service="notion")

        with pytest.raises(httpx.RemoteProtocolError):
            notion.users.me()

    def test_empty(self, sandbox: Sandbox, notion: notion_client.Client) -> None:
        sandbox.fault("empty", service="notion")

        with pytest.raises(json.JSONDecodeError):
            notion.users.me()

    def test_silence_lasts_until_the_client_gives_up(self, sandbox: Sandbox) -> None:
        client = make_notion(sandbox, timeout_ms=300)
        sandbox.fault("silence", service="notion")

        with pytest.raises(RequestTimeoutError):
            client.users.me()

        assert client.users.me()["type"] == "bot"
        client.close()

    def test_bounded_silence_ends_in_a_reset(self, sandbox: Sandbox, notion: notion_client.Client) -> None:
        sandbox.fault("silence", service="notion", delay=0.2)

        with pytest.raises(httpx.ReadError):
            notion.users.me()

    def test_delay_only_delays(self, sandbox: Sandbox, notion: notion_client.Client) -> None:
        sandbox.fault("delay", service="notion", delay=0.3)

        notion.users.me()

        assert sandbox.get("requests", service="notion")["data"][-1]["ms"] >= 300

    def test_work_then_reset_creates_the_page(
        self, sandbox: Sandbox, notion: notion_client.Client, source: str
    ) -> None:
        sandbox.fault("work_then_reset", service="notion", path="^/v1/pages$")

        with pytest.raises(httpx.ReadError):
            notion.pages.create(parent={"data_source_id": source}, properties={})

        assert len(notion.data_sources.query(source)["results"]) == 1


class TestRules:
    def test_after_and_times(self, sandbox: Sandbox, notion: notion_client.Client) -> None:
        sandbox.fault("status", service="notion", after=1, times=2)
        seen = []
        for _ in range(4):
            try:
                notion.users.me()
                seen.append(200)
            except APIResponseError as error:
                seen.append(error.status)

        assert seen == [200, 500, 500, 200]
        [rule] = sandbox.get("faults")["data"]
        assert (rule["used"], rule["spent"]) == (2, True)

    def test_path_and_service_must_fit(self, sandbox: Sandbox, emails: Emails, mail: Mail) -> None:
        sandbox.fault("reset", service="resend", path="^/emails/batch$", times=None)
        sandbox.fault("reset", service="notion", times=None)

        assert emails.send(mail)["id"]

    def test_rule_can_be_deleted(self, sandbox: Sandbox, emails: Emails, mail: Mail) -> None:
        rule = sandbox.fault("reset", times=None)
        failure(emails, mail)

        assert sandbox.http.delete(f"{sandbox.url}/control/faults/{rule}").status_code == 200

        assert emails.send(mail)["id"]
        struck = [entry["fault"] for entry in sandbox.get("requests", service="resend")["data"]]
        assert struck == ["reset", None]

    def test_probability_zero_never_strikes(self, sandbox: Sandbox, emails: Emails, mail: Mail) -> None:
        sandbox.fault("reset", times=None, probability=0)

        assert emails.send(mail)["id"]

    @pytest.mark.parametrize("rule", [{"kind": "boom"}, {"kind": "reset", "path": "("}, {"kind": "reset", "x": 1}])
    def test_nonsense_is_refused(self, sandbox: Sandbox, rule: Mail) -> None:
        assert sandbox.http.post(f"{sandbox.url}/control/faults", json=rule).status_code == 422
