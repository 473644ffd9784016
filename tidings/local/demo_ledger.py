"""What the ledger, the inbox and Prefect say of the demo's mails."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import httpx
from sqlalchemy import select
from sqlalchemy.ext.asyncio import create_async_engine

from tidings.ledger.tables import contact, enrolment, event, message
from tidings.local.environment import Addresses

FAILED_RUNS = {"flow_runs": {"state": {"type": {"any_": ["FAILED", "CRASHED"]}}}, "limit": 50}
PAGE = 1000


@dataclass(frozen=True)
class Arrived:
    """A mail in the sandbox's inbox."""

    subject: str
    last_event: str
    delivered_at: datetime | None


@dataclass(frozen=True)
class Mail:
    """One mail of the demo: what the ledger planned, and what came of it."""

    email: str
    template: str
    state: str
    reason: str | None
    due_at: datetime
    sent_at: datetime | None
    provider_id: str | None
    arrived: Arrived | None = None

    @property
    def done(self) -> bool:
        """Delivered at the sandbox, and the ledger has heard of it."""
        return self.arrived is not None and self.arrived.last_event == "delivered" and self.state == "delivered"


class Ledger:
    """Reads only; with its own connection, so that it sees what any other process has committed."""

    def __init__(self, addresses: Addresses) -> None:
        self._engine = create_async_engine(addresses.database(scheme="postgresql+asyncpg"), pool_size=1)

    async def mails(self) -> list[Mail]:
        columns = (
            contact.c.email,
            message.c.template,
            message.c.state,
            message.c.reason,
            message.c.due_at,
            message.c.sent_at,
            message.c.provider_id,
        )
        joined = message.join(enrolment).join(contact, enrolment.c.contact_id == contact.c.id)
        rows = await self._rows(select(*columns).select_from(joined).order_by(message.c.due_at, contact.c.email))
        return [Mail(*row) for row in rows]

    async def unhandled(self) -> list[str]:
        """Events that did not become an enrolment, in words."""
        columns = (event.c.source, event.c.state, event.c.reason)
        rows = await self._rows(select(*columns).where(event.c.state != "handled"))
        return [f"{source}: {state}" + (f", {reason}" if reason else "") for source, state, reason in rows]

    async def close(self) -> None:
        await self._engine.dispose()

    async def _rows(self, query: Any) -> Sequence[Any]:
        async with self._engine.connect() as connection:
            return (await connection.execute(query)).all()


async def inbox(client: httpx.AsyncClient, addresses: Addresses) -> dict[str, Arrived]:
    """Every mail in the sandbox by its id."""
    asked: dict[str, str | int] = {"limit": PAGE, "bodies": "false"}
    answer = await client.get(f"{addresses.sandbox}/control/inbox", params=asked)
    answer.raise_for_status()
    return {mail["id"]: _arrived(mail) for mail in answer.json()["data"]}


async def failed_runs(client: httpx.AsyncClient, addresses: Addresses) -> list[str]:
    """Prefect's failed and crashed runs with what they say."""
    answer = await client.post(f"{addresses.prefect_api}/flow_runs/filter", json=FAILED_RUNS)
    answer.raise_for_status()
    return [f"{run['name']}: {run['state']['type'].lower()}, {run['state']['message']}" for run in answer.json()]


def _arrived(mail: dict[str, Any]) -> Arrived:
    times = [e["time"] for e in mail["events"] if e["type"].removeprefix("email.") == "delivered"]
    return Arrived(
        subject=mail["subject"],
        last_event=mail["last_event"],
        delivered_at=datetime.fromisoformat(times[0]) if times else None,
    )
