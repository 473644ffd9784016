"""Notion's stand-in: who may call, how often, in which version, and which handler answers."""

import asyncio
import json
import uuid
from collections.abc import Callable
from typing import Any

from .clock import Clock
from .config import Settings
from .limits import Bucket
from .notion_block_api import Blocks
from .notion_errors import USUAL_CODES, NotionRefused, not_found, refused
from .notion_ids import as_uuid
from .notion_objects import Databases, Pages, Search
from .notion_query import Sessions
from .notion_show import VERSIONS, Shower, listing
from .notion_tree import ROOT_ID, Tree
from .notion_values import BOT_ID
from .store import Store
from .wire import Call, Reply, Routes

MAX_BODY = 500_000  # bytes (developers.notion.com/reference/request-limits)
TOKEN_STARTS = ("ntn_", "secret_")
MISSING_VERSION = (
    "Notion-Version header failed validation: Notion-Version header should be defined, instead was `undefined`."
)


class Notion:
    """Answers below the base address `/notion`."""

    name = "notion"
    root_id = ROOT_ID

    def __init__(self, store: Store, *, settings: Callable[[], Settings], clock: Clock) -> None:
        self._settings = settings
        self._clock = clock
        self._tree = Tree(store, clock)
        self._bucket = Bucket(settings().notion_rate, settings().notion_burst)
        sessions = Sessions()
        self._databases = Databases(self._tree, sessions)
        self._pages = Pages(self._tree)
        self._blocks = Blocks(self._tree, self._pages)
        self._search = Search(self._tree, sessions)
        self._routes = self._route()

    def _route(self) -> Routes:
        routes = Routes()
        table: tuple[tuple[str, str, Callable[..., Any]], ...] = (
            ("POST", "databases", self._databases.create),
            ("GET", "databases/{database_id}", self._databases.retrieve),
            ("PATCH", "databases/{database_id}", self._databases.update),
            ("POST", "data_sources", self._databases.create_source),
            ("GET", "data_sources/{data_source_id}", self._databases.retrieve_source),
            ("PATCH", "data_sources/{data_source_id}", self._databases.update_source),
            ("POST", "data_sources/{data_source_id}/query", self._databases.query),
            ("GET", "data_sources/{data_source_id}/templates", self._databases.templates),
            ("POST", "pages", self._pages.create),
            ("GET", "pages/{page_id}", self._pages.retrieve),
            ("PATCH", "pages/{page_id}", self._pages.update),
            ("GET", "pages/{page_id}/markdown", self._pages.markdown),
            ("GET", "pages/{page_id}/properties/{property_id}", self._pages.retrieve_property),
            ("GET", "blocks/{block_id}", self._blocks.retrieve),
            ("PATCH", "blocks/{block_id}", self._blocks.update),
            ("DELETE", "blocks/{block_id}", self._blocks.delete),
            ("GET", "blocks/{block_id}/children", self._blocks.children),
            ("PATCH", "blocks/{block_id}/children", self._blocks.append),
            ("POST", "search", self._search.search),
            ("GET", "users/me", self._me),
            ("GET", "users/{user_id}", self._user),
            ("GET", "users", self._users),
        )
        for method, path, handler in table:
            routes.add(method, f"/v1/{path}", handler)
        return routes

    # -- control -----------------------------------------------------------------------------------------

    def reset(self) -> None:
        self._tree.load()

    def counts(self) -> dict[str, int]:
        return self._tree.counts()

    def set_shared(self, object_id: str, *, shared: bool) -> bool:
        node = self._tree.known(as_uuid(object_id) or "")
        if node is None:
            return False
        node.shared = shared
        self._tree.save(node)
        return True

    # -- answering ---------------------------------------------------------------------------------------

    async def answer(self, call: Call) -> Reply:
        await asyncio.sleep(call.work_delay)
        try:
            reply = Reply(200, self._handled(call))
        except NotionRefused as refusal:
            reply = refusal.reply()
        return _signed(reply)

    def failure(self, *, status: int, code: str | None, message: str | None) -> Reply:
        known = code or USUAL_CODES.get(status, "internal_server_error")
        text = message or "The sandbox was told to fail this request."
        return _signed(NotionRefused(status, known, text).reply())

    def _handled(self, call: Call) -> dict[str, Any]:
        self._admit(call)
        found = self._routes.find(call.method, call.path)
        if found is None:
            raise NotionRefused(400, "invalid_request_url", "Invalid request URL.")
        handler, names = found
        version = call.headers["notion-version"]
        answer: dict[str, Any] = handler(call, Shower(self._tree, self._settings, version), **names)
        return answer

    def _admit(self, call: Call) -> None:
        if not self._accepted(call.bearer):
            raise NotionRefused(401, "unauthorized", "API token is invalid.")
        self._check_version(call.headers.get("notion-version"))
        self._bucket.rate, self._bucket.burst = self._settings().notion_rate, self._settings().notion_burst
        wait = self._bucket.wait(self._clock().timestamp())
        if wait:
            raise _rate_limited(wait)
        _check_body(call)

    def _accepted(self, token: str) -> bool:
        accepted = self._settings().notion_tokens
        return token.startswith(TOKEN_STARTS) if accepted is None else token in accepted

    def _check_version(self, version: str | None) -> None:
        if version is None:
            raise NotionRefused(400, "missing_version", MISSING_VERSION)
        if version not in VERSIONS:
            known = " or ".join(f'`"{one}"`' for one in VERSIONS)
            raise refused(
                f"Notion-Version header failed validation: Notion-Version header should be {known}, "
                f'instead was `"{version}"`.'
            )

    # -- users -------------------------------------------------------------------------------------------

    def _me(self, call: Call, show: Shower) -> dict[str, Any]:
        owner = {"type": "workspace", "workspace": True}
        limits = {"max_file_upload_size_in_bytes": 5_242_880}
        workspace = {"workspace_id": ROOT_ID, "workspace_name": "Sandbox", "workspace_limits": limits}
        bot = {"owner": owner} | workspace
        return {
            "object": "user",
            "id": BOT_ID,
            "name": "Tidings",
            "avatar_url": None,
            "type": "bot",
            "bot": bot,
        }

    def _users(self, call: Call, show: Shower) -> dict[str, Any]:
        return listing([self._me(call, show)], "user", None)

    def _user(self, call: Call, show: Shower, user_id: str) -> dict[str, Any]:
        if as_uuid(user_id) != BOT_ID:
            raise not_found("user", user_id)
        return self._me(call, show)


def _signed(reply: Reply) -> Reply:
    """Every answer ends with its request_id, and says it in a header too."""
    request_id = str(uuid.uuid4())
    body = reply.body | {"request_id": request_id}
    return Reply(reply.status, body, reply.headers | {"x-notion-request-id": request_id})


def _rate_limited(wait: int) -> NotionRefused:
    return NotionRefused(
        429,
        "rate_limited",
        "You have been rate limited. Please try again in a few minutes.",
        more={"rate_limit_reason": "public_api_request_rate_limit", "retry_after": wait},
        headers={"retry-after": str(wait)},
    )


def _check_body(call: Call) -> None:
    if len(call.body) > MAX_BODY:
        raise NotionRefused(413, "validation_error", "Request body too large.")
    try:
        body = call.json()
    except json.JSONDecodeError as error:
        raise NotionRefused(400, "invalid_json", "Error parsing JSON body.") from error
    if not isinstance(body, dict):
        raise refused("body failed validation: body should be an object.")
