"""Asking a client for its roots, in both eras."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from typing import Any

import anyio
import pytest
from mcp import Client
from mcp.server.lowlevel import Server
from mcp.shared.exceptions import MCPDeprecationWarning
from mcp_types import (
    CallToolResult,
    ErrorData,
    InputRequiredResult,
    ListRootsResult,
    ListToolsResult,
    Root,
    TextContent,
    Tool,
)
from pydantic import FileUrl

from rlm_mcp import roots as roots_module
from rlm_mcp.roots import roots_of


@pytest.fixture(autouse=True)
def no_deprecation() -> Iterator[None]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", MCPDeprecationWarning)
        yield


def server_that(needed: bool = True) -> Server[Any]:
    """Return a server with one tool, which answers with the client's roots."""

    async def call(ctx: Any, params: Any) -> CallToolResult | InputRequiredResult:
        found = await roots_of(ctx, params, needed=needed)
        if isinstance(found, InputRequiredResult):
            return found
        return CallToolResult(content=[TextContent(text=" ".join(found) or "none")])

    async def list_tools(ctx: Any, params: Any) -> ListToolsResult:
        return ListToolsResult(tools=[Tool(name="roots", input_schema={"type": "object"})])

    return Server("test", on_call_tool=call, on_list_tools=list_tools)


class Asked:
    """A client's answer to the question for its roots, and how often it was asked."""

    def __init__(self, *uris: str) -> None:
        self.times = 0
        self._uris = uris

    async def __call__(self, context: Any) -> ListRootsResult | ErrorData:
        self.times += 1
        return ListRootsResult(roots=[Root(uri=FileUrl(uri)) for uri in self._uris])


async def said(client: Client) -> str:
    with anyio.fail_after(30):
        content = (await client.call_tool("roots", {})).content[0]
    assert content.type == "text"
    return content.text


async def test_a_client_is_asked_when_nothing_else_says_which_project_is_meant(era: str) -> None:
    asked = Asked("file:///home/a", "file:///home/b")
    async with Client(server_that(), mode=era, list_roots_callback=asked) as client:
        assert await said(client) == "file:///home/a file:///home/b"


async def test_a_client_is_not_asked_when_something_else_does(era: str) -> None:
    asked = Asked("file:///home/a")
    async with Client(server_that(needed=False), mode=era, list_roots_callback=asked) as client:
        assert await said(client) == "none"

    assert asked.times == 0


async def test_a_client_that_has_no_roots_to_tell_is_not_asked(era: str) -> None:
    async with Client(server_that(), mode=era) as client:
        assert await said(client) == "none"


async def test_on_a_connection_of_2025_a_client_is_asked_once_however_many_call_at_once() -> None:
    asked = Asked("file:///home/a")
    async with Client(server_that(), mode="legacy", list_roots_callback=asked) as client:
        async with anyio.create_task_group() as tasks:
            for _ in range(5):
                tasks.start_soon(said, client)
        assert await said(client) == "file:///home/a"

    assert asked.times == 1


async def test_each_connection_has_roots_of_its_own(era: str) -> None:
    server = server_that()
    async with Client(server, mode=era, list_roots_callback=Asked("file:///one")) as one:
        async with Client(server, mode=era, list_roots_callback=Asked("file:///two")) as two:
            assert [await said(one), await said(two), await said(one)] == [
                "file:///one",
                "file:///two",
                "file:///one",
            ]


async def test_a_client_that_fails_to_answer_has_no_roots() -> None:
    async def fails(context: Any) -> ErrorData:
        return ErrorData(code=-32603, message="no")

    async with Client(server_that(), mode="legacy", list_roots_callback=fails) as client:
        assert await said(client) == "none"


async def test_a_client_that_never_answers_is_not_waited_for_long(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(roots_module, "PATIENCE_SECONDS", 0.05)

    async def never(context: Any) -> ListRootsResult:
        await anyio.sleep_forever()
        raise AssertionError

    async with Client(server_that(), mode="legacy", list_roots_callback=never) as client:
        assert [await said(client), await said(client)] == ["none", "none"]


async def test_a_client_of_2026_that_comes_back_without_an_answer_is_not_asked_again() -> None:
    async with Client(server_that(), mode="2026-07-28", list_roots_callback=Asked("file:///a")) as client:
        first = await client.session.call_tool("roots", {}, allow_input_required=True)
        assert isinstance(first, InputRequiredResult)
        second = await client.session.call_tool(
            "roots", {}, request_state=first.request_state, allow_input_required=True
        )

    assert isinstance(second, CallToolResult)


async def test_roots_without_end_are_cut() -> None:
    uris = [f"file:///{number}" for number in range(500)] + ["file:///" + "x" * 5000]
    async with Client(server_that(), mode="2026-07-28", list_roots_callback=Asked(*uris)) as client:
        assert len((await said(client)).split()) == roots_module.MOST_ROOTS
