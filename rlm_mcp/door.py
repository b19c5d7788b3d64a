"""The door of a running server to the command line of the same account: `rlm exec` runs in the sessions it has.

A server listens on a Unix socket `doors/PID` beside what it keeps, for its own sessions only. One request per
connection, a line of JSON each way; the answer may be many lines, the last of which is a result or a problem:

    {"door":1,"key":"...","do":"run","project":KEY,"code":"...","timeout_s":60}
        {"output":["stdout","..."]}*    {"result":{...}}  or  {"problem":{"code":"...","message":"..."}}
    {"door":1,"key":"...","do":"sessions"}         and "show", "interrupt", "reset" and "close" with a project

A caller that goes away, or that ends its side of the connection, cancels its cell as Ctrl-C would. The key lies
in a file beside the socket: code in a sandbox that reaches sockets, but no files, cannot use the door.
"""

from __future__ import annotations

import base64
import hmac
import json
import logging
import math
import os
import secrets
import socket
import struct
import sys
from collections.abc import AsyncGenerator, Awaitable, Callable, Generator
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import anyio
import anyio.abc
import anyio.to_thread
from anyio.streams.buffered import BufferedByteReceiveStream
from anyio.streams.memory import MemoryObjectReceiveStream, MemoryObjectSendStream

from .answering import cell_calls
from .app import App, Change, root_of
from .cell_jobs import end_waiting
from .errors import DoorError
from .tenants import OWNER

if TYPE_CHECKING:
    from rlm_sessions import CellResult, ProjectSession, SessionInfo

VERSION = 1
MOST_REQUEST_BYTES = 64 * 1024 * 1024
FOLDER = "doors"

_FIRST_WORDS_SECONDS = 20.0
_MOST_VISITORS = 64
_MOST_DIRECT_BYTES = 100  # what any system takes as the path of a socket
_LONGEST_SECONDS = 86_400.0
_NOFOLLOW: int = getattr(os, "O_NOFOLLOW", 0)
_DIRECTORY: int = getattr(os, "O_DIRECTORY", 0)
_CLOEXEC: int = getattr(os, "O_CLOEXEC", 0)

_log = logging.getLogger(__name__)


class DoorProblem(DoorError):
    """What was asked for at the door cannot be done; `code` tells programs why."""

    def __init__(self, code: str, message: str) -> None:
        self.code = code
        super().__init__(message)


@dataclass(frozen=True)
class Request:
    """What a visitor asks for."""

    do: str
    project: str = ""
    code: str = ""
    timeout_s: float | None = None


# ---- where doors are


def exists_here() -> bool:
    """Return whether this system has doors."""
    return sys.platform != "win32" and hasattr(socket, "AF_UNIX")


@contextmanager
def reachable(folder: Path, name: str) -> Generator[str]:
    """Yield a path of a socket in `folder` that is short enough for the system. Raise `OSError`."""
    direct = folder / name
    if not Path("/proc/self/fd").is_dir():
        if len(os.fsencode(direct)) > _MOST_DIRECT_BYTES:
            raise OSError(f"the path {direct} is too long for a socket")
        yield str(direct)
        return
    opened = os.open(folder, os.O_RDONLY | _DIRECTORY | _NOFOLLOW | _CLOEXEC)
    try:
        yield f"/proc/self/fd/{opened}/{name}"
    finally:
        os.close(opened)


def key_file(folder: Path, pid: int) -> Path:
    """Return the file that holds the key of a server's door."""
    return folder / f"{pid}.key"


@asynccontextmanager
async def open_door(app: App) -> AsyncGenerator[None]:
    """Let the command line of this account in, as long as this is open. Where that cannot be, go on without."""
    stack = AsyncExitStack()
    try:
        if exists_here():
            await _open(app, stack)
    except OSError as problem:
        _log.info("There is no door for the command line here: %s", problem)
    try:
        yield
    finally:
        await stack.aclose()  # and not around the caller's block, whose errors are its own


async def keep_door(app: App) -> None:
    """Keep a door open until cancelled."""
    async with open_door(app):
        await anyio.sleep_forever()


async def _open(app: App, stack: AsyncExitStack) -> None:
    folder = root_of(app.settings, OWNER) / FOLDER
    key = await anyio.to_thread.run_sync(_make_ready, folder)
    stack.push_async_callback(_take_away, folder)
    listening = await anyio.to_thread.run_sync(_listening, folder)
    listener = await anyio.abc.SocketListener.from_socket(listening)
    tasks = await stack.enter_async_context(anyio.create_task_group())
    stack.callback(tasks.cancel_scope.cancel)
    door = Door(app, key)
    tasks.start_soon(door.serve, listener)


def _listening(folder: Path) -> socket.socket:
    listening = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        fresh = folder / f"{os.getpid()}.new"
        fresh.unlink(missing_ok=True)
        with reachable(folder, fresh.name) as path:
            listening.bind(path)
        fresh.chmod(0o600)
        listening.listen(_MOST_VISITORS)
        listening.setblocking(False)
        fresh.rename(folder / str(os.getpid()))  # whoever finds it is let in
    except BaseException:
        listening.close()
        raise
    return listening


async def _take_away(folder: Path) -> None:
    with anyio.CancelScope(shield=True):
        await anyio.to_thread.run_sync(_remove, folder, os.getpid())


def _make_ready(folder: Path) -> str:
    """Make the folder of doors, remove what dead servers left there, and leave the key of ours."""
    from rlm_sessions import SessionError, private_folder, process_runs

    folder.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    try:
        private_folder(folder)
    except SessionError as problem:
        raise OSError(str(problem)) from problem
    for pid in {int(entry.stem) for entry in folder.iterdir() if entry.stem.isdecimal()}:
        if pid == os.getpid() or not process_runs(pid):
            _remove(folder, pid)
    key = secrets.token_hex(32)
    file = os.open(key_file(folder, os.getpid()), os.O_WRONLY | os.O_CREAT | os.O_EXCL | _CLOEXEC, 0o600)
    with os.fdopen(file, "w") as opened:
        opened.write(key)
    return key


def _remove(folder: Path, pid: int) -> None:
    for path in (folder / str(pid), folder / f"{pid}.new", key_file(folder, pid)):
        path.unlink(missing_ok=True)


# ---- who comes in, and what they ask for


class Door:
    """Answers those who come in. Nothing that they say or leave out harms the server."""

    def __init__(self, app: App, key: str) -> None:
        self._app = app
        self._key = key
        self._visitors = 0

    async def serve(self, listener: anyio.abc.Listener[anyio.abc.SocketStream]) -> None:
        """Answer visitors until cancelled."""
        async with listener:
            await listener.serve(self._let_in)

    async def _let_in(self, stream: anyio.abc.SocketStream) -> None:
        async with stream:
            if self._visitors >= _MOST_VISITORS or not _is_ours(stream):
                return
            self._visitors += 1
            try:
                await self._attend(stream)
            except (anyio.BrokenResourceError, anyio.ClosedResourceError, anyio.EndOfStream, TimeoutError):
                return  # the visitor is gone, or never said what it wants
            except Exception:  # noqa: BLE001 -- the server outlives whoever comes in
                _log.exception("A visitor at the door could not be attended to.")
            finally:
                self._visitors -= 1

    async def _attend(self, stream: anyio.abc.SocketStream) -> None:
        lines = BufferedByteReceiveStream(stream)
        try:
            with anyio.fail_after(_FIRST_WORDS_SECONDS):
                line = await _line(lines)
            request = await anyio.to_thread.run_sync(_request_of, line, self._key)
            if request.do == "run":
                await self._run(request, stream, lines)
                return
            last = {"result": await self._answer(request)}
        except Exception as problem:  # noqa: BLE001 -- the visitor is told; the server goes on
            last = {"problem": _facts_of_problem(problem)}
        with anyio.move_on_after(_FIRST_WORDS_SECONDS):
            await _send(stream, last)

    async def _answer(self, request: Request) -> Any:
        if request.do == "sessions":
            manager = self._app.managers().get(OWNER)
            return [facts_of_session(info) for info in manager.sessions()] if manager else []
        acts: dict[str, Callable[[ProjectSession], Awaitable[Any]]] = {
            "show": shown_of,
            "interrupt": lambda session: session.interrupt(),
            "reset": self._reset,
            "close": self._close,
        }
        if request.do not in acts:
            raise DoorProblem("unknown", f"The server does not know what {request.do[:40]!r} is.")
        return await acts[request.do](await self._session(request.project))

    async def _reset(self, session: ProjectSession) -> bool:
        await end_waiting(self._app, OWNER, session.project)
        await session.reset()
        await self._tell_of(session.project.key)
        return True

    async def _close(self, session: ProjectSession) -> bool:
        manager = await self._app.manager(OWNER)
        await self._app.jobs.put_away((OWNER, session.project.key))
        return await manager.close(session.project)

    async def _session(self, key: str) -> ProjectSession:
        """Return a session that is open here. None is opened."""
        manager = self._app.managers().get(OWNER)
        session = manager.found(key) if manager else None
        if session is None:
            raise DoorProblem("not_here", "This server does not have the session open.")
        return session

    # ---- running

    async def _run(
        self, request: Request, stream: anyio.abc.SocketStream, lines: BufferedByteReceiveStream
    ) -> None:
        """Run a cell and pass on what it prints. A visitor that reads slowly holds up nobody but itself."""
        session = await self._session(request.project)
        put, take = anyio.create_memory_object_stream[Any](math.inf)
        async with anyio.create_task_group() as watching:
            async with anyio.create_task_group() as passing:
                passing.start_soon(_pass_on, take, stream)
                with put:
                    last: dict[str, Any] = {"problem": _INTERRUPTED}
                    with anyio.CancelScope() as running:
                        watching.start_soon(_cancel_when_gone, lines, running)
                        last = await self._came_of(session, request, put)
                    put.send_nowait(last)
            watching.cancel_scope.cancel()
        await self._tell_of(request.project)

    async def _came_of(
        self, session: ProjectSession, request: Request, put: MemoryObjectSendStream[Any]
    ) -> dict[str, dict[str, Any]]:
        async def on_output(stream: str, text: str) -> None:
            put.send_nowait({"output": [stream, text]})

        app, project = self._app, session.project
        try:
            async with (
                app.jobs.step((OWNER, project.key), app.place(OWNER, project)),
                cell_calls(app, OWNER, project, request.code) as calls,
            ):
                calls.result = await session.run(
                    request.code,
                    on_output=on_output,
                    wall_seconds=request.timeout_s,
                    answer=calls.answer,
                )
            return {"result": await anyio.to_thread.run_sync(facts_of, calls.result)}
        except Exception as problem:  # noqa: BLE001 -- the visitor is told, after what was printed
            return {"problem": _facts_of_problem(problem)}

    async def _tell_of(self, key: str) -> None:
        if self._app.listeners:
            await self._app.changed(Change(OWNER, f"rlm://sessions/{key}", "updated"))
            await self._app.changed(Change(OWNER, "", "listed"))


async def shown_of(session: ProjectSession) -> dict[str, Any]:
    """Return what a session holds, and what keeps it inside. One that sleeps is woken."""
    variables = await session.variables()
    isolation = session.isolation
    return {
        "session": facts_of_session(session.info()),
        "variables": [asdict(each) for each in variables],
        "isolation": None if isolation is None else str(isolation),
        "strong": None if isolation is None else isolation.strong,
    }


async def _cancel_when_gone(lines: BufferedByteReceiveStream, running: anyio.CancelScope) -> None:
    """Cancel what runs for a visitor as soon as that one is gone, or says that nothing more will come."""
    try:
        while True:
            await lines.receive()
    except (anyio.EndOfStream, anyio.BrokenResourceError, anyio.ClosedResourceError):
        running.cancel()


async def _pass_on(take: MemoryObjectReceiveStream[Any], stream: anyio.abc.SocketStream) -> None:
    with take:
        async for each in take:
            try:
                await _send(stream, each)
            except (anyio.BrokenResourceError, anyio.ClosedResourceError):
                return


# ---- one line


async def _line(lines: BufferedByteReceiveStream) -> bytes:
    try:
        return await lines.receive_until(b"\n", MOST_REQUEST_BYTES)
    except anyio.DelimiterNotFound:
        message = f"A request may have {MOST_REQUEST_BYTES} bytes, and this one has more."
        raise DoorProblem("too_long", message) from None
    except anyio.IncompleteRead:
        raise anyio.EndOfStream from None


async def _send(stream: anyio.abc.SocketStream, event: object) -> None:
    await stream.send(json.dumps(event).encode() + b"\n")


def _request_of(line: bytes, key: str) -> Request:
    """Return what a line asks for, if it came with the key. Raise `DoorProblem`."""
    try:
        said: Any = json.loads(line)
    except (ValueError, RecursionError):
        said = None
    if not isinstance(said, dict):
        raise DoorProblem("garbage", "A request is one line of JSON.")
    facts = cast("dict[str, Any]", said)
    if facts.get("door") != VERSION:
        raise DoorProblem("version", _OF_VERSION)
    if not hmac.compare_digest(str(facts.get("key")).encode("utf-8", "replace"), key.encode()):
        raise DoorProblem("key", "The key is not that of this server.")
    do, project, code = (facts.get(name, "") for name in ("do", "project", "code"))
    timeout_s = facts.get("timeout_s")
    if not all(isinstance(text, str) for text in (do, project, code)) or not _is_time(timeout_s):
        raise DoorProblem("garbage", "A part of the request is not what it should be.")
    return Request(do, project, code, timeout_s)


def _is_time(value: object) -> bool:
    if value is None:
        return True
    return isinstance(value, int | float) and not isinstance(value, bool) and 0 < value <= _LONGEST_SECONDS


def _is_ours(stream: anyio.abc.SocketStream) -> bool:
    """Return whether the other end belongs to this account, as far as the system tells."""
    if not hasattr(socket, "SO_PEERCRED"):
        return True  # the folder lets nobody else in
    raw = stream.extra(anyio.abc.SocketAttribute.raw_socket)  # noqa: S610 -- not Django's
    told = raw.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i"))
    _, account, _ = struct.unpack("3i", told)
    return bool(account == os.geteuid())


_INTERRUPTED = {
    "code": "interrupted",
    "message": "The cell was interrupted. The session keeps its variables.",
}
_OF_VERSION = "This command and the running server are of different versions. Restart the server's client."


# ---- facts


def facts_of(result: CellResult) -> dict[str, Any]:
    """Return all that came of a cell as JSON has it; pictures in base64."""
    facts = asdict(replace(result, displays=()))
    facts["displays"] = [
        {"mime": shown.mime, "id": shown.id, "data": base64.b64encode(shown.data).decode()}
        for shown in result.displays
    ]
    return facts


def facts_of_session(info: SessionInfo) -> dict[str, Any]:
    """Return what is going on in a session as JSON has it."""
    return {
        "key": info.project.key,
        "name": info.project.name,
        "folder": None if info.project.folder is None else str(info.project.folder),
        "state": info.state,
        "step": info.step,
        "code": info.code,
        "since_seconds": round(info.since_seconds, 3),
        "waiting": info.waiting,
        "memory_bytes": info.memory_bytes,
        "kept_step": info.kept_step,
        "problem": info.problem,
    }


def _facts_of_problem(problem: Exception) -> dict[str, Any]:
    from rlm_sandboxes import SandboxError
    from rlm_sessions import AllBusy, SessionEnded, SessionError, TooWeak

    if isinstance(problem, DoorProblem):
        return {"code": problem.code, "message": str(problem)}
    kinds: tuple[tuple[type[Exception], str], ...] = (
        (AllBusy, "busy"),
        (SessionEnded, "ended"),
        (TooWeak, "sandbox"),
        (SessionError, "session"),
        (SandboxError, "sandbox"),
        (DoorError, "failed"),
    )
    for kind, code in kinds:
        if isinstance(problem, kind):
            return {"code": code, "message": str(problem)}
    _log.error("A request at the door failed in a way that nobody foresaw.", exc_info=problem)
    return {
        "code": "internal",
        "message": f"The server failed ({type(problem).__name__}); its log tells more.",
    }
