"""Who a container belongs to, and whether that process is still there.

Only processes of this very machine and process namespace can be judged; all others are taken to live.
"""

from __future__ import annotations

import os
import socket
import sys
from functools import lru_cache
from pathlib import Path

OWNER, STATE, SERVER = "rlm-mcp.owner", "rlm-mcp.state", "rlm-mcp.server"


@lru_cache(maxsize=1)
def _place() -> str:
    try:
        namespace = Path("/proc/self/ns/pid").readlink().name.strip("pid:[]")
    except OSError:
        namespace = ""
    return f"{socket.gethostname()}/{namespace}"


def own_label() -> str:
    """Return what says that a container is this process's own."""
    return f"{_place()}:{os.getpid()}:{_started(os.getpid())}"


def is_dead(label: str) -> bool:
    """Return whether the owner that a label names is surely gone."""
    place, _, rest = label.rpartition(":")[0].rpartition(":")
    started = label.rpartition(":")[2]
    if place != _place() or not rest.isdigit():
        return False
    return _started(int(rest)) not in (started, "?")


def _started(pid: int) -> str:
    """Return what tells a process from others of the same number, "" if there is none, "?" if there is no telling."""
    if sys.platform == "linux":
        try:
            return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19]
        except OSError:
            return ""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return ""
    except OSError:
        return "?"
    return "?"
