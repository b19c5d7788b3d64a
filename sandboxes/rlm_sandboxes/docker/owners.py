"""Who a container belongs to, and whether that process is still there.

Only processes of this very machine and process namespace can be judged; all others are taken to live.
"""

from __future__ import annotations

import hashlib
import os
import re
import socket
import sys
from functools import lru_cache
from pathlib import Path

_FIRST_NAMESPACE = "4026531836"
_PID = re.compile(r"[1-9][0-9]{0,8}")
OWNER, STATE, SERVER = "rlm-mcp.owner", "rlm-mcp.state", "rlm-mcp.server"


@lru_cache(maxsize=1)
def _place() -> str:
    try:
        namespace = Path("/proc/self/ns/pid").readlink().name.strip("pid:[]")
    except OSError:
        namespace = ""
    return f"{socket.gethostname()}/{_machine(namespace)}/{namespace}"


def _machine(namespace: str) -> str:
    """Return what tells this machine from others of its name, whose engine may be the same.

    The first namespace has the same number everywhere. All others go when the machine ends, but may be numbered alike.
    """
    source = "/etc/machine-id" if namespace == _FIRST_NAMESPACE else "/proc/sys/kernel/random/boot_id"
    try:
        return hashlib.sha256(Path(source).read_bytes()).hexdigest()[:12]
    except OSError:
        return ""


def own_label() -> str:
    """Return what says that a container is this process's own."""
    return f"{_place()}:{os.getpid()}:{started(os.getpid())}"


def is_dead(label: str) -> bool:
    """Return whether the owner that a label names is surely gone."""
    place, _, rest = label.rpartition(":")[0].rpartition(":")
    began = label.rpartition(":")[2]
    if place != _place() or not _PID.fullmatch(rest):
        return False
    return has_ended(int(rest), began)


def has_ended(pid: int, began: str) -> bool:
    """Return whether the process that began then is surely gone."""
    return started(pid) not in (began, "?")


def started(pid: int) -> str:
    """Return what tells a process from others of the same number, "" if there is none, "?" if there is no telling."""
    if sys.platform == "linux":
        try:
            return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19]
        except OSError:
            pass  # there is none, or whoever mounted /proc hides it from us
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return ""
    except OSError:
        return "?"
    return "?"
