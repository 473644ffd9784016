"""Resend: send, ask, and understand its webhooks. Speaks through the `resend` SDK; its errors become ours here."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any, cast
from uuid import UUID

import httpx
import resend
from resend.exceptions import NoContentError, ResendError
from resend.http_client_async import AsyncHTTPClient
from standardwebhooks import Webhook, WebhookVerificationError

from tidings.adapters.http import ServiceClient
from tidings.errors import (
    KeyReused,
    MessageRefused,
    OutcomeUnknown,
    QuotaExhausted,
    Refused,
    RetryLater,
    ServiceError,
    TidingsError,
)
from tidings.model import Allowance, Listed, MessageState, Report, Severity
from tidings.ports import LISTED_MOST, Turns

SERVICE = "Resend"
#: How far back Resend's list is read, a hundred mails a page.
LIST_PAGE = 100
LIST_PAGES = LISTED_MOST // LIST_PAGE
#: What the free plan allows (resend.com/docs, Nov 2026), for keys that may not ask, where headers show that plan.
FREE_PLAN = {"daily": 100, "monthly": 3000}
#: When a quota is used up and Resend names no time, ask again after this long.
QUOTA_PAUSE_SECONDS = 3600.0

#: What each event of Resend's says of a message. Others (opened, clicked, scheduled, …) change no state.
OUTCOMES = {
    "email.sent": MessageState.SENT,
    "email.delivered": MessageState.DELIVERED,
    "email.bounced": MessageState.BOUNCED,
    "email.complained": MessageState.COMPLAINED,
    "email.failed": MessageState.FAILED,
    "email.suppressed": MessageState.FAILED,
}

#: Refusals that concern our account or settings, whoever the recipient is; in a batch only their words tell.
_SET_UP_NAMES = {"invalid_from_address", "invalid_access", "invalid_region", "invalid_idempotency_key"}
_SET_UP_WORDS = re.compile(r"domain is not verified|verify a domain|`from` field|API key", re.IGNORECASE)


class InvalidSignature(TidingsError):
    """A delivery that Resend did not sign with our secret (check RESEND_WEBHOOK_SECRET)."""


@dataclass(frozen=True, slots=True)
class Domain:
    """A sending domain as Resend reports it."""

    id: str
    name: str
    status: str


@dataclass(frozen=True, slots=True)
class DnsRecord:
    """A DNS record that a sending domain needs: what it is for (SPF, DKIM, …), and whether Resend has found it."""

    purpose: str
    type: str
    name: str
    status: str


@dataclass(frozen=True, slots=True)
class Endpoint:
    """A webhook as it is registered at Resend. `secret` is None where Resend does not show it."""

    id: str
    url: str
    enabled: bool
    events: frozenset[str]
    secret: str | None


class _Transport(AsyncHTTPClient):
    """The SDK's HTTP, on one client that is kept: a new TLS context a call costs more than the call."""

    def __init__(self, timeout: float) -> None:
        self._client = ServiceClient(SERVICE, timeout=timeout)
        self.headers: Mapping[str, str] = {}

    async def request(
        self,
        method: str,
        url: str,
        headers: Mapping[str, str],
        json: Any = None,
        files: Any = None,
        data: Any = None,
    ) -> tuple[bytes, int, Mapping[str, str]]:
        answer = await self._client.request(method, url, headers=dict(headers), json=json)
        self.headers = answer.headers
        return answer.content, answer.status_code, answer.headers

    async def aclose(self) -> None:
        await self._client.aclose()


class Resend:
    """The account that mails leave through. One per process: the SDK keeps its settings in module globals."""

    def __init__(self, *, api_key: str, api_url: str, timeout: float = 20.0) -> None:
        resend.api_key = api_key
        resend.api_url = api_url
        self._transport = _Transport(timeout)
        resend.default_async_http_client = self._transport

    @property
    def rate_limit(self) -> float | None:
        """Requests a second, as the last answer's ratelimit headers said."""
        limit = self._transport.headers.get("ratelimit-limit")
        policy = self._transport.headers.get("ratelimit-policy", "")
        window = next((p[2:] for p in policy.split(";") if p.startswith("w=")), "1")
        return float(limit) / float(window) if limit and limit.isdigit() and window.isdigit() else None

    async def send(self, payloads: Sequence[Mapping[str, Any]], key: str) -> list[str | Refused]:
        """Hand over up to 100 mails under one idempotency key.

        Returns, in the same order, Resend's id or why that mail was refused. Raises MessageRefused when
        the whole request was refused because of its content, Refused for our set-up (key, domain), RetryLater
        when nothing was done, OutcomeUnknown when only a repeat with the same key and payloads is safe.
        """
        if len(payloads) == 1:
            answer = await _call(resend.Emails.send_async(cast(Any, dict(payloads[0])), {"idempotency_key": key}))
            return [_id(answer)]
        options: Any = {"idempotency_key": key, "batch_validation": "permissive"}
        answer = await _call(resend.Batch.send_async(cast(Any, [dict(p) for p in payloads]), options))
        return _batch_results(answer, len(payloads))

    async def get(self, provider_id: str) -> Mapping[str, Any]:
        """A mail as Resend has it."""
        answer: Mapping[str, Any] = await _call(resend.Emails.get_async(provider_id))
        return answer

    async def sent_since(self, since: datetime, turns: Turns | None = None) -> list[Mapping[str, Any]]:
        """Resend's own list of mails accepted since then, newest first; at most LIST_PAGES pages of it.

        With `turns` each page waits for one, so that a long list does not get in the way of mails.
        """
        found: list[Mapping[str, Any]] = []
        cursor: dict[str, Any] = {}
        for _ in range(LIST_PAGES):
            if turns is not None:
                await turns.turn()
            answer = await _call(resend.Emails.list_async(cast(Any, {"limit": LIST_PAGE, **cursor})))
            page = answer.get("data") or []
            found += [mail for mail in page if moment_of(mail, since) >= since]
            if not answer.get("has_more") or moment_of(page[-1], since) < since:
                break
            cursor = {"after": page[-1]["id"]}
        return found

    async def listed_since(self, since: datetime, turns: Turns) -> Listed:
        """What the list has since then, and from when on it has everything."""
        found = await self.sent_since(since, turns)
        whole = len(found) < LIST_PAGES * LIST_PAGE
        return Listed(tuple(found), since if whole else moment_of(found[-1], since))

    async def message_of(self, provider_id: str, turns: Turns) -> UUID | None:
        """Our own message's id, which Resend gives back with a mail of ours; None for anybody else's mail."""
        await turns.turn()
        return _uuid(_tag((await self.get(provider_id)).get("tags"), "message"))

    async def allowances(self) -> list[Allowance]:
        """What is used of the account's quotas, as far as Resend says how large they are.

        A key that may only send cannot ask. Then the headers of Resend's answers say what is used, and only the free
        plan has one for the day.
        """
        try:
            emails = (await _call(resend.Usage.get_async())).get("emails") or {}
        except Refused:
            return self._free_plan()
        found = {period: emails.get(period) or {} for period in FREE_PLAN}
        return [Allowance(p, int(e["used"]), int(e["limit"])) for p, e in found.items() if e.get("limit")]

    def _free_plan(self) -> list[Allowance]:
        used = {period: self._transport.headers.get(f"x-resend-{period}-quota", "") for period in FREE_PLAN}
        if not all(value.isdigit() for value in used.values()):
            return []
        return [Allowance(period, int(used[period]), limit) for period, limit in FREE_PLAN.items()]

    async def domains(self) -> list[Domain]:
        """The account's sending domains. Raises Refused when the key may only send."""
        answer = await _call(resend.Domains.list_async())
        return [Domain(d["id"], d["name"], d["status"]) for d in answer.get("data", [])]

    async def dns_records(self, domain: Domain) -> list[DnsRecord]:
        """The DNS records of a domain as Resend sees them. Raises Refused when the key may only send."""
        answer = await _call(resend.Domains.get_async(domain.id))
        return [
            DnsRecord(r.get("record", ""), r.get("type", ""), r.get("name", ""), r.get("status", ""))
            for r in answer.get("records") or []
        ]

    async def endpoints(self) -> list[Endpoint]:
        """The webhooks registered at Resend. Raises Refused when the key may only send."""
        answer = await _call(resend.Webhooks.list_async())
        return [_endpoint(each) for each in answer.get("data") or []]

    async def endpoint(self, endpoint_id: str) -> Endpoint:
        """One webhook, with its signing secret."""
        return _endpoint(await _call(resend.Webhooks.get_async(endpoint_id)))

    async def close(self) -> None:
        await self._transport.aclose()


def _endpoint(said: Mapping[str, Any]) -> Endpoint:
    return Endpoint(
        id=str(said.get("id")),
        url=str(said.get("endpoint")),
        enabled=said.get("status") == "enabled",
        events=frozenset(said.get("events") or ()),
        secret=said.get("signing_secret"),
    )


def verify(raw: bytes, headers: Mapping[str, str], secrets: Sequence[str]) -> None:
    """Raises InvalidSignature unless these very bytes were signed by Resend (Svix) with one of these secrets, at most
    5 minutes ago."""
    # Svix's scheme is the Standard Webhooks' under other names. Its own library is 300 modules of an API client.
    # These three and no others: another id beside the signed one would make a repeat look new.
    standard = {f"webhook-{part}": headers.get(f"svix-{part}", "") for part in ("id", "timestamp", "signature")}
    wrong = ""
    for secret in secrets:
        try:
            Webhook(secret).verify(raw, standard, json_parse=False)  # what was signed is `understand`'s to judge
        except (WebhookVerificationError, ValueError) as error:  # malformed base64 surfaces as ValueError
            wrong = str(error)
            continue
        return
    raise InvalidSignature(f"Resend's signature does not fit (check RESEND_WEBHOOK_SECRET): {wrong}")


def understand(svix_id: str, raw: bytes, now: datetime) -> Report:
    """A verified webhook as a Report. Unknown types are fine; broken JSON is a ValueError."""
    event = json.loads(raw)
    if not isinstance(event, dict) or not isinstance(event.get("type"), str):
        raise ValueError("a Resend webhook is an object with a 'type'")
    given = event.get("data")
    data: dict[str, Any] = given if isinstance(given, dict) else {}
    state = OUTCOMES.get(event["type"])
    provider_id = data.get("email_id")
    return Report(
        id=svix_id,
        type=event["type"],
        provider_id=provider_id if isinstance(provider_id, str) else None,
        state=None if _is_transient(event["type"], data) else state,
        at=_moment(event.get("created_at"), now),
        reason=_reason(data),
        message_id=_uuid(_tag(data.get("tags"), "message")),
        severity=_severity(event["type"], data),
    )


def _tag(tags: Any, name: str) -> str | None:
    """Tags come back as a map, in older samples as a list of name and value (apis.md 2.6)."""
    if isinstance(tags, list):
        tags = {t.get("name"): t.get("value") for t in tags if isinstance(t, dict)}
    value = tags.get(name) if isinstance(tags, dict) else None
    return str(value) if value else None


def _severity(kind: str, data: Mapping[str, Any]) -> Severity | None:
    """What a report says about the address. A bounce is for good only when Resend calls it Permanent."""
    if kind == "email.complained":
        return Severity.COMPLAINT
    if kind == "email.suppressed":
        return Severity.HARD  # Resend has kept an earlier bounce or complaint of this address
    if kind != "email.bounced":
        return None
    bounce = data.get("bounce")
    permanent = isinstance(bounce, dict) and bounce.get("type") == "Permanent"
    return Severity.HARD if permanent else Severity.SOFT


def _uuid(value: str | None) -> UUID | None:
    """Our own id; tags that somebody else has set are none of ours."""
    try:
        return UUID(value) if value else None
    except ValueError:
        return None


def _is_transient(kind: str, data: Mapping[str, Any]) -> bool:
    """A bounce that is not for good says nothing final: Resend's network goes on trying (apis.md 2.6)."""
    bounce = data.get("bounce")
    return kind == "email.bounced" and isinstance(bounce, dict) and bounce.get("type") == "Transient"


def _reason(data: Mapping[str, Any]) -> str | None:
    for name in ("bounce", "failed", "suppressed"):
        part = data.get(name)
        if isinstance(part, dict):
            said = [str(part[k]) for k in ("type", "subType", "reason", "message") if part.get(k)]
            return f"Resend: {', '.join(said)}".replace("\x00", "")  # which PostgreSQL cannot hold
    return None


def moment_of(mail: Mapping[str, Any], fallback: datetime) -> datetime:
    """When Resend took a mail of its list."""
    return _moment(mail.get("created_at"), fallback)


def _moment(value: Any, fallback: datetime) -> datetime:
    """Resend writes times both as ISO with Z and as "2026-07-04 22:13:42+00" (apis.md 2.2)."""
    try:
        moment = datetime.fromisoformat(str(value))
    except ValueError:
        return fallback
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)


def _id(answer: Mapping[str, Any]) -> str:
    value = answer.get("id")
    if not isinstance(value, str) or not value:
        raise OutcomeUnknown(SERVICE, f"answered 200 without an id: {str(dict(answer))[:200]}", status=200)
    return value


def _batch_results(answer: Mapping[str, Any], count: int) -> list[str | Refused]:
    """Ids in order; the permissive mode leaves out refused mails and lists their indexes under `errors`."""
    refused = {
        int(e["index"]): _refusal("", str(e.get("message", "refused")), status=422) for e in answer.get("errors") or []
    }
    ids = [item.get("id") for item in answer.get("data") or []]
    if len(ids) + len(refused) != count or not all(isinstance(i, str) and i for i in ids):
        raise OutcomeUnknown(SERVICE, f"answered {len(ids)} ids for {count} mails", status=200)
    rest = iter(ids)
    return [refused.get(n) or str(next(rest)) for n in range(count)]


async def _call(call: Any) -> Any:
    try:
        return await call
    except NoContentError as error:
        raise OutcomeUnknown(SERVICE, "answered with nothing", status=200) from error
    except ResendError as error:
        raise classify(error) from error


def classify(error: ResendError) -> ServiceError:
    """The one place that says what each of Resend's errors means for us (table in apis.md 2.3)."""
    status, name, message = int(error.code), str(error.error_type), str(error.message)
    if name == "HttpClientError":
        return _transport_error(error, message)
    known: dict[str, Any] = {"status": status, "code": name}
    if name == "invalid_idempotent_request":
        return KeyReused(SERVICE, message, **known)
    if name == "concurrent_idempotent_requests":
        return OutcomeUnknown(SERVICE, message, **known)
    if status == 409:
        return RetryLater(SERVICE, message, **known)
    if name in {"daily_quota_exceeded", "monthly_quota_exceeded"}:
        return QuotaExhausted(SERVICE, message, retry_after=_retry_after(error, QUOTA_PAUSE_SECONDS), **known)
    if status == 429:
        return RetryLater(SERVICE, message, retry_after=_retry_after(error, 1.0), **known)
    if status in {400, 422, 451}:
        return _refusal(name, message, status=status)
    if 400 <= status < 500 and status not in {408, 425}:
        return Refused(SERVICE, message, **known)
    return OutcomeUnknown(SERVICE, message, **known)


def _refusal(name: str, message: str, *, status: int) -> Refused:
    """Whose fault it is that a mail's content is refused: this message's, or our account's and settings'."""
    set_up = name in _SET_UP_NAMES or _SET_UP_WORDS.search(message)
    return (Refused if set_up else MessageRefused)(SERVICE, message, status=status, code=name)


def _transport_error(error: ResendError, message: str) -> ServiceError:
    """Refused connections did nothing; a lost or late answer may have done everything."""
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, (httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout)):
            return RetryLater(SERVICE, f"cannot be reached: {message}", retry_after=2.0)
        cause = cause.__cause__ or cause.__context__
    return OutcomeUnknown(SERVICE, f"the answer was lost: {message or 'no answer in time'}")


def _retry_after(error: ResendError, default: float) -> float:
    headers = {k.lower(): v for k, v in (getattr(error, "headers", None) or {}).items()}
    value = headers.get("retry-after")
    if value is None:
        return default
    try:
        return max(0.0, float(value))
    except ValueError:
        pass
    try:
        return max(0.0, (parsedate_to_datetime(value) - datetime.now(UTC)).total_seconds())
    except ValueError:
        return default
