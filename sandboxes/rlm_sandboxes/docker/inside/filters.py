"""The filter of system calls, beside that of the container: the one of the local jail.

An engine's own filter is made for services. It lets through what a program here has no need of: sockets by
name in the project's folder, keys, rings of requests, new kinds of files. Files cannot be made to run as their
owner, who may be the owner of the project outside. Unless processes are allowed, threads can be started and
no other process.
"""

from __future__ import annotations

import errno
import os
import socket
import struct
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ...local.jail import seccomp, system
else:
    from rlm_jail import seccomp, system

_WITH_PROCESSES = ("tkill",)  # by which the C library of small images ends a process
_WITH_NETWORK = ("recvmsg", "recvmmsg")  # by which it asks for names
_WORD_BYTES = 8


def prepare(limits: dict[str, Any]) -> None:
    """Make the filter, which takes a while, before anybody waits for it."""
    if _is_known():
        seccomp.assemble(_rules(limits, gated=True))


def hand_over(gate: socket.socket) -> bool:
    """Have who is at the other end of `gate` asked about each copy of this process; return False if that cannot be."""
    try:
        system.prctl(system.PR_SET_NO_NEW_PRIVS, 1)
        listener = seccomp.install_gate()
    except OSError:
        return False
    gate.sendmsg([b"."], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, struct.pack("i", listener))])
    os.close(listener)
    return True


def install(limits: dict[str, Any], *, gated: bool = False) -> str:
    """Forbid for good what no program needs; return why that does not hold, or ""."""
    if not _is_known():
        return "no table of system calls for this machine"
    system.prctl(system.PR_SET_NO_NEW_PRIVS, 1)
    seccomp.install(_rules(limits, gated=gated))
    tries = {
        "files can be made to run as their owner all the same": _make_suid,
        "sockets can be made all the same": _make_socket,
    }
    if not limits["processes"]:
        tries["processes can be started all the same"] = _fork
    return next((reason for reason, attempt in tries.items() if not _is_refused(attempt)), "")


def _is_known() -> bool:
    return bool(system.machine()) and struct.calcsize("P") == _WORD_BYTES


def _rules(limits: dict[str, Any], *, gated: bool) -> seccomp.Rules:
    processes, network = bool(limits["processes"]), bool(limits["network"])
    return seccomp.Rules(
        gate=gated and not processes,
        processes=processes,
        network=network,
        own_pid=os.getpid(),
        signals=True,  # the process namespace keeps them in
        more=(*(_WITH_PROCESSES if processes else ()), *(_WITH_NETWORK if network else ())),
    )


def _is_refused(attempt: Callable[[], object]) -> bool:
    try:
        attempt()
    except OSError as problem:
        return problem.errno in (errno.EPERM, errno.ENOSYS)
    return False


def _make_suid() -> None:
    os.chmod("/nowhere", 0o4755)  # noqa: S103 -- it must fail


def _make_socket() -> None:
    socket.socket(socket.AF_UNIX).close()


def _fork() -> None:
    pid = os.fork()
    if not pid:
        os._exit(0)
    os.waitpid(pid, 0)
