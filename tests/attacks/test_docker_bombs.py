"""Bombs of every kind go off in one container, while a session in another one answers."""

from __future__ import annotations

import signal
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import anyio
import pytest

from rlm_sandboxes import Limits, ProcessEnded
from rlm_sandboxes.docker import DockerSandbox, engine
from rlm_sessions import Care, CellResult, Session, SessionEnded, open_session
from tests.contracts.asking import tell
from tests.contracts.conftest import PROBE
from tests.docker.engine import engine_of
from tests.sessions.homes import Home, notes_of, settled, value, well

MIB = 1024 * 1024
_ANSWERS = 20
_SECONDS = 60


@dataclass(frozen=True)
class Bomb:
    """A cell that takes all there is of something, and by which words it is known to have met a limit."""

    kind: str
    code: str
    ends: tuple[str, ...]
    limits: dict[str, Any] = field(default_factory=dict[str, Any])


_STOPPED = ("wall_seconds",)
_MANY = {"processes": 12, "threads": 4, "memory_bytes": 600 * MIB}
_TOO_MUCH = ("MemoryError", "memory_bytes", "OSError", "RuntimeError", "BlockingIOError")

BOMBS = (
    Bomb(
        "processes",
        """
import os, signal
while os.fork(): pass
signal.pause()
""",
        ("BlockingIOError",),
        _MANY,
    ),
    Bomb(
        "processes that make processes",
        """
import os
while True:
    try: os.fork()
    except OSError: pass
""",
        _STOPPED,
        _MANY,
    ),
    Bomb(
        "programs",
        """
import subprocess
while True:
    try: subprocess.Popen(['/bin/sh', '-c', 'f() { f | f & }; f'])
    except OSError: pass
""",
        _STOPPED,
        _MANY,
    ),
    Bomb(
        "threads",
        "import threading\nwhile True: threading.Thread(target=threading.Event().wait, daemon=True).start()",
        _TOO_MUCH,
        {"threads": 16},
    ),
    Bomb("memory", "held = []\nwhile True: held.append(bytes(2**20))", ("MemoryError",)),
    Bomb(
        "memory of many processes",
        """
import os
for _ in range(6):
    if os.fork() == 0: break
held = []
while True: held.append(b'x' * 2**20)
""",
        _TOO_MUCH,
        {"processes": 8},
    ),
    Bomb(
        "memory that is shared",
        """
import mmap
held = mmap.mmap(-1, 400 * 2**20)
while True: held.write(b'x' * 2**20)
""",
        _TOO_MUCH,
    ),
    Bomb("shared memory files", "open('/dev/shm/x', 'wb').write(bytes(2**27))", ("OSError",)),
    Bomb("scratch", "open('/tmp/x', 'wb').write(bytes(2**26))", ("OSError",)),
    Bomb("names", "for n in range(10**6): open(f'/tmp/{n}', 'w').close()", ("OSError",)),
    Bomb(
        "all places",
        "import os\nfor at in ('/', '/dev', '/run', '/var/tmp', '/proc'): os.mkdir(at + '/x')",
        ("OSError", "PermissionError"),
    ),
    Bomb("descriptors", "import os\nheld = [os.pipe() for _ in range(10**6)]", ("OSError",)),
    Bomb(
        "processors",
        "import os\nfor _ in range(8):\n    if os.fork() == 0: break\nwhile True: pass",
        _STOPPED,
        _MANY,
    ),
    Bomb(
        "errors below Python",
        """
import fcntl, os
def is_pipe(fd): return os.readlink(f'/proc/self/fd/{fd}').startswith('pipe') and fcntl.fcntl(fd, fcntl.F_GETFL) & os.O_WRONLY
line = [fd for fd in range(3, 40) if os.path.exists(f'/proc/self/fd/{fd}') and is_pipe(fd)][-1]
while True: os.write(line, bytes(65536))
""",
        _STOPPED,
    ),
)


@pytest.fixture(scope="module")
async def sandbox() -> AsyncIterator[DockerSandbox]:
    there = engine_of()
    async with DockerSandbox(there.image, engine=there.host, pull="never") as opened:
        yield opened


@pytest.fixture(scope="module")
async def neighbour(sandbox: DockerSandbox) -> AsyncIterator[Session]:
    async with open_session(sandbox, policy="off") as session:
        yield session


def _limits(bomb: Bomb) -> Limits:
    seconds = 1 if bomb.ends is _STOPPED else 20
    small: dict[str, Any] = {"memory_bytes": 160 * MIB, "scratch_bytes": 8 * MIB, "wall_seconds": seconds}
    return Limits(**{**small, **bomb.limits})


def _words(result: CellResult) -> str:
    error = result.error
    return " ".join([str(error), error.name if error else "", str(error and error.limit), *result.notes])


@pytest.mark.parametrize("bomb", BOMBS, ids=[bomb.kind for bomb in BOMBS])
async def test_a_bomb_ends_at_its_limit_while_another_session_answers(
    sandbox: DockerSandbox, neighbour: Session, bomb: Bomb
) -> None:
    came: list[str] = []
    answers: list[str | None] = []

    async def go_off(session: Session) -> None:
        try:
            came.append(_words(await session.run(bomb.code)))
        except SessionEnded as ended:
            came.append(str(ended))

    with anyio.fail_after(_SECONDS):
        async with open_session(sandbox, limits=_limits(bomb), policy="off") as session:
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(go_off, session)
                while len(answers) < _ANSWERS or not came:
                    answers.append((await neighbour.run(f"{len(answers)} + 1")).value)

    assert answers == [str(number + 1) for number in range(len(answers))]
    assert any(word in came[0] for word in bomb.ends), came


async def test_a_session_that_ran_out_of_memory_has_its_state_again_and_says_what_it_cost(
    sandbox: DockerSandbox, tmp_path: Path
) -> None:
    bomb = next(bomb for bomb in BOMBS if bomb.kind == "memory that is shared")
    care = Care(limits=_limits(bomb), policy="off")

    with anyio.fail_after(_SECONDS):
        async with Home(sandbox, tmp_path).session(care=care) as session:
            well(await session.run("kept = [1, 2, 3]"))
            await settled(session)
            lost = await session.run(bomb.code)
            after = await value(session, "kept")

    assert lost.error is not None
    assert f"memory_bytes = {160 * MIB}" in f"{lost.error} {notes_of(lost)}"
    assert after == "[1, 2, 3]"


async def test_a_program_whose_output_nobody_takes_is_killed_by_the_engine_too(
    sandbox: DockerSandbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    flood = "[os.write(fd, bytes(65536)) for os in [__import__('os')] for _ in range(10**6) for fd in (4, 5)]"
    monkeypatch.setattr(engine, "find", _nobody)  # as where its processes are not ours to signal

    with anyio.fail_after(_SECONDS):
        async with sandbox.start(PROBE, None, Limits()) as process:
            await tell(process, "evaluate", code=flood)
            await process.receive()
            used = -1.0
            while (
                now := (await process.usage()).cpu_seconds
            ) != used:  # it goes on until nothing takes any more
                used = now
            await process.kill()
            with pytest.raises(ProcessEnded) as ended:
                while True:
                    await process.receive()

    assert ended.value.status == -signal.SIGKILL


def _nobody(*_: object) -> None:
    """Find no process on this machine."""


async def test_a_program_can_neither_end_nor_stop_its_guard(sandbox: DockerSandbox) -> None:
    passed_on = {signal.SIGINT, signal.SIGTSTP, signal.SIGCONT}
    numbers = sorted(number for number in range(1, 65) if number not in passed_on | {32, 33})
    code = f"import os\nfor number in {numbers}: os.kill(1, number)"

    with anyio.fail_after(_SECONDS):
        async with open_session(sandbox, policy="off", limits=Limits(processes=4)) as session:
            sent = await session.run(code)
            after = await session.run("import subprocess\nsubprocess.run(['true']).returncode")

    assert sent.error is None
    assert after.value == "0"


@pytest.mark.parametrize("files", ["read", "write"])
async def test_what_is_made_in_a_folder_of_the_project_gives_nobody_outside_a_way_in(
    sandbox: DockerSandbox, tmp_path: Path, files: Any
) -> None:
    code = """
import os, socket, stat
made = []
def attempt(what, *rest, **more):
    try:
        what(*rest, **more)
        made.append(what.__name__)
    except OSError: pass
open('plain', 'w').close() if os.access('.', os.W_OK) else None
attempt(os.mkfifo, 'pipe')
attempt(os.mknod, 'node', 0o666 | stat.S_IFCHR, os.makedev(1, 3))
attempt(lambda: socket.socket(socket.AF_UNIX).bind('socket'))
attempt(os.chown, 'plain', 1, 1)
attempt(os.chmod, 'plain', 0o6755)
attempt(os.setxattr, 'plain', 'security.capability', bytes(20))
attempt(os.link, '/proc/self/exe', 'linked')
made
"""

    with anyio.fail_after(_SECONDS):
        async with open_session(
            sandbox, project=tmp_path, policy="off", limits=Limits(files=files)
        ) as session:
            made = await session.run(code)

    assert made.value == "[]", made.error
    assert {path.name for path in tmp_path.iterdir()} <= {"plain"}  # noqa: ASYNC240 -- a folder in memory
