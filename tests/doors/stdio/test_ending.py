"""How serving ends: by whom, how soon, with which exit code, and with what left behind."""

from __future__ import annotations

import os
import signal
import socket
import sys
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path

import anyio
import pytest

from .raw import PROGRAM, Kind, Raw, served

SIGNALS = [signal.SIGTERM, signal.SIGINT, signal.SIGHUP]


@pytest.mark.parametrize("kind", ["pipes", "sockets"])
async def test_the_end_of_the_input_ends_the_server(kind: Kind) -> None:
    with anyio.fail_after(30):
        async with served(kind) as raw:
            await raw.text_of("echo")
            await raw.hang_up()
            stderr = await raw.said()
            exit_code = await raw.ended()

    assert exit_code == 0
    assert "cleaned up" in stderr


async def test_the_end_of_the_input_cancels_what_is_at_work_and_answers_it() -> None:
    with anyio.fail_after(30):
        async with served() as raw:
            await raw.send(raw.call("sleep"))
            await raw.told("asleep")
            await raw.hang_up()
            await raw.told("cancelled")
            answer = await raw.receive()
            exit_code = await raw.ended()

    assert answer["error"]["message"] == "Connection closed"
    assert exit_code == 0


@pytest.mark.parametrize(
    ("kind", "number"),
    [*(("pipes", each) for each in SIGNALS), ("sockets", signal.SIGINT), ("terminal", signal.SIGTERM)],
)
async def test_a_signal_cancels_what_is_at_work_and_lets_the_server_clean_up(
    kind: Kind, number: signal.Signals
) -> None:
    with anyio.fail_after(30):
        async with served(kind) as raw:
            await raw.send(raw.call("sleep"))
            await raw.told("asleep")
            raw.process.send_signal(number)
            stderr = await raw.said()
            exit_code = await raw.ended()

    assert exit_code == 128 + number
    assert "cancelled" in stderr and "cleaned up" in stderr


async def test_half_a_line_is_not_answered_when_a_signal_comes() -> None:
    with anyio.fail_after(30):
        async with served() as raw:
            await raw.text_of("echo")
            await raw.send(b'{"jsonrpc":"2.0",')
            raw.process.terminate()
            rest = await raw.rest()

    assert rest == b""


@asynccontextmanager
async def _cleaning_up(then: str) -> AsyncGenerator[Raw]:
    """Run a server that a signal has told to end, and that does `then` before it does."""
    code = (
        "import anyio, sys, time\nfrom mcp.server.lowlevel import Server\nfrom rlm_mcp.stdio import Stopped, serve_stdio\n"
        "def tell(text): print(text, file=sys.stderr, flush=True)\n"
        "async def main():\n"
        "    try:\n        await serve_stdio(Server('slow'), first_request=lambda: tell('ready'))\n"
        f"    except Stopped:\n        tell('stopped')\n        {then}\n"
        "anyio.run(main)"
    )
    async with served(program=[sys.executable, "-c", code]) as raw:
        await raw.send(raw.call("nothing"))
        await raw.told("ready")
        raw.process.send_signal(signal.SIGINT)
        await raw.told("stopped")
        yield raw


async def test_a_second_signal_ends_a_server_whose_cleaning_up_takes_long() -> None:
    with anyio.fail_after(30):
        async with _cleaning_up("time.sleep(3600)") as raw:
            raw.process.send_signal(signal.SIGINT)
            exit_code = await raw.ended()

    assert exit_code == 128 + signal.SIGINT


async def test_two_signals_of_one_farewell_let_the_server_clean_up() -> None:
    with anyio.fail_after(30):
        async with _cleaning_up("time.sleep(0.2); tell('cleaned up')") as raw:
            raw.process.send_signal(signal.SIGTERM)
            await raw.told("cleaned up")
            exit_code = await raw.ended()

    assert exit_code == 0


async def test_a_server_started_by_nohup_does_not_mind_that_the_terminal_is_gone() -> None:
    with anyio.fail_after(30):
        async with served(program=["nohup", *PROGRAM]) as raw:
            await raw.text_of("echo")
            raw.process.send_signal(signal.SIGHUP)
            answer = await raw.text_of("echo", text="still here")

    assert answer == "still here"


async def test_nobody_reading_any_more_ends_the_server() -> None:
    with anyio.fail_after(30):
        async with served() as raw:
            await raw.text_of("echo")
            raw.of.close()
            await raw.send(raw.call("echo"))
            exit_code = await raw.ended()

    assert exit_code == 0


async def test_garbage_from_a_client_that_reads_no_more_ends_the_server_in_peace() -> None:
    with anyio.fail_after(30):
        async with served() as raw:
            await raw.text_of("echo")
            raw.of.close()
            await raw.send(b"garbage\n" * 10)
            exit_code = await raw.ended()
            stderr = await raw.said()

    assert exit_code == 0
    assert "Traceback" not in stderr


async def test_the_death_of_its_parent_ends_a_server_whose_streams_others_hold_open() -> None:
    parent = (
        "import subprocess, sys, time\n"
        f"child = subprocess.Popen({PROGRAM!r})\n"
        "sys.stderr.write(f'child {child.pid}\\n')\nsys.stderr.flush()\ntime.sleep(3600)"
    )
    with anyio.fail_after(30):
        async with served(program=[sys.executable, "-c", parent]) as raw:
            await raw.text_of("echo")
            raw.process.kill()
            await raw.told("cleaned up")


@pytest.mark.parametrize("how", ["input", signal.SIGTERM])
@pytest.mark.parametrize(
    ("kind", "size"), [("pipes", 1_000_000), ("pipes", 20_000_000), ("sockets", 20_000_000)]
)
async def test_a_client_that_does_not_read_cannot_keep_the_server(
    kind: Kind, size: int, how: signal.Signals | str
) -> None:
    with anyio.fail_after(30):
        async with served(kind) as raw:
            await raw.send(raw.call("big", size=size), raw.call("big", size=size), raw.call("sleep"))
            await raw.begins_to_answer()
            if isinstance(how, signal.Signals):
                raw.process.send_signal(how)
            else:
                await raw.hang_up()
            exit_code = await raw.ended()
            stderr = await raw.said()

    assert exit_code == (128 + how if isinstance(how, signal.Signals) else 0)
    assert "cleaned up" in stderr and "Traceback" not in stderr


async def test_a_terminal_that_nobody_reads_cannot_keep_the_server() -> None:
    with anyio.fail_after(30):
        async with served("terminal") as raw:
            await raw.send(raw.call("big", size=1_000_000))
            await raw.begins_to_answer()
            raw.process.send_signal(signal.SIGTERM)
            exit_code = await raw.ended()

    assert exit_code == 128 + signal.SIGTERM


async def test_children_do_not_hold_the_wire_when_the_server_is_gone() -> None:
    with anyio.fail_after(30):
        async with served() as raw:
            child = int(await raw.text_of("spawn"))
            try:
                raw.process.kill()
                rest = await raw.rest()
                held = descriptors(child)
            finally:
                os.kill(child, signal.SIGKILL)

    assert rest == b""
    assert held == 3


def descriptors(pid: int) -> int:
    return sum(1 for _ in Path(f"/proc/{pid}/fd").iterdir())


async def test_the_streams_need_not_be_distinct() -> None:
    ours, theirs = socket.socketpair()
    with ours, anyio.fail_after(30):
        process = await anyio.open_process(PROGRAM, stdin=theirs.fileno(), stdout=theirs.fileno())
        theirs.close()
        await anyio.to_thread.run_sync(ours.sendall, b'{"jsonrpc":"2.0","id":1,"method":"ping"}\n')
        answer = await anyio.to_thread.run_sync(ours.recv, 4096)
        ours.shutdown(socket.SHUT_WR)
        exit_code = await process.wait()
        await process.aclose()

    assert b'"id":1' in answer
    assert exit_code == 0
