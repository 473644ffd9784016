"""`/metrics`: the figures of all processes together, for who shows the token."""

from __future__ import annotations

from prometheus_client.parser import text_string_to_metric_families
from web_client import Web
from worlds import address

SIGNUP = "/webhook/christmas-signup"


async def figures(web: Web) -> dict[tuple[str, tuple[tuple[str, str], ...]], float]:
    web.app.state.board._known = (float("-inf"), None)
    answer = await web.http.get("/metrics")
    assert answer.status_code == 200, answer.text
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(answer.text)
        for sample in family.samples
    }


async def test_a_webhook__is_counted(web: Web) -> None:
    body = {"email": address(), "first_name": "Ada", "consent": True}
    for _ in range(2):
        assert (await web.post(SIGNUP, body)).status_code == 200
    print(await figures(web))
    print((await web.http.get("/metrics")).text)
    assert 0
