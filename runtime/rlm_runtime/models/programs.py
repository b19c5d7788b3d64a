"""Programs that are started to ask a model: in a group of their own, so that nothing of one is left when it is ended.

They see the environment that they are given, and no other.
"""

from __future__ import annotations

import asyncio
import os
import re
import signal
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from subprocess import PIPE

import anyio
import anyio.abc

MARK = "WITHIN_RLM_REQUEST"
"""The variable by which what a program started is known, also where it left the program's group."""

_SECRET = re.compile(r"key|token|secret|password|credential", re.IGNORECASE)
_MOST_LAST_WORDS = 4000


async def start(
    command: Sequence[str], *, environment: Mapping[str, str], folder: Path | None = None
) -> anyio.abc.Process:
    """Start a program with pipes to all that it reads and says. Raise `OSError`."""
    system: dict[str, str] = {}
    if sys.platform == "win32":
        system["SYSTEMROOT"] = os.environ.get("SYSTEMROOT", r"C:\Windows")  # sockets need it
    process = await anyio.open_process(
        list(command),
        stdin=PIPE,
        stdout=PIPE,
        stderr=PIPE,
        cwd=folder,
        env={**system, **environment},
        start_new_session=True,
    )
    _hear_once(process)
    return process


def _hear_once(process: anyio.abc.Process) -> None:
    """Have it known that somebody hears when the input breaks: who writes to it does.

    Early releases of Python 3.11 report it once more, as an error that nobody took. No public name leads there.
    """
    stream = getattr(process.stdin, "_stream", None)
    closed: asyncio.Future[None] | None = getattr(getattr(stream, "_protocol", None), "_stdin_closed", None)
    if closed is not None:
        closed.add_done_callback(_hear)


def _hear(closed: asyncio.Future[None]) -> None:
    if not closed.cancelled():
        closed.exception()


def kill(process: anyio.abc.Process) -> None:
    """End a program and all that it started, at once. It may have ended before."""
    try:
        if sys.platform == "win32":
            process.kill()
        else:
            os.killpg(process.pid, signal.SIGKILL)
    except (ProcessLookupError, PermissionError):
        pass


def end_strays(mark: str) -> None:
    """End what has this `MARK` in its environment, where the system tells that (Linux). It takes a moment."""
    marked = f"{MARK}={mark}".encode()
    while [pid for pid in _processes() if _end_if(pid, marked)]:
        pass  # what one of them has started meanwhile is found in the next round


def _processes() -> list[int]:
    if sys.platform != "linux":
        return []
    return [int(folder.name) for folder in Path("/proc").glob("[0-9]*")]


def _end_if(pid: int, marked: bytes) -> bool:
    """End a process that is marked and lives; return whether it was."""
    try:
        process = os.pidfd_open(pid)  # first, so that nobody else has its number meanwhile
    except OSError:
        return False
    try:
        if marked not in Path(f"/proc/{pid}/environ").read_bytes().split(b"\0"):
            return False  # one that has ended has none
        signal.pidfd_send_signal(process, signal.SIGKILL)
        return True
    except OSError:
        return False
    finally:
        os.close(process)


class LastWords:
    """The end of what a program said."""

    def __init__(self) -> None:
        self._said = bytearray()

    def add(self, said: bytes) -> None:
        """Take in what came, and forget the oldest of it."""
        self._said += said
        del self._said[:-_MOST_LAST_WORDS]

    def __str__(self) -> str:
        return self._said.decode("utf-8", "replace").strip()


def secrets_in(environment: Mapping[str, str]) -> Sequence[str]:
    """Return the values of an environment that must never be shown."""
    return [value for name, value in environment.items() if _SECRET.search(name)]


async def read(stream: anyio.abc.ByteReceiveStream | None, words: LastWords) -> None:
    """Read a stream to its end, and keep the last of it."""
    assert stream is not None
    async for chunk in stream:
        words.add(chunk)
