"""What a POSIX process can limit by itself. Which of it is kept differs, so it is tried."""

from __future__ import annotations

import mmap
import os
import resource
import sys
from collections.abc import Callable
from typing import Any

_THREAD_STACK_BYTES = 9 * 1024 * 1024
_SPARE_BYTES = 1024 * 1024
_SPARE_FILES = 16  # the program's own


def steps(request: dict[str, Any]) -> dict[str, Callable[[], str]]:
    """Return the layers, each with what puts it in place and says why it does not hold."""
    limits = request["limits"]
    return {"rlimits": lambda: _limit(limits), "memory": lambda: _limit_memory(limits)}


def _limit(limits: dict[str, Any]) -> str:
    wanted = {
        resource.RLIMIT_FSIZE: int(limits["file_bytes"]),
        resource.RLIMIT_NOFILE: int(limits["open_files"]) + _SPARE_FILES,
        resource.RLIMIT_CORE: 0,
    }
    kept = {kind: _set(kind, value) for kind, value in wanted.items()}
    broken = [kind for kind, value in kept.items() if resource.getrlimit(kind) != (value, value)]
    return f"limits {broken} were not kept" if broken else ""


def _limit_memory(limits: dict[str, Any]) -> str:
    """Limit the address space where the system knows how. macOS limits no memory of a process."""
    allowance = int(limits["memory_bytes"]) + int(limits["threads"]) * _THREAD_STACK_BYTES
    if sys.platform == "linux":
        _set(resource.RLIMIT_AS, _address_space() + allowance)
    try:
        mmap.mmap(-1, allowance + _SPARE_BYTES).close()
    except OSError:
        return ""
    return "this system has no limit for it, so it has to be watched"


def _set(kind: int, value: int) -> int:
    hard = resource.getrlimit(kind)[1]
    value = value if hard == resource.RLIM_INFINITY else min(value, hard)
    resource.setrlimit(kind, (value, value))
    return value


def _address_space() -> int:
    with open("/proc/self/statm") as facts:
        return int(facts.read().split()[0]) * os.sysconf("SC_PAGE_SIZE")
