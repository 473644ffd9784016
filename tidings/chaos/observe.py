"""Looks at the ledger, the inbox and Prefect from outside, each over its own connection."""

from __future__ import annotations

import asyncio
import json
import sqlite3
import time
from collections import Counter
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from uuid import UUID

import asyncpg
import httpx

from tidings.chaos.verdict import Arrived, Message, Run

#: Prefect's largest page.
PAGE = 200
OPEN_STATES = ["PENDING", "RUNNING", "PAUSED", "CANCELLING", "SCHEDULED"]

_WATERMARK = """
SELECT (SELECT min(received_at) FROM event WHERE state IN ('accepted', 'dispatched')) AS event,
       (SELECT min(slot_at) FROM message WHERE state IN ('scheduled', 'sending') AND slot_at <= now()) AS mail,
       (SELECT count(*) FROM event WHERE state IN ('accepted', 'dispatched')) AS events,
       (SELECT count(*) FROM message WHERE state = 'scheduled') AS scheduled,
       (SELECT count(*) FROM message WHERE state = 'scheduled' AND slot_at <= now()) AS overdue,
       (SELECT count(*) FROM message WHERE state = 'sending') AS sending,
       (SELECT count(*) FROM message WHERE state IN ('sent', 'delivered')) AS out,
       (SELECT count(*) FROM claim c WHERE settled_at IS NULL
          AND EXISTS (SELECT 1 FROM message m WHERE m.claim_id = c.id AND m.state = 'sending')) AS claims,
       (SELECT min(slot_at) FROM message WHERE state = 'scheduled' AND slot_at > now()) AS next
"""
_MESSAGES = """
SELECT m.id, c.email, m.template, m.state, m.reason, m.provider_id, m.payload
FROM message m JOIN enrolment e ON e.id = m.enrolment_id JOIN contact c ON c.id = e.contact_id
"""
_IN_FLIGHT = """
SELECT flow_run_id FROM claim
WHERE settled_at IS NULL AND first_sent_at IS NOT NULL AND flow_run_id IS NOT NULL AND lease_until > now()
ORDER BY first_sent_at DESC
"""


@dataclass(frozen=True)
class Backlog:
    """What the ledger still has to do."""

    #: Unix seconds of the look, and of the oldest thing that waits (of the look when nothing does).
    at: float
    since: float
    events: int
    scheduled: int
    overdue: int
    sending: int
    out: int
    claims: int
    #: When the next mail is due that is not due yet.
    next_due: float | None

    @property
    def quiet(self) -> bool:
        return not (self.events or self.scheduled or self.sending or self.claims)

    @property
    def stands(self) -> str:
        """Changes whenever something has been done."""
        return f"{self.events} {self.scheduled} {self.sending} {self.out}"

    def __str__(self) -> str:
        return (
            f"{self.out} mails out, {self.scheduled} scheduled ({self.overdue} due), {self.sending} in {self.claims} "
            f"claims, {self.events} events waiting"
        )


class LedgerSide:
    """The ledger. Raises OSError or a PostgreSQL error while it is down."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._one = asyncio.Lock()
        self._kept: asyncpg.Connection | None = None

    async def _fetch(self, query: str) -> list[Any]:
        async with self._one:
            if self._kept is None or self._kept.is_closed():
                self._kept = await asyncpg.connect(self._url, timeout=5)
            rows: list[Any] = await self._kept.fetch(query, timeout=20)
            return rows

    async def close(self) -> None:
        if self._kept is not None:
            self._kept.terminate()

    async def backlog(self) -> Backlog:
        (row,) = await self._fetch(_WATERMARK)
        at = time.time()
        oldest = min([m.timestamp() for m in (row["event"], row["mail"]) if m] or [at])
        soonest = row["next"].timestamp() if row["next"] else None
        names = ("events", "scheduled", "overdue", "sending", "out", "claims")
        return Backlog(at=at, since=oldest, next_due=soonest, **{name: row[name] for name in names})

    async def in_flight(self) -> list[UUID]:
        """The Prefect runs that have handed mails to Resend and wait for the answer."""
        return [row["flow_run_id"] for row in await self._fetch(_IN_FLIGHT)]

    async def events(self) -> dict[str, str]:
        return {str(row["id"]): row["state"] for row in await self._fetch("SELECT id, state FROM event")}

    async def enrolments(self) -> int:
        (row,) = await self._fetch("SELECT count(*) AS n FROM enrolment")
        return int(row["n"])

    async def messages(self) -> list[Message]:
        return [
            Message(
                id=str(row["id"]),
                email=row["email"],
                template=row["template"],
                state=row["state"],
                reason=row["reason"],
                provider_id=row["provider_id"],
                payload=canonical(json.loads(row["payload"])) if row["payload"] else None,
            )
            for row in await self._fetch(_MESSAGES)
        ]


LEDGER_DOWN = (OSError, TimeoutError, asyncpg.PostgresError, asyncpg.InterfaceError)


class InboxSide:
    """The sandbox's own store, read from its file: it is what the contacts have got, whatever anybody says."""

    def __init__(self, folder: Path) -> None:
        self._file = folder / "sandbox.sqlite3"

    async def mails(self) -> list[Arrived]:
        rows = await self._rows("SELECT m.id, b.payload FROM mails m JOIN bodies b ON b.mail_id = m.id")
        return [_arrived(mail_id, json.loads(payload)) for mail_id, payload in rows]

    async def accepted_at(self) -> list[float]:
        """When each mail was accepted, in order."""
        return [row[0] for row in await self._rows("SELECT created_at FROM mails ORDER BY created_at")]

    async def reports_waiting(self) -> int:
        """Delivery webhooks that are still to be posted."""
        ((count,),) = await self._rows("SELECT count(*) FROM deliveries WHERE state = 'pending'")
        return int(count)

    async def reports(self) -> Counter[str]:
        """How many delivery webhooks there were: in all, posted twice, dropped."""
        ((total, distinct, dropped),) = await self._rows(
            "SELECT count(*), count(DISTINCT msg_id), coalesce(sum(state = 'dropped'), 0) FROM deliveries"
        )
        return Counter({"reports": int(total), "repeated": int(total - distinct), "dropped": int(dropped)})

    async def _rows(self, query: str) -> list[Any]:
        return await asyncio.to_thread(self._read, query)

    def _read(self, query: str) -> list[Any]:
        database = sqlite3.connect(f"file:{self._file}?mode=ro", uri=True, timeout=10)
        try:
            return database.execute(query).fetchall()
        finally:
            database.close()


class PrefectSide:
    """Prefect's API. Raises httpx.HTTPError while it is down."""

    def __init__(self, client: httpx.AsyncClient, api: str, deployments: list[str]) -> None:
        self._client = client
        self._api = api
        self._deployments = deployments

    async def open_runs(self) -> list[Run]:
        """Handler and send runs that have not ended."""
        now = datetime.now(UTC)
        return [
            Run(
                name=run["name"],
                state=run["state_name"],
                future=run["state_type"] == "SCHEDULED" and datetime.fromisoformat(run["expected_start_time"]) > now,
            )
            for run in await self._runs(OPEN_STATES)
        ]

    async def counts(self) -> Counter[str]:
        """Handler and send runs by how they stand."""
        counts: Counter[str] = Counter()
        for state in ("COMPLETED", "FAILED", "CRASHED", "CANCELLED", *OPEN_STATES):
            answer = await self._client.post(f"{self._api}/flow_runs/count", json=self._wanted([state]))
            answer.raise_for_status()
            counts[state.lower()] = int(answer.json())
        return +counts

    async def failures(self) -> Counter[str]:
        """What failed and crashed runs say, by the beginning of their message."""
        runs = await self._runs(["FAILED", "CRASHED"])
        return Counter(f"{run['state_name'].lower()}: {(run['state']['message'] or '')[:110]}" for run in runs)

    async def pid(self, run_id: UUID) -> int | None:
        """The process of a run."""
        answer = await self._client.get(f"{self._api}/flow_runs/{run_id}")
        pid = answer.json().get("infrastructure_pid") if answer.is_success else None
        return int(pid.rpartition(":")[2]) if pid else None

    def _wanted(self, states: list[str]) -> dict[str, Any]:
        return {
            "flow_runs": {"state": {"type": {"any_": states}}},
            "deployments": {"name": {"any_": self._deployments}},
        }

    async def _runs(self, states: list[str]) -> list[Any]:
        found: list[Any] = []
        while True:
            page = {"limit": PAGE, "offset": len(found), "sort": "ID_DESC"}
            answer = await self._client.post(f"{self._api}/flow_runs/filter", json=self._wanted(states) | page)
            answer.raise_for_status()
            found += answer.json()
            if len(answer.json()) < PAGE:
                return found


def _arrived(mail_id: str, payload: Any) -> Arrived:
    tags = {tag["name"]: tag["value"] for tag in payload.get("tags") or []}
    to = payload["to"] if isinstance(payload["to"], str) else payload["to"][0]
    return Arrived(mail_id, to, tags.get("template", "?"), tags.get("message", "?"), canonical(payload))


def canonical(payload: Any) -> str:
    """Equal content, equal text."""
    return json.dumps(payload, sort_keys=True, separators=(",", ":"))
