"""One battery for all ways to reach the server, in both eras of the protocol: whatever the way, it is the same server."""

from __future__ import annotations

import json
import warnings
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from typing import Any

import anyio
import pytest
from mcp import Client
from mcp.shared.exceptions import MCPDeprecationWarning, MCPError
from mcp_types import (
    BlobResourceContents,
    CallToolResult,
    ImageContent,
    PromptReference,
    ResourceUpdatedNotification,
    TextResourceContents,
)

from tests.e2e.grounds import Grounds
from tests.e2e.ways import WAYS, Connect, in_memory

ERAS = {"2025": "legacy", "2026": "2026-07-28"}
ENDLESS = "import time\nkept = 1\nprint('begun')\nwhile True: time.sleep(0.01)"
PICTURE = """
from base64 import b64decode
class Dot:
    def _repr_png_(self):
        return b64decode("iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg==")
Dot()
"""
_numbers = count(1)


@dataclass
class Caller:
    """A client, a project of its own for each test, and what the client was told unasked."""

    client: Client
    project: str = ""
    told: list[Any] = field(default_factory=list[Any])
    heard: anyio.Event = field(default_factory=anyio.Event)

    async def __call__(self, code: str, *, begun: anyio.Event | None = None, **more: Any) -> CallToolResult:
        """Run a cell; `begun` is set when the server tells of its progress."""

        async def note(progress: float, total: float | None, message: str | None) -> None:
            if begun is not None:
                begun.set()

        arguments = {"code": code, "project": self.project, **more}
        return await self.client.call_tool("execute_python", arguments, progress_callback=note)

    async def hear(self, message: Any) -> None:
        self.told.append(message)
        self.heard.set()


@pytest.fixture(scope="module", params=WAYS)
async def connect(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[Connect]:
    grounds = Grounds(tmp_path_factory.mktemp(request.param)).make()
    (grounds.project / "app.log").touch()
    async with WAYS[request.param](grounds) as connect:
        yield connect


@pytest.fixture(scope="module", params=ERAS)
async def connected(request: pytest.FixtureRequest, connect: Connect) -> AsyncIterator[Caller]:
    hear = _Ear()
    async with connect(mode=ERAS[request.param], message_handler=hear) as client:
        hear.caller = Caller(client)
        yield hear.caller


class _Ear:
    caller: Caller

    async def __call__(self, message: Any) -> None:
        await self.caller.hear(message)


@pytest.fixture
def run(connected: Caller) -> Caller:
    connected.project = f"battery-{next(_numbers)}"
    return connected


@pytest.fixture(autouse=True)
async def patience() -> AsyncIterator[None]:
    with anyio.fail_after(30):
        yield


async def test_the_tools_are_the_same_everywhere(run: Caller, tmp_path: Path) -> None:
    async with in_memory(Grounds(tmp_path).make()) as connect, connect(mode="legacy") as client:
        expected = (await client.list_tools()).tools

    tools = (await run.client.list_tools()).tools

    assert [tool.model_dump() for tool in tools] == [tool.model_dump() for tool in expected]
    assert tools[0].name == "execute_python"


async def test_what_the_server_offers_is_the_same_everywhere(connect: Connect, tmp_path: Path) -> None:
    async with in_memory(Grounds(tmp_path).make()) as like, like(mode="legacy") as client:
        expected = client.server_capabilities, client.instructions
    async with connect(mode="legacy") as client:
        offered = client.server_capabilities, client.instructions

    assert offered == expected
    assert offered[0].resources is not None and offered[0].resources.list_changed
    assert offered[0].tools is not None and not offered[0].tools.list_changed  # they never change


async def test_a_cell_answers_what_it_printed_and_its_value(run: Caller) -> None:
    result = await run("print('first')\n6 * 7")

    assert (_text(result), result.is_error, result.structured_content) == ("first\n42", False, None)


async def test_variables_stay_for_later_calls_and_other_tools(run: Caller) -> None:
    await run("kept = [1, 2, 3]")

    shown = await run.client.call_tool("get_repl_context", {"project": run.project})
    await run.client.call_tool("set_repl_context", {"values": {"more": [4]}, "project": run.project})
    both = await run("kept + more")
    await run.client.call_tool("clear_repl_context", {"names": ["kept"], "project": run.project})
    gone = await run("'kept' in globals(), more")

    assert "kept: list" in _text(shown)
    assert (_text(both), _text(gone)) == ("[1, 2, 3, 4]", "(False, [4])")


async def test_an_error_is_one_and_says_where(run: Caller) -> None:
    result = await run("kept = 1\nkept / 0")

    assert result.is_error
    assert "line 2" in _text(result) and "ZeroDivisionError" in _text(result)


async def test_a_picture_comes_as_an_image(run: Caller) -> None:
    result = await run(PICTURE)

    assert [block.mime_type for block in result.content if isinstance(block, ImageContent)] == ["image/png"]


async def test_progress_arrives_before_the_result_and_a_cancelled_cell_keeps_its_variables(
    run: Caller,
) -> None:
    begun = anyio.Event()

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(_wait, run(ENDLESS, begun=begun))
        await begun.wait()  # the cell has no end, so this was told while it ran
        tasks.cancel_scope.cancel()
    after = await run("kept")

    assert _text(after).startswith("1")


async def test_a_client_that_waits_no_longer_interrupts_its_cell_and_keeps_the_session(run: Caller) -> None:
    await run("kept = 1")
    arguments = {"code": "while True: pass", "project": run.project}
    with pytest.raises(MCPError, match=r"[Tt]imed out"):
        await run.client.call_tool("execute_python", arguments, read_timeout_seconds=1)
    after = await run("kept")

    assert _text(after).startswith("1")


async def test_a_cell_that_takes_too_long_says_so_and_keeps_its_variables(run: Caller) -> None:
    late = await run(ENDLESS, timeout_s=0.3)
    after = await run("kept")

    assert late.is_error
    assert "begun" in _text(late) and "timeout_s" in _text(late)
    assert _text(after).startswith("1")


async def test_an_unknown_argument_is_refused_with_the_one_that_was_meant(run: Caller) -> None:
    result = await run("1", timeout=5)

    assert result.is_error
    assert "did you mean 'timeout_s'?" in _text(result)


async def test_the_whole_of_long_output_is_read_in_pages(run: Caller) -> None:
    result = await run("print('\\n'.join(f'line {n}' for n in range(20_000)))")
    uri = next(word for word in _text(result).replace("]", " ").split() if word.startswith("rlm://outputs/"))

    first = await _read(run.client, f"{uri}?limit=100")
    later = await _read(run.client, f"{uri}?offset=100&limit=100")

    assert first.startswith("line 0\nline 1\n")
    assert first[:100] != later[:100]
    assert uri.removeprefix("rlm://outputs/") in str([each.uri for each in await _resources(run.client)])


async def test_sessions_are_listed_and_read(run: Caller) -> None:
    await run("kept = 1")

    session = next(
        each.uri for each in await _resources(run.client) if run.project in f"{each.uri} {each.name}"
    )

    assert run.project in await _read(run.client, "rlm://sessions")
    assert "kept" in await _read(run.client, session)


async def test_prompts_are_listed_filled_in_and_completed(run: Caller) -> None:
    prompts = (await run.client.list_prompts()).prompts
    given = {"path": "app.log", "question": "Which errors?"}
    filled = await run.client.get_prompt("analyse_file", given)
    reference = PromptReference(type="ref/prompt", name="analyse_file")
    completed = await run.client.complete(reference, {"name": "path", "value": "ap"})

    assert {"analyse_file", "repl_workflow"} <= {prompt.name for prompt in prompts}
    assert "app.log" in str(filled.messages[0].content)
    assert completed.completion.values == ["app.log"]


async def test_who_listens_to_a_session_hears_that_it_changed(
    run: Caller, request: pytest.FixtureRequest
) -> None:
    await run("kept = 1")
    session = next(
        each.uri for each in await _resources(run.client) if run.project in f"{each.uri} {each.name}"
    )

    async with _hearing(run, session) as heard:
        await run("kept = 2")
        await heard()


async def test_two_sessions_work_at_the_same_time(run: Caller) -> None:
    begun, other_begun = anyio.Event(), anyio.Event()

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(_wait, run(ENDLESS, begun=begun))
        tasks.start_soon(_wait, run(ENDLESS, begun=other_begun, project=f"{run.project}-other"))
        await begun.wait()
        await other_begun.wait()  # and neither ever ends
        tasks.cancel_scope.cancel()


async def test_calls_to_one_session_queue_in_their_order(run: Caller) -> None:
    assert await _order_of([run] * 6) == [0, 1, 2, 3, 4, 5]


@pytest.mark.parametrize("way", [way for way in WAYS if way != "stdio"])  # where a server has one client
async def test_clients_of_one_session_are_answered_in_the_order_in_which_they_asked(
    way: str, grounds: Grounds
) -> None:
    async with (
        WAYS[way](grounds) as connect,
        connect(mode=ERAS["2025"]) as one,
        connect(mode=ERAS["2026"]) as other,
    ):
        callers = [Caller(client, "shared") for client in (one, other, one, one, other, one)]

        assert await _order_of(callers) == [0, 1, 2, 3, 4, 5]


async def _order_of(callers: Sequence[Caller]) -> list[int]:
    """Have callers ask one after another while a cell is at work; return in which order they had their turn."""
    begun, waiting = anyio.Event(), anyio.CancelScope()

    async def hold_up() -> None:
        with waiting:
            await callers[0](ENDLESS, begun=begun)

    await callers[0]("order = []")
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(hold_up)
        await begun.wait()
        for number, caller in enumerate(callers):
            tasks.start_soon(_wait, caller(f"order.append({number})"))
            await _in_line(callers[0], number + 1)
        waiting.cancel()
    after = await callers[0]("order")
    order: list[int] = json.loads(_text(after))
    return order


async def _in_line(caller: Caller, count: int) -> None:
    """Return when so many calls wait."""
    said = ""
    while f"; {count} more wait" not in said:
        said = _text(await caller.client.call_tool("get_repl_context", {"project": caller.project}))


@pytest.mark.parametrize("era", ERAS)
@pytest.mark.parametrize("way", WAYS)
async def test_variables_are_there_when_the_server_starts_anew(way: str, era: str, grounds: Grounds) -> None:
    async with WAYS[way](grounds) as connect, connect(mode=ERAS[era]) as client:
        before = await Caller(client, "kept")("kept = 42")
    async with WAYS[way](grounds) as connect, connect(mode=ERAS[era]) as client:
        after = await Caller(client, "kept")("kept")

    assert not before.is_error
    assert _text(after).startswith("42\n[note: The session is back from disk")


def _text(result: CallToolResult) -> str:
    return "\n".join(block.text for block in result.content if block.type == "text")


async def _wait(call: Awaitable[CallToolResult]) -> None:
    await call


async def _read(client: Client, uri: str) -> str:
    [contents] = (await client.read_resource(uri)).contents
    if isinstance(contents, BlobResourceContents):
        return contents.blob
    assert isinstance(contents, TextResourceContents)
    return contents.text


async def _resources(client: Client) -> list[Any]:
    """Return all resources, of all pages."""
    page = await client.list_resources(cache_mode="bypass")
    found = list[Any](page.resources)
    while page.next_cursor is not None:
        page = await client.list_resources(cursor=page.next_cursor, cache_mode="bypass")
        found += page.resources
    return found


@asynccontextmanager
async def _hearing(run: Caller, uri: str) -> AsyncGenerator[Callable[[], Awaitable[None]]]:
    """Yield what waits until the client was told that a resource changed."""
    if run.client.protocol_version == ERAS["2026"]:
        async with run.client.listen(resource_subscriptions=[uri]) as events:

            async def next_event() -> None:
                event = await anext(events)
                assert uri in str(event)

            yield next_event
        return

    async def told() -> None:
        while not any(
            isinstance(each, ResourceUpdatedNotification) and str(each.params.uri) == uri for each in run.told
        ):
            run.heard = anyio.Event()
            await run.heard.wait()

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", MCPDeprecationWarning)
        await run.client.subscribe_resource(uri)  # type: ignore[deprecated]  # pyright: ignore[reportDeprecated]
        yield told
        await run.client.unsubscribe_resource(uri)  # type: ignore[deprecated]  # pyright: ignore[reportDeprecated]
