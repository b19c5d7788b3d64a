"""However a session ends, it says how, and leaves nothing behind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import anyio
import anyio.to_thread
import pytest

from rlm_sandboxes import Limits
from rlm_sandboxes.local import LocalSandbox
from rlm_sessions import CellResult, SessionEnded, open_session

SEGFAULT = "import ctypes\nctypes.string_at(0)"
HOST = """
import anyio, sys
from rlm_sandboxes.local import LocalSandbox
from rlm_sessions import open_session
async def main():
    async with LocalSandbox() as sandbox, open_session(sandbox, policy="off") as one, open_session(sandbox) as other:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(one.run, "while True: pass")
            tasks.start_soon(other.run, "sum(range(10**13))")
            await anyio.sleep(0.3)
            print("running", flush=True)
anyio.run(main)
"""


async def run_once(sandbox: LocalSandbox, code: str) -> CellResult:
    """Run one cell in a session of its own, without the language policy."""
    async with open_session(sandbox, limits=Limits(wall_seconds=20), policy="off") as session:
        return await session.run(code)


async def test_a_crash_in_c_is_told_with_the_line_that_caused_it(sandbox: LocalSandbox) -> None:
    with anyio.fail_after(20):
        result = await run_once(sandbox, f"print('before')\n{SEGFAULT}")

    assert result.lost and result.output == "before\n"
    assert result.error is not None
    assert "SIGSEGV" in result.error.message and '"<cell 1>", line 3' in result.error.message


@pytest.mark.parametrize("code", ["import os; os._exit(3)", "import os; os.abort()", SEGFAULT])
async def test_a_guest_that_ends_itself_costs_only_its_own_session(sandbox: LocalSandbox, code: str) -> None:
    with anyio.fail_after(20):
        async with open_session(sandbox) as neighbour:
            await neighbour.run("kept = 1")
            result = await run_once(sandbox, code)
            kept = await neighbour.run("kept")

    assert result.lost and result.error is not None and result.error.name == "SessionLost"
    assert kept.value == "1"


async def test_a_session_that_is_over_says_so_to_everything(sandbox: LocalSandbox) -> None:
    with anyio.fail_after(20):
        async with open_session(sandbox, policy="off") as session:
            await session.run("import os; os._exit(0)")
            for attempt in (session.run("1"), session.get("x"), session.set("x", 1), session.delete("x")):
                try:
                    await attempt
                except SessionEnded as problem:
                    assert "exit code 0" in str(problem)
                else:
                    raise AssertionError("the session went on")


async def test_a_session_goes_on_when_its_zygote_dies_and_the_next_gets_another() -> None:
    limits = Limits(wall_seconds=0.3)
    with anyio.fail_after(30):
        before = set(await anyio.to_thread.run_sync(descendants_of, os.getpid()))
        async with LocalSandbox() as sandbox:
            async with open_session(sandbox, limits=limits) as session:
                await session.run("x = 1")
                (first,) = set(await anyio.to_thread.run_sync(children_of, os.getpid())) - before
                (guard,) = await anyio.to_thread.run_sync(children_of, first)
                (zygote,) = await anyio.to_thread.run_sync(children_of, guard)
                os.kill(zygote, signal.SIGKILL)
                stopped = await session.run("while True: pass")
                kept = await session.run("x + 1")
                async with open_session(sandbox) as other:
                    again = await other.run("1 + 1")
                family = set(await anyio.to_thread.run_sync(descendants_of, os.getpid())) - before
        while await anyio.to_thread.run_sync(alive, list(family)):
            await anyio.sleep(0.02)

    assert stopped.error is not None
    assert stopped.error.limit == "wall_seconds"
    assert (kept.value, again.value) == ("2", "2")


async def test_when_the_host_is_killed_everything_it_started_dies_with_it() -> None:
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    host = await anyio.open_process([sys.executable, "-c", HOST], env=environment, stderr=subprocess.DEVNULL)
    with anyio.fail_after(30):
        assert host.stdout is not None
        heard = b""
        while not heard.endswith(b"running\n"):
            heard += await host.stdout.receive()
        family = await anyio.to_thread.run_sync(descendants_of, host.pid)
        host.kill()
        await host.wait()
        while await anyio.to_thread.run_sync(alive, family):
            await anyio.sleep(0.02)
        await host.aclose()

    assert len(family) >= 4  # a zygote, its parent and two workers


async def test_a_thousand_sessions_leave_nothing_behind(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))  # where nobody else makes scratch folders
    cells = ["x = 1", "1 / 0", "import os; os._exit(1)", "print('x' * 100_000)", "open('f', 'w').write('x')"]
    limits = Limits(wall_seconds=30, grace_seconds=0)

    with anyio.fail_after(150):
        async with LocalSandbox() as sandbox:
            await run_once(sandbox, "1")
            before = await anyio.to_thread.run_sync(left_behind)
            for n in range(1000):
                async with open_session(sandbox, limits=limits, policy="off") as session:
                    if n % 10 == 9:
                        with anyio.move_on_after(0.005):
                            await session.run("while True: pass")
                    elif n % 10 != 8:
                        await session.run(cells[n % len(cells)])
            after = await settled(before)

    assert all(now <= then for now, then in zip(after, before, strict=True)), (before, after)


async def settled(wanted: tuple[int, int, int]) -> tuple[int, int, int]:
    """Return what is left, once it is as wanted or some seconds have gone."""
    end = time.monotonic() + 5
    while True:
        found = await anyio.to_thread.run_sync(left_behind)
        enough = all(now <= then for now, then in zip(found, wanted, strict=True))
        if enough or time.monotonic() > end:
            return found
        await anyio.sleep(0.05)


def left_behind() -> tuple[int, int, int]:
    """Return how many processes, descriptors and scratch folders there are."""
    scratch = len(list(Path(tempfile.gettempdir()).glob("rlm-scratch-*")))
    return len(descendants_of(os.getpid())), len(list(Path("/proc/self/fd").iterdir())), scratch


def children_of(pid: int) -> list[int]:
    found: list[int] = []
    for task in Path(f"/proc/{pid}/task").iterdir():
        try:
            found += [int(child) for child in (task / "children").read_text().split()]
        except OSError:
            continue
    return found


def descendants_of(pid: int) -> list[int]:
    try:
        children = children_of(pid)
    except OSError:
        return []
    return [*children, *(below for child in children for below in descendants_of(child))]


def alive(pids: list[int]) -> list[int]:
    return [pid for pid in pids if is_alive(pid)]


def is_alive(pid: int) -> bool:
    try:
        return "State:\tZ" not in Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return False
