"""The lists of resources and templates, their pages, and addresses that are none."""

from __future__ import annotations

import base64
import json

import anyio
import pytest
from mcp import Client, MCPError
from mcp_types import CacheableResult, Resource

from rlm_mcp import resources as resources_module
from rlm_mcp.app import App
from rlm_mcp.tenants import OWNER

from .conftest import Doors, run, session_of
from .test_outputs import PICTURE

HOSTILE = (
    "",
    "rlm://",
    "rlm:///",
    "rlm://sessions//",
    "rlm://nothing",
    "RLM://sessions",
    "file:///etc/passwd",
    "http://127.0.0.1/",
    "rlm://sessions/../../etc/passwd",
    "rlm://sessions/..",
    "rlm://sessions/%2e%2e%2f%2e%2e%2fetc",
    "rlm://sessions/notes/../notes",
    "rlm://sessions/notes/journal/000001.jsonl",
    "rlm://sessions/notes%00",
    "rlm://sessions/notes\0",
    "rlm://sessions/notes\n",
    "rlm://sessions/no%tes",
    "rlm://sessions/%",
    "rlm://sessions/%f",
    "rlm://sessions/%ff%fe",
    "rlm://sessions/%ed%a0%80",
    "rlm://sessions/\ud800",
    "rlm://sessions/notes#cells",
    "rlm://sessions/notes?",
    "rlm://sessions/notes?limit=1",
    "rlm://sessions?limit=0",
    "rlm://sessions?limit=-1",
    "rlm://sessions?limit=1e3",
    "rlm://sessions?limit=\u0663",
    "rlm://sessions?limit=1&limit=2",
    "rlm://sessions?limit",
    "rlm://sessions?%00=1",
    "rlm://sessions/notes/cells?after=99999999999999999999999",
    "rlm://sessions/" + "x" * 10_000,
    "rlm://outputs",
    "rlm://outputs/..",
    "rlm://outputs/..%2f..%2fproject.json",
    "rlm://outputs/c1-0123456789abcdef.3.txt",
    "rlm://outputs/c1-0123456789abcdeg",
    "rlm://outputs/c1-0123456789abcdef/more",
)


@pytest.mark.parametrize("uri", HOSTILE)
async def test_what_is_no_address_of_a_resource_is_refused_with_advice(
    doors: Doors, app: App, uri: str
) -> None:
    await session_of(app, "notes")
    with pytest.raises(MCPError) as caught:
        await doors.resources.read(OWNER, uri)

    assert caught.value.code == -32602
    assert "resources/list" in str(caught.value)
    assert len(json.dumps(caught.value.data).encode()) < 5000
    json.dumps(str(caught.value), ensure_ascii=False).encode()


async def test_a_client_is_answered_with_the_address_that_is_not_there(client: Client) -> None:
    with pytest.raises(MCPError) as caught:
        await client.read_resource("rlm://sessions/notes%00")

    assert (caught.value.code, caught.value.data) == (-32602, {"uri": "rlm://sessions/notes%00"})


async def test_the_list_of_all_sessions_is_listed_first_then_sessions_then_outputs(
    client: Client, app: App
) -> None:
    await run(app, "beta", PICTURE)
    await run(app, "alpha", "1")
    found = (await client.list_resources()).resources
    kinds = [each.uri.removeprefix("rlm://").split("-")[0] for each in found]

    assert kinds == ["sessions", "sessions/alpha", "sessions/beta", "outputs/c1"]
    assert all(each.name and each.title and each.description and each.mime_type for each in found)
    assert all(each.annotations and each.annotations.audience for each in found)
    assert all(each.annotations and each.annotations.last_modified for each in found[1:])


async def test_everything_that_is_listed_can_be_read(client: Client, app: App) -> None:
    await run(app, "beta", PICTURE)
    found = (await client.list_resources()).resources

    for each in found:
        contents = (await client.read_resource(each.uri)).contents[0]
        assert (contents.uri, contents.mime_type) == (each.uri, each.mime_type)


async def test_lists_are_paged_without_loss_or_repetition_while_things_come(
    client: Client, app: App, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(resources_module, "PAGE", 2)
    for name in ("delta", "bravo", "charlie"):
        await run(app, name, PICTURE)
    before = {each.uri for each in await _all(client)}
    seen, cursor, pages = list[str](), None, 0
    while pages == 0 or cursor is not None:
        page = await client.list_resources(cursor=cursor)
        assert len(page.resources) <= 2
        seen += [each.uri for each in page.resources]
        cursor, pages = page.next_cursor, pages + 1
        await run(app, f"zulu{pages}" if pages < 3 else "alpha", PICTURE)

    assert before <= set(seen)
    assert len(seen) == len(set(seen))
    assert pages < 20


async def _all(client: Client) -> list[Resource]:
    found, cursor = list[Resource](), None
    with anyio.fail_after(60):
        while True:
            page = await client.list_resources(cursor=cursor)
            found += page.resources
            if (cursor := page.next_cursor) is None:
                return found


async def test_a_last_page_that_is_full_names_no_other(
    client: Client, app: App, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(resources_module, "PAGE", 3)
    for name in ("alpha", "bravo"):
        await session_of(app, name)

    assert (await client.list_resources()).next_cursor is None


def _cursor(said: str) -> str:
    return base64.urlsafe_b64encode(said.encode()).decode()


@pytest.mark.parametrize(
    "cursor",
    [
        *("", "x", "\0", "é", "x" * 10_000, _cursor("[" * 100_000), _cursor("1"), _cursor('{"a": 1}')),
        *(_cursor('["other", [], 0]'), _cursor("[[], [], 0]"), _cursor('["sessions", 1, 0]')),
        *(_cursor('["sessions", [], []]'), _cursor('["outputs", [], Infinity]')),
    ],
)
async def test_a_cursor_that_is_none_is_refused_with_advice(client: Client, cursor: str) -> None:
    with pytest.raises(MCPError, match="Leave the cursor out") as caught:
        await client.list_resources(cursor=cursor)

    assert caught.value.code == -32602


@pytest.mark.parametrize(
    "said",
    [
        *(
            '["sessions", [], 0]',
            '["sessions", "xyz", "0"]',
            '["sessions", [5], 0]',
            '["sessions", [[]], -9]',
        ),
        *('["outputs", [], -9]', '["outputs", ["x"], 0]', '["outputs", [NaN, {}], 99999999999999999999999]'),
    ],
)
async def test_a_cursor_that_somebody_made_up_breaks_nothing(client: Client, app: App, said: str) -> None:
    await run(app, "notes", PICTURE)

    assert (await client.list_resources(cursor=_cursor(said))).next_cursor is None


async def test_templates_name_what_is_not_listed(client: Client) -> None:
    found = (await client.list_resource_templates()).resource_templates

    assert [each.uri_template for each in found] == [
        "rlm://sessions{?after,limit}",
        "rlm://sessions/{project}",
        "rlm://sessions/{project}/cells{?after,limit,search}",
        "rlm://outputs/{id}{?offset,limit}",
        "rlm://calls/{handle}/{number}{?offset,limit}",
        "rlm://trajectories{?after,limit}",
        "rlm://trajectories/{id}{?after,limit}",
        "rlm://trajectories/{id}/answer{?offset,limit}",
        "rlm://trajectories/{id}/events/{n}{?offset,limit}",
    ]
    with pytest.raises(MCPError, match="Leave the cursor out"):
        await client.list_resource_templates(cursor="x")


async def test_lists_and_what_is_read_are_for_this_client_alone(doors: Doors, app: App) -> None:
    await run(app, "notes", PICTURE)
    async with Client(doors.server, mode="2026-07-28") as client:
        listed = await client.list_resources()
        results: list[CacheableResult] = [
            listed,
            await client.list_resource_templates(),
            await client.list_prompts(),
        ]
        results += [await client.read_resource(each.uri) for each in listed.resources]

    assert {result.cache_scope for result in results} == {"private"}
    assert [result.ttl_ms > 0 for result in results] == [False, True, True, False, False, True]
