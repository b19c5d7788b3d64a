"""The processes of a server, as the kernel lists them: which they are, what they use, and who is left."""

from __future__ import annotations

import time
from pathlib import Path
from typing import NamedTuple

from . import memory

_LOOK_SECONDS = 0.01


class Known(NamedTuple):
    """A process, and when it was started, so that another with its number is not taken for it."""

    pid: int
    started: str


def family(pid: int) -> list[int]:
    """Return a process and all below it."""
    return [pid, *(one for child in _children(pid) for one in family(child))]


def parent(pid: int) -> int:
    """Return the process that started a process, or 0 if that is gone."""
    stat = _stat(pid)
    return int(stat[1]) if stat else 0


def known(pid: int) -> list[Known]:
    """Return a process and all below it, so that they can be looked for later."""
    found = [(one, _stat(one)) for one in family(pid)]
    return [Known(one, stat[19]) for one, stat in found if stat]


def left_after(processes: list[Known], seconds: float) -> int:
    """Return how many of some processes are still there after that time; look no longer than there are any."""
    end = time.monotonic() + seconds
    while (left := sum(map(_is_there, processes))) and time.monotonic() < end:
        time.sleep(_LOOK_SECONDS)
    return left


def processor_seconds(pid: int) -> float:
    """Return how much processor time a process has used by itself."""
    tasks = Path(f"/proc/{pid}/task").iterdir()
    return sum(int((task / "schedstat").read_text().split()[0]) for task in tasks) / 1e9


def proportional_bytes(pid: int) -> int:
    """Return the memory of a process and all below it, in which what they share counts once."""
    found = [memory.memory_of(one) for one in family(pid)]
    return sum(one.part for one in found if one)


def peak_bytes(pid: int) -> int:
    """Return the most memory that a process had, and the most that any of those below it had."""
    own, *others = [memory.resident(one).at_most for one in family(pid)]
    return own + max(others, default=0)


def _is_there(process: Known) -> bool:
    stat = _stat(process.pid)
    return bool(stat) and stat[19] == process.started and stat[0] not in "ZX"


def _stat(pid: int) -> list[str]:
    """Return what the kernel says of a process, from its state on; nothing if it is gone."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return []


def _children(pid: int) -> list[int]:
    found: list[int] = []
    try:
        for task in Path(f"/proc/{pid}/task").iterdir():
            found += [int(child) for child in (task / "children").read_text().split()]
    except (FileNotFoundError, ProcessLookupError):  # it ended meanwhile
        pass
    return found
