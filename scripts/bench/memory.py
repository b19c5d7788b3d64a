"""How much memory a process has, as the kernel counts it."""

from __future__ import annotations

import re
from pathlib import Path
from typing import NamedTuple

_KIB = 1024


class Memory(NamedTuple):
    """`own` would come free if this process ended; in `part`, what it shares counts by its share."""

    own: int
    part: int


class Resident(NamedTuple):
    """What of a process is in memory now, and was at most, the pages of mapped files included."""

    now: int
    at_most: int


def memory_of(pid: int) -> Memory | None:
    """Return the memory of a process, or None where it is not ours to look at."""
    try:
        found = _fields(f"/proc/{pid}/smaps_rollup")
    except PermissionError:
        return None
    return Memory(found["Private_Clean"] + found["Private_Dirty"], found["Pss"])


def anonymous(pid: int) -> int:
    """Return how many bytes of a process are in memory and belong to no file."""
    return _fields(f"/proc/{pid}/status")["RssAnon"]


def resident(pid: int) -> Resident:
    """Return what of a process is in memory."""
    found = _fields(f"/proc/{pid}/status")
    return Resident(found["VmRSS"], found["VmHWM"])


def available() -> int:
    """Return how many bytes this machine could still give to programs."""
    return _fields("/proc/meminfo")["MemAvailable"]


def _fields(path: str) -> dict[str, int]:
    found = re.findall(r"^(\w+):\s+(\d+) kB$", Path(path).read_text(), re.MULTILINE)
    return {name: int(value) * _KIB for name, value in found}
