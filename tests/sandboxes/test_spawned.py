"""Spawned interpreters, as macOS and Windows have them, as far as this system can show it."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import anyio
import anyio.to_thread
import pytest

from rlm_sandboxes import (
    InterpreterUnusable,
    Limits,
    Package,
    Process,
    ProcessEnded,
    Program,
    SandboxUnavailable,
    StartFailed,
)
from rlm_sandboxes.local.interpreters import own_interpreter
from rlm_sandboxes.local.posix import Kin, Posix, PosixSandbox, listed, members, running
from rlm_sandboxes.local.spawn_child.windows import pass_on_interrupts
from rlm_sandboxes.local.spawned import SpawnedSandbox
from tests.contracts.asking import ask, evaluate, hear, tell
from tests.contracts.conftest import PROBE

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="looks at the processes by /proc")

MIB = 1024 * 1024
LAYERS = Posix.layers
TIGHT = Limits(file_bytes=1 * MIB, memory_bytes=64 * MIB, threads=4, open_files=32)


@pytest.fixture
async def process() -> AsyncIterator[Process]:
    """The probe, at work in a spawned interpreter."""
    async with PosixSandbox() as sandbox, sandbox.start(PROBE, None, Limits()) as started:
        yield started


async def until(holds: Callable[[], bool]) -> None:
    """Wait for something that the system does in its own time."""
    with anyio.fail_after(10):
        while not await anyio.to_thread.run_sync(holds):
            await anyio.sleep(0.01)


def is_running(pid: int) -> bool:
    return pid in running()


async def start_another(process: Process, *, options: str) -> int:
    """Have the program start one of its own that sleeps, and return its number."""
    code = f"__import__('subprocess').Popen(['/bin/sleep', '1000'], {options}).pid"
    return int(await evaluate(process, code))


# ---- what is around a program


async def test_the_environment_is_ours_alone(process: Process, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RLM_SECRET_KEY", "canary")
    async with PosixSandbox() as sandbox, sandbox.start(PROBE, None, Limits()) as started:
        names = await evaluate(started, "sorted(__import__('os').environ)")
        at_start = await evaluate(started, "open('/proc/self/environ').read()")

    assert names == "['HOME', 'LANG', 'PATH', 'TMPDIR']"
    assert "canary" not in at_start


async def test_no_descriptor_of_the_host_is_inherited(tmp_path: Path) -> None:
    with (tmp_path / "canary").open("w") as held:
        os.set_inheritable(held.fileno(), True)
        async with PosixSandbox() as sandbox, sandbox.start(PROBE, None, Limits()) as started:
            code = "[__import__('os').path.realpath(f'/proc/self/fd/{n}') for n in range(99)]"
            ends = await evaluate(started, code)

    assert "canary" not in ends
    assert ends.count("/dev/null") == 3  # the numbers that foreign code reads and prints to
    assert ends.count("pipe:") == 3


async def test_what_foreign_code_prints_does_not_reach_the_channel(process: Process) -> None:
    await evaluate(process, "__import__('os').write(1, b'noise') + __import__('os').write(2, b'noise')")

    assert await ask(process, "echo", text="clear") == "clear"


async def test_the_interpreter_takes_nothing_from_its_surroundings(tmp_path: Path) -> None:
    (tmp_path / "json.py").write_text("raise RuntimeError('shadowed')")

    async with PosixSandbox() as sandbox, sandbox.start(PROBE, tmp_path, Limits()) as started:
        folder = await evaluate(started, "__import__('os').getcwd()")

    assert folder == repr(str(tmp_path))


async def test_text_is_utf8_on_every_system(process: Process) -> None:
    assert await evaluate(process, "__import__('locale').getpreferredencoding(False).lower()") == "'utf-8'"


async def test_the_program_leads_a_session_of_its_own(process: Process) -> None:
    own = int(await evaluate(process, "__import__('os').getsid(0)"))

    assert own == int(await evaluate(process, "__import__('os').getpid()"))


async def test_the_scratch_folder_is_home_and_for_temporary_files_and_goes_with_the_program() -> None:
    async with PosixSandbox() as sandbox, sandbox.start(PROBE, None, Limits()) as started:
        home = await evaluate(started, "__import__('os').path.expanduser('~')")
        temporary = await evaluate(started, "__import__('tempfile').gettempdir()")
        mode = await evaluate(started, "oct(__import__('os').stat('.').st_mode)")

    assert home == temporary
    assert mode == "'0o40700'"
    assert not Path(home.strip("'")).parent.exists()


async def test_a_scratch_folder_made_hard_to_remove_is_removed(tmp_path: Path) -> None:
    (tmp_path / "outside").mkdir(mode=0o755)
    async with PosixSandbox() as sandbox, sandbox.start(PROBE, None, Limits()) as started:
        home = Path((await evaluate(started, "__import__('os').getcwd()")).strip("'"))
        await evaluate(started, "__import__('os').makedirs('a/b')")
        await evaluate(started, f"__import__('os').symlink({str(tmp_path / 'outside')!r}, 'a/link')")
        await evaluate(started, "__import__('os').chmod('a/b', 0) or __import__('os').chmod('a', 0o500)")

    await until(lambda: not home.exists())
    assert (tmp_path / "outside").stat().st_mode & 0o777 == 0o755


# ---- the layers


async def test_the_limits_hold_and_are_reported() -> None:
    async with PosixSandbox() as sandbox, sandbox.start(PROBE, None, TIGHT) as started:
        isolation = started.isolation
        file = await evaluate(started, "open('big', 'wb', 0).write(bytes(2 * 1024 * 1024))")
        files = await evaluate(started, "[open('/dev/null') for n in range(100)]")
        memory = await evaluate(started, "len(bytearray(200 * 1024 ** 2))")

    assert isolation.holds("rlimits", "memory")
    assert not isolation.strong
    assert file == str(1 * MIB)  # what fits is written, and no more
    assert "Too many open files" in files
    assert memory.startswith("MemoryError")


async def test_layers_can_be_left_out_and_are_reported_as_such() -> None:
    few = frozenset(("rlimits",))
    async with PosixSandbox(layers=few) as sandbox, sandbox.start(PROBE, None, TIGHT) as started:
        isolation = started.isolation
        memory = await evaluate(started, "len(bytearray(200 * 1024 ** 2))")

    assert str(isolation) == "rlimits; no memory (switched off)"
    assert memory == str(200 * MIB)


async def test_other_programs_are_refused_where_they_could_outlive_theirs() -> None:
    async with PosixSandbox() as sandbox:
        with pytest.raises(SandboxUnavailable, match="processes must be 0 here"):
            async with sandbox.start(PROBE, None, Limits(processes=1)):
                pass


# ---- interrupt, pause, kill, usage


async def test_an_interrupt_wakes_a_program_that_sleeps(process: Process) -> None:
    folder = Path((await evaluate(process, "__import__('os').getcwd()")).strip("'"))
    await tell(process, "evaluate", code="open('asleep', 'w').close() or __import__('time').sleep(1000)")
    await until((folder / "asleep").exists)

    await process.interrupt()

    with anyio.fail_after(10):
        assert await hear(process) == "interrupted"


async def test_a_kill_ends_what_the_program_started(process: Process) -> None:
    child = await start_another(process, options="")

    await process.kill()

    await until(lambda: not is_running(child))


async def test_a_kill_ends_what_left_the_session_of_the_program(process: Process) -> None:
    child = await start_another(process, options="start_new_session=True")

    await process.kill()

    await until(lambda: not is_running(child))


async def test_a_kill_ends_a_program_that_is_paused(process: Process) -> None:
    await process.pause()
    await process.kill()

    with pytest.raises(ProcessEnded) as ended:
        await process.receive()

    assert ended.value.status == -signal.SIGKILL


async def test_what_a_program_started_ends_when_the_program_does(process: Process) -> None:
    child = await start_another(process, options="")
    await tell(process, "end", code=3)

    with anyio.fail_after(10), pytest.raises(ProcessEnded) as ended:
        await process.receive()

    assert ended.value.status == 3
    await until(lambda: not is_running(child))


async def test_a_pause_takes_all_processor_time(process: Process) -> None:
    await tell(process, "spin")
    assert await hear(process) == "spinning"
    await process.pause()
    before = await process.usage()
    await anyio.sleep(0.3)
    paused = await process.usage()
    await process.resume()

    assert paused.cpu_seconds - before.cpu_seconds <= 0.02
    with anyio.fail_after(10):
        while (await process.usage()).cpu_seconds < paused.cpu_seconds + 0.1:
            await anyio.sleep(0.05)


async def test_usage_counts_what_the_program_started(process: Process) -> None:
    alone = await process.usage()
    await start_another(process, options="")
    both = await process.usage()

    assert both.threads == alone.threads + 1


async def test_usage_of_a_program_that_is_over_says_so(process: Process) -> None:
    await process.kill()

    with pytest.raises(ProcessEnded):
        await process.usage()


async def test_signals_to_a_program_that_is_over_do_nothing(process: Process) -> None:
    await process.kill()

    await process.interrupt()
    await process.pause()
    await process.resume()


async def test_what_the_program_left_unread_does_not_hold_up_its_end(process: Process) -> None:
    await tell(process, "spin")
    assert await hear(process) == "spinning"
    with anyio.move_on_after(0.2) as waiting:
        await process.send(b"x" * 10 * MIB)
    await process.kill()

    assert waiting.cancelled_caught

    with anyio.fail_after(5), pytest.raises(ProcessEnded):
        await process.receive()


async def test_what_nobody_heard_does_not_hold_up_the_end() -> None:
    with anyio.fail_after(10):
        async with PosixSandbox() as sandbox, sandbox.start(PROBE, None, Limits()) as started:
            await tell(started, "repeat", size=10 * MIB)
            await anyio.sleep(0.1)


# ---- how it ended


async def test_a_crash_leaves_its_traceback(process: Process) -> None:
    await process.send(b"this is no JSON\n")

    with anyio.fail_after(10), pytest.raises(ProcessEnded) as ended:
        await process.receive()

    assert ended.value.status == 70
    assert "JSONDecodeError" in ended.value.detail


async def test_a_crash_of_the_interpreter_leaves_where_it_was(process: Process) -> None:
    await tell(process, "evaluate", code="__import__('ctypes').string_at(0)")

    with anyio.fail_after(10), pytest.raises(ProcessEnded) as ended:
        await process.receive()

    assert ended.value.status == -signal.SIGSEGV
    assert "Segmentation fault" in ended.value.detail


async def test_of_endless_last_words_the_end_is_kept(process: Process) -> None:
    flood = "all(__import__('os').write(fd, b'x' * 1000 + b'the end') for n in range(20) for fd in (5,))"
    await evaluate(process, flood)
    await tell(process, "end", code=1)

    with anyio.fail_after(10), pytest.raises(ProcessEnded) as ended:
        await process.receive()

    assert len(ended.value.detail) <= 4000
    assert ended.value.detail.endswith("the end")


async def test_whoever_asks_at_once_how_it_ended_hears_the_same(process: Process) -> None:
    heard: list[ProcessEnded] = []

    async def listen() -> None:
        try:
            await process.usage() if heard else await process.receive()
        except ProcessEnded as end:
            heard.append(end)

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(listen)
        await process.send(b"this is no JSON\n")
        await until(lambda: bool(heard))
        for _ in range(3):
            tasks.start_soon(listen)

    assert {end.detail for end in heard} == {heard[0].detail}
    assert len(heard) == 4


# ---- which interpreter


async def test_a_program_that_cannot_be_loaded_does_not_start() -> None:
    missing = Program(PROBE.package, "rlm_probe.missing:main")

    async with PosixSandbox() as sandbox:
        with pytest.raises(StartFailed, match=r"No module named 'rlm_probe\.missing'"):
            async with sandbox.start(missing, None, Limits()):
                pass


async def test_a_library_lies_ready_and_is_not_loaded_before_it_is_needed(tmp_path: Path) -> None:
    for name, text in (("aside", "answer = 42"), ("broken", "raise RuntimeError('for another Python')")):
        (tmp_path / name).mkdir()
        (tmp_path / name / "__init__.py").write_text(text)
    libraries = tuple(Package(name, tmp_path / name) for name in ("aside", "broken"))
    program = Program(PROBE.package, PROBE.entry, libraries)

    async with PosixSandbox() as sandbox, sandbox.start(program, None, Limits()) as started:
        answer = await evaluate(started, "__import__('aside').answer")
        broken = await evaluate(started, "__import__('broken')")

    assert answer == "42"
    assert broken == "RuntimeError: for another Python"


async def test_modules_are_loaded_beforehand() -> None:
    async with (
        PosixSandbox(preload=("colorsys",)) as sandbox,
        sandbox.start(PROBE, None, Limits()) as started,
    ):
        assert await evaluate(started, "'colorsys' in __import__('sys').modules") == "True"


async def test_a_module_to_load_beforehand_that_is_missing_is_named() -> None:
    async with PosixSandbox(preload=("no_such_module",)) as sandbox:
        with pytest.raises(SandboxUnavailable, match="no_such_module"):
            async with sandbox.start(PROBE, None, Limits()):
                pass


async def test_an_interpreter_that_is_missing_is_named(tmp_path: Path) -> None:
    async with PosixSandbox(python=tmp_path / "python3") as sandbox:
        with pytest.raises(InterpreterUnusable, match="there is no such program"):
            async with sandbox.start(PROBE, None, Limits()):
                pass


def write_interpreter(folder: Path, script: str) -> Path:
    """Put a program into `folder` that calls itself a Python."""
    python = folder / "python3"
    python.write_text(f"#!/bin/sh\n{script}\n")
    python.chmod(0o755)
    return python


async def test_an_untrusted_interpreter_is_refused_where_nothing_holds_it(tmp_path: Path) -> None:
    python = write_interpreter(tmp_path, f"touch {tmp_path}/ran")

    async with PosixSandbox(python=python) as sandbox:
        with pytest.raises(InterpreterUnusable, match="nothing here could hold it"):
            async with sandbox.start(PROBE, tmp_path, Limits()):
                pass

    assert not (tmp_path / "ran").exists()


class WalledPosix(Posix):
    """A system that takes limits for walls, so that what stands behind walls can be tried."""

    walls = frozenset(("rlimits",))


def walled(python: Path, *, layers: frozenset[str] = LAYERS) -> SpawnedSandbox:
    return SpawnedSandbox(WalledPosix(), python=python, preload=(), layers=layers)


async def test_an_untrusted_interpreter_is_executed_behind_the_walls(tmp_path: Path) -> None:
    script = f'ulimit -f > {tmp_path}/limit; exec {sys.executable} "$@"'
    python = write_interpreter(tmp_path, script)

    async with (
        walled(python) as sandbox,
        sandbox.start(PROBE, tmp_path, Limits(file_bytes=8 * MIB)) as started,
    ):
        isolation, answer = started.isolation, await ask(started, "echo", text="through it")

    assert answer == "through it"
    assert isolation.strong
    assert (tmp_path / "limit").read_text().strip() == str(8 * MIB // 512)


async def test_an_untrusted_interpreter_that_is_none_is_named(tmp_path: Path) -> None:
    python = write_interpreter(tmp_path, "echo no Python at all >&2; exit 9")

    async with walled(python) as sandbox:
        with pytest.raises(InterpreterUnusable, match="no Python at all"):
            async with sandbox.start(PROBE, tmp_path, Limits()):
                pass


async def test_an_untrusted_interpreter_is_not_executed_if_a_wall_turns_out_to_be_missing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    python = write_interpreter(tmp_path, f"touch {tmp_path}/ran")
    monkeypatch.setattr(WalledPosix, "walls", frozenset(("rlimits", "seatbelt")))
    sandbox = walled(python, layers=LAYERS | {"seatbelt"})

    with pytest.raises(InterpreterUnusable, match="does not hold"):
        async with sandbox.start(PROBE, tmp_path, Limits()):
            pass

    assert not (tmp_path / "ran").exists()


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A project with a virtual environment of our own Python, in which something runs on start."""
    version = f"python{sys.version_info[0]}.{sys.version_info[1]}"
    packages = tmp_path / ".venv" / "lib" / version / "site-packages"
    packages.mkdir(parents=True)
    (packages / "only_here.py").write_text("answer = 42")
    (packages / "first.pth").write_text(f"import pathlib; pathlib.Path({str(tmp_path / 'ran')!r}).touch()\n")
    (tmp_path / ".venv" / "pyvenv.cfg").touch()
    (tmp_path / ".venv" / "bin").mkdir()
    (tmp_path / ".venv" / "bin" / "python").symlink_to(own_interpreter().program)
    return tmp_path


async def test_a_projects_own_environment_is_used_behind_walls(project: Path) -> None:
    sandbox = SpawnedSandbox(WalledPosix(), python=None, preload=(), layers=LAYERS)

    async with sandbox.start(PROBE, project, Limits()) as started:
        assert await evaluate(started, "__import__('only_here').answer") == "42"

    assert (project / "ran").exists()


async def test_a_projects_own_environment_is_left_alone_without_walls(project: Path) -> None:
    async with PosixSandbox() as sandbox, sandbox.start(PROBE, project, Limits()) as started:
        assert (await evaluate(started, "__import__('only_here')")).startswith("ModuleNotFoundError")

    assert not (project / "ran").exists()


async def test_nothing_of_a_projects_environment_runs_if_a_wall_turns_out_to_be_missing(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(WalledPosix, "walls", frozenset(("rlimits", "seatbelt")))
    sandbox = SpawnedSandbox(WalledPosix(), python=None, preload=(), layers=LAYERS | {"seatbelt"})

    with pytest.raises(InterpreterUnusable, match="does not hold"):
        async with sandbox.start(PROBE, project, Limits()):
            pass

    assert not (project / "ran").exists()


async def test_an_interpreter_that_is_too_old_says_so(tmp_path: Path) -> None:
    pretend = "import sys; sys.version_info = (3, 8, 1); exec(open(sys.argv[-1]).read())"
    python = write_interpreter(tmp_path, f'exec {sys.executable} -c "{pretend}" "$@"')

    async with walled(python) as sandbox:
        with pytest.raises(InterpreterUnusable, match=r"3\.9 is the oldest that works"):
            async with sandbox.start(PROBE, tmp_path, Limits()):
                pass


# ---- nothing is left behind


def open_descriptors() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


async def test_many_programs_leave_nothing_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))  # where nobody else makes scratch folders
    started: set[int] = set()

    def everything() -> tuple[int, int, int, int]:
        processes = running()
        scratch = len(list(Path(tempfile.gettempdir()).glob("rlm-scratch-*")))
        below = len(members(os.getpid(), processes, leader_is_alive=True) - {os.getpid()})
        return scratch, below, len(started & processes.keys()), open_descriptors()

    async with PosixSandbox() as sandbox:
        async with sandbox.start(PROBE, None, Limits()) as process:
            await ask(process, "echo", text="warm")
        before = await anyio.to_thread.run_sync(everything)
        for ending in ("leave", "kill", "crash", "cancel") * 5:
            with anyio.CancelScope() as scope:
                async with sandbox.start(PROBE, None, Limits()) as process:
                    started.add(await start_another(process, options=""))
                    if ending == "kill":
                        await process.kill()
                    elif ending == "crash":
                        await tell(process, "end", code=1)
                    elif ending == "cancel":
                        scope.cancel()
                        await anyio.sleep(1)

        # What earlier tests left to the collector may go meanwhile, so there may be less than before.
        after = await anyio.to_thread.run_sync(everything)
        with anyio.move_on_after(20):
            while not all(now <= then for now, then in zip(after, before, strict=True)):
                await anyio.sleep(0.02)
                after = await anyio.to_thread.run_sync(everything)

    assert len(started) == 20
    assert all(now <= then for now, then in zip(after, before, strict=True)), (after, before)


HOST = """
import json, sys, anyio
from pathlib import Path
from rlm_sandboxes import Limits, Package, Program
from rlm_sandboxes.local.interpreters import own_interpreter
from rlm_sandboxes.local.posix import PosixSandbox

async def main():
    probe = Program(Package("rlm_probe", Path(sys.argv[1])), "rlm_probe.main:main")
    async with PosixSandbox() as sandbox, sandbox.start(probe, None, Limits()) as process:
        code = "(__import__('os').getpid(), __import__('os').getcwd())"
        await process.send(json.dumps({"do": "evaluate", "code": code}).encode() + b"\\n")
        print(eval(json.loads(await process.receive())), flush=True)
        await process.send(b'{"do": "spin"}\\n')
        await process.receive()
        if sys.argv[2] == "paused":
            await process.pause()
        print("ready", flush=True)
        await anyio.sleep_forever()

anyio.run(main)
"""


@pytest.mark.parametrize("state", ["busy", "paused"])
async def test_a_host_that_is_killed_takes_everything_with_it(state: str) -> None:
    command = [sys.executable, "-c", HOST, str(PROBE.package.folder), state]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
    host = await anyio.open_process(command, stderr=None, env=environment)
    try:
        assert host.stdout is not None
        told = b""
        with anyio.fail_after(20):
            while b"ready" not in told:
                told += await host.stdout.receive()
        pid, folder = eval(told.splitlines()[0])
        assert await anyio.to_thread.run_sync(is_running, pid)
        host.kill()
        await host.wait()

        await until(lambda: not is_running(pid) and not Path(folder).exists())
    finally:
        with contextlib.suppress(ProcessLookupError):
            host.kill()
        await host.aclose()


# ---- parts on their own


def test_a_family_is_the_group_and_all_that_descend_from_it() -> None:
    processes = {
        10: Kin(parent=1, group=10),
        11: Kin(parent=10, group=10),
        12: Kin(parent=11, group=12),  # left the group
        13: Kin(parent=1, group=10),  # lost its parent
        14: Kin(parent=13, group=14),
        20: Kin(parent=1, group=20),
    }

    assert members(10, processes, leader_is_alive=True) == {10, 11, 12, 13, 14}


def test_the_family_of_a_leader_that_is_gone_is_what_is_left_of_it() -> None:
    assert members(10, {11: Kin(1, 10), 20: Kin(1, 20)}, leader_is_alive=False) == {11}


def test_a_number_that_was_given_to_another_is_left_alone() -> None:
    assert members(10, {10: Kin(1, 10), 11: Kin(10, 10)}, leader_is_alive=False) == set()


def test_the_table_of_ps_is_understood() -> None:
    assert listed(b"    1     0     1 Ss\n  501     1   501 R+\n  502   501   501 Z\n") == {
        1: Kin(0, 1),
        501: Kin(1, 501),
    }


def test_interrupts_from_a_thread_reach_the_main_one() -> None:
    code = (
        "import os, sys, threading, time\n"
        "sys.path.insert(0, sys.argv[1])\n"
        "from spawn_child.windows import pass_on_interrupts\n"
        "wait = lambda: bool(os.read(0, 1))\n"
        "threading.Thread(target=pass_on_interrupts, args=(wait,), daemon=True).start()\n"
        "try:\n"
        "    print('spinning', flush=True)\n"
        "    while True: pass\n"
        "except KeyboardInterrupt:\n"
        "    print('interrupted')\n"
    )
    folder = Path(sys.modules[pass_on_interrupts.__module__].__file__ or "").parents[1]
    with subprocess.Popen(
        [sys.executable, "-c", code, str(folder)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as child:
        assert child.stdin is not None
        assert child.stdout is not None
        watchdog = threading.Timer(10, child.kill)
        watchdog.start()
        child.stdout.readline()
        child.stdin.write(b"!")
        child.stdin.flush()
        heard = child.stdout.read()
        watchdog.cancel()

    assert heard == b"interrupted\n"
