"""The control routes: what tests and demos read and change. JSON in, JSON out."""

import json
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from typing import Any

from pydantic import ValidationError
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from .clock import parse_time
from .faults import FaultRule
from .resend_checks import addresses
from .store import Row
from .world import World

MAX_PAGE = 1000
Endpoint = Callable[[Request], Awaitable[Response]]


def iso(moment: float | None) -> str | None:
    return None if moment is None else datetime.fromtimestamp(moment, UTC).isoformat()


def _problem(status: int, message: str, **more: Any) -> JSONResponse:
    return JSONResponse({"error": message} | more, status)


def _number(request: Request, name: str, default: int) -> int:
    text = request.query_params.get(name, "")
    return int(text) if text.isdigit() else default


def _moment(text: str) -> float:
    """Unix seconds or ISO 8601; a "+" that the query string turned into a space is put back."""
    moment = parse_time(text.replace(" ", "+"))
    return moment.timestamp() if moment else float(text)


def mail_json(mail: Row, events: list[Row], *, bodies: bool = True) -> dict[str, Any]:
    payload = mail["payload"]
    shown = {
        "id": mail["id"],
        "to": addresses(payload["to"]),
        "from": payload["from"],
        "cc": addresses(payload.get("cc")),
        "bcc": addresses(payload.get("bcc")),
        "reply_to": addresses(payload.get("reply_to")),
        "subject": payload.get("subject"),
        "headers": payload.get("headers") or {},
        "tags": payload.get("tags") or [],
        "created_at": iso(mail["created_at"]),
        "scheduled_at": iso(mail["scheduled_at"]),
        "last_event": mail["last_event"],
        "events": [{"type": event["type"], "time": iso(event["at"])} | event["detail"] for event in events],
        "idempotency_key": mail["idempotency_key"],
        "batch_id": mail["batch_id"],
        "batch_index": mail["batch_index"],
    }
    return shown | ({"html": payload.get("html"), "text": payload.get("text")} if bodies else {})


def _inbox_filter(request: Request) -> tuple[str, list[Any]]:
    """`to` is a whole address, `q` a part of an address or subject."""
    clauses: list[str] = ["1"]
    values: list[Any] = []
    given = request.query_params
    if to := given.get("to"):
        clauses.append("instr(recipients, ?) > 0")
        values.append(f",{to.lower()},")
    if q := given.get("q"):
        clauses.append("(instr(recipients, ?) > 0 OR instr(lower(subject), ?) > 0)")
        values += [q.lower(), q.lower()]
    if since := given.get("since"):
        clauses.append("created_at >= ?")
        values.append(_moment(since))
    for column in ("idempotency_key", "batch_id", "last_event", "subject"):
        if column in given:
            clauses.append(f"{column} = ?")
            values.append(given[column])
    return " AND ".join(clauses), values


class Control:
    """One method a route."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._store = world.store

    def routes(self) -> list[Route]:
        table: list[tuple[str, str, Endpoint]] = [
            ("GET", "health", self.health),
            ("GET", "inbox", self.inbox),
            ("GET", "inbox/{id}", self.mail),
            ("GET", "requests", self.requests),
            ("GET", "webhooks", self.webhooks),
            ("POST", "webhooks/{id}/replay", self.replay),
            ("GET", "stats", self.stats),
            ("POST", "reset", self.reset),
            ("GET", "settings", self.settings),
            ("PUT", "settings", self.change_settings),
            ("GET", "faults", self.faults),
            ("POST", "faults", self.add_fault),
            ("DELETE", "faults", self.clear_faults),
            ("DELETE", "faults/{id:int}", self.remove_fault),
            ("POST", "notion/share", self.share),
            ("POST", "notion/unshare", self.unshare),
        ]
        return [Route(f"/control/{path}", handler, methods=[method]) for method, path, handler in table]

    # -- reading -----------------------------------------------------------------------------------------

    async def health(self, request: Request) -> Response:
        world = self._world
        return JSONResponse(
            {
                "status": "ok",
                "notion_root_page_id": world.notion.root_id,
                "notion_path": "/notion",
                "resend_path": "/resend",
                "domains": world.resend.domains.statuses(),
                "webhook_url": world.settings().webhook_url,
                "signup_url": world.settings().signup_url,
            }
        )

    async def inbox(self, request: Request) -> Response:
        try:
            where, values = _inbox_filter(request)
        except ValueError:
            return _problem(422, "since is neither Unix seconds nor an ISO 8601 time")
        limit = min(MAX_PAGE, _number(request, "limit", 100))
        offset = _number(request, "offset", 0)
        newest = request.query_params.get("order") != "asc"
        mails = self._store.inbox(where, values, limit=limit, offset=offset, newest=newest)
        events = self._store.events_of([mail["id"] for mail in mails])
        bodies = request.query_params.get("bodies") != "false"
        total = self._store.inbox_count(where, values)
        data = [mail_json(mail, events[mail["id"]], bodies=bodies) for mail in mails]
        return JSONResponse(
            {"total": total, "limit": limit, "offset": offset, "has_more": offset + len(data) < total} | {"data": data}
        )

    async def mail(self, request: Request) -> Response:
        mail = self._store.mail(request.path_params["id"])
        if mail is None:
            return _problem(404, "no such mail")
        events = self._store.events_of([mail["id"]])[mail["id"]]
        return JSONResponse(mail_json(mail, events) | {"request": mail["payload"]})

    async def requests(self, request: Request) -> Response:
        given = request.query_params
        rows = self._store.rows(
            "SELECT * FROM requests WHERE (? IS NULL OR service = ?) AND seq > ? ORDER BY seq LIMIT ?",
            given.get("service"),
            given.get("service"),
            _number(request, "after", 0),
            min(100 * MAX_PAGE, _number(request, "limit", MAX_PAGE)),
        )
        return JSONResponse({"data": [row | {"time": iso(row.pop("at"))} for row in rows]})

    async def webhooks(self, request: Request) -> Response:
        state = request.query_params.get("state")
        rows = self._store.rows(
            "SELECT * FROM deliveries WHERE ? IS NULL OR state = ? ORDER BY seq DESC LIMIT ?",
            state,
            state,
            min(100 * MAX_PAGE, _number(request, "limit", MAX_PAGE)),
        )
        times = ("due_at", "created_at")
        return JSONResponse({"data": [row | {name: iso(row[name]) for name in times} for row in rows]})

    async def replay(self, request: Request) -> Response:
        """Posts an event again under its old svix-id, as the dashboard's replay does."""
        now = self._world.config.clock().timestamp()
        count = self._store.run(
            "UPDATE deliveries SET state = 'pending', due_at = ?, attempts = 0 WHERE msg_id = ?",
            now,
            request.path_params["id"],
        )
        self._world.postman.wake()
        return JSONResponse({"replayed": count}) if count else _problem(404, "no such event")

    async def stats(self, request: Request) -> Response:
        store = self._store
        count = store.value
        return JSONResponse(
            {
                "mails": count("SELECT count(*) FROM mails"),
                "by_last_event": _counts(store.rows("SELECT last_event AS name, count(*) AS n FROM mails GROUP BY 1")),
                "events_planned": count("SELECT count(*) FROM planned"),
                "webhooks": _counts(store.rows("SELECT state AS name, count(*) AS n FROM deliveries GROUP BY 1")),
                "requests": _counts(store.rows("SELECT service AS name, count(*) AS n FROM requests GROUP BY 1")),
                "answers": _counts(
                    store.rows("SELECT service || ' ' || status AS name, count(*) AS n FROM requests GROUP BY 1")
                ),
                "faults_struck": count("SELECT count(*) FROM requests WHERE fault IS NOT NULL"),
                "notion": self._world.notion.counts(),
            }
        )

    # -- changing ----------------------------------------------------------------------------------------

    async def reset(self, request: Request) -> Response:
        body = json.loads(await request.body() or b"{}")
        self._world.reset(settings=bool(body.get("settings")))
        return JSONResponse({"status": "ok", "notion_root_page_id": self._world.notion.root_id})

    async def settings(self, request: Request) -> Response:
        shown = self._world.settings().model_dump()
        shown["domains"] = self._world.resend.domains.statuses()
        if shown["webhook_url"]:
            shown["webhook_secret"] = self._world.webhook_secret()
        return JSONResponse(shown)

    async def change_settings(self, request: Request) -> Response:
        try:
            changes = await request.json()
            domains = changes.pop("domains", {})
            self._world.change(changes)
            for name, status in domains.items():
                self._world.resend.domains.set_status(name, status)
        except (json.JSONDecodeError, ValueError, AttributeError) as error:
            return _problem(422, str(error))
        return await self.settings(request)

    async def faults(self, request: Request) -> Response:
        return JSONResponse({"data": self._world.faults.listing()})

    async def add_fault(self, request: Request) -> Response:
        try:
            rule = FaultRule.model_validate_json(await request.body())
        except ValidationError as error:
            return _problem(422, str(error))
        return JSONResponse(self._world.faults.add(rule).as_json(), 201)

    async def clear_faults(self, request: Request) -> Response:
        self._world.faults.clear()
        return JSONResponse({"deleted": True})

    async def remove_fault(self, request: Request) -> Response:
        found = self._world.faults.remove(request.path_params["id"])
        return JSONResponse({"deleted": True}) if found else _problem(404, "no such fault")

    async def share(self, request: Request) -> Response:
        return await self._shared(request, shared=True)

    async def unshare(self, request: Request) -> Response:
        return await self._shared(request, shared=False)

    async def _shared(self, request: Request, *, shared: bool) -> Response:
        object_id = str((await request.json()).get("id", ""))
        if not self._world.notion.set_shared(object_id, shared=shared):
            return _problem(404, "no such page or database")
        return JSONResponse({"id": object_id, "shared": shared})


def _counts(rows: list[Row]) -> dict[str, int]:
    return {row["name"]: row["n"] for row in rows}
