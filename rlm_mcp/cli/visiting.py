"""The way from the command line to a session that a running server has, through its door.

Who has a project is told by the lock on it. All of this may be wrong a moment later: a server that ended, or that
let go of the project, is `NobodyThere`, and the caller looks again.
"""

from __future__ import annotations

import json
import os
import socket
from collections.abc import Callable, Generator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..door import (
    FOLDER,
    MOST_REQUEST_BYTES,
    VERSION,
    DoorProblem,
    exists_here,
    key_file,
    reachable,
)
from ..errors import DoorError

_MOST_ANSWER_BYTES = 1024 * 1024 * 1024
_PIECE_BYTES = 256 * 1024
_SHORT_SECONDS = 10.0
_GONE = "The server that has the session ended before it answered. What is kept is its state after its last answer."
_NOFOLLOW: int = getattr(os, "O_NOFOLLOW", 0)


class NobodyThere(DoorError):
    """The server is gone, has no door, or does not have the project."""


@dataclass(frozen=True)
class Owner:
    """Who has a project open, as far as its lock tells."""

    pid: int
    here: bool  # on this machine


def owner_of(root: Path, key: str) -> Owner | None:
    """Return the process that took a project last and still runs; it may have let go of it."""
    from rlm_sessions import OwnerLock

    owner = OwnerLock(root / "projects" / key / "lock").owner()
    if owner is None or not owner.alive or owner.pid == os.getpid():
        return None
    return Owner(owner.pid, owner.host == socket.gethostname())


def is_free(root: Path, key: str) -> bool:
    """Return whether nobody has a project open. For that moment it is taken, so ask only if you wait for it."""
    from rlm_sessions import OwnerLock

    lock = OwnerLock(root / "projects" / key / "lock")
    try:
        return lock.acquire()
    finally:
        lock.release()


def doors(root: Path) -> list[int]:
    """Return the processes that have a door."""
    from rlm_sessions import process_runs

    try:
        names = [entry.name for entry in (root / FOLDER).iterdir()]
    except OSError:
        return []
    return sorted(int(name) for name in names if name.isdecimal() and process_runs(int(name)))


def ask(root: Path, pid: int, do: str, project: str = "", *, patient: bool = False) -> Any:
    """Ask a server for something short; with `patient` even if it has to wait. Raise as `run` does."""
    with _connected(root, pid) as connection:
        connection.settimeout(None if patient else _SHORT_SECONDS)
        _tell(connection, {"do": do, "project": project})
        return _hear(_Lines(connection), _ignore)


def run(
    root: Path,
    pid: int,
    project: str,
    code: str,
    *,
    timeout_s: float | None,
    on_output: Callable[[str, str], None],
) -> dict[str, Any]:
    """Run code in a session that a server has; return all facts of its result.

    Raise `NobodyThere`, or `DoorProblem`. Ctrl-C interrupts the cell, which is a problem of code "interrupted";
    a second one is not caught.
    """
    with _connected(root, pid) as connection:
        _tell(connection, {"do": "run", "project": project, "code": code, "timeout_s": timeout_s})
        lines = _Lines(connection)
        try:
            facts: dict[str, Any] = _hear(lines, on_output)
        except KeyboardInterrupt:
            connection.shutdown(socket.SHUT_WR)
            facts = _hear(lines, on_output)
        return facts


def _ignore(stream: str, text: str) -> None:
    """Do nothing: what is short prints nothing."""


@contextmanager
def _connected(root: Path, pid: int) -> Generator[socket.socket]:
    if not exists_here():
        raise NobodyThere("This system has no doors.")
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
        try:
            with reachable(root / FOLDER, str(pid)) as path:
                connection.connect(path)
            connection.sendall(b'{"door":%d,"key":%s' % (VERSION, json.dumps(_key(root, pid)).encode()))
        except OSError as problem:
            raise NobodyThere(f"Process {pid} does not answer at its door.") from problem
        yield connection


def _key(root: Path, pid: int) -> str:
    file = os.open(key_file(root / FOLDER, pid), os.O_RDONLY | _NOFOLLOW)
    with os.fdopen(file) as opened:
        return opened.read(200)


def _tell(connection: socket.socket, request: dict[str, Any]) -> None:
    body = json.dumps(request).encode()
    if len(body) > MOST_REQUEST_BYTES - 1024:
        message = (
            f"The code takes {len(body)} bytes on its way to the server, and may take {MOST_REQUEST_BYTES}."
        )
        raise DoorProblem("too_long", message)
    try:
        connection.sendall(b"," + body[1:] + b"\n")
    except (BrokenPipeError, ConnectionResetError):
        return  # it may have said why


class _Lines:
    """What a server says, line by line. An interrupt loses nothing of it."""

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection
        self._held = bytearray()
        self._looked = 0

    def next(self) -> bytes:
        """Return the next line. Raise `DoorProblem` if there is none."""
        while (end := self._held.find(b"\n", self._looked)) < 0:
            self._looked = len(self._held)
            self._held += self._piece()
        line = bytes(self._held[:end])
        del self._held[: end + 1]
        self._looked = 0
        return line

    def _piece(self) -> bytes:
        try:
            piece = self._connection.recv(_PIECE_BYTES)
        except TimeoutError:
            raise DoorProblem("silent", "The server that has the session does not answer.") from None
        except OSError:
            piece = b""
        if not piece or len(self._held) > _MOST_ANSWER_BYTES:
            raise DoorProblem("gone", _GONE)
        return piece


def _hear(lines: _Lines, on_output: Callable[[str, str], None]) -> Any:
    while True:
        said: Any = json.loads(lines.next())
        if "output" in said:
            on_output(*said["output"])
        elif "result" in said:
            return said["result"]
        else:
            problem = said["problem"]
            if problem["code"] == "not_here":
                raise NobodyThere(problem["message"])
            raise DoorProblem(problem["code"], problem["message"])
