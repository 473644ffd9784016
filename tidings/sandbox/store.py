"""Everything the sandbox remembers, in one SQLite file. All SQL is here.

Calls are synchronous and short: the event loop is the only writer, so a transaction never waits for another.
"""

import json
import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

SCHEMA = """
CREATE TABLE IF NOT EXISTS kv (key TEXT PRIMARY KEY, value TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS mails (
    seq INTEGER PRIMARY KEY AUTOINCREMENT, id TEXT NOT NULL UNIQUE, recipients TEXT NOT NULL,
    subject TEXT, created_at REAL NOT NULL, last_event TEXT NOT NULL, scheduled_at REAL,
    idempotency_key TEXT, batch_id TEXT, batch_index INTEGER);
CREATE INDEX IF NOT EXISTS mails_created ON mails (created_at);
CREATE INDEX IF NOT EXISTS mails_key ON mails (idempotency_key);
CREATE TABLE IF NOT EXISTS bodies (mail_id TEXT PRIMARY KEY, payload TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS mail_events (
    seq INTEGER PRIMARY KEY AUTOINCREMENT, mail_id TEXT NOT NULL, type TEXT NOT NULL,
    at REAL NOT NULL, detail TEXT NOT NULL);
CREATE INDEX IF NOT EXISTS mail_events_mail ON mail_events (mail_id);
CREATE TABLE IF NOT EXISTS planned (
    seq INTEGER PRIMARY KEY AUTOINCREMENT, mail_id TEXT NOT NULL, type TEXT NOT NULL,
    due_at REAL NOT NULL, detail TEXT NOT NULL);
CREATE INDEX IF NOT EXISTS planned_due ON planned (due_at);
CREATE INDEX IF NOT EXISTS planned_mail ON planned (mail_id);
CREATE TABLE IF NOT EXISTS idempotency (
    key TEXT PRIMARY KEY, payload_hash TEXT NOT NULL, response TEXT NOT NULL, created_at REAL NOT NULL);
CREATE TABLE IF NOT EXISTS recipients_sent (day TEXT PRIMARY KEY, count INTEGER NOT NULL);
CREATE TABLE IF NOT EXISTS suppressions (
    id TEXT PRIMARY KEY, email TEXT NOT NULL UNIQUE, origin TEXT NOT NULL, source_id TEXT,
    created_at REAL NOT NULL);
CREATE TABLE IF NOT EXISTS domains (
    id TEXT PRIMARY KEY, name TEXT NOT NULL UNIQUE, status TEXT NOT NULL, region TEXT NOT NULL,
    created_at REAL NOT NULL);
CREATE TABLE IF NOT EXISTS endpoints (
    id TEXT PRIMARY KEY, url TEXT NOT NULL, secret TEXT NOT NULL, events TEXT NOT NULL,
    status TEXT NOT NULL, created_at REAL NOT NULL);
CREATE TABLE IF NOT EXISTS deliveries (
    seq INTEGER PRIMARY KEY AUTOINCREMENT, msg_id TEXT NOT NULL, endpoint_id TEXT NOT NULL,
    type TEXT NOT NULL, email_id TEXT, body TEXT NOT NULL, due_at REAL NOT NULL, attempts INTEGER NOT NULL,
    state TEXT NOT NULL, last_result TEXT, created_at REAL NOT NULL);
CREATE INDEX IF NOT EXISTS deliveries_due ON deliveries (state, due_at);
CREATE TABLE IF NOT EXISTS requests (
    seq INTEGER PRIMARY KEY AUTOINCREMENT, at REAL NOT NULL, service TEXT NOT NULL, method TEXT NOT NULL,
    path TEXT NOT NULL, status INTEGER, idempotency_key TEXT, fault TEXT, ms REAL NOT NULL);
CREATE TABLE IF NOT EXISTS faults (id INTEGER PRIMARY KEY AUTOINCREMENT, rule TEXT NOT NULL,
    seen INTEGER NOT NULL DEFAULT 0, used INTEGER NOT NULL DEFAULT 0);
CREATE TABLE IF NOT EXISTS notion (id TEXT PRIMARY KEY, node TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS objects (
    seq INTEGER PRIMARY KEY AUTOINCREMENT, service TEXT NOT NULL, kind TEXT NOT NULL, id TEXT NOT NULL,
    body TEXT NOT NULL, UNIQUE (service, kind, id));
CREATE TABLE IF NOT EXISTS subscriptions (id TEXT PRIMARY KEY, body TEXT NOT NULL);
"""

TABLES = (
    "kv",
    "mails",
    "bodies",
    "mail_events",
    "planned",
    "idempotency",
    "recipients_sent",
    "suppressions",
    "domains",
    "endpoints",
    "deliveries",
    "requests",
    "faults",
    "notion",
    "objects",
    "subscriptions",
)

REQUESTS_KEPT = 200_000

Row = dict[str, Any]


class Store:
    """One connection; rows come back as plain dicts."""

    def __init__(self, path: Path) -> None:
        self._db = sqlite3.connect(path, isolation_level=None)
        self._db.row_factory = sqlite3.Row
        self._depth = 0
        # NORMAL survives kill -9 (the page cache is the kernel's); only a power cut could lose a commit.
        for pragma in ("journal_mode=WAL", "synchronous=NORMAL", "busy_timeout=5000"):
            self._db.execute(f"PRAGMA {pragma}")
        self._db.executescript(SCHEMA)
        self.run(
            "DELETE FROM requests WHERE seq <= (SELECT coalesce(max(seq), 0) FROM requests) - ?",
            REQUESTS_KEPT,
        )

    def close(self) -> None:
        self._db.close()

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """Commits on leaving the outermost block; an error inside undoes all of it."""
        if self._depth == 0:
            self._db.execute("BEGIN IMMEDIATE")
        self._depth += 1
        try:
            yield
        except BaseException:
            self._leave("ROLLBACK")
            raise
        self._leave("COMMIT")

    def _leave(self, verb: str) -> None:
        self._depth -= 1
        if self._depth == 0:
            self._db.execute(verb)

    def run(self, sql: str, *values: Any) -> int:
        return self._db.execute(sql, values).rowcount

    def run_many(self, sql: str, rows: Iterable[Sequence[Any]]) -> None:
        self._db.executemany(sql, rows)

    def rows(self, sql: str, *values: Any) -> list[Row]:
        return [dict(row) for row in self._db.execute(sql, values)]

    def row(self, sql: str, *values: Any) -> Row | None:
        found = self._db.execute(sql, values).fetchone()
        return dict(found) if found else None

    def value(self, sql: str, *values: Any) -> Any:
        found = self._db.execute(sql, values).fetchone()
        return found[0] if found else None

    def clear(self, tables: Sequence[str] = TABLES) -> None:
        with self.transaction():
            for table in tables:
                self.run(f"DELETE FROM {table}")  # noqa: S608 — names from TABLES only

    # -- small things ------------------------------------------------------------------------------------

    def recall(self, key: str) -> Any:
        text = self.value("SELECT value FROM kv WHERE key = ?", key)
        return None if text is None else json.loads(text)

    def remember(self, key: str, value: Any) -> None:
        self.run("INSERT OR REPLACE INTO kv VALUES (?, ?)", key, json.dumps(value))

    def log_request(self, entry: Row) -> None:
        columns = ("at", "service", "method", "path", "status", "idempotency_key", "fault", "ms")
        self.run(
            "INSERT INTO requests (at, service, method, path, status, idempotency_key, fault, ms)"
            " VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
            *(entry[column] for column in columns),
        )

    # -- mails -------------------------------------------------------------------------------------------

    def add_mails(self, mails: Sequence[Row]) -> None:
        self.run_many(
            "INSERT INTO mails (id, recipients, subject, created_at, last_event, scheduled_at,"
            " idempotency_key, batch_id, batch_index) VALUES (:id, :recipients, :subject, :created_at,"
            " :last_event, :scheduled_at, :idempotency_key, :batch_id, :batch_index)",
            mails,  # type: ignore[arg-type]  # executemany takes mappings too
        )
        self.run_many("INSERT INTO bodies VALUES (?, ?)", [(mail["id"], json.dumps(mail["payload"])) for mail in mails])

    def mail(self, mail_id: str) -> Row | None:
        found = self.row("SELECT * FROM mails WHERE id = ?", mail_id)
        return self._with_payload(found) if found else None

    def _with_payload(self, mail: Row) -> Row:
        payload = self.value("SELECT payload FROM bodies WHERE mail_id = ?", mail["id"])
        return mail | {"payload": json.loads(payload)}

    def mails_page(self, *, limit: int, after: str | None, before: str | None) -> list[Row]:
        """Newest first; `after` is a mail older ones follow, `before` one that newer ones precede."""
        if before:
            found = self.rows(
                "SELECT * FROM mails WHERE seq > (SELECT seq FROM mails WHERE id = ?) ORDER BY seq LIMIT ?",
                before,
                limit,
            )
            return [self._with_payload(mail) for mail in reversed(found)]
        edge = self.value("SELECT seq FROM mails WHERE id = ?", after) if after else None
        found = self.rows("SELECT * FROM mails WHERE ? IS NULL OR seq < ? ORDER BY seq DESC LIMIT ?", edge, edge, limit)
        return [self._with_payload(mail) for mail in found]

    def inbox(self, where: str, values: Sequence[Any], *, limit: int, offset: int, newest: bool) -> list[Row]:
        order = "DESC" if newest else "ASC"
        found = self.rows(
            f"SELECT * FROM mails WHERE {where} ORDER BY seq {order} LIMIT ? OFFSET ?",  # noqa: S608
            *values,
            limit,
            offset,
        )
        return [self._with_payload(mail) for mail in found]

    def inbox_count(self, where: str, values: Sequence[Any]) -> int:
        return int(self.value(f"SELECT count(*) FROM mails WHERE {where}", *values))  # noqa: S608

    def events_of(self, mail_ids: Sequence[str]) -> dict[str, list[Row]]:
        marks = ",".join("?" * len(mail_ids))
        found = self.rows(
            f"SELECT * FROM mail_events WHERE mail_id IN ({marks}) ORDER BY seq",  # noqa: S608
            *mail_ids,
        )
        events: dict[str, list[Row]] = {mail_id: [] for mail_id in mail_ids}
        for event in found:
            events[event["mail_id"]].append(event | {"detail": json.loads(event["detail"])})
        return events

    def add_event(self, mail_id: str, kind: str, at: float, detail: Row) -> None:
        self.run(
            "INSERT INTO mail_events (mail_id, type, at, detail) VALUES (?, ?, ?, ?)",
            mail_id,
            kind,
            at,
            json.dumps(detail),
        )
        self.run("UPDATE mails SET last_event = ? WHERE id = ?", kind, mail_id)

    def plan(self, events: Iterable[tuple[str, str, float, Row]]) -> None:
        self.run_many(
            "INSERT INTO planned (mail_id, type, due_at, detail) VALUES (?, ?, ?, ?)",
            [(mail_id, kind, due, json.dumps(detail)) for mail_id, kind, due, detail in events],
        )

    def due_events(self, now: float, limit: int) -> list[Row]:
        found = self.rows("SELECT * FROM planned WHERE due_at <= ? ORDER BY due_at, seq LIMIT ?", now, limit)
        return [event | {"detail": json.loads(event["detail"])} for event in found]

    def forget_planned(self, seqs: Iterable[int]) -> None:
        self.run_many("DELETE FROM planned WHERE seq = ?", [(seq,) for seq in seqs])

    def next_event_due(self) -> float | None:
        due: float | None = self.value("SELECT min(due_at) FROM planned")
        return due

    # -- idempotency and quota ---------------------------------------------------------------------------

    def kept_answer(self, key: str, since: float) -> Row | None:
        return self.row("SELECT * FROM idempotency WHERE key = ? AND created_at > ?", key, since)

    def keep_answer(self, key: str, payload_hash: str, response: Any, now: float) -> None:
        self.run(
            "INSERT OR REPLACE INTO idempotency VALUES (?, ?, ?, ?)",
            key,
            payload_hash,
            json.dumps(response),
            now,
        )

    def count_recipients(self, day: str, count: int) -> None:
        self.run(
            "INSERT INTO recipients_sent VALUES (?, ?) ON CONFLICT (day) DO UPDATE SET count = count + excluded.count",
            day,
            count,
        )

    def recipients_since(self, day: str) -> int:
        return int(self.value("SELECT coalesce(sum(count), 0) FROM recipients_sent WHERE day >= ?", day))

    # -- webhooks out ------------------------------------------------------------------------------------

    def endpoints(self) -> list[Row]:
        found = self.rows("SELECT * FROM endpoints ORDER BY created_at DESC, id")
        return [endpoint | {"events": json.loads(endpoint["events"])} for endpoint in found]

    def save_endpoint(self, endpoint: Row) -> None:
        self._db.execute(
            "INSERT OR REPLACE INTO endpoints VALUES (:id, :url, :secret, :events, :status, :created_at)",
            endpoint | {"events": json.dumps(endpoint["events"])},
        )

    def queue_delivery(self, delivery: Row) -> None:
        self._db.execute(
            "INSERT INTO deliveries (msg_id, endpoint_id, type, email_id, body, due_at, attempts, state,"
            " created_at) VALUES (:msg_id, :endpoint_id, :type, :email_id, :body, :due_at, 0, :state,"
            " :created_at)",
            delivery,
        )

    def due_deliveries(self, now: float, limit: int) -> list[Row]:
        return self.rows(
            "SELECT * FROM deliveries WHERE state = 'pending' AND due_at <= ? ORDER BY due_at, seq LIMIT ?",
            now,
            limit,
        )

    def next_delivery_due(self, now: float) -> float | None:
        due: float | None = self.value("SELECT min(due_at) FROM deliveries WHERE state = 'pending' AND due_at > ?", now)
        return due

    def settle_delivery(self, seq: int, *, state: str, due_at: float, result: str) -> None:
        self.run(
            "UPDATE deliveries SET state = ?, due_at = ?, last_result = ?, attempts = attempts + 1 WHERE seq = ?",
            state,
            due_at,
            result,
            seq,
        )

    # -- calendars and payments --------------------------------------------------------------------------

    def save_object(self, service: str, kind: str, object_id: str, body: Row) -> None:
        self.run(
            "INSERT INTO objects (service, kind, id, body) VALUES (?, ?, ?, ?)"
            " ON CONFLICT (service, kind, id) DO UPDATE SET body = excluded.body",
            service,
            kind,
            object_id,
            json.dumps(body),
        )

    def objects(self, service: str, kind: str) -> list[Row]:
        """In the order in which they were made."""
        found = self.rows("SELECT body FROM objects WHERE service = ? AND kind = ? ORDER BY seq", service, kind)
        return [json.loads(row["body"]) for row in found]

    def object(self, service: str, kind: str, object_id: str) -> Row | None:
        text = self.value(
            "SELECT body FROM objects WHERE service = ? AND kind = ? AND id = ?", service, kind, object_id
        )
        return json.loads(text) if text else None

    def subscriptions(self, service: str | None = None) -> list[Row]:
        """Where services other than Resend post what happens."""
        found = [json.loads(row["body"]) for row in self.rows("SELECT body FROM subscriptions ORDER BY rowid")]
        return [each for each in found if service in (None, each["service"])]

    def save_subscription(self, subscription: Row) -> None:
        self.run(
            "INSERT INTO subscriptions VALUES (?, ?) ON CONFLICT (id) DO UPDATE SET body = excluded.body",
            subscription["id"],
            json.dumps(subscription),
        )

    def remove_subscription(self, subscription_id: str) -> int:
        return self.run("DELETE FROM subscriptions WHERE id = ?", subscription_id)
