"""The local sandbox on Linux: zygotes that fork jailed workers."""

from __future__ import annotations

import os
import random
import shutil
import socket
import tempfile
from collections.abc import AsyncGenerator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

import anyio
import anyio.to_thread

from ..errors import InterpreterUnusable, ProcessEnded, SandboxUnavailable, StartFailed
from ..limits import Limits
from ..sandbox import Process, Program
from .interpreters import Interpreter, environment_of, find_interpreter, own_interpreter
from .jail.adopted import BOOTSTRAP
from .processes import Ends, LocalProcess
from .zygotes import JAIL, Kind, Zygote, open_zygote

LAYERS = frozenset(
    ("mountns", "pidns", "netns", "ipcns", "uid", "userns", "rlimits", "capabilities", "landlock", "seccomp")
)
_FIRST_UID, _UIDS = 1_900_000_000, 100_000_000


class LinuxSandbox:
    """The local sandbox on Linux. It owns its zygotes and ends them, and all they started, when left.

    `python` names the interpreter to use, or the folder of a virtual environment. Without it, a
    project with a `.venv` gets that, and all else the Python that we run in, in which `preload`
    names modules to have ready in every new process. `layers` can be made smaller, to see what
    each layer is good for.
    """

    def __init__(
        self,
        *,
        python: Path | None = None,
        preload: tuple[str, ...] = (),
        layers: frozenset[str] = LAYERS,
    ) -> None:
        self._python = python
        self._preload = preload
        self._layers = layers
        self._worker_uid = _FIRST_UID + random.SystemRandom().randrange(_UIDS)
        self._zygotes: dict[Kind, Zygote] = {}
        self._opening = anyio.Lock()
        self._stack = AsyncExitStack()

    async def __aenter__(self) -> LinuxSandbox:
        self._own = await anyio.to_thread.run_sync(own_interpreter)
        self._keepers = await self._stack.enter_async_context(anyio.create_task_group())
        return self

    async def __aexit__(self, *_: object) -> None:
        self._keepers.cancel_scope.cancel()
        await self._stack.aclose()

    @asynccontextmanager
    async def start(
        self, program: Program, workdir: Path | None, limits: Limits
    ) -> AsyncGenerator[Process, None]:
        interpreter, workdir = await self._look_up(workdir)
        zygote = await self._zygote(program, interpreter, limits)
        if limits.processes and zygote.namespaces["pidns"]:
            reason = zygote.namespaces["pidns"]
            raise SandboxUnavailable(f"The limit processes must be 0 here: no process namespace ({reason}).")
        async with _scratch_folder(zygote) as scratch:
            request = self._request(program, interpreter, workdir, limits, scratch)
            process = await self._fork(zygote, request)
            try:
                await self._await_report(process, interpreter)
                yield process
            finally:
                with anyio.CancelScope(shield=True):
                    await process.close()

    async def warm_up(self, program: Program, workdir: Path | None = None) -> None:
        """Do ahead what the first start of a program would wait for."""
        interpreter, _ = await self._look_up(workdir)
        await self._zygote(program, interpreter, Limits())

    async def _look_up(self, workdir: Path | None) -> tuple[Interpreter, Path | None]:
        """Return the interpreter to use and the real path of `workdir`."""
        if self._python is None and workdir is None:
            return self._own, None
        return await anyio.to_thread.run_sync(self._look_up_on_disk, workdir)

    def _look_up_on_disk(self, workdir: Path | None) -> tuple[Interpreter, Path | None]:
        workdir = workdir and workdir.resolve()
        named = self._python or (workdir and environment_of(workdir))
        return find_interpreter(named, workdir) if named else self._own, workdir

    async def _await_report(self, process: LocalProcess, interpreter: Interpreter) -> None:
        try:
            await process.hear_report(adopted=not interpreter.trusted)
        except ProcessEnded as problem:
            if interpreter.trusted:
                raise StartFailed(f"The program did not come up: {problem}") from problem
            advice = "It lies in the project, so it was started inside the jail."
            reason = problem.detail or str(problem)
            raise InterpreterUnusable(str(interpreter.program), reason, advice) from problem

    async def _zygote(self, program: Program, interpreter: Interpreter, limits: Limits) -> Zygote:
        host = interpreter if interpreter.trusted else self._own
        own = interpreter is self._own
        kind = Kind(
            python=host.program,
            program=Program(program.package, program.entry, program.libraries, self._preload if own else ()),
            site=interpreter.site if own else (),
            layers=self._layers,
            network=limits.network,
            processes=limits.processes > 0,
        )
        async with self._opening:
            zygote = self._zygotes.get(kind)
            if zygote is None or zygote.gone.is_set():
                zygote = self._zygotes[kind] = await self._keepers.start(self._keep, kind)
        return zygote

    async def _keep(self, kind: Kind, *, task_status: anyio.abc.TaskStatus[Zygote]) -> None:
        async with open_zygote(kind, self._worker_uid) as zygote:
            task_status.started(zygote)
            await zygote.deserted.wait()  # workers outlive a zygote that dies

    def _request(
        self, program: Program, interpreter: Interpreter, workdir: Path | None, limits: Limits, scratch: str
    ) -> dict[str, Any]:
        foreign = interpreter is not self._own
        shown = [str(path) for path in limits.readable] + (list(interpreter.site) if foreign else [])
        execute = None
        if not interpreter.trusted:
            execute = _execution(program, interpreter)
            shown += [*execute["shown"], str(JAIL.folder)]
        return {
            "limits": {**asdict(limits), "readable": shown},
            "layers": sorted(self._layers),
            "workdir": None if workdir is None or limits.files == "none" else str(workdir),
            "scratch": scratch,
            "site": interpreter.site if foreign else (),
            "environment": {"LANG": "C.UTF-8", "PATH": "/usr/bin:/bin"},
            "execute": execute,
        }

    async def _fork(self, zygote: Zygote, request: dict[str, Any]) -> LocalProcess:
        ours, theirs = socket.socketpair()
        side, their_side = socket.socketpair()
        ours.setblocking(False)
        reader, writer = os.pipe()
        for end in (reader, writer):
            os.set_blocking(end, False)
        try:
            pid, handle = await zygote.fork(request, [theirs.fileno(), writer, their_side.fileno()])
        except BaseException:
            ours.close()
            side.close()
            os.close(reader)
            raise
        finally:
            theirs.close()
            their_side.close()
            os.close(writer)
        family = bool(request["limits"]["processes"])
        return LocalProcess(zygote, pid, Ends(ours, reader, side, handle), self._keepers, family=family)


def _execution(program: Program, interpreter: Interpreter) -> dict[str, Any]:
    packages = [(package.name, str(package.folder)) for package in (*program.libraries, program.package)]
    return {
        "python": str(interpreter.program),
        "bootstrap": BOOTSTRAP,
        "jail": str(JAIL.folder),
        "packages": packages,
        "entry": program.entry.split(":"),
        "shown": [str(interpreter.program), *interpreter.libraries, *(folder for _, folder in packages)],
    }


@asynccontextmanager
async def _scratch_folder(zygote: Zygote) -> AsyncGenerator[str, None]:
    """Where a worker has no root folder of its own, lend it a scratch folder on disk."""
    if not zygote.namespaces["mountns"]:
        yield ""
        return
    folder = await anyio.to_thread.run_sync(_make_scratch, zygote.worker_uid)
    try:
        yield folder
    finally:
        with anyio.CancelScope(shield=True):
            await anyio.to_thread.run_sync(lambda: shutil.rmtree(folder, ignore_errors=True))


def _make_scratch(worker_uid: int) -> str:
    folder = tempfile.mkdtemp(prefix="rlm-scratch-")
    if worker_uid:
        os.chown(folder, worker_uid, worker_uid)
    return folder
