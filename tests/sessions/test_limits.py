"""Each limit ends in an error that names it, and costs no more than the cell wherever that is possible."""

from __future__ import annotations

from pathlib import Path

import anyio
import pytest

from rlm_sandboxes import Limits
from rlm_sandboxes.local import LocalSandbox
from rlm_sessions import CellResult, Session, SessionEnded, open_session

MIB = 1024 * 1024


def assert_told(result: CellResult, limit: str) -> None:
    """Check that the error names the limit and the way to raise it."""
    assert result.error is not None
    assert result.error.limit == limit
    assert limit in result.error.message
    assert f"Limits({limit}=" in result.error.message


async def assert_well(session: Session) -> None:
    """Check that the session goes on with its variables."""
    assert (await session.run("kept")).value == "'kept'"


LOOPS = {
    "plain": "while True: pass",
    "sleeping": "import time\nwhile True: time.sleep(60)",
    "waiting": "import threading\nthreading.Event().wait()",
    "asynchronous": "import asyncio\nawait asyncio.sleep(3600)",
    "regular expression": "import re\nre.match('(a+)+$', 'a' * 64 + 'b')",
    "builds a huge number": "9 ** 9 ** 8",
    "swallows once": "try:\n    while True: pass\nexcept BaseException: pass\nwhile True: pass",
}


@pytest.mark.parametrize("code", LOOPS.values(), ids=LOOPS)
async def test_an_endless_cell_is_interrupted_and_the_session_lives(sandbox: LocalSandbox, code: str) -> None:
    limits = Limits(wall_seconds=0.3, grace_seconds=3)
    with anyio.fail_after(20):
        async with open_session(sandbox, limits=limits) as session:
            await session.run("kept = 'kept'")
            result = await session.run(f"print('before')\nset_before = 1\n{code}")
            kept = await session.run("set_before")
            await assert_well(session)

    assert_told(result, "wall_seconds")
    assert (result.output, kept.value, result.lost) == ("before\n", "1", False)


STUBBORN = {
    "counts in C": "sum(range(10**13))",
    "drains in C": "import collections, itertools\ncollections.deque(itertools.count(), maxlen=0)",
    "ignores interrupts": "import signal\nsignal.signal(signal.SIGINT, signal.SIG_IGN)\nwhile True: pass",
}


@pytest.mark.parametrize("code", STUBBORN.values(), ids=STUBBORN)
async def test_a_cell_that_does_not_stop_is_killed_and_says_what_was_lost(
    sandbox: LocalSandbox, code: str
) -> None:
    limits = Limits(wall_seconds=0.3, grace_seconds=0.3)

    with anyio.fail_after(20):
        async with open_session(sandbox, limits=limits, policy="off") as session:
            result = await session.run(f"print('before')\n{code}")
            with pytest.raises(SessionEnded, match="did not stop within grace_seconds"):
                await session.run("1")

    assert_told(result, "wall_seconds")
    assert result.lost and result.output == "before\n"
    assert result.error is not None and "variables are lost" in result.error.message


async def test_processor_time_is_counted_and_sleep_is_not(sandbox: LocalSandbox) -> None:
    limits = Limits(wall_seconds=30, cpu_seconds=0.4, grace_seconds=3)

    with anyio.fail_after(25):
        async with open_session(sandbox, limits=limits) as session:
            await session.run("kept = 'kept'")
            rested = await session.run("import time\ntime.sleep(1)\n'rested'")
            result = await session.run("while True: pass")
            await assert_well(session)

    assert rested.value == "'rested'"
    assert_told(result, "cpu_seconds")


async def test_memory_ends_in_an_error_and_the_session_lives(sandbox: LocalSandbox) -> None:
    with anyio.fail_after(30):
        async with open_session(sandbox, limits=Limits(memory_bytes=128 * MIB)) as session:
            await session.run("kept = 'kept'")
            at_once = await session.run("big = bytearray(2**30)")
            slowly = await session.run("much = []\nwhile True: much.append(bytes(2**20))")
            await session.run("del much")
            await assert_well(session)

    assert_told(at_once, "memory_bytes")
    assert_told(slowly, "memory_bytes")


async def test_memory_of_several_processes_together_is_watched(sandbox: LocalSandbox) -> None:
    hold = (
        "x = bytearray(100 * 2**20)\nfor i in range(0, len(x), 4096): x[i] = 1\nimport time; time.sleep(60)"
    )
    python = "sys.executable if os.path.exists(sys.executable) else '/usr/bin/python3'"
    code = f"import os, subprocess, sys, time\nfor _ in range(4): subprocess.Popen([{python}, '-c', {hold!r}])\ntime.sleep(60)"
    limits = Limits(memory_bytes=256 * MIB, processes=8, wall_seconds=30, grace_seconds=3)

    with anyio.fail_after(40):
        async with open_session(sandbox, limits=limits, policy="off") as session:
            result = await session.run(code)

    assert_told(result, "memory_bytes")


async def test_output_ends_at_its_limit_and_what_was_printed_is_returned(sandbox: LocalSandbox) -> None:
    with anyio.fail_after(20):
        async with open_session(sandbox, limits=Limits(output_bytes=10_000)) as session:
            await session.run("kept = 'kept'")
            result = await session.run("try:\n    while True: print('x' * 99)\nexcept Exception: pass")
            await assert_well(session)

    assert_told(result, "output_bytes")
    assert result.output_characters == 10_000


async def test_output_is_counted_anew_for_each_cell(sandbox: LocalSandbox) -> None:
    async with open_session(sandbox, limits=Limits(output_bytes=1024)) as session:
        results = [await session.run("print('x' * 1000)") for _ in range(3)]

    assert [result.error for result in results] == [None, None, None]


@pytest.mark.parametrize(
    ("limit", "value", "code"),
    [
        ("file_bytes", MIB, "import tempfile\nopen(tempfile.gettempdir() + '/f', 'wb').write(bytes(2**21))"),
        (
            "scratch_bytes",
            MIB,
            "import tempfile\nopen(tempfile.gettempdir() + '/f', 'wb').write(bytes(2**21))",
        ),
        ("open_files", 16, "[open('/dev/null') for _ in range(99)]"),
        (
            "threads",
            4,
            "import threading\nfor _ in range(99): threading.Thread(target=threading.Event().wait, daemon=True).start()",
        ),
    ],
)
async def test_what_the_kernel_limits_is_told_as_that_limit(
    sandbox: LocalSandbox, limit: str, value: int, code: str
) -> None:
    with anyio.fail_after(20):
        async with open_session(sandbox, limits=Limits(**{limit: value})) as session:  # type: ignore[arg-type]
            await session.run("kept = 'kept'")
            result = await session.run(code)
            await assert_well(session)

    assert_told(result, limit)


@pytest.mark.parametrize(
    ("limit", "code"),
    [
        ("network", "import socket\nsocket.socket()"),
        ("processes", "import subprocess\nsubprocess.run(['ls'])"),
    ],
)
async def test_what_is_switched_off_is_told_as_that_switch(
    sandbox: LocalSandbox, limit: str, code: str
) -> None:
    async with open_session(sandbox, policy="off") as session:
        result = await session.run(code)

    assert_told(result, limit)


async def test_what_the_limits_open_the_policy_opens_too(sandbox: LocalSandbox) -> None:
    code = "import socket, subprocess, urllib.request\nsubprocess.run(['/bin/echo', 'started']).returncode"

    async with open_session(sandbox) as session:
        closed = await session.run(code)
    async with open_session(sandbox, limits=Limits(network=True, processes=4)) as session:
        opened = await session.run(code)

    assert closed.error is not None
    assert (opened.error, opened.value, opened.output) == (None, "0", "started\n")


async def test_writing_into_a_project_that_is_read_only_is_told(
    sandbox: LocalSandbox, tmp_path: Path
) -> None:
    async with open_session(sandbox, project=tmp_path) as session:
        result = await session.run("open('new.txt', 'w')")

    assert_told(result, "files")
    assert result.error is not None and "tempfile.gettempdir()" in result.error.message


async def test_threads_that_go_on_after_their_cell_are_paused_and_go_on_later(sandbox: LocalSandbox) -> None:
    code = """
import threading, time
steps = 0
def work():
    global steps
    while True:
        steps += 1
        time.sleep(0.001)
threading.Thread(target=work, daemon=True).start()
"""
    with anyio.fail_after(30):
        async with open_session(sandbox) as session:
            await session.run(code)
            await anyio.sleep(1.5)
            first = int((await session.run("steps")).value or 0)
            await anyio.sleep(1.5)
            second = int((await session.run("steps")).value or 0)
            later = int((await session.run("time.sleep(0.5)\nsteps")).value or 0)

    assert second - first < 900  # half a second of about a thousand steps each, and not a second and a half
    assert later > second + 50


async def test_a_caller_that_is_cancelled_interrupts_its_cell_and_keeps_the_session(session: Session) -> None:
    with anyio.fail_after(20):
        await session.run("kept = 'kept'")
        with anyio.move_on_after(0.3):
            await session.run("reached = 1\nwhile True: pass")
        after = await session.run("reached")
        await assert_well(session)

    assert after.value == "1"


async def test_an_interrupt_between_cells_does_nothing(session: Session) -> None:
    await session.run("kept = 'kept'")

    assert await session.interrupt() is False
    await assert_well(session)


async def test_interrupts_at_any_moment_of_printing_spoil_nothing(session: Session) -> None:
    with anyio.fail_after(60):
        await session.run("kept = 'kept'")
        for n in range(30):
            with anyio.move_on_after(0.02 + n / 1000):
                await session.run("while True: print('some text', end='')")
            await assert_well(session)
