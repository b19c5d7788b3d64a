"""The local sandbox where no ready-made worker can be forked: an interpreter is spawned for each program.

What differs between those systems is a `System`, in `posix.py`, `macos.py` and
`windows.py`. The other end is in `spawn_child/`: it puts the layers around itself,
and says which hold, before it runs anything foreign.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import shutil
import tempfile
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import anyio
import anyio.abc
import anyio.to_thread

from ..errors import InterpreterUnusable, ProcessEnded, SandboxError, SandboxUnavailable, StartFailed
from ..limits import Limits
from ..sandbox import Isolation, Layer, Process, Program, Usage
from .interpreters import Interpreter, environment_of, find_interpreter, own_interpreter
from .systems import Hold, System, View

CHILD = Path(__file__).parent / "spawn_child"
KILLED = 2**32 - 9  # the exit code of a process that was killed, where there are no signals

_PIECE_BYTES = 1 << 16
_REPORT_BYTES = 1 << 16
_CRASH_BYTES = 4000
_START_SECONDS = 60.0  # with large libraries to preload, on a slow disk
_END_SECONDS = 5.0
_SCRATCH, _CANARY = "scratch", "canary"
_NOT_CLOSED = 71  # as in spawn_child/child.py
_ADVICE = "Name another one, or leave it out to use the server's own."
# The last is what event loops other than asyncio's own say of a pipe that was closed.
_BROKEN = (anyio.EndOfStream, anyio.BrokenResourceError, anyio.ClosedResourceError, OSError, RuntimeError)


class SpawnedSandbox:
    """Spawns an interpreter for each program, and holds it with what `system` has.

    `python` names the interpreter to use, or the folder of a virtual environment. Without it, a
    project with a `.venv` gets that where there are walls, and all else the Python that we run in,
    in which `preload` names modules to have ready. `layers` can be made smaller, to see what each
    layer is good for.
    """

    def __init__(
        self, system: System, *, python: Path | None, preload: tuple[str, ...], layers: frozenset[str]
    ) -> None:
        self._system = system
        self._python = python
        self._preload = preload
        self._layers = layers

    async def __aenter__(self) -> SpawnedSandbox:
        return self

    async def __aexit__(self, *_: object) -> None:
        """Do nothing: each program is ended by its own context."""

    async def warm_up(self, program: Program, workdir: Path | None = None) -> None:
        """Do nothing: each program is started anew here."""

    @asynccontextmanager
    async def start(
        self, program: Program, workdir: Path | None, limits: Limits
    ) -> AsyncGenerator[Process, None]:
        if limits.processes and not self._system.ends_families:
            reason = "nothing on this system surely ends what a program starts"
            raise SandboxUnavailable(f"The limit processes must be 0 here: {reason}.")
        async with _temporary_folder() as folder:
            plan = await anyio.to_thread.run_sync(self._plan, program, workdir, limits, folder)
            process = await _spawn(plan)
            try:
                await process.begin(plan)
                yield process
            finally:
                with anyio.CancelScope(shield=True):
                    await process.close()

    def _plan(self, program: Program, workdir: Path | None, limits: Limits, folder: Path) -> _Plan:
        system, own = self._system, own_interpreter()
        walled = bool(system.walls) and self._layers >= system.walls
        workdir = workdir and workdir.resolve()
        chosen = environment_of(workdir) if workdir and walled and not self._python else None
        named = self._python or chosen
        interpreter = find_interpreter(named, workdir) if named else own
        if not interpreter.trusted and not walled:
            reason = "it is neither ours nor the system's own, and nothing here could hold it"
            raise InterpreterUnusable(str(interpreter.program), reason, _ADVICE)
        return _Plan(
            system=system,
            layers=self._layers,
            preload=() if named else self._preload,
            program=program,
            interpreter=interpreter,
            first=interpreter.program if interpreter.trusted else own.program,
            foreign=chosen is not None or not interpreter.trusted,
            workdir=workdir,
            limits=limits,
            folder=folder,
        )


@dataclass(frozen=True)
class _Plan:
    """All there is to know about a program that is to be started."""

    system: System
    layers: frozenset[str]
    preload: tuple[str, ...]
    program: Program
    interpreter: Interpreter
    first: Path  # the program to spawn: ours, where an interpreter that is not trusted takes over from it
    foreign: bool  # whether the project chose the interpreter, or what is loaded into it
    workdir: Path | None
    limits: Limits
    folder: Path

    @property
    def scratch(self) -> str:
        return str(self.folder / _SCRATCH)

    def requests(self) -> list[dict[str, Any]]:
        """Return what to ask of each interpreter that the process is in turn."""
        request: dict[str, Any] = {
            "packages": self._packages(),
            "site": self.interpreter.site,
            "preload": self.preload,
            "entry": self.program.entry,
            "folder": self._project() or self.scratch,
            "limits": asdict(self.limits) | {"readable": ()},
            "layers": sorted(self.layers),
            "canary": str(self.folder / _CANARY),
            "walls": sorted(self.system.walls) if self.foreign else (),
            "execute": None,
            "adopted": False,
            **self.system.request(self._view(), self.limits),
        }
        if self.interpreter.trusted:
            return [request]
        return [
            request | {"execute": command(self.interpreter.program)},
            request | {"adopted": True, "walls": ()},
        ]

    def _packages(self) -> list[tuple[str, str]]:
        packages = (*self.program.libraries, self.program.package)
        return [(package.name, str(package.folder)) for package in packages]

    def _project(self) -> str | None:
        return None if self.workdir is None or self.limits.files == "none" else str(self.workdir)

    def _view(self) -> View:
        project = [path] if (path := self._project()) else []
        adopted = [] if self.interpreter.trusted else _parts_of(self.interpreter)
        packages = [folder for _, folder in self._packages()]
        further = map(str, self.limits.readable)
        return View(
            readable=(str(CHILD), *packages, *self.interpreter.site, *further, *adopted, *project),
            writable=(self.scratch, *(project if self.limits.files == "write" else ())),
            executable=tuple(adopted),
        )


def command(python: Path) -> list[str]:
    """Return how to start an interpreter: nothing of its surroundings, UTF-8 everywhere, our script first."""
    return [str(python), "-I", "-S", "-B", "-X", "utf8", str(CHILD / "boot.py")]


def _parts_of(interpreter: Interpreter) -> list[str]:
    """Return what an interpreter consists of. Those of macOS have a library beside, and one more program.

    Where a link leads out of there, whoever wrote the project chose what it would show.
    """
    prefix = interpreter.program.parent.parent
    beside = [(prefix / name).resolve() for name in ("Python", "Resources")]
    within = [str(part) for part in beside if part.is_relative_to(prefix)]
    return [str(interpreter.program), *interpreter.libraries, *within]


async def _spawn(plan: _Plan) -> SpawnedProcess:
    requests = await anyio.to_thread.run_sync(plan.requests)
    system, python, scratch = plan.system, plan.first, plan.scratch
    try:
        process = await anyio.open_process(
            command(python), cwd=scratch, env=system.environment(scratch), **system.spawning
        )
    except OSError as problem:
        reason = problem.strerror or "it cannot be started"
        raise InterpreterUnusable(str(python), reason, _ADVICE) from problem

    def hold() -> Hold:
        return system.hold(process.pid, lambda: process.returncode is None, str(plan.folder), requests[0])

    try:
        return SpawnedProcess(process, await anyio.to_thread.run_sync(hold), requests)
    except BaseException as problem:
        with anyio.CancelScope(shield=True):
            if process.returncode is None:
                process.kill()
            await process.aclose()
        if isinstance(problem, OSError):
            raise SandboxUnavailable(f"This system does not let us hold a process: {problem}.") from problem
        raise


class SpawnedProcess:
    """A spawned program; keeps the promise of `Process`."""

    side_channel = None
    copies = False

    def __init__(self, process: anyio.abc.Process, hold: Hold, requests: list[dict[str, Any]]) -> None:
        assert process.stdin is not None
        assert process.stdout is not None
        assert process.stderr is not None
        self._process = process
        self._in, self._out, self._crashes = process.stdin, process.stdout, process.stderr
        self._hold = hold
        self._requests = requests
        self._isolation = Isolation((), strong=False)
        self._early = b""
        self._last_words: str | None = None
        self._ending = anyio.Lock()

    @property
    def isolation(self) -> Isolation:
        return self._isolation

    async def begin(self, plan: _Plan) -> None:
        """Hear what the layers were found to be, and that the program has been loaded."""
        heard: list[Any] = []
        with anyio.move_on_after(_START_SECONDS) as deadline:
            try:
                for request in self._requests:
                    await self.send(json.dumps(request).encode() + b"\n")
                    heard.append(json.loads(await self._line()))
                self._isolation = _describe(heard[0]["layers"], plan.system.walls)
                await self._line()
            except ProcessEnded as problem:
                raise _explain(plan, problem, answers=len(heard)) from problem
        if deadline.cancelled_caught:
            raise StartFailed(f"The program did not come up within {_START_SECONDS:.0f} seconds.")

    async def _line(self) -> bytes:
        while b"\n" not in self._early:
            if len(self._early) > _REPORT_BYTES:
                raise StartFailed("The program did not come up: what it sent first makes no sense.")
            self._early += await self._receive()
        line, _, self._early = self._early.partition(b"\n")
        return line

    async def send(self, data: bytes) -> None:
        for start in range(0, len(data), _PIECE_BYTES):
            try:
                await self._in.send(data[start : start + _PIECE_BYTES])
            except _BROKEN:
                raise await self._ended() from None

    async def receive(self) -> bytes:
        if self._early:
            early, self._early = self._early, b""
            return early
        return await self._receive()

    async def _receive(self) -> bytes:
        try:
            return await self._out.receive(_PIECE_BYTES)
        except _BROKEN:
            raise await self._ended() from None

    async def interrupt(self) -> None:
        await anyio.to_thread.run_sync(self._hold.interrupt)

    def let_copy(self) -> None:
        """Do nothing: what is spawned here does not fork."""

    async def pause(self) -> None:
        await anyio.to_thread.run_sync(self._hold.pause)

    async def resume(self) -> None:
        await anyio.to_thread.run_sync(self._hold.resume)

    async def usage(self) -> Usage:
        try:
            return await anyio.to_thread.run_sync(self._hold.usage)
        except (OSError, IndexError, ValueError):
            raise await self._ended() from None

    async def kill(self) -> None:
        with anyio.CancelScope(shield=True):
            await anyio.to_thread.run_sync(self._hold.kill)
            with anyio.move_on_after(_END_SECONDS):
                await self._process.wait()

    async def close(self) -> None:
        """End the program and give everything back."""
        try:
            await self.kill()
            await self._process.aclose()
            await _hear_of_closing(self._in)
        finally:
            await anyio.to_thread.run_sync(self._hold.close)

    async def _ended(self) -> ProcessEnded:
        with anyio.move_on_after(_END_SECONDS):
            status = await self._process.wait()
            return ProcessEnded(meaning(status), await self._hear_last_words())
        return ProcessEnded(None, "it closed its connection")

    async def _hear_last_words(self) -> str:
        """Return what was written down when the program crashed. It may be anything."""
        async with self._ending:
            if self._last_words is None:
                await anyio.to_thread.run_sync(self._hold.kill)  # whoever is left could go on writing
                data = b""
                with anyio.move_on_after(_END_SECONDS / 2):
                    async for piece in self._crashes:
                        data = (data + piece)[-_CRASH_BYTES:]
                self._last_words = data.decode("utf-8", "backslashreplace").strip()
            return self._last_words


async def _hear_of_closing(stream: object) -> None:
    """Take note that a pipe to a program that is gone broke. Early releases of Python 3.11 else log it, later."""
    writer = getattr(stream, "_stream", None)
    if isinstance(writer, asyncio.StreamWriter):
        with anyio.move_on_after(_END_SECONDS), contextlib.suppress(OSError):
            await writer.wait_closed()


def meaning(status: int) -> int:
    """Return the status by which every system is understood: where there are no signals, a kill is a code."""
    return -9 if status == KILLED else status


def _describe(layers: list[list[Any]], walls: frozenset[str]) -> Isolation:
    found = tuple(Layer(*layer) for layer in layers)
    held = {layer.name for layer in found if layer.holds}
    return Isolation(found, strong=bool(walls) and held >= walls)


def _explain(plan: _Plan, problem: ProcessEnded, *, answers: int) -> SandboxError:
    """Return why a program did not come up, from how far it came and how it ended."""
    reason = problem.detail or str(problem)
    if not answers and problem.status != _NOT_CLOSED:
        return InterpreterUnusable(str(plan.first), reason, "It needs Python 3.9 or newer with ctypes.")
    if plan.foreign:
        advice = "It is the project's, or neither ours nor the system's own, so it needs walls around it."
        return InterpreterUnusable(str(plan.interpreter.program), reason, advice)
    if plan.preload and "ModuleNotFoundError" in reason:
        return SandboxUnavailable(f"A module to load beforehand is not installed: {reason.splitlines()[-1]}.")
    return StartFailed(f"The program did not come up: {problem}")


@asynccontextmanager
async def _temporary_folder() -> AsyncGenerator[Path, None]:
    """Lend a program a scratch folder. A canary lies beside it, for trying whether it can be reached."""
    folder = await anyio.to_thread.run_sync(_make_folder)
    try:
        yield folder
    finally:
        with anyio.CancelScope(shield=True):
            await anyio.to_thread.run_sync(_remove, folder)


def _make_folder() -> Path:
    folder = Path(tempfile.mkdtemp(prefix="rlm-scratch-")).resolve()
    (folder / _SCRATCH).mkdir(mode=0o700)
    (folder / _CANARY).touch()
    return folder


def _remove(folder: Path) -> None:
    shutil.rmtree(folder, ignore_errors=True)
    for path, folders, _ in os.walk(folder):  # what is left was made hard to remove
        for name in folders:
            below = Path(path, name)
            if not below.is_symlink():
                below.chmod(0o700)
    shutil.rmtree(folder, ignore_errors=True)
