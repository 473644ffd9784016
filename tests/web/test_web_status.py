"""`GET /webhook/status/<id>`: what a website asks after it has posted."""

from __future__ import annotations

import asyncio
from uuid import UUID

import pytest
from web_client import ORIGIN, Web
from worlds import address

from tidings.web.status import LOOKS

SIGNUP = "/webhook/christmas-signup"


async def posted(web: Web, **body: object) -> dict[str, str]:
    answer = await web.post(SIGNUP, {"email": address(), "first_name": "Ada", "consent": True, **body})
    assert answer.status_code in {200, 202}, answer.text
    found: dict[str, str] = answer.json()
    return found


def path_of(answer: dict[str, str]) -> str:
    return answer["status_url"].removeprefix("https://t.tidings.test")


async def test_the_answers_address__tells_how_far_it_has_come(web: Web) -> None:
    email = address()
    answer = await posted(web, email=email)

    asked = await web.http.get(path_of(answer), headers={"origin": ORIGIN})

    assert asked.status_code == 200
    assert asked.json() == {
        "status": "working",
        "message": "The first email is on its way.",
        "final": False,
        "at": None,
    }
    assert asked.headers["cache-control"] == "no-store"
    assert asked.headers["retry-after"] == "2"
    assert asked.headers["access-control-allow-origin"] == ORIGIN
    assert "retry-after" in asked.headers["access-control-expose-headers"].lower()
    assert email not in asked.text


async def test_a_form_that_is_taken_for_a_bots__is_received_and_no_more(web: Web) -> None:
    answer = await posted(web, form_trap="x", form_seconds=20)

    asked = (await web.http.get(path_of(answer))).json()

    assert (asked["status"], asked["final"]) == ("received", False)


async def test_no_consent__is_told_with_the_reason(web: Web) -> None:
    asked = await web.http.get(path_of(await posted(web, consent=False)))

    assert (asked.json()["status"], asked.json()["final"]) == ("nothing", True)
    assert "retry-after" not in asked.headers


@pytest.mark.parametrize("wrong", ["00000000-0000-4000-8000-000000000000", "nonsense", "1", "%00", "é", "x" * 3000])
async def test_an_unknown_id__is_404(web: Web, wrong: str) -> None:
    asked = await web.http.get(f"/webhook/status/{wrong}")

    assert asked.status_code == 404
    assert asked.json() == {"detail": "No webhook has this id."}
    assert asked.headers["cache-control"] == "no-store"


async def test_many_pages__take_turns_and_leave_webhooks_their_connections(
    web: Web, monkeypatch: pytest.MonkeyPatch
) -> None:
    answer = await posted(web)
    at_once, most = 0, 0

    async def slowly(*_: object) -> None:
        nonlocal at_once, most
        at_once += 1
        most = max(most, at_once)
        await asyncio.sleep(0.05)
        at_once -= 1

    monkeypatch.setattr("tidings.web.status.progress_of", slowly)
    monkeypatch.setattr("tidings.web.status.PATIENCE_SECONDS", 0.2)

    asked = await asyncio.gather(*[web.http.get(path_of(answer)) for _ in range(40)])

    assert most == LOOKS
    assert {a.status_code for a in asked} == {404, 503}
    assert {a.headers.get("retry-after") for a in asked if a.status_code == 503} == {"5"}


async def test_the_id__is_the_events(web: Web) -> None:
    answer = await posted(web)

    assert UUID(answer["event_id"]).version == 4
    assert answer["status_url"].endswith(f"/webhook/status/{answer['event_id']}")
