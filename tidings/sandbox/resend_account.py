"""The account around the mails: domains, webhook endpoints, suppressions."""

import base64
import secrets
import uuid
from collections.abc import Callable
from typing import Any

from .clock import Clock
from .postman import Postman
from .resend_checks import ADDRESS
from .resend_emails import page_size, spaced
from .resend_errors import ResendRefused, invalid, missing, not_found
from .store import Row, Store
from .wire import Call, Reply

EMAIL_EVENTS = tuple(
    f"email.{kind}"
    for kind in (
        "sent",
        "scheduled",
        "delivered",
        "delivery_delayed",
        "complained",
        "bounced",
        "opened",
        "clicked",
        "received",
        "failed",
        "suppressed",
    )
)
OTHER_EVENTS = (
    "contact.created",
    "contact.updated",
    "contact.deleted",
    "domain.created",
    "domain.updated",
    "domain.deleted",
    "suppression.added",
    "suppression.removed",
)
DOMAIN_STATES = (
    "not_started",
    "pending",
    "verified",
    "failed",
    "partially_verified",
    "partially_failed",
)


def new_secret() -> str:
    return "whsec_" + base64.b64encode(secrets.token_bytes(24)).decode()


def dns_records(domain: Row) -> list[dict[str, Any]]:
    status, host = domain["status"], "feedback-smtp.us-east-1.amazonses.com"
    spf = {"record": "SPF", "name": "send", "ttl": "Auto", "status": status}
    return [
        spf | {"type": "MX", "value": host, "priority": 10},
        spf | {"type": "TXT", "value": "v=spf1 include:amazonses.com ~all"},
        {
            "record": "DKIM",
            "name": "resend._domainkey",
            "type": "TXT",
            "ttl": "Auto",
            "status": status,
            "value": "p=MIGfMA0GCSqGSIb3DQEBAQUAA4GNADCBiQKBgQC7sandbox",
        },
    ]


class Domains:
    """Verification here is instant: POST …/verify moves a domain to verified."""

    def __init__(self, store: Store, *, clock: Clock) -> None:
        self._store = store
        self._clock = clock

    def set_status(self, name: str, status: str) -> None:
        if status not in DOMAIN_STATES:
            raise ValueError(f"{status!r} is no domain status; one of {', '.join(DOMAIN_STATES)}")
        now = self._clock().timestamp()
        self._store.run(
            "INSERT INTO domains VALUES (?, ?, ?, 'us-east-1', ?)"
            " ON CONFLICT (name) DO UPDATE SET status = excluded.status",
            str(uuid.uuid4()),
            name.lower(),
            status,
            now,
        )

    def statuses(self) -> dict[str, str]:
        return {row["name"]: row["status"] for row in self._store.rows("SELECT * FROM domains ORDER BY name")}

    def _domain(self, domain_id: str) -> Row:
        domain = self._store.row("SELECT * FROM domains WHERE id = ?", domain_id)
        if domain is None:
            raise not_found("Domain")
        return domain

    def _shape(self, domain: Row) -> dict[str, Any]:
        return {
            "id": domain["id"],
            "name": domain["name"],
            "status": domain["status"],
            "created_at": spaced(domain["created_at"]),
            "region": domain["region"],
            "capabilities": {"sending": "enabled", "receiving": "disabled"},
        }

    def create(self, call: Call) -> Reply:
        name = str(call.json().get("name") or "").lower()
        if not name:
            raise missing("`name`")
        if name in self.statuses():
            raise ResendRefused(403, "validation_error", "The domain has been registered already.")
        self.set_status(name, "not_started")
        domain = self._store.row("SELECT * FROM domains WHERE name = ?", name)
        assert domain is not None
        return Reply(201, self._shape(domain) | {"records": dns_records(domain)})

    def get(self, call: Call, id: str) -> Reply:
        domain = self._domain(id)
        return Reply(200, {"object": "domain"} | self._shape(domain) | {"records": dns_records(domain)})

    def list(self, call: Call) -> Reply:
        rows = self._store.rows("SELECT * FROM domains ORDER BY created_at DESC, name")
        return Reply(200, {"object": "list", "has_more": False, "data": [self._shape(row) for row in rows]})

    def verify(self, call: Call, id: str) -> Reply:
        self.set_status(self._domain(id)["name"], "verified")
        return Reply(200, {"object": "domain", "id": id})

    def update(self, call: Call, id: str) -> Reply:
        self._domain(id)
        return Reply(200, {"object": "domain", "id": id})

    def delete(self, call: Call, id: str) -> Reply:
        self._domain(id)
        self._store.run("DELETE FROM domains WHERE id = ?", id)
        return Reply(200, {"object": "domain", "id": id, "deleted": True})


class WebhookEndpoints:
    """/webhooks."""

    def __init__(self, store: Store, *, clock: Clock) -> None:
        self._store = store
        self._clock = clock

    def _endpoint(self, endpoint_id: str) -> Row:
        found = next((row for row in self._store.endpoints() if row["id"] == endpoint_id), None)
        if found is None:
            raise not_found("Webhook")
        return found

    def _shape(self, endpoint: Row) -> dict[str, Any]:
        return {
            "id": endpoint["id"],
            "created_at": spaced(endpoint["created_at"]),
            "status": endpoint["status"],
            "endpoint": endpoint["url"],
            "events": endpoint["events"],
        }

    def _check(self, body: dict[str, Any]) -> None:
        url = body.get("endpoint")
        if url is not None and not str(url).startswith(("http://", "https://")):
            raise invalid("Invalid `endpoint` field. It must be a URL.")
        strangers = set(body.get("events") or ()) - {*EMAIL_EVENTS, *OTHER_EVENTS}
        if strangers:
            raise invalid(f"Invalid `events` field: {', '.join(sorted(strangers))}.")

    def create(self, call: Call) -> Reply:
        body = call.json()
        for field in ("endpoint", "events"):
            if not body.get(field):
                raise missing(f"`{field}`")
        self._check(body)
        endpoint = self.put(str(uuid.uuid4()), body["endpoint"], new_secret(), body["events"])
        answer = {"object": "webhook", "id": endpoint["id"], "signing_secret": endpoint["secret"]}
        return Reply(201, answer)

    def put(self, endpoint_id: str, url: str, secret: str, events: list[str]) -> Row:
        endpoint = {
            "id": endpoint_id,
            "url": url,
            "secret": secret,
            "events": events,
            "status": "enabled",
            "created_at": self._clock().timestamp(),
        }
        self._store.save_endpoint(endpoint)
        return endpoint

    def get(self, call: Call, id: str) -> Reply:
        endpoint = self._endpoint(id)
        secret = {"signing_secret": endpoint["secret"]}
        return Reply(200, {"object": "webhook"} | self._shape(endpoint) | secret)

    def list(self, call: Call) -> Reply:
        shapes = [self._shape(endpoint) for endpoint in self._store.endpoints()]
        return Reply(200, {"object": "list", "has_more": False, "data": shapes})

    def update(self, call: Call, id: str) -> Reply:
        endpoint, body = self._endpoint(id), call.json()
        self._check(body)
        changes = {"url": body.get("endpoint"), "events": body.get("events"), "status": body.get("status")}
        self._store.save_endpoint(endpoint | {key: value for key, value in changes.items() if value})
        return Reply(200, {"object": "webhook", "id": id})

    def rotate(self, call: Call, id: str) -> Reply:
        secret = new_secret()
        self._store.save_endpoint(self._endpoint(id) | {"secret": secret})
        return Reply(200, {"object": "webhook", "id": id, "signing_secret": secret})

    def delete(self, call: Call, id: str) -> Reply:
        self._endpoint(id)
        self.remove(id)
        return Reply(200, {"object": "webhook", "id": id, "deleted": True})

    def remove(self, endpoint_id: str) -> None:
        self._store.run("DELETE FROM endpoints WHERE id = ?", endpoint_id)


class Suppressions:
    """/suppressions; each change is told to the webhooks that ask for it."""

    def __init__(self, store: Store, postman: Postman, *, clock: Clock) -> None:
        self._store = store
        self._postman = postman
        self._clock = clock

    def add(self, email: str) -> Row:
        self._store.run(
            "INSERT OR IGNORE INTO suppressions VALUES (?, ?, 'manual', NULL, ?)",
            str(uuid.uuid4()),
            email.lower(),
            self._clock().timestamp(),
        )
        return self._suppression(email)

    def _suppression(self, id_or_email: str) -> Row:
        found = self._store.row(
            "SELECT * FROM suppressions WHERE id = ? OR email = ?", id_or_email, id_or_email.lower()
        )
        if found is None:
            raise not_found("Suppression")
        return found

    def _shape(self, row: Row) -> dict[str, Any]:
        return {"object": "suppression"} | row | {"created_at": spaced(row["created_at"])}

    def _tell(self, kind: str, row: Row) -> None:
        now = self._clock().timestamp()
        heard = [endpoint for endpoint in self._postman.subscribers() if kind in endpoint["events"]]
        data = row | {"created_at": spaced(row["created_at"])}
        self._postman.post({"type": kind, "created_at": spaced(now), "data": data}, endpoints=heard, now=now)
        self._postman.wake()

    def create(self, call: Call) -> Reply:
        email = call.json().get("email")
        if not email:
            raise missing("`email`")
        if not ADDRESS.fullmatch(str(email)):
            raise invalid("Invalid `email` field.")
        known = self._store.row("SELECT id FROM suppressions WHERE email = ?", str(email).lower())
        row = self.add(str(email))
        if known is None:
            self._tell("suppression.added", row)
        return Reply(201, {"object": "suppression", "id": row["id"]})

    def get(self, call: Call, id: str) -> Reply:
        return Reply(200, self._shape(self._suppression(id)))

    def list(self, call: Call) -> Reply:
        limit = page_size(call)
        origin, after = call.first("origin"), call.first("after")
        edge = self._suppression(after)["created_at"] if after else None
        rows = self._store.rows(
            "SELECT * FROM suppressions WHERE (? IS NULL OR origin = ?) AND (? IS NULL OR created_at < ?)"
            " ORDER BY created_at DESC LIMIT ?",
            origin,
            origin,
            edge,
            edge,
            limit + 1,
        )
        data = [self._shape(row) for row in rows[:limit]]
        return Reply(200, {"object": "list", "has_more": len(rows) > limit, "data": data})

    def delete(self, call: Call, id: str) -> Reply:
        row = self._suppression(id)
        self._store.run("DELETE FROM suppressions WHERE id = ?", row["id"])
        self._tell("suppression.removed", row)
        return Reply(200, {"object": "suppression", "id": row["id"], "deleted": True})

    def batch_add(self, call: Call) -> Reply:
        return self._batch(call, self.add)

    def batch_remove(self, call: Call) -> Reply:
        return self._batch(call, self._removed)

    def _removed(self, email: str) -> Row:
        row = self._suppression(email)
        self._store.run("DELETE FROM suppressions WHERE id = ?", row["id"])
        return row

    def _batch(self, call: Call, act: Callable[[str], Row]) -> Reply:
        with self._store.transaction():
            rows = [act(email) for email in call.json().get("emails") or []]
        return Reply(200, {"data": [{"object": "suppression", "id": row["id"]} for row in rows]})
