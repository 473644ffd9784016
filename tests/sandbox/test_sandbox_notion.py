"""The real notion-client against the sandbox."""

from typing import Any

import pytest
from notion_client import AsyncClient, Client
from notion_client.errors import APIResponseError, UnknownHTTPResponseError
from notion_client.helpers import collect_paginated_api, is_full_page
from sandbox_process import Sandbox, make_notion

LATE = "2026-03-11"


def text(content: str, **more: Any) -> dict[str, Any]:
    return {"text": {"content": content} | more}


def refusal(call: Any, *arguments: Any, **options: Any) -> APIResponseError:
    with pytest.raises(APIResponseError) as caught:
        call(*arguments, **options)
    return caught.value


def add(notion: Client, source: str, name: str = "Row", **properties: Any) -> Any:
    values = {"Name": {"title": [text(name)]}} | properties
    return notion.pages.create(parent={"type": "data_source_id", "data_source_id": source}, properties=values)


def names(answer: Any) -> list[str]:
    return [page["properties"]["Name"]["title"][0]["plain_text"] for page in answer["results"]]


class TestSchema:
    def test_database_holds_a_data_source_with_the_properties(self, notion: Client, source: str) -> None:
        shown = notion.data_sources.retrieve(source)
        database = notion.databases.retrieve(shown["parent"]["database_id"])

        assert database["data_sources"] == [{"id": source, "name": "Templates"}]
        assert "properties" not in database
        assert shown["properties"]["Name"]["id"] == "title"
        assert shown["properties"]["State"]["select"]["options"][0]["name"] == "Live"

    def test_properties_can_be_added_renamed_and_removed(self, notion: Client, source: str) -> None:
        page = add(notion, source, Score={"number": 7})
        changes = {"Phase": {"rich_text": {}}, "Score": {"name": "Points"}, "Done": None}

        after = notion.data_sources.update(source, properties=changes)["properties"]

        assert {"Phase", "Points"} <= after.keys()
        assert not {"Score", "Done"} & after.keys()
        assert notion.pages.retrieve(page["id"])["properties"]["Points"]["number"] == 7

    def test_two_sources_need_naming(self, notion: Client, source: str) -> None:
        database_id = notion.data_sources.retrieve(source)["parent"]["database_id"]
        assert notion.pages.create(parent={"database_id": database_id}, properties={})["id"]

        made = notion.data_sources.create(parent={"database_id": database_id}, properties={"Key": {"title": {}}})

        assert refusal(notion.pages.create, parent={"database_id": database_id}, properties={}).status == 400
        assert add(notion, source)["parent"]["data_source_id"] == source
        assert made["properties"]["Key"]["id"] == "title"


class TestPages:
    def test_values_come_back_in_full_form(self, notion: Client, source: str) -> None:
        page = add(
            notion,
            source,
            "Hello",
            Body={"type": "rich_text", "rich_text": [text("Book", link={"url": "https://x.ca/"})]},
            Email={"email": None},
            State={"select": {"name": "New one"}},
            Due={"date": {"start": "2026-06-27T17:57:32.4", "time_zone": "Europe/London"}},
        )

        values = page["properties"]
        assert is_full_page(page)
        assert values["Body"]["rich_text"][0]["href"] == "https://x.ca/"
        assert values["Body"]["rich_text"][0]["annotations"]["color"] == "default"
        assert values["Name"]["title"][0]["text"]["link"] is None
        assert values["Email"]["email"] is None
        assert values["State"]["select"]["name"] == "New one"
        assert values["Due"]["date"] == {
            "start": "2026-06-27T17:57:00.000+01:00",
            "end": None,
            "time_zone": None,
        }
        assert values["Done"]["checkbox"] is False
        assert page["last_edited_time"].endswith(":00.000Z")
        assert list(page)[-1] == "request_id"
        options = notion.data_sources.retrieve(source)["properties"]["State"]["select"]["options"]
        assert [option["name"] for option in options] == ["Live", "New one"]

    def test_update_merges_and_ids_work_undashed(self, notion: Client, source: str) -> None:
        page = add(notion, source, Score={"number": 1}, Email={"email": "a@b.ca"})

        notion.pages.update(page["id"].replace("-", ""), properties={"Score": {"number": 2}})

        values = notion.pages.retrieve(page["id"])["properties"]
        assert (values["Score"]["number"], values["Email"]["email"]) == (2, "a@b.ca")

    def test_long_body_is_cut_in_the_page_but_whole_by_property(self, notion: Client, source: str) -> None:
        page = add(notion, source, Body={"rich_text": [text(f"{n:02}" * 1000) for n in range(100)]})
        body = page["properties"]["Body"]

        items = collect_paginated_api(
            notion.pages.properties.retrieve, page_id=page["id"], property_id=body["id"], page_size=30
        )

        assert len(body["rich_text"]) == 25
        assert len(notion.data_sources.query(source)["results"][0]["properties"]["Body"]["rich_text"]) == 25
        whole = "".join(item["rich_text"]["plain_text"] for item in items)
        assert whole == "".join(f"{n:02}" * 1000 for n in range(100))

    def test_cut_can_be_switched_off(self, sandbox: Sandbox, notion: Client, source: str) -> None:
        sandbox.set(truncate_rich_text_at=0)

        page = add(notion, source, Body={"rich_text": [text("x")] * 60})

        assert len(page["properties"]["Body"]["rich_text"]) == 60

    def test_trash_hides_from_queries_and_refuses_edits(self, notion: Client, source: str) -> None:
        page = add(notion, source)

        trashed = notion.pages.update(page["id"], in_trash=True)

        assert (trashed["in_trash"], trashed["archived"], trashed["is_archived"]) == (True, True, False)
        assert notion.data_sources.query(source)["results"] == []
        assert notion.pages.retrieve(page["id"])["in_trash"] is True
        error = refusal(notion.pages.update, page["id"], properties={"Score": {"number": 1}})
        assert "Can't edit block that is archived" in str(error)
        notion.pages.update(page["id"], in_trash=False)
        assert len(notion.data_sources.query(source)["results"]) == 1

    @pytest.mark.parametrize(
        ("properties", "message"),
        [
            ({"Emial": {"email": "x"}}, "Emial is not a property that exists."),
            ({"Score": {"rich_text": []}}, "Score is expected to be number."),
            (
                {"Body": {"rich_text": [text("x" * 2001)]}},
                "Body.rich_text[0].text.content.length should be ≤ `2000`, instead was `2001`.",
            ),
            # an emoji counts as two, as it does in JavaScript
            ({"Body": {"rich_text": [text("😀" * 1001)]}}, "≤ `2000`, instead was `2002`."),
            (
                {"Body": {"rich_text": [text("x")] * 101}},
                "rich_text.length should be ≤ `100`, instead was `101`.",
            ),
            ({"Body": {"rich_text": [text("x", link={"url": "{{url}}"})]}}, "Invalid URL for link."),
            ({"Score": {"number": "7"}}, "should be a number or `null`"),
            ({"Due": {"date": {"start": "soon"}}}, "should be a valid ISO 8601 date string"),
            ({"State": {"select": {"name": "a,b"}}}, "commas not allowed"),
            ({"Email": {"email": "x" * 201}}, "≤ `200`"),
        ],
    )
    def test_refused_values(self, notion: Client, source: str, properties: dict[str, Any], message: str) -> None:
        error = refusal(add, notion, source, **properties)

        assert error.code == "validation_error"
        assert message in str(error)
        assert notion.data_sources.query(source)["results"] == []


class TestQuery:
    @pytest.fixture
    def rows(self, notion: Client, source: str) -> str:
        state, tags = {"select": {"name": "Live"}}, {"multi_select": [{"name": "x"}, {"name": "y"}]}
        add(notion, source, "One", Score={"number": 1}, Email={"email": "Ada@b.ca"}, State=state)
        add(notion, source, "Two", Score={"number": 2}, Due={"date": {"start": "2026-07-01"}}, Tags=tags)
        add(notion, source, "Three", Done={"checkbox": True}, Due={"date": {"start": "2026-07-02T09:30:00Z"}})
        return source

    @pytest.mark.parametrize(
        ("wanted", "found"),
        [
            ({"property": "Name", "title": {"equals": "One"}}, ["One"]),
            ({"property": "title", "rich_text": {"contains": "tW"}}, ["Two"]),
            ({"property": "Email", "email": {"starts_with": "ada@"}}, ["One"]),
            ({"property": "Email", "rich_text": {"does_not_contain": "ada"}}, ["Three", "Two"]),
            ({"property": "Email", "email": {"is_empty": True}}, ["Three", "Two"]),
            ({"property": "Score", "number": {"greater_than_or_equal_to": 2}}, ["Two"]),
            ({"property": "Score", "number": {"does_not_equal": 2}}, ["Three", "One"]),
            ({"property": "State", "select": {"equals": "Live"}}, ["One"]),
            ({"property": "State", "select": {"does_not_equal": "Live"}}, ["Three", "Two"]),
            ({"property": "Tags", "multi_select": {"contains": "y"}}, ["Two"]),
            ({"property": "Done", "checkbox": {"equals": False}}, ["Two", "One"]),
            ({"property": "Due", "date": {"equals": "2026-07-02"}}, ["Three"]),
            ({"property": "Due", "date": {"before": "2026-07-02T09:30:00Z"}}, ["Two"]),
            ({"property": "Due", "date": {"on_or_after": "2026-07-01"}}, ["Three", "Two"]),
            ({"timestamp": "created_time", "created_time": {"past_week": {}}}, ["Three", "Two", "One"]),
            (
                {
                    "and": [
                        {"property": "Due", "date": {"is_not_empty": True}},
                        {"or": [{"property": "Score", "number": {"equals": 2}}]},
                    ]
                },
                ["Two"],
            ),
        ],
    )
    def test_filters(self, notion: Client, rows: str, wanted: Any, found: list[str]) -> None:
        assert names(notion.data_sources.query(rows, filter=wanted)) == found

    def test_sorts_put_empty_last(self, notion: Client, rows: str) -> None:
        for direction, order in (("ascending", ["One", "Two"]), ("descending", ["Two", "One"])):
            sorts = [{"property": "Score", "direction": direction}]
            assert names(notion.data_sources.query(rows, sorts=sorts)) == [*order, "Three"]

    def test_pages_of_results_newest_first(self, notion: Client, source: str) -> None:
        for number in range(5):
            add(notion, source, str(number))

        first = notion.data_sources.query(source, page_size=2)
        everything = collect_paginated_api(notion.data_sources.query, data_source_id=source, page_size=2)

        assert (names(first), first["has_more"], first["type"]) == (["4", "3"], True, "page_or_data_source")
        assert names({"results": everything}) == ["4", "3", "2", "1", "0"]

    def test_only_the_properties_asked_for(self, notion: Client, rows: str) -> None:
        email_id = notion.data_sources.retrieve(rows)["properties"]["Email"]["id"]

        answer = notion.data_sources.query(rows, filter_properties=["title", email_id])

        assert set(answer["results"][0]["properties"]) <= {"Name", "Email"}

    @pytest.mark.parametrize(
        ("query", "message"),
        [
            (
                {"filter": {"property": "Emial", "email": {"equals": "x"}}},
                "Could not find property with name or id: Emial",
            ),
            ({"sorts": [{"property": "Nope"}]}, "Could not find property with name or id: Nope"),
            ({"page_size": 101}, "should be ≤ `100`, instead was `101`."),
            ({"start_cursor": "s:x:y"}, "The start_cursor provided is invalid: s:x:y"),
            ({"filter": {"property": "Score", "email": {"equals": "x"}}}, "does not match filter email"),
        ],
    )
    def test_refused_queries(self, notion: Client, source: str, query: Any, message: str) -> None:
        add(notion, source)

        assert message in str(refusal(notion.data_sources.query, source, **query))


class TestBlocks:
    def paragraph(self, content: str, **more: Any) -> dict[str, Any]:
        return {"type": "paragraph", "paragraph": {"rich_text": [text(content)]} | more}

    def test_nested_children_are_kept(self, notion: Client, source: str) -> None:
        page = notion.pages.create(
            parent={"data_source_id": source},
            properties={},
            children=[self.paragraph("top", children=[self.paragraph("below")]), {"divider": {}}],
        )

        top, divider = notion.blocks.children.list(page["id"])["results"]
        [below] = notion.blocks.children.list(top["id"])["results"]
        assert (top["has_children"], divider["has_children"]) == (True, False)
        assert below["paragraph"]["rich_text"][0]["plain_text"] == "below"
        assert notion.pages.retrieve_markdown(page["id"])["markdown"] == "top\n\tbelow\n---"

    def test_append_after_a_block(self, sandbox: Sandbox, notion: Client, source: str) -> None:
        page = add(notion, source)
        first = notion.blocks.children.append(page["id"], children=[self.paragraph("a"), self.paragraph("d")])
        anchor = first["results"][0]["id"]
        notion.blocks.children.append(page["id"], children=[self.paragraph("b")], after=anchor)
        late = make_notion(sandbox, notion_version=LATE)
        late.blocks.children.append(
            page["id"],
            children=[self.paragraph("0")],
            position={"type": "start"},
        )

        blocks = collect_paginated_api(notion.blocks.children.list, block_id=page["id"], page_size=3)
        assert [block["paragraph"]["rich_text"][0]["plain_text"] for block in blocks] == ["0", "a", "b", "d"]
        late.close()

    def test_update_and_delete(self, notion: Client, source: str) -> None:
        page = add(notion, source)
        [block] = notion.blocks.children.append(page["id"], children=[self.paragraph("a")])["results"]

        changed = notion.blocks.update(block["id"], paragraph={"rich_text": [text("b")]})
        deleted = notion.blocks.delete(block["id"])

        assert changed["paragraph"]["rich_text"][0]["plain_text"] == "b"
        assert deleted["in_trash"] is True
        assert notion.blocks.children.list(page["id"])["results"] == []

    @pytest.mark.parametrize(
        ("children", "message"),
        [
            ([{"divider": {}}] * 101, "body.children.length should be ≤ `100`, instead was `101`."),
            (
                [{"paragraph": {"rich_text": [text("x" * 2242)]}}],
                "body.children[0].paragraph.rich_text[0].text.content.length should be ≤ `2000`, instead was",
            ),
            ([{"nonsense": {}}], "body failed validation. Fix one:"),
        ],
    )
    def test_refused_children(self, notion: Client, source: str, children: Any, message: str) -> None:
        page = add(notion, source)

        assert message in str(refusal(notion.blocks.children.append, page["id"], children=children))


class TestAccess:
    def test_bad_token(self, sandbox: Sandbox, notion: Client) -> None:
        error = refusal(notion.users.me, auth="None")

        assert (error.status, error.code, str(error)) == (401, "unauthorized", "API token is invalid.")

    def test_version_is_needed_and_known(self, sandbox: Sandbox) -> None:
        headers = {"authorization": "Bearer ntn_x"}
        missing = sandbox.http.get(f"{sandbox.url}/notion/v1/users/me", headers=headers).json()
        old = make_notion(sandbox, notion_version="2022-06-28")

        assert missing["code"] == "missing_version"
        assert "Notion-Version header should be" in str(refusal(old.users.me))
        old.close()

    def test_newest_version_has_no_archived(self, sandbox: Sandbox, notion: Client, source: str) -> None:
        late = make_notion(sandbox, notion_version=LATE)
        page = add(notion, source)

        assert "archived" in page
        assert "archived" not in late.pages.retrieve(page["id"])
        late.close()

    @pytest.mark.parametrize("page_id", ["abc", "12345678-1234-1234-1234-123456789abc"])
    def test_path_must_be_a_uuid(self, notion: Client, page_id: str) -> None:
        message = f'path failed validation: path.page_id should be a valid uuid, instead was `"{page_id}"`.'

        assert str(refusal(notion.pages.retrieve, page_id)) == message

    def test_unknown_object_and_path(self, notion: Client) -> None:
        nil = "00000000-0000-0000-0000-000000000000"

        error = refusal(notion.pages.retrieve, nil)

        assert (error.status, error.code) == (404, "object_not_found")
        assert error.additional_data["integration_id"]
        assert refusal(notion.request, "nope", "GET").code == "invalid_request_url"

    def test_unshared_database_is_not_found(self, sandbox: Sandbox, notion: Client, source: str) -> None:
        page = add(notion, source)
        database_id = page["parent"]["database_id"]
        for verb, found in (("unshare", False), ("share", True)):
            sandbox.http.post(f"{sandbox.url}/control/notion/{verb}", json={"id": database_id})
            if found:
                assert notion.pages.retrieve(page["id"])["id"] == page["id"]
            else:
                assert refusal(notion.pages.retrieve, page["id"]).code == "object_not_found"
                assert refusal(notion.data_sources.query, source).code == "object_not_found"

    def test_burst_then_rate_limited(self, sandbox: Sandbox, notion: Client) -> None:
        sandbox.set(notion_rate=0.5, notion_burst=3)
        for _ in range(3):
            notion.users.me()

        error = refusal(notion.users.me)

        assert (error.status, error.code) == (429, "rate_limited")
        assert error.headers["retry-after"] == "2"
        assert error.additional_data["rate_limit_reason"] == "public_api_request_rate_limit"

    async def test_async_client_retries_what_is_rate_limited(self, sandbox: Sandbox) -> None:
        client = AsyncClient(auth="secret_x", base_url=f"{sandbox.url}/notion")
        sandbox.fault("status", service="notion", status=429, retry_after=0)

        assert (await client.users.me())["type"] == "bot"
        await client.aclose()

    def test_search_by_title(self, notion: Client, source: str) -> None:
        only = {"property": "object", "value": "data_source"}

        found = notion.search(query="templ", filter=only)["results"]

        assert [one["id"] for one in found] == [source]

    def test_body_over_500_kb(self, notion: Client, source: str) -> None:
        page = add(notion, source)
        many = [{"paragraph": {"rich_text": [text("x" * 2000)] * 4}}] * 70

        with pytest.raises((APIResponseError, UnknownHTTPResponseError)) as caught:
            notion.blocks.children.append(page["id"], children=many)

        assert caught.value.status == 413
