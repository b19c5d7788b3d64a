"""One client over standard input and output: what it gets, whatever the streams are."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import anyio
import mcp_types as types
import pytest
from mcp import Client
from mcp.client.stdio import StdioServerParameters

from .raw import MODERN, PROGRAM, Kind, served


@pytest.fixture(params=["legacy", "auto"])
def client(request: pytest.FixtureRequest) -> Client:
    parameters = StdioServerParameters(
        command=PROGRAM[0], args=PROGRAM[1:], env={"PYTHONPATH": os.pathsep.join(sys.path)}
    )
    return Client(parameters, mode=request.param)


async def test_a_client_of_either_era_is_served(client: Client) -> None:
    steps: list[float] = []

    async def note(progress: float, total: float | None, message: str | None) -> None:
        steps.append(progress)

    with anyio.fail_after(30):
        async with client:
            listed = await client.list_tools()
            reported = await client.call_tool("progress", {}, progress_callback=note)
            big = await client.call_tool("big", {"size": 3_000_000})

    assert "echo" in [each.name for each in listed.tools]
    assert _text(reported) == "reported" and steps == [0, 1, 2]
    assert _text(big) == "x" * 3_000_000


async def test_a_call_that_its_client_gives_up_is_cancelled_and_the_next_one_served(client: Client) -> None:
    with anyio.fail_after(30):
        async with client:
            with anyio.move_on_after(0.1):
                await client.call_tool("sleep", {})
            answer = await client.call_tool("echo", {"text": "still here"})

    assert _text(answer) == "still here"


async def test_calls_overlap(client: Client) -> None:
    answer = types.CallToolResult(content=[])
    with anyio.fail_after(30):
        async with client, anyio.create_task_group() as tasks:
            for _ in range(20):
                tasks.start_soon(client.call_tool, "sleep")
            answer = await client.call_tool("echo", {"text": "before them"})
            tasks.cancel_scope.cancel()

    assert _text(answer) == "before them"


def _text(result: types.CallToolResult) -> str:
    assert isinstance(result.content[0], types.TextContent)
    return result.content[0].text


@pytest.mark.parametrize("kind", ["pipes", "sockets", "terminal"])
async def test_any_kind_of_stream_carries_messages_of_any_size(kind: Kind) -> None:
    sizes = (1, 4096, 65_536, 70_001, 1_000_000) if kind != "terminal" else (1, 4096, 20_000)
    with anyio.fail_after(60):
        async with served(kind) as raw:
            there = [await raw.text_of("echo", text="y" * size) for size in sizes]
            back = [await raw.text_of("big", size=size) for size in sizes]

    assert [len(each) for each in there] == list(sizes)
    assert [len(each) for each in back] == list(sizes)


@pytest.mark.parametrize("kind", ["pipes", "sockets"])
async def test_no_thread_is_needed(kind: Kind) -> None:
    with anyio.fail_after(30):
        async with served(kind) as raw:
            await raw.text_of("big", size=1_000_000)
            status = await anyio.Path(f"/proc/{raw.process.pid}/status").read_text()

    assert "Threads:\t1\n" in status


async def test_files_as_streams_are_served_to_their_end(tmp_path: Path) -> None:
    lines = (
        '{"jsonrpc":"2.0","id":1,"method":"initialize","params":{"protocolVersion":"2025-11-25",'
        '"capabilities":{},"clientInfo":{"name":"file","version":"1"}}}\n'
    )
    (tmp_path / "in").write_text(lines)

    with anyio.fail_after(30), (tmp_path / "in").open() as stdin, (tmp_path / "out").open("w") as stdout:
        process = await anyio.run_process(PROGRAM, stdin=stdin, stdout=stdout, check=False)

    assert process.returncode == 0
    assert '"id":1' in (tmp_path / "out").read_text()


async def test_an_empty_device_as_input_is_its_end() -> None:
    with anyio.fail_after(30):
        process = await anyio.run_process(PROGRAM, stdin=subprocess.DEVNULL)

    assert (process.stdout, process.returncode) == (b"", 0)


async def test_the_capabilities_of_the_old_era_are_those_that_the_server_itself_tells() -> None:
    with anyio.fail_after(30):
        async with served() as raw:
            client = {"name": "raw", "version": "1"}
            answer = await raw.ask(
                raw.request("initialize", protocolVersion="2025-11-25", capabilities={}, clientInfo=client)
            )

    assert answer["result"]["capabilities"]["tools"] == {"listChanged": False}


@pytest.mark.parametrize("kind", ["pipes", "sockets"])
async def test_prints_and_children_cannot_spoil_the_wire(kind: Kind) -> None:
    with anyio.fail_after(30):
        async with served(kind) as raw:
            answer = await raw.text_of("print")
            await raw.hang_up()
            rest = await raw.rest()
            stderr = await raw.said()

    assert (answer, rest) == ("b''", b"")  # a handler that reads finds the end of the input
    assert all(each in stderr for each in ("on sys.stdout", "on descriptor 1", "from a child"))


async def test_the_first_answer_is_told_once_and_after_it_was_written() -> None:
    with anyio.fail_after(30):
        async with served() as raw:
            await raw.text_of("echo")
            await raw.text_of("echo")
            await raw.hang_up()
            stderr = await raw.said()

    assert stderr.count("first answer written") == 1


async def test_the_order_of_what_is_sent_is_kept() -> None:
    with anyio.fail_after(30):
        async with served() as raw:
            big, small = raw.call("big", size=1_000_000), raw.call("progress")
            small["params"]["_meta"] = {**MODERN, "progressToken": "t"}
            await raw.send(big, small)
            answers = [await raw.receive() for _ in range(5)]

    assert [each.get("id", "step") for each in answers] == [1, "step", "step", "step", 2]


async def test_half_of_a_surrogate_pair_does_not_cost_the_answer() -> None:
    with anyio.fail_after(30):
        async with served() as raw:
            text = await raw.text_of("unprintable")

    assert text == "half a pair: ?"


async def test_a_program_of_nothing_else_ends_by_itself() -> None:
    code = (
        "import anyio\nfrom mcp.server.lowlevel import Server\nfrom rlm_mcp.stdio import serve_stdio\n"
        "anyio.run(serve_stdio, Server('bare'))\nprint('on the wire again')"
    )
    with anyio.fail_after(30):
        async with served(program=[sys.executable, "-c", code]) as raw:
            await raw.hang_up()
            rest = await raw.rest()
            exit_code = await raw.ended()

    assert (rest, exit_code) == (b"on the wire again\n", 0)


@pytest.mark.parametrize("closed", ["<&-", ">&-", "<&- >&-"])
async def test_a_server_without_streams_ends(closed: str) -> None:
    with anyio.fail_after(30):
        command = f'"$@" {closed}'
        process = await anyio.run_process(
            ["bash", "-c", command, "bash", *PROGRAM], stdin=subprocess.DEVNULL, check=False
        )

    assert b"Traceback" not in process.stderr
