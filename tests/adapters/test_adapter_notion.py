"""Notion through its SDK: long texts whole, templates by exact name, errors classified once and with the cure."""

from __future__ import annotations

import pickle
from typing import Any

import httpx
import pytest
from notion_client.errors import APIErrorCode, APIResponseError, HTTPResponseError, UnknownHTTPResponseError
from sandbox_process import Sandbox
from worlds import RICH, add_template, make_templates

from tidings.adapters.notion import BODY, SUBJECT, TITLE, NotFound, Notion, PropertyMissing, classify, rich_text
from tidings.errors import (
    ConfigError,
    OutcomeUnknown,
    Refused,
    RetryLater,
    ServiceError,
    TemplateDuplicated,
    TemplateEmpty,
    TemplateMissing,
)
from tidings.ledger import Ledger
from tidings.ledger.memory import Memory

SETTING = "NOTION_TEMPLATES_DB_ID"
NOBODY = "11111111-1111-4111-8111-111111111111"


# -- F16: long texts -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("truncate_at", [25, 0])
@pytest.mark.parametrize("length", [2001, 50_001, 199_999])
@pytest.mark.parametrize("character", ["x", "é🎄"])
async def test_f16_a_long_body__comes_back_whole(
    notion: Notion, box: Sandbox, length: int, character: str, truncate_at: int
) -> None:
    box.set(truncate_rich_text_at=truncate_at)
    units = len(character.encode("utf-16-le")) // 2
    body = "b" + character * ((length - 1) // units) + "e"
    body = body if units == 1 else body[: 199_800 * len(body) // max(199_800, len(body.encode("utf-16-le")) // 2)]
    database = await make_templates(notion, box, {"long": ("Subject", body)})

    found = (await notion.templates(database, ["long"]))["long"]

    assert found.body == body
    assert found.subject == "Subject"


async def test_f16_an_emoji_at_the_cut__comes_back_whole(notion: Notion, box: Sandbox) -> None:
    body = "x" * 1999 + "🎄" + "y" * 1999 + "👩‍👩‍👧" + "z" * 60_000
    database = await make_templates(notion, box, {"long": ("Subject", body)})

    assert (await notion.templates(database, ["long"]))["long"].body == body


async def test_f16_an_update__is_whole_too(notion: Notion, box: Sandbox) -> None:
    database = await make_templates(notion, box, {})
    page = await add_template(notion, database, "long", "Subject", "short")

    await notion.update_row(page, {BODY: {"rich_text": rich_text("y" * 70_000)}})

    assert (await notion.templates(database, ["long"]))["long"].body == "y" * 70_000


@pytest.mark.parametrize("property_id", ["C8A%3F", "%7Ct%5C%3C", "a%2Fb", "a%23b", "a%253A", "plain"])
async def test_f16_the_rest_of_a_long_body__is_asked_for_under_the_propertys_id_as_it_was_given(
    property_id: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ids are percent-encoded and may hold what would end a path (found here: `?`)."""
    asked: list[bytes] = []

    async def answer(request: httpx.Request) -> httpx.Response:
        asked.append(request.url.raw_path)
        item = {"object": "property_item", "type": "rich_text", "rich_text": {"plain_text": "x" * 30}}
        return httpx.Response(200, json={"object": "list", "results": [item], "has_more": False})

    notion = Notion(token="ntn_test", api_url="http://notion.test")
    monkeypatch.setattr(notion._http, "_transport", httpx.MockTransport(answer))
    long = {"id": property_id, "type": "rich_text", "rich_text": [{"plain_text": "x"}] * 25}
    row = {"id": NOBODY, "properties": {SUBJECT: long, BODY: long}}

    assert await notion.template_text(row) == ("x" * 30, "x" * 30)
    assert {path.partition(b"?")[0].decode() for path in asked} == {f"/v1/pages/{NOBODY}/properties/{property_id}"}


# -- templates -----------------------------------------------------------------------------------------------


async def test_templates__are_found_by_name(notion: Notion, box: Sandbox) -> None:
    database = await make_templates(notion, box, {f"t_{n}": (f"S{n}", f"<p>{n}</p>") for n in range(3)})

    found = await notion.templates(database, ["t_2", "t_0"])

    assert {name: (t.subject, t.body) for name, t in found.items()} == {
        "t_2": ("S2", "<p>2</p>"),
        "t_0": ("S0", "<p>0</p>"),
    }


async def test_more_templates_than_one_query_takes__are_found(notion: Notion, box: Sandbox) -> None:
    names = [f"t_{n}" for n in range(105)]
    database = await make_templates(notion, box, {names[0]: ("A", "a"), names[-1]: ("B", "b")})

    found = await notion.try_templates(database, names)

    assert {type(v).__name__ for v in found.values()} == {"Template", "TemplateMissing"}
    assert [n for n, v in found.items() if not isinstance(v, TemplateMissing)] == [names[0], names[-1]]


@pytest.mark.parametrize("there", ["5-Day E1: Your first step", "5-day e1", "5-Day E1 ", "5-Day  E1", "x5-Day E1"])
async def test_f3_a_name_that_is_only_alike__is_missing(notion: Notion, box: Sandbox, there: str) -> None:
    database = await make_templates(notion, box, {there: ("S", "b")})

    with pytest.raises(
        TemplateMissing, match=r"'5-Day E1' is missing in the templates database \(NOTION_TEMPLATES_DB_ID\)"
    ):
        await notion.templates(database, ["5-Day E1"])


@pytest.mark.parametrize("alike", ["5-day e1", "5-Day E1: Your first step", " 5-Day E1"])
async def test_f3_a_name_that_notion_itself_takes_for_equal__is_still_missing(
    notion: Notion, monkeypatch: pytest.MonkeyPatch, alike: str
) -> None:
    """Whether Notion's `equals` minds case is not established (apis.md 6); ours does."""
    row = {"id": NOBODY, "properties": {TITLE: {"type": "title", "title": [{"plain_text": alike}]}}}

    async def query(*given: Any, **arguments: Any) -> list[dict[str, Any]]:
        return [row]

    monkeypatch.setattr(notion, "query", query)

    with pytest.raises(TemplateMissing):
        await notion.templates(NOBODY, ["5-Day E1"])


async def test_f2_an_empty_template__is_told_with_the_part(notion: Notion, box: Sandbox) -> None:
    database = await make_templates(notion, box, {"a": ("S", ""), "b": (" ", "x")})

    found = await notion.try_templates(database, ["a", "b"])

    assert [type(f) for f in found.values()] == [TemplateEmpty, TemplateEmpty]
    assert "empty 'Email Body HTML'" in str(found["a"])
    assert "empty 'Subject Line'" in str(found["b"])


async def test_a_name_that_exists_twice__is_told(notion: Notion, box: Sandbox) -> None:
    database = await make_templates(notion, box, {"a": ("S", "b")})
    await add_template(notion, database, "a", "S", "b")

    with pytest.raises(TemplateDuplicated, match="'a' exists 2 times"):
        await notion.templates(database, ["a"])


@pytest.mark.parametrize("cased", [str.lower, str.upper, str.title])
async def test_f10_properties_in_another_case__are_found(notion: Notion, box: Sandbox, cased: Any) -> None:
    names = {"title": cased(TITLE), "subject": cased(SUBJECT), "body": cased(BODY)}
    database = await make_templates(
        notion, box, {}, {names["title"]: {"title": {}}, names["subject"]: RICH, names["body"]: RICH}
    )
    values = {
        names["title"]: {"title": rich_text("a")},
        names["subject"]: {"rich_text": rich_text("S")},
        names["body"]: {"rich_text": rich_text("B")},
    }
    await notion.create_row(SETTING, database, values)

    found = (await notion.templates(database, ["a"]))["a"]

    assert (found.subject, found.body) == ("S", "B")


async def test_f10_a_missing_property__is_told_with_database_and_cure(notion: Notion, box: Sandbox) -> None:
    database = await make_templates(notion, box, {}, {TITLE: {"title": {}}, SUBJECT: RICH})
    await notion.create_row(SETTING, database, {TITLE: {"title": rich_text("a")}})

    with pytest.raises(
        PropertyMissing, match=r"NOTION_TEMPLATES_DB_ID has no property 'Email Body HTML'.*tidings notion init"
    ):
        await notion.property_name(SETTING, database, BODY)


async def test_a_title_split_into_runs__is_one_name(notion: Notion, box: Sandbox) -> None:
    database = await make_templates(notion, box, {})
    title = [{"type": "text", "text": {"content": "one"}}, {"type": "text", "text": {"content": "_two"}}]
    body = {"rich_text": rich_text("x")}
    await notion.create_row(SETTING, database, {TITLE: {"title": title}, SUBJECT: body, BODY: body})

    assert list(await notion.templates(database, ["one_two"])) == ["one_two"]


async def test_a_template_in_the_trash__is_missing(notion: Notion, box: Sandbox) -> None:
    database = await make_templates(notion, box, {})
    page = await add_template(notion, database, "a", "S", "b")
    await notion._client.pages.update(page_id=page, in_trash=True)

    with pytest.raises(TemplateMissing):
        await notion.templates(database, ["a"])


# -- databases -----------------------------------------------------------------------------------------------


async def test_a_data_sources_id__works_as_well_as_a_databases(notion: Notion, box: Sandbox) -> None:
    database = await make_templates(notion, box, {"a": ("S", "b")})
    source = await notion.source_id(SETTING, database)

    assert source != database
    assert (await notion.templates(source, ["a"]))["a"].subject == "S"


@pytest.mark.parametrize("how", ["unknown", "not shared"])
async def test_a_database_that_cannot_be_seen__is_told_with_setting_and_cure(
    notion: Notion, box: Sandbox, how: str
) -> None:
    database = NOBODY
    if how == "not shared":
        database = await make_templates(notion, box, {})
        box.http.post(f"{box.url}/control/notion/unshare", json={"id": database})

    with pytest.raises(NotFound) as told:
        await notion.templates(database, ["a"])

    assert f"{database} (NOTION_TEMPLATES_DB_ID) does not exist or is not shared" in str(told.value)
    assert "Connections" in str(told.value)


async def test_a_database_that_is_shared_no_longer__is_told_so_when_its_properties_are_asked_for(
    notion: Notion, box: Sandbox
) -> None:
    database = await make_templates(notion, box, {})
    await notion.schema(SETTING, database)
    box.http.post(f"{box.url}/control/notion/unshare", json={"id": database})

    with pytest.raises(NotFound, match="NOTION_TEMPLATES_DB_ID"):
        await notion.schema(SETTING, database, fresh=True)


async def test_a_database_with_several_sources__asks_which(notion: Notion, box: Sandbox) -> None:
    database = await make_templates(notion, box, {})
    await notion._client.data_sources.create(
        parent={"type": "database_id", "database_id": database}, properties={"Name": {"title": {}}}
    )

    with pytest.raises(ConfigError, match="NOTION_TEMPLATES_DB_ID names a Notion database with 2 data sources"):
        await notion.source_id(SETTING, database)


async def test_a_remembered_source__that_is_wrong_by_now_is_looked_up_anew(
    notion: Notion, box: Sandbox, ledger: Ledger
) -> None:
    database = await make_templates(notion, box, {"a": ("S", "b")})
    memory = Memory(ledger)
    await memory.remember(f"notion-source:{database}", NOBODY)
    other = Notion(token="ntn_test", api_url=f"{box.url}/notion", memory=memory)

    found = await other.templates(database, ["a"])

    assert found["a"].subject == "S"
    assert await memory.recall(f"notion-source:{database}") == await notion.source_id(SETTING, database)
    await other.close()


async def test_a_remembered_source__is_not_asked_for_again(notion: Notion, box: Sandbox, ledger: Ledger) -> None:
    database = await make_templates(notion, box, {"a": ("S", "b")})
    for _ in range(2):
        other = Notion(token="ntn_test", api_url=f"{box.url}/notion", memory=Memory(ledger))
        await other.templates(database, ["a"])
        await other.close()

    asked = [r for r in box.get("requests", service="notion")["data"] if r["path"].endswith(f"/databases/{database}")]
    assert len([r for r in asked if r["method"] == "GET"]) <= 2  # the setting up of this test asked once


async def test_many_rows__are_all_read(notion: Notion, box: Sandbox) -> None:
    database = await make_templates(notion, box, {f"t_{n}": ("S", "b") for n in range(7)})

    assert len(await notion.query(SETTING, database, page_size=3)) == 7


async def test_a_token_that_is_not_valid__is_refused(notion: Notion, box: Sandbox) -> None:
    assert await notion.whoami()
    box.set(notion_tokens=["ntn_other"])

    with pytest.raises(Refused, match="API token is invalid"):
        await notion.whoami()


async def test_an_id_that_is_no_id__is_refused(notion: Notion) -> None:
    with pytest.raises(Refused):
        await notion.templates("../users", ["a"])


# -- classification: apis.md 1.3 and 1.4 ---------------------------------------------------------------------

CLASSES: list[tuple[int, str, type[ServiceError]]] = [
    (400, "invalid_json", Refused),
    (400, "invalid_request_url", Refused),
    (400, "invalid_request", Refused),
    (400, "validation_error", Refused),
    (401, "unauthorized", Refused),
    (403, "restricted_resource", Refused),
    (404, "object_not_found", NotFound),
    (409, "conflict_error", RetryLater),
    (429, "rate_limited", RetryLater),
    (500, "internal_server_error", OutcomeUnknown),
    (503, "service_unavailable", OutcomeUnknown),
    (504, "gateway_timeout", OutcomeUnknown),
]


@pytest.mark.parametrize(("status", "code", "kind"), CLASSES)
def test_every_error__is_classified_once(status: int, code: str, kind: type[ServiceError]) -> None:
    error = APIResponseError(
        code=APIErrorCode(code), status=status, message="words", headers=httpx.Headers(), raw_body_text="{}"
    )

    ours = classify(error)

    assert type(ours) is kind
    assert (ours.status, ours.code) == (status, code)
    assert "words" in str(ours)
    assert str(pickle.loads(pickle.dumps(ours))) == str(ours)  # noqa: S301


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (502, OutcomeUnknown),
        (529, RetryLater),
        (429, RetryLater),
        (413, Refused),
        (301, OutcomeUnknown),
        (408, OutcomeUnknown),
    ],
)
def test_errors_unknown_to_the_sdk__are_classified_by_status(status: int, kind: type[ServiceError]) -> None:
    error: HTTPResponseError = UnknownHTTPResponseError(
        status=status, message=None, headers=httpx.Headers({"retry-after": "3"}), raw_body_text="<html>"
    )

    assert type(classify(error)) is kind


@pytest.mark.parametrize("status", [429, 529])
async def test_a_long_wait__is_kept_above_a_minute(notion: Notion, box: Sandbox, status: int) -> None:
    box.fault("status", service="notion", status=status, retry_after=90)

    with pytest.raises(RetryLater) as told:
        await notion.whoami()

    assert told.value.retry_after == 90
    assert (await notion.whoami()) != ""  # asked once: the SDK's own retries are off


@pytest.mark.parametrize(
    ("fault", "kind"),
    [
        ({"kind": "status", "status": 500}, OutcomeUnknown),
        ({"kind": "status", "status": 503}, OutcomeUnknown),
        ({"kind": "status", "status": 409}, RetryLater),
        ({"kind": "html", "status": 502}, OutcomeUnknown),
        ({"kind": "reset"}, OutcomeUnknown),
        ({"kind": "empty"}, OutcomeUnknown),
        ({"kind": "truncated", "cut": "json"}, OutcomeUnknown),
        ({"kind": "truncated", "cut": "body"}, OutcomeUnknown),
    ],
)
async def test_what_goes_wrong_on_the_wire__is_one_of_ours_and_not_retried_here(
    notion: Notion, box: Sandbox, fault: dict[str, Any], kind: type[ServiceError]
) -> None:
    box.fault(service="notion", **fault)

    with pytest.raises(kind):
        await notion.whoami()

    assert len(box.get("requests", service="notion")["data"]) == 1


async def test_a_service_that_is_not_there__did_nothing() -> None:
    nowhere = Notion(token="ntn_test", api_url="http://127.0.0.1:1")

    with pytest.raises(RetryLater, match="cannot be reached"):
        await nowhere.whoami()
    await nowhere.close()


async def test_an_answer_that_does_not_come__may_have_done_it(box: Sandbox) -> None:
    hasty = Notion(token="ntn_test", api_url=f"{box.url}/notion", timeout=0.1)
    box.fault("silence", service="notion", delay=1)

    with pytest.raises(OutcomeUnknown, match="did not answer in time"):
        await hasty.whoami()
    await hasty.close()
