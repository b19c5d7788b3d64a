"""The host's end of a zygote: starts it, asks it for workers, hears how they ended.

The zygote's side is in `jail/zygote.py`. What it says is believed, because only
code of ours runs in it; what a worker says, once it has begun, is not.
"""

from __future__ import annotations

import array
import json
import os
import socket
import subprocess
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import anyio
import anyio.abc

from ..errors import InterpreterUnusable, SandboxUnavailable, StartFailed
from ..sandbox import Package, Program

JAIL = Package("rlm_jail", Path(__file__).parent / "jail")
_MESSAGE_BYTES = 1 << 17
_START_SECONDS = 60.0  # with large libraries to preload, on a slow disk
_ANSWER_SECONDS = 30.0
_END_SECONDS = 5.0

_BOOTSTRAP = """
import sys
if sys.version_info < (3, 9):
    sys.exit("it is Python %d.%d, and 3.9 is the oldest that works" % sys.version_info[:2])
import importlib.util
folder = sys.argv[3]
spec = importlib.util.spec_from_file_location(
    "rlm_jail", folder + "/__init__.py", submodule_search_locations=[folder])
module = importlib.util.module_from_spec(spec)
sys.modules["rlm_jail"] = module
spec.loader.exec_module(module)
from rlm_jail import zygote, adopted
zygote.main(int(sys.argv[1]), int(sys.argv[2]))
"""


@dataclass(frozen=True)
class Kind:
    """What distinguishes one zygote from another."""

    python: Path
    program: Program
    site: tuple[str, ...]
    layers: frozenset[str]
    network: bool
    processes: bool


class Zygote:
    """A zygote at work. `open_zygote` makes one."""

    def __init__(self, control: socket.socket, namespaces: dict[str, str], worker_uid: int) -> None:
        self.namespaces = namespaces
        self.worker_uid = worker_uid  # 0 where workers stay the user that the zygote is
        self.gone = anyio.Event()
        self.deserted = anyio.Event()  # it is gone, and so are all its workers
        self._control = control
        self._sending = anyio.Lock()
        self._numbers = 0
        self._answers: dict[int, dict[str, Any]] = {}
        self._waiting: dict[int, anyio.Event] = {}
        self._statuses: dict[int, int] = {}
        self._ended: dict[int, anyio.Event] = {}

    async def fork(self, request: dict[str, Any], descriptors: list[int]) -> tuple[int, int]:
        """Have a worker forked, which gets `descriptors`; return its number, and a handle that stands for it.

        It takes a few milliseconds and is not left half done: a worker that nobody knows of would stay.
        """
        answer: dict[str, Any] | None = None
        with anyio.CancelScope(shield=True):
            answer = await self._ask({"start": request}, descriptors)
        if answer is None:
            raise StartFailed("The process that starts programs is gone or does not answer; try again.")
        if "failed" in answer:
            raise StartFailed(f"No process could be started: {answer['failed']}.")
        return int(answer["pid"]), int(answer["handle"])

    async def _ask(self, request: dict[str, Any], descriptors: list[int]) -> dict[str, Any] | None:
        """Return the zygote's answer, or None if it is gone or silent."""
        self._numbers += 1
        number, answered = self._numbers, anyio.Event()
        self._waiting[number] = answered
        try:
            await self._send({"id": number, **request}, descriptors)
            with anyio.move_on_after(_ANSWER_SECONDS):
                await answered.wait()
            return self._answers.pop(number, None)
        finally:
            self._waiting.pop(number, None)

    async def wait_ended(self, pid: int) -> int | None:
        """Wait until a worker is gone; return its exit code, or None where it is not known.

        From a zygote that is gone itself nothing can be heard any more.
        """
        ended = self._ended.get(pid)
        if ended is not None:
            await ended.wait()
        return self._statuses.get(pid)

    def forget(self, pid: int) -> None:
        """Keep nothing more about a worker."""
        self._ended.pop(pid, None)
        self._statuses.pop(pid, None)
        if self.gone.is_set() and not self._ended:
            self.deserted.set()

    async def _send(self, message: dict[str, Any], descriptors: list[int]) -> None:
        rights = (
            [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", descriptors))] if descriptors else []
        )
        data = json.dumps(message).encode()
        async with self._sending:
            while True:
                try:
                    self._control.sendmsg([data], rights)
                except BlockingIOError:
                    await anyio.wait_writable(self._control)
                except OSError:
                    return  # it is gone, and whoever waits is told so by listen()
                else:
                    return

    async def listen(self) -> None:
        """Take in what the zygote says until it is gone."""
        try:
            while True:
                data, handles = await _receive(self._control)
                if not data:
                    return
                self._take({**json.loads(data), "handle": handles[0] if handles else None})
        finally:
            self.gone.set()
            for event in [*self._waiting.values(), *self._ended.values()]:
                event.set()
            if not self._ended:
                self.deserted.set()

    def _take(self, message: dict[str, Any]) -> None:
        if "pid" in message:
            self._ended[message["pid"]] = anyio.Event()
        if "id" in message:
            answered = self._waiting.get(message["id"])
            if answered is not None:
                self._answers[message["id"]] = message
                answered.set()
        elif message["exited"] in self._ended:
            self._statuses[message["exited"]] = message["status"]
            self._ended[message["exited"]].set()


async def _receive(control: socket.socket) -> tuple[bytes, list[int]]:
    while True:
        try:
            data, handles, _, _ = socket.recv_fds(control, _MESSAGE_BYTES, 1, socket.MSG_CMSG_CLOEXEC)
            return data, handles
        except BlockingIOError:
            await anyio.wait_readable(control)
        except ConnectionError:
            return b"", []


@asynccontextmanager
async def open_zygote(kind: Kind, worker_uid: int) -> AsyncGenerator[Zygote, None]:
    """Start a zygote and listen to it; it ends with the context, and all its workers with it."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    lifeline, guarded = socket.socketpair()
    with ours, lifeline:
        ours.setblocking(False)
        with theirs, guarded:
            process = await _spawn(kind, theirs, guarded)
        try:
            zygote = await _configure(kind, ours, process, worker_uid)
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(zygote.listen)
                try:
                    yield zygote
                finally:
                    _hang_up(ours)
                    with anyio.CancelScope(shield=True):
                        await zygote.gone.wait()
        finally:
            ours.close()
            lifeline.close()
            await _end(process)


def _hang_up(control: socket.socket) -> None:
    try:
        control.shutdown(socket.SHUT_RDWR)
    except OSError:
        pass  # the other end was first


async def _spawn(kind: Kind, *ends: socket.socket) -> anyio.abc.Process:
    numbers = [end.fileno() for end in ends]
    command = [str(kind.python), "-I", "-S", "-B", "-c", _BOOTSTRAP, *map(str, numbers), str(JAIL.folder)]
    environment = {"LANG": "C.UTF-8", "PATH": "/usr/bin:/bin"}
    if kind.program.preload:
        environment["OPENBLAS_NUM_THREADS"] = "1"  # threads of a library do not survive a fork
    try:
        return await anyio.open_process(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            cwd="/",
            env=environment,
            pass_fds=numbers,
            start_new_session=True,
        )
    except OSError as problem:
        advice = "Name another one, or leave it out to use the server's own."
        raise InterpreterUnusable(
            str(kind.python), problem.strerror or "it cannot be started", advice
        ) from problem


async def _configure(
    kind: Kind, control: socket.socket, process: anyio.abc.Process, worker_uid: int
) -> Zygote:
    packages = [
        (package.name, str(package.folder)) for package in (*kind.program.libraries, kind.program.package)
    ]
    config = {
        "packages": packages,
        "entry": kind.program.entry,
        "preload": kind.program.preload,
        "site": kind.site,
        "layers": sorted(kind.layers),
        "network": kind.network,
        "processes": kind.processes,
        "worker_uid": worker_uid,
    }
    hello: dict[str, Any] = {}
    with anyio.move_on_after(_START_SECONDS):
        try:
            control.send(json.dumps(config).encode())
        except ConnectionError:
            pass  # it ended already, and the reason is in its output
        data, _ = await _receive(control)
        hello = json.loads(data) if data else {"failed": await _last_words(process)}
    if "python" not in hello:
        await _end(process)
        reason = hello.get("failed") or f"it was not ready after {_START_SECONDS:.0f} seconds"
        if kind.program.preload and "ModuleNotFoundError" in reason:
            raise SandboxUnavailable(f"A module to load beforehand is not installed: {reason}.")
        raise InterpreterUnusable(str(kind.python), reason, "It needs Python 3.9 or newer with ctypes.")
    return Zygote(control, hello["namespaces"], hello["worker_uid"])


async def _last_words(process: anyio.abc.Process) -> str:
    assert process.stderr is not None
    text = b""
    with anyio.move_on_after(_END_SECONDS):
        async for chunk in process.stderr:
            text = (text + chunk)[-2000:]
    lines = text.decode("utf-8", "replace").strip().splitlines()
    return lines[-1] if lines else "it ended without a word"


async def _end(process: anyio.abc.Process) -> None:
    with anyio.CancelScope(shield=True):
        with anyio.move_on_after(_END_SECONDS):
            await process.wait()
        if process.returncode is None:
            os.killpg(process.pid, 9)
            await process.wait()
        await process.aclose()
