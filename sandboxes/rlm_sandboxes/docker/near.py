"""The processes of a container that runs on this very machine, seen and signalled without the engine.

A call to the engine takes milliseconds, a signal some microseconds. Whoever may signal the processes is
root, or the user that they run as; for all others, and for engines elsewhere, the engine does it.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
from pathlib import Path

from ..local.processes import measure
from ..sandbox import Usage
from .plans import GUARD_TASKS


class Near:
    """The guard and the program of one container. `find` makes one."""

    def __init__(self, guard: int, started: str, handles: tuple[int, int]) -> None:
        self._guard = guard
        self._started = started
        self._handles = handles

    def signal_guard(self, number: int) -> None:
        self._signal(self._handles[0], number)

    def signal_program(self, number: int) -> None:
        self._signal(self._handles[1], number)

    def _signal(self, handle: int, number: int) -> None:
        with contextlib.suppress(ProcessLookupError):
            signal.pidfd_send_signal(handle, number)

    def usage(self) -> Usage:
        """Return what the program and all below it have used. Raise OSError if it is over."""
        used, own = measure(self._guard, self._started), _resident_bytes(self._guard)
        return Usage(used.cpu_seconds, max(0, used.memory_bytes - own), max(1, used.threads - GUARD_TASKS))

    def close(self) -> None:
        for handle in self._handles:
            os.close(handle)


def find(guard: int, name: str) -> Near | None:
    """Return the processes of a container, said to begin with `guard`, if they are here and ours to signal.

    Its name is random and among the arguments of its first process. Not every engine has control groups.
    """
    if sys.platform != "linux" or guard <= 0:
        return None
    handles: list[int] = []
    try:
        handles.append(os.pidfd_open(guard))
        started = _fields(guard)[19]
        if name.encode() not in Path(f"/proc/{guard}/cmdline").read_bytes().split(b"\0"):
            raise ProcessLookupError(guard)
        children = Path(f"/proc/{guard}/task/{guard}/children").read_text().split()
        handles.append(os.pidfd_open(int(children[0])))
        for handle in handles:
            signal.pidfd_send_signal(handle, 0)
    except (OSError, IndexError, ValueError):
        for handle in handles:
            os.close(handle)
        return None
    return Near(guard, started, (handles[0], handles[1]))


def _fields(pid: int) -> list[str]:
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()


def _resident_bytes(pid: int) -> int:
    return int(_fields(pid)[21]) * os.sysconf("SC_PAGE_SIZE")
