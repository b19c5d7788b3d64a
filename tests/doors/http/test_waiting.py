"""Calls that wait for the client, over HTTP: whoever comes with the same token answers them, and nobody else."""

from __future__ import annotations

import re
from contextlib import AsyncExitStack
from typing import Any

import anyio
import pytest
from mcp import Client
from mcp.shared.exceptions import MCPError

from rlm_mcp.http import Transport
from rlm_mcp.server import make_server

from ..conftest import text_of
from .conftest import ACCOUNT, ALICE, BOB, LEGACY, MODERN, Serve

WAYS = pytest.mark.parametrize(
    ("transport", "mode"),
    [(transport, mode) for transport in ("streamable-http", "sse") for mode in (MODERN, LEGACY)],
)
ASKS = """\
count = globals().get("count", 0) + 1
answers = llm_map(["red?", "green?", "blue?"])
print(count, list(answers))
"""


async def said(client: Client, tool: str, /, **arguments: Any) -> str:
    """Return the text that a tool answers."""
    with anyio.fail_after(60):
        return text_of(await client.call_tool(tool, arguments))


def handle_in(text: str) -> str:
    found = re.search(r'handle="(w-[0-9a-f]{16})"', text)
    assert found is not None, text
    return found[1]


@WAYS
async def test_several_clients_answer_at_once_and_only_what_fits_is_taken(
    serve: Serve, transport: Transport, mode: str
) -> None:
    heard: list[str] = []

    async def agent(client: Client, answers: dict[str, Any]) -> None:
        heard.append(await said(client, "answer_calls", handle=handle, answers=answers))

    async with serve(transport, make=make_server) as served, AsyncExitStack() as stack:
        first, *others = [await stack.enter_async_context(served.client(mode=mode)) for _ in range(3)]
        handle = handle_in(await said(first, "execute_python", code=ASKS))
        wrong = await said(others[0], "answer_calls", handle=handle, answers={"9": "x", "2": "two"})
        other = await said(others[1], "answer_calls", handle=handle, answers={"2": "three"})
        async with anyio.create_task_group() as agents:
            agents.start_soon(agent, others[0], {"3": "blue"})
            agents.start_soon(agent, others[1], {"1": "red"})
            agents.start_soon(agent, first, {"2": "two"})
        late = await said(first, "answer_calls", handle=handle, answers={"1": "red"})

    assert "there is no call '9' here; open: 1-3" in wrong
    assert "call 2 was answered before; the first answer stands" in other
    assert late.startswith("1 ['red', 'two', 'blue']") and late in heard
    assert all(each == late or each.startswith("[waiting") for each in heard)


@WAYS
async def test_a_call_of_a_tenant_can_be_neither_seen_nor_answered_by_another(
    serve: Serve, transport: Transport, mode: str
) -> None:
    refused, listed = list[str](), ""
    async with serve(transport, make=make_server) as served:
        async with served.client(ALICE, mode=mode) as alice:
            handle = handle_in(await said(alice, "execute_python", code=ASKS))
            for token in (BOB, ACCOUNT):
                async with served.client(token, mode=mode) as other:
                    refused += [
                        await said(other, "answer_calls", handle=handle, answers={"1": "x"}),
                        await said(other, "answer_calls", handle=handle, cancel=True),
                        await said(other, "rlm_status", handle=handle, cancel=True),
                    ]
                    listed = await said(other, "rlm_status")
                    with pytest.raises(MCPError, match="no such call"):
                        await other.read_resource(f"rlm://calls/{handle}/1")
            done = await said(alice, "answer_calls", handle=handle, answers={"1": "a", "2": "b", "3": "c"})

    assert all("the handle" in each and "red?" not in each for each in refused), refused
    assert handle not in listed
    assert done.startswith("1 ['a', 'b', 'c']")


@WAYS
async def test_a_cell_waits_on_when_its_client_has_gone(
    serve: Serve, transport: Transport, mode: str
) -> None:
    async with serve(transport, make=make_server) as served:
        async with served.client(mode=mode) as client:
            handle = handle_in(await said(client, "execute_python", code=ASKS))
        async with served.client(mode=mode) as client:
            told = await said(client, "execute_python", code="1")
            await said(client, "answer_calls", handle=handle, answers={"2": "b"})
            still = await said(client, "answer_calls", handle=handle)
        async with served.client(mode=mode) as client:
            done = await said(client, "answer_calls", handle=handle, answers={"1": "a", "3": "c"})

    assert handle in told and "red?" in still and "green?" not in still
    assert done.startswith("1 ['a', 'b', 'c']")


@WAYS
async def test_an_answer_stands_though_the_client_went_away_before_it_was_thanked(
    serve: Serve, transport: Transport, mode: str
) -> None:
    code = "print(llm_query('one?'))\nimport time\ntime.sleep(1)\nprint(llm_query('two?'))"
    async with serve(transport, make=make_server) as served:
        async with served.client(mode=mode) as client:
            handle = handle_in(await said(client, "execute_python", code=code))
            with anyio.move_on_after(0.5):
                await said(client, "answer_calls", handle=handle, answers={"1": "a"})
        async with served.client(mode=mode) as client:
            again = await said(client, "answer_calls", handle=handle, answers={"1": "b"})
            done = await said(client, "answer_calls", handle=handle, answers={"2": "c"})

    assert "was answered before" in again and "two?" in again
    assert done.startswith("a\nc")


@WAYS
async def test_a_cell_goes_on_in_the_next_server(serve: Serve, transport: Transport, mode: str) -> None:
    async with serve(transport, make=make_server) as served, served.client(mode=mode) as client:
        await said(client, "execute_python", code="count = 41")
        handle = handle_in(await said(client, "execute_python", code=ASKS))
        await said(client, "answer_calls", handle=handle, answers={"2": "b"})

    async with serve(transport, make=make_server) as served:
        async with served.client(BOB, mode=mode) as bob:
            refused = await said(bob, "answer_calls", handle=handle, answers={"1": "x", "3": "x"})
        async with served.client(mode=mode) as client:
            status = await said(client, "rlm_status", handle=handle)
            done = await said(client, "answer_calls", handle=handle, answers={"1": "a", "3": "c"})

    assert "Nothing waits under the handle" in refused
    assert "red?" in status and "green?" not in status
    assert done.startswith("42 ['a', 'b', 'c']")


@WAYS
async def test_what_nobody_answers_in_time_is_over(
    serve: Serve, flags: dict[str, object], transport: Transport, mode: str
) -> None:
    flags["rlm.answer_seconds"] = 1.0
    async with serve(transport, make=make_server) as served, served.client(mode=mode) as client:
        handle = handle_in(await said(client, "execute_python", code=ASKS))
        with anyio.fail_after(30):
            while "waits for answers" in (after := await said(client, "execute_python", code="count")):
                await anyio.sleep(0.1)
        late = await said(client, "answer_calls", handle=handle, answers={"1": "a"})
        over = await said(client, "rlm_status", handle=handle)

    assert "nobody answered its calls for 1 s" in over and late == over
    assert after == "1"
