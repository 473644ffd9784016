"""Injected faults: the rules, and which request each one strikes."""

import json
import random
import re
from dataclasses import dataclass
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator

from .store import Store
from .wire import Call

WORKS_FIRST = "work_then_"

Kind = Literal[
    "status",
    "html",
    "empty",
    "truncated",
    "reset",
    "silence",
    "delay",
    "work_then_status",
    "work_then_html",
    "work_then_empty",
    "work_then_truncated",
    "work_then_reset",
    "work_then_timeout",
]


class FaultRule(BaseModel):
    """The body of `POST /control/faults`."""

    model_config = ConfigDict(extra="forbid")

    service: Literal["resend", "notion", "calendly", "calcom", "stripe"] | None = Field(None, description="null: all")
    method: str | None = Field(None, description="null: any")
    path: str = Field("", description="regular expression on the path below the provider's base")
    body: str = Field("", description="regular expression on the request's body")
    times: int | None = Field(1, ge=1, description="strikes this often; null: until deleted")
    after: int = Field(0, ge=0, description="lets this many matching requests pass first")
    probability: float | None = Field(None, ge=0, le=1)
    kind: Kind
    status: int = Field(500, ge=200, le=599)
    code: str | None = Field(None, description="error code or name; null: the usual one for the status")
    message: str | None = None
    retry_after: int | str | None = Field(None, description="the retry-after header, as given")
    delay: float = Field(0, ge=0, description="seconds; how long a silence lasts at most (0: 60 s)")
    cut: Literal["body", "json"] = Field(
        "body", description="truncated: fewer bytes than content-length says, or a JSON text cut short"
    )

    @field_validator("path", "body")
    @classmethod
    def _is_regex(cls, pattern: str) -> str:
        try:
            re.compile(pattern)
        except re.error as error:
            raise ValueError(f"not a regular expression: {error}") from error
        return pattern

    def fits(self, call: Call) -> bool:
        return (
            self.service in (None, call.service)
            and (self.method is None or self.method.upper() == call.method)
            and re.search(self.path, call.path) is not None
            and re.search(self.body, call.body.decode(errors="replace"), re.DOTALL) is not None
        )

    @property
    def works_first(self) -> bool:
        return self.kind.startswith(WORKS_FIRST)

    @property
    def symptom(self) -> str:
        """What the client sees, whether or not the work was done."""
        symptom = self.kind.removeprefix(WORKS_FIRST)
        return "silence" if symptom == "timeout" else symptom


@dataclass
class Fault:
    """A rule with what it has done so far."""

    id: int
    rule: FaultRule
    seen: int = 0
    used: int = 0

    def strikes(self) -> bool:
        """Counts a request that fits, and says whether it is struck."""
        self.seen += 1
        if self.seen <= self.rule.after or self.spent:
            return False
        if self.rule.probability is not None and random.random() >= self.rule.probability:  # noqa: S311
            return False
        self.used += 1
        return True

    @property
    def spent(self) -> bool:
        return self.rule.times is not None and self.used >= self.rule.times

    def as_json(self) -> dict[str, object]:
        return {
            "id": self.id,
            "seen": self.seen,
            "used": self.used,
            "spent": self.spent,
        } | self.rule.model_dump()


class Faults:
    """The rules in force, oldest first; the first that strikes wins. They outlive a restart."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._faults = {
            row["id"]: Fault(row["id"], FaultRule(**json.loads(row["rule"])), row["seen"], row["used"])
            for row in store.rows("SELECT * FROM faults ORDER BY id")
        }

    def add(self, rule: FaultRule) -> Fault:
        self._store.run("INSERT INTO faults (rule) VALUES (?)", rule.model_dump_json())
        fault = Fault(int(self._store.value("SELECT last_insert_rowid()")), rule)
        self._faults[fault.id] = fault
        return fault

    def remove(self, fault_id: int) -> bool:
        self._store.run("DELETE FROM faults WHERE id = ?", fault_id)
        return self._faults.pop(fault_id, None) is not None

    def clear(self) -> None:
        self._store.clear(["faults"])
        self._faults.clear()

    def listing(self) -> list[dict[str, object]]:
        return [fault.as_json() for fault in self._faults.values()]

    def striking(self, call: Call) -> Fault | None:
        """The fault for this request. Every rule that fits counts it, up to the one that strikes."""
        for fault in self._faults.values():
            if not fault.spent and fault.rule.fits(call):
                struck = fault.strikes()
                self._store.run("UPDATE faults SET seen = ?, used = ? WHERE id = ?", fault.seen, fault.used, fault.id)
                if struck:
                    return fault
        return None
