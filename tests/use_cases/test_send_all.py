"""What a run has done so far is known however it ends."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any
from uuid import uuid4

import pytest
from worlds import World, now

from tasks import send as sending
from tidings import deliver
from tidings.deliver import Selection, Sent
from tidings.errors import QuotaExhausted, Refused


@pytest.fixture(autouse=True)
def small_batches_and_no_retries(monkeypatch: pytest.MonkeyPatch) -> None:
    """Batches of two; and without Prefect around them, so that nothing is tried again."""
    for module in (sending, deliver):
        monkeypatch.setattr(module, "BATCH", 2)
    monkeypatch.setattr(sending, "send_batch", sending.send_batch.fn)


async def send_all(world: World) -> tuple[Sent, list[Exception]]:
    app: Any = SimpleNamespace(delivery=world.delivery())
    return await sending.send_all(app, Selection("winter", now()), uuid4())


async def test_all_is_sent__and_nothing_went_wrong(world: World) -> None:
    await world.enrolled(5)

    assert await send_all(world) == (Sent(sent=5), [])


async def test_a_quota_that_is_used_up_half_way__leaves_what_was_sent_counted(world: World) -> None:
    await world.enrolled(5)
    world.box.set(daily_quota=2)

    sent, errors = await send_all(world)

    assert sent == Sent(sent=2)
    assert errors
    assert all(isinstance(error, QuotaExhausted) for error in errors)
    assert len(world.inbox()) == 2


async def test_a_refusal_at_once__is_told_with_nothing_sent(world: World) -> None:
    await world.enrolled(3)
    world.box.fault("status", status=403, service="resend", path="/emails", times=1)

    sent, [error] = await send_all(world)

    assert sent == Sent()
    assert isinstance(error, Refused)
