"""A session in a container lasts, and does all that one in the local jail does. Everything here happens on a real engine."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import anyio
import pytest
from anyio.streams.buffered import BufferedByteReceiveStream

from rlm_sandboxes import Limits
from rlm_sandboxes.docker import DockerSandbox
from rlm_sandboxes.docker.engine import Engine as OfTheSandbox
from rlm_sandboxes.docker.owners import own_label
from rlm_sessions import Care, open_session
from tests.docker.engine import Engine, engine_of
from tests.sessions.homes import KILLED, LIMITS, Home, at_work, notes_of, settled, value, well

MIB = 1024 * 1024
RICH = """
one = two = []
holder = {"list": one}
def counter():
    count = 0
    def up():
        nonlocal count
        count += 1
        return count
    return up
up = counter(); up()
large = "x" * 8_000_000
"""
CHECKED = "one.append(1); (two, holder['list'] is one, up(), len(large))"
AS_EXPECTED = "([1], True, 2, 8000000)"
OWN = f"label=rlm-mcp.owner={own_label()}"
TOO_MUCH = "import mmap; m = mmap.mmap(-1, 400 * 2**20)\nfor at in range(0, len(m), 4096): m[at] = 1"
TOGETHER = "import os\nfor _ in range(6):\n    if not os.fork():\n        kept = bytearray(100 * 2**20); os.abort() if not kept else __import__('time').sleep(60)\n__import__('time').sleep(60)"


@pytest.fixture(scope="module")
def engine() -> Engine:
    return engine_of()


@pytest.fixture(scope="module")
async def sandbox(engine: Engine) -> AsyncIterator[DockerSandbox]:
    async with DockerSandbox(engine.image, engine=engine.host, pull="never", warm=1) as opened:
        yield opened


@pytest.fixture
def home(sandbox: DockerSandbox, tmp_path: Path) -> Home:
    return Home(sandbox, tmp_path / "home")


async def docker(engine: Engine, *words: str) -> str:
    """Run Docker's own command, to look and act from outside."""
    ran = await anyio.run_process(["docker", "--host", engine.host, *words])
    return ran.stdout.decode().strip()


# ---- the language policy


async def test_in_a_strong_container_there_is_no_language_policy_unless_asked_for(
    sandbox: DockerSandbox,
) -> None:
    refused_by_policy = "import os; os.getpid() > 0"

    with anyio.fail_after(60):
        async with open_session(sandbox) as session:
            free = await session.run(refused_by_policy)
            said = str(session.isolation)
        async with open_session(sandbox, policy="strict") as session:
            bound = await session.run("import ctypes")

    assert free.value == "True"
    assert "not needed in a container" in said
    assert bound.error is not None


# ---- lasting


async def test_after_sleep_and_after_a_restart_everything_is_as_it_was(home: Home) -> None:
    with anyio.fail_after(60):
        async with home.session() as session:
            await value(session, RICH)
            asleep = await session.sleep()
            shown = await value(session, CHECKED)
        async with home.session() as session:
            again = await value(session, CHECKED)

    assert asleep
    assert shown == AS_EXPECTED
    assert again == "([1, 1], True, 3, 8000000)"


async def test_the_answer_to_a_cell_does_not_wait_until_a_large_state_is_told(home: Home) -> None:
    with anyio.fail_after(60):
        async with home.session() as session:
            await value(session, "large = [str(n) for n in range(400_000)]; step = 1")
            kept_before = session.info().kept_step
            await value(session, "step = 2")
            await settled(session)
            told = [int(path.stem) for path in home.states()]

    assert kept_before == 0
    assert 2 in told


@pytest.mark.parametrize("how", ["the program", "the container"])
async def test_a_session_whose_container_is_killed_goes_on_where_it_was(
    home: Home, engine: Engine, how: str
) -> None:
    with anyio.fail_after(60):
        async with home.session() as session:
            await value(session, "x = 1")
            await settled(session)
            async with at_work(session) as results:
                if how == "the program":
                    await session.interrupt()
                else:
                    await docker(engine, "kill", *(await docker(engine, "ps", "-q", "--filter", OWN)).split())
            killed = await session.run(KILLED) if how == "the program" else results[0]
            back = await session.run("x + 1")

    assert killed.lost
    assert back.value == "2"
    assert ("ended by SIGKILL: by the engine" in str(killed.error)) == (how == "the container")
    assert "memory_bytes" not in str(killed.error)


async def test_a_cell_that_needs_too_much_memory_costs_no_more_than_itself(home: Home) -> None:
    care = Care(
        limits=Limits(wall_seconds=30, memory_bytes=256 * MIB, scratch_bytes=MIB, processes=8), policy="off"
    )

    with anyio.fail_after(90):
        async with home.session(care=care) as session:
            await value(session, "x = 1")
            await settled(session)
            hungry = await session.run(TOGETHER)
            back = await session.run("x + 1")

    assert hungry.error is not None
    assert "memory_bytes" in str(hungry.error)
    assert back.value == "2"


HOST = """
import anyio, sys
from pathlib import Path
from rlm_sandboxes.docker import DockerSandbox
from tests.sessions.homes import Home

async def main():
    async with DockerSandbox(sys.argv[2], engine=sys.argv[1], pull="never") as sandbox:
        async with Home(sandbox, Path(sys.argv[3])).session() as session:
            await session.run("x = 41; large = 'x' * 8_000_000")
            print("answered", flush=True)
            await anyio.sleep_forever()

anyio.run(main)
"""


async def test_what_was_answered_is_told_when_the_host_is_killed_in_that_moment(
    home: Home, engine: Engine
) -> None:
    command = [sys.executable, "-c", HOST, engine.host, engine.image, str(home.folder)]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}

    with anyio.fail_after(90):
        async with await anyio.open_process(command, env=environment, stderr=subprocess.DEVNULL) as host:
            assert host.stdout is not None
            assert await BufferedByteReceiveStream(host.stdout).receive_until(b"\n", 64) == b"answered"
            host.kill()
            await host.wait()
        async with home.session() as session:
            back = await session.run("x + 1, len(large)")

    assert back.value == "(42, 8000000)"
    assert "is back from disk with its state after step 1" in notes_of(back)


# ---- cells


async def test_a_cell_out_of_time_is_interrupted_first_and_killed_last(home: Home) -> None:
    care = Care(limits=Limits(wall_seconds=1, grace_seconds=0.5), policy="off")

    with anyio.fail_after(60):
        async with home.session(care=care) as session:
            await value(session, "x = 1")
            await settled(session)
            soft = await session.run("print('said'); y = 2\nwhile True: pass")
            hard = await session.run(
                "import time\nwhile True:\n    try:\n        while True: time.sleep(1)\n    except BaseException: pass"
            )
            back = await session.run("x, y")

    assert soft.error is not None and soft.error.limit == "wall_seconds"
    assert soft.output == "said\n" and not soft.lost
    assert hard.error is not None and hard.error.limit == "wall_seconds" and hard.lost
    assert back.value == "(1, 2)"


async def test_a_cell_that_is_given_up_stops_and_what_it_had_set_stays(home: Home) -> None:
    with anyio.fail_after(60):
        async with home.session() as session:
            await value(session, "x = 1")
            with anyio.move_on_after(0.3):
                await session.run("y = 2\nwhile True: pass")
            back = await session.run("x, y")

    assert back.value == "(1, 2)"


async def test_calls_go_both_ways_while_a_cell_runs(home: Home) -> None:
    async def answer(name: str, payload: Any) -> Any:
        return [name, payload]

    with anyio.fail_after(60):
        async with home.session(answer=answer) as session:
            asked = await session.run("call('tool', {'n': 1})")
            async with at_work(session, "y = 1\nwhile True: pass") as results:
                while "y" not in [each.name for each in await session.variables()]:
                    await anyio.sleep(0.01)
                await session.interrupt()
            await session.set("x", 5)
            got = await session.get("x")

    assert asked.value == "['tool', {'n': 1}]"
    assert results[0].error is not None and results[0].error.name == "KeyboardInterrupt"
    assert got.body == b"5"


async def test_output_of_all_kinds_arrives_whole_and_in_order(home: Home) -> None:
    picture = "from base64 import b64decode\nclass P:\n    def _repr_png_(self): return bytes([137]) + b'PNG' * 9\nP()"

    with anyio.fail_after(60):
        async with home.session() as session:
            printed = well(await session.run("for n in range(20_000): print(n)"))
            past = well(await session.run("import os; os.write(1, b'past Python')"))
            shown = well(await session.run(picture))

    assert printed.output.startswith("0\n1\n") and printed.output.endswith("19999\n")
    assert "past Python" in past.output
    assert [each.mime for each in shown.displays] == ["image/png"]


async def test_a_crash_in_c_is_told_with_its_line(home: Home) -> None:
    with anyio.fail_after(60):
        async with home.session() as session:
            result = await session.run("import ctypes\nctypes.string_at(0)")

    assert result.lost and result.error is not None
    assert "SIGSEGV" in result.error.message and '"<cell 1>", line 2' in result.error.message


async def test_usage_is_that_of_the_session_near_and_through_the_engine(
    sandbox: DockerSandbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def nobody(self: OfTheSandbox, name: str) -> None:
        return None

    async def used() -> tuple[int, float]:
        async with open_session(sandbox, limits=LIMITS) as session:
            before = await session.usage()
            well(await session.run("held = b'x' * 200_000_000\nfor _ in range(3_000_000): pass"))
            after = await session.usage()
            return after.memory_bytes - before.memory_bytes, after.cpu_seconds - before.cpu_seconds

    with anyio.fail_after(60):
        near = await used()
        monkeypatch.setattr(OfTheSandbox, "find_near", nobody)
        far = await used()

    for memory, seconds in (near, far):
        assert 190_000_000 < memory < 260_000_000
        assert 0.01 < seconds < 30


# ---- nothing is left


async def test_of_a_session_with_copied_files_no_container_and_no_volume_is_left(
    engine: Engine, tmp_path: Path
) -> None:
    (tmp_path / "data.txt").write_text("42")

    with anyio.fail_after(60):
        async with DockerSandbox(
            engine.image, engine=engine.host, state=str(tmp_path), copy_files=True
        ) as own:
            async with open_session(own, project=tmp_path, limits=LIMITS) as session:
                read = await session.run("open('data.txt').read()")
                there = (
                    await docker(engine, "ps", "-aq", "--filter", f"label=rlm-mcp.state={tmp_path}")
                ).split()
                volumes = await docker(engine, "inspect", "-f", "{{range .Mounts}}{{.Name}} {{end}}", *there)
            left = await docker(engine, "ps", "-aq", "--filter", f"label=rlm-mcp.state={tmp_path}")
            volumes_left = (await docker(engine, "volume", "ls", "-q")).split()

    assert read.value == "'42'"
    assert volumes.split()
    assert not left
    assert not set(volumes.split()) & set(volumes_left)
