"""What holds for this process in its container: each function tries one thing and says why it does not hold, or ""."""

from __future__ import annotations

import errno
import mmap
import os
import resource
import socket
from collections.abc import Callable
from typing import Any

_SPARE_FILES = 16
_THREAD_STACK_BYTES = 9 * 1024 * 1024
_SPARE_BYTES = 1024 * 1024
_ELSEWHERE = ("192.0.2.1", 9)  # an address that is nobody's
_FILTERED = 2


def steps(request: dict[str, Any]) -> dict[str, Callable[[], str]]:
    """Return the layers in the order in which they are tried."""
    limits = request["limits"]
    return {
        "mountns": lambda: _see_files(request["canary"], request["shown"]),
        "rootfs": _write_root,
        "project": lambda: _write_project(request["readonly"]),
        "pidns": _see_processes,
        "netns": lambda: _reach_network(open_=limits["network"]),
        "uid": lambda: "" if os.geteuid() else request["why_root"] or "it is root",
        "capabilities": _look_up_capabilities,
        "privileges": lambda: _expect("NoNewPrivs", "1", "programs could gain privileges"),
        "seccomp": lambda: _expect("Seccomp", str(_FILTERED), "no filter of system calls is installed"),
        "cgroup": lambda: _look_up_cgroup(request["memory_bytes"], request["tasks"]),
        "rlimits": lambda: _limit(limits, request["tasks"] if request["by_user"] else 0),
        "memory": lambda: _limit_memory(limits),
    }


def _see_files(canary: str, shown: list[str]) -> str:
    if canary and os.path.exists(canary):
        return "the machine's files can be seen all the same"
    missing = [path for path in shown if not os.path.isdir(path)]
    return f"{missing[0]} is not there" if missing else ""


def _write_root() -> str:
    return "" if os.statvfs("/").f_flag & os.ST_RDONLY else "it can be written to"


def _write_project(folders: list[str]) -> str:
    for folder in folders:
        if not os.statvfs(folder).f_flag & os.ST_RDONLY and os.access(folder, os.W_OK):
            return f"{folder} can be written to"
    return ""


def _see_processes() -> str:
    """Look whether there is anybody but this process and its guard."""
    others = {name for name in os.listdir("/proc") if name.isdigit()} - {"1", str(os.getpid())}
    if os.getppid() != 1 or others:
        return "other processes can be seen all the same"
    return ""


def _reach_network(*, open_: bool) -> str:
    if open_:
        return "the network is switched on"
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        code = probe.connect_ex(_ELSEWHERE)
    if code not in (errno.ENETUNREACH, errno.EPERM, errno.EACCES, errno.EADDRNOTAVAIL):
        return "the network can be reached all the same"
    others = {name for _, name in socket.if_nameindex()} - {"lo"}
    return (
        f"there is a network interface: {sorted(others)[0]}" if others and code != errno.ENETUNREACH else ""
    )


def _look_up_capabilities() -> str:
    kinds = ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb")
    kept = [kind for kind in kinds if int(_status(kind), 16)]
    return f"there are some: {', '.join(kept)}" if kept else ""


def _expect(field: str, value: str, reason: str) -> str:
    return "" if _status(field) == value else reason


def _status(field: str) -> str:
    with open("/proc/self/status") as facts:
        for line in facts:
            name, _, value = line.partition(":")
            if name == field:
                return value.strip()
    raise OSError(f"the system does not tell {field}")


def _look_up_cgroup(memory_bytes: int, tasks: int) -> str:
    memory = _first_of("memory.max", "memory/memory.limit_in_bytes")
    count = _first_of("pids.max", "pids/pids.max")
    kept = {"memory": _is_at_most(memory, memory_bytes), "processes": _is_at_most(count, tasks)}
    missing = [name for name, holds in kept.items() if not holds]
    return f"the engine does not limit {' and '.join(missing)}" if missing else ""


def _first_of(*names: str) -> str:
    for name in names:
        try:
            with open("/sys/fs/cgroup/" + name) as file:
                return file.read().strip()
        except OSError:
            continue
    return ""


def _is_at_most(value: str, most: int) -> bool:
    return value.isdigit() and int(value) <= most


def _limit(limits: dict[str, Any], tasks: int) -> str:
    wanted = {
        resource.RLIMIT_FSIZE: int(limits["file_bytes"]),
        resource.RLIMIT_NOFILE: int(limits["open_files"]) + _SPARE_FILES,
        resource.RLIMIT_CORE: 0,
    }
    if tasks:
        wanted[resource.RLIMIT_NPROC] = tasks
    kept = {kind: _set(kind, value) for kind, value in wanted.items()}
    broken = [kind for kind, value in kept.items() if resource.getrlimit(kind) != (value, value)]
    return f"limits {broken} were not kept" if broken else ""


def _limit_memory(limits: dict[str, Any]) -> str:
    """Limit what this process may have, so that asking for more is an error and not its end."""
    memory, stacks = int(limits["memory_bytes"]), int(limits["threads"]) * _THREAD_STACK_BYTES
    space, data = _sizes()
    _set(resource.RLIMIT_DATA, data + memory)
    _set(resource.RLIMIT_AS, space + memory + stacks)
    try:
        mmap.mmap(-1, memory + stacks + _SPARE_BYTES).close()
    except OSError:
        return ""
    return "more than memory_bytes can be had all the same"


def _set(kind: int, value: int) -> int:
    hard = resource.getrlimit(kind)[1]
    value = value if hard == resource.RLIM_INFINITY else min(value, hard)
    resource.setrlimit(kind, (value, value))
    return value


def _sizes() -> tuple[int, int]:
    with open("/proc/self/statm") as facts:
        pages = [int(word) for word in facts.read().split()]
    size = resource.getpagesize()
    return pages[0] * size, pages[5] * size
