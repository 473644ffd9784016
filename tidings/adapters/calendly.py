"""Calendly's API: what was booked, cancelled and missed, and the webhook subscriptions that should tell of it.

Paths, parameters and limits: developer.calendly.com (Nov 2026).
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import datetime, timedelta
from typing import Any

import httpx

from tidings.adapters.http import ServiceClient
from tidings.errors import OutcomeUnknown, Refused, RetryLater
from tidings.model import Found, Scheme, Subscription

SERVICE = "Calendly"
TIMEOUT_SECONDS = 20.0
PAGE = 100
#: Hosts mark a no-show some days after the meeting at the latest, so meetings are listed from so long before.
MARKED_WITHIN = timedelta(days=4)
#: When Calendly names no time after which to come again: the length of its rate limit's window.
WINDOW_SECONDS = 60.0
CURES = {
    401: "does not know the token; make a new one at calendly.com (Integrations, API) and set CALENDLY_TOKEN",
    403: "does not allow this to the token's user; it takes an owner or admin of the organization and a paid plan",
}


class Calendly:
    """The organization of the token, or its user alone where the token may not see the organization."""

    scheme = Scheme.CALENDLY

    def __init__(self, token: str, api_url: str, transport: httpx.AsyncBaseTransport | None = None) -> None:
        self._headers = {"Authorization": f"Bearer {token}"}
        self._url = api_url
        self._transport = transport
        self._http: httpx.AsyncClient | None = None
        self._me: Mapping[str, Any] | None = None
        self._alone = False
        self._pause = 0.0

    async def close(self) -> None:
        if self._http is not None:
            await self._http.aclose()

    # -- who, and what happened ------------------------------------------------------------------------------

    async def organization(self) -> str:
        """The organization's URI. Raises Refused when the token is not valid."""
        return str((await self._user())["current_organization"])

    async def found(self, since: datetime, now: datetime) -> list[Found]:
        """Everything about meetings that began after `since`, or are ahead, as Calendly's webhooks would tell it.

        Raises RetryLater while Calendly gives no usable answer, Refused when it does not let us in.
        """
        found: list[Found] = []
        oldest = {"min_start_time": _text(since - MARKED_WITHIN), "sort": "start_time:asc"}
        with _understood():
            async for event in self._ours("/scheduled_events", oldest):
                async for invitee in self._pages(f"/scheduled_events/{_last(event['uri'])}/invitees", {}):
                    found += _told(event, invitee, now)
        return found

    # -- subscriptions ---------------------------------------------------------------------------------------

    async def subscriptions(self) -> list[Subscription]:
        """The webhook subscriptions of the organization and of the token's user."""
        me = await self._user()
        with _understood():
            found = [_subscription(each) async for each in self._subscribed("user", user=me["uri"])]
            try:
                return found + [_subscription(each) async for each in self._subscribed("organization")]
            except Refused as error:
                if error.status != httpx.codes.FORBIDDEN:
                    raise
                return found

    async def subscribe(self, url: str, events: Sequence[str], signing_key: str) -> None:
        """A new subscription, for the whole organization where the token allows that."""
        me = await self._user()
        body = {
            "url": url,
            "events": list(events),
            "organization": me["current_organization"],
            "scope": "organization",
            "signing_key": signing_key,
        }
        try:
            await self._call("POST", "/webhook_subscriptions", json=body)
        except Refused as error:
            if error.status != httpx.codes.FORBIDDEN:
                raise
            await self._call("POST", "/webhook_subscriptions", json={**body, "scope": "user", "user": me["uri"]})

    async def unsubscribe(self, uri: str) -> None:
        """Delete a subscription; one that is gone already is fine."""
        try:
            await self._call("DELETE", f"/webhook_subscriptions/{_last(uri)}")
        except Refused as error:
            if error.status != httpx.codes.NOT_FOUND:
                raise

    # -- asking ----------------------------------------------------------------------------------------------

    async def _user(self) -> Mapping[str, Any]:
        if self._me is None:
            with _understood():
                self._me = (await self._call("GET", "/users/me"))["resource"]
        return self._me

    async def _subscribed(self, scope: str, **of: str) -> AsyncIterator[Mapping[str, Any]]:
        organization = await self.organization()
        async for each in self._pages("/webhook_subscriptions", {"organization": organization, "scope": scope, **of}):
            yield each

    async def _ours(self, path: str, wanted: Mapping[str, str]) -> AsyncIterator[Mapping[str, Any]]:
        """What the organization has, or the user alone where Calendly shows no more."""
        me = await self._user()
        if not self._alone:
            try:
                async for each in self._pages(path, {**wanted, "organization": me["current_organization"]}):
                    yield each
                return
            except Refused as error:  # known before the first of them
                if error.status != httpx.codes.FORBIDDEN:
                    raise
                self._alone = True
        async for each in self._pages(path, {**wanted, "user": me["uri"]}):
            yield each

    async def _pages(self, path: str, wanted: Mapping[str, str]) -> AsyncIterator[Mapping[str, Any]]:
        """Every item of a collection, page by page."""
        token: str | None = None
        while True:
            more = {"page_token": token} if token else {}
            answer = await self._call("GET", path, params={**wanted, "count": str(PAGE), **more})
            for each in answer["collection"]:
                yield each
            token = (answer.get("pagination") or {}).get("next_page_token")
            if not token:
                return

    async def _call(self, method: str, path: str, **arguments: Any) -> Any:
        await asyncio.sleep(self._pause)
        if self._http is None:
            self._http = ServiceClient(
                SERVICE, headers=self._headers, timeout=TIMEOUT_SECONDS, transport=self._transport
            )
        try:
            answer = await self._http.request(method, self._url + path, **arguments)
        except (httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout) as error:
            raise RetryLater(SERVICE, f"cannot be reached: {error!r}", retry_after=2.0) from error
        except httpx.HTTPError as error:
            raise OutcomeUnknown(SERVICE, f"the answer was lost: {error!r}") from error
        self._pause = _reset(answer) if answer.headers.get("x-ratelimit-remaining") == "0" else 0.0
        return _read(answer)


@contextmanager
def _understood() -> Iterator[None]:
    """What lacks something that is needed becomes Refused: asking again would bring the same."""
    try:
        yield
    except (LookupError, TypeError, ValueError) as error:
        raise Refused(SERVICE, f"answered in a way that is not understood: {error!r}") from error


def _read(answer: httpx.Response) -> Any:
    """The answer's JSON, or what each of Calendly's refusals means for us."""
    status = answer.status_code
    if status == httpx.codes.TOO_MANY_REQUESTS:
        raise RetryLater(SERVICE, "asks to come again later", status=status, retry_after=_reset(answer))
    if status >= httpx.codes.INTERNAL_SERVER_ERROR:
        raise RetryLater(SERVICE, "gave no answer", status=status, retry_after=2.0)
    if status >= httpx.codes.MULTIPLE_CHOICES:
        raise Refused(SERVICE, CURES.get(status) or _message(answer), status=status)
    if status == httpx.codes.NO_CONTENT:
        return None
    try:
        return answer.json()
    except ValueError as error:
        raise OutcomeUnknown(SERVICE, "answered with something that is not JSON", status=status) from error


def _message(answer: httpx.Response) -> str:
    try:
        said = answer.json()
        details = [f"{d.get('parameter')} {d.get('message')}" for d in said.get("details") or []]
        return ": ".join([str(said.get("message")), *details])
    except (ValueError, AttributeError):
        return answer.text[:200]


def _reset(answer: httpx.Response) -> float:
    """Seconds until the rate limit's next window."""
    for name in ("x-ratelimit-reset", "retry-after"):
        if (said := answer.headers.get(name, "")).isdigit():
            return float(said)
    return WINDOW_SECONDS


def _told(event: Mapping[str, Any], invitee: Mapping[str, Any], now: datetime) -> Iterator[Found]:
    """What the webhooks have told, or should have told, of one invitee.

    Of a call that is off only that: its booking is of no use any more. That somebody came after all is seen only by
    the missing mark, so it counts from now.
    """
    starts = datetime.fromisoformat(event["start_time"])
    if invitee["status"] == "canceled":
        at = (invitee.get("cancellation") or {}).get("created_at") or invitee["updated_at"]
        yield _body("invitee.canceled", at, event, invitee, starts)
        return
    no_show = invitee.get("no_show")
    yield _body("invitee.created", invitee["created_at"], event, {**invitee, "no_show": None}, starts)
    if no_show:
        yield _body("invitee_no_show.created", no_show["created_at"], event, invitee, starts)
    elif starts < now:
        yield _body("invitee_no_show.deleted", _text(now), event, invitee, starts)


def _body(kind: str, at: str, event: Mapping[str, Any], invitee: Mapping[str, Any], starts: datetime) -> Found:
    body = {"created_at": at, "event": kind, "payload": {**invitee, "scheduled_event": dict(event)}}
    return Found(body, datetime.fromisoformat(at), starts)


def _subscription(given: Mapping[str, Any]) -> Subscription:
    return Subscription(
        uri=given["uri"],
        url=given["callback_url"],
        active=given["state"] == "active",
        events=frozenset(given["events"]),
    )


def _last(uri: str) -> str:
    """The id at the end of a resource's URI, which names api.calendly.com whichever address is asked."""
    return uri.rpartition("/")[2]


def _text(moment: datetime) -> str:
    return moment.isoformat(timespec="microseconds").replace("+00:00", "Z")
