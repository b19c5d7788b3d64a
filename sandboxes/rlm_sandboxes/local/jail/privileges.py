"""Who a worker is, what it may use, and giving up everything else."""

from __future__ import annotations

import os
import resource
from typing import Any

from . import system
from .mounts import Owner

_THREAD_STACK_BYTES = 9 * 1024 * 1024
_OWN_THREADS = 3  # the program's own: the main one, one that reads, and a copy that the host allowed
_SIGNALS = 256
_FIRST_ORDINARY, _SPREAD = 1000, 10_000


def become(owner: Owner) -> None:
    """Change to another user, for good. Only root can."""
    os.setgroups([])
    os.setresgid(owner.gid, owner.gid, owner.gid)
    os.setresuid(owner.uid, owner.uid, owner.uid)
    system.prctl(system.PR_SET_DUMPABLE, 1)  # else our own files in /proc are root's from now on


def user_near(wanted: int) -> int:
    """Return a user that we can become: `wanted`, or another one that exists in our user namespace; 0 for none.

    The root of a container without privileges knows some thousand users, or only itself.
    """
    try:
        with open("/proc/self/setgroups") as file:
            if file.read().strip() != "allow":
                return 0
        users, groups = _mapped("uid_map"), _mapped("gid_map")
    except OSError:
        return wanted  # a kernel without user namespaces
    last = min(max(end for _, end in users), max(end for _, end in groups))
    near = wanted if wanted <= last else last - wanted % max(1, min(last // 2, _SPREAD))
    both = all(any(first <= near <= end for first, end in known) for known in (users, groups))
    return near if both and near >= _FIRST_ORDINARY else 0


def _mapped(name: str) -> list[tuple[int, int]]:
    with open("/proc/self/" + name) as file:
        words = [line.split() for line in file]
    return [(int(first), int(first) + int(count) - 1) for first, _, count in words]


def enter_user_namespace(proc: int) -> None:
    """Enter a user namespace of our own, in which this user is the only one there is.

    `proc` is a descriptor of the folder `/proc`, which is out of sight by now.
    """
    uid, gid = os.geteuid(), os.getegid()
    system.unshare(system.CLONE_NEWUSER)
    write_id_map(proc, "self", Owner(uid, gid), Owner(uid, gid))


def write_id_map(proc: int, process: str, inside: Owner, outside: Owner) -> None:
    """Say which one user and group of the world outside a new user namespace knows, and as whom."""
    _write(proc, f"{process}/setgroups", "deny")
    _write(proc, f"{process}/uid_map", f"{inside.uid} {outside.uid} 1")
    _write(proc, f"{process}/gid_map", f"{inside.gid} {outside.gid} 1")


def _write(folder: int, name: str, text: str) -> None:
    fd = os.open(name, os.O_WRONLY | os.O_CLOEXEC, dir_fd=folder)
    try:
        os.write(fd, text.encode())
    finally:
        os.close(fd)


def baseline(proc: int) -> tuple[int, int]:
    """Return how much address space, and how much data, this process has now, in bytes."""
    fd = os.open("self/statm", os.O_RDONLY | os.O_CLOEXEC, dir_fd=proc)
    try:
        pages = [int(word) for word in os.read(fd, 200).split()]
    finally:
        os.close(fd)
    size = resource.getpagesize()
    return pages[0] * size, pages[5] * size


def limit_resources(
    limits: dict[str, Any], start: tuple[int, int], *, count_processes: bool
) -> dict[int, int]:
    """Set the limits the kernel keeps by itself; return them, to be looked at again later."""
    space, data = start
    memory = int(limits["memory_bytes"])
    stacks = int(limits["threads"]) * _THREAD_STACK_BYTES
    wanted = {
        resource.RLIMIT_DATA: data + memory,
        resource.RLIMIT_AS: space + memory + stacks,
        resource.RLIMIT_FSIZE: int(limits["file_bytes"]),
        resource.RLIMIT_NOFILE: int(limits["open_files"]) + 16,
        resource.RLIMIT_CORE: 0,
        resource.RLIMIT_MEMLOCK: 0,
        resource.RLIMIT_SIGPENDING: _SIGNALS,
    }
    if count_processes:
        wanted[resource.RLIMIT_NPROC] = int(limits["threads"]) + int(limits["processes"]) + _OWN_THREADS
    kept: dict[int, int] = {}
    for kind, value in wanted.items():
        hard = resource.getrlimit(kind)[1]
        kept[kind] = value if hard == resource.RLIM_INFINITY else min(value, hard)
        resource.setrlimit(kind, (kept[kind], kept[kind]))
    return kept
