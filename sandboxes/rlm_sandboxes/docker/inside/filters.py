"""A seccomp filter, beside that of the container.

No file can be made to run as its owner, who may be the owner of the project outside, and none that is
a pipe or a device. Unless processes are allowed, threads can be started and no other process.
"""

from __future__ import annotations

import ctypes
import errno
import os
import platform
import struct
from typing import NamedTuple

_LD, _JEQ, _JSET, _RET = 0x20, 0x15, 0x45, 0x06
_ALLOW, _ERRNO = 0x7FFF0000, 0x00050000
_CLONE_THREAD = 0x00010000
_PR_SET_SECCOMP, _PR_SET_NO_NEW_PRIVS, _FILTER = 22, 38, 2


class _Machine(NamedTuple):
    audit: int
    clone: int
    starting: tuple[int, ...]  # fork, vfork, execve, execveat
    special: tuple[int, ...]  # mknod, mknodat
    modes: dict[int, int]  # calls that take the mode of a file, and in which argument


_EVERYWHERE = {452: 2}  # fchmodat2
_MACHINES = {
    # chmod fchmod fchmodat, open openat creat, mkdir mkdirat
    "x86_64": _Machine(
        0xC000003E,
        56,
        (57, 58, 59, 322),
        (133, 259),
        {90: 1, 91: 1, 268: 2, 2: 2, 257: 3, 85: 1, 83: 1, 258: 2, **_EVERYWHERE},
    ),
    "aarch64": _Machine(0xC00000B7, 220, (221, 281), (33,), {52: 1, 53: 2, 56: 3, 34: 2, **_EVERYWHERE}),
}
_CLONE3, _OPENAT2 = 435, 437  # a filter cannot see their arguments; libraries then use the older calls
_SUID_BITS = 0o6000
_OTHER_ABI = 0x40000000


def install(*, processes: bool) -> str:
    """Forbid all this for good; return why it does not hold, or ""."""
    machine = _MACHINES.get(platform.machine())
    if machine is None:
        return "no table of system calls for this machine"
    code = _assemble(machine, processes=processes)
    program = ctypes.create_string_buffer(code, len(code))
    head = struct.pack("HxxxxxxP", len(code) // 8, ctypes.addressof(program))
    library = ctypes.CDLL(None, use_errno=True)
    for call in ((_PR_SET_NO_NEW_PRIVS, 1, None), (_PR_SET_SECCOMP, _FILTER, head)):
        if library.prctl(call[0], ctypes.c_ulong(call[1]), call[2], None, None):
            return os.strerror(ctypes.get_errno())
    return _try_mode() or ("" if processes else _try_fork())


def _assemble(machine: _Machine, *, processes: bool) -> bytes:
    code = [
        _step(_LD, 4),
        _step(_JEQ, machine.audit, 1, 0),
        _step(_RET, _ERRNO | errno.ENOSYS),
        _step(_LD, 0),
        _step(_JSET, _OTHER_ABI, 0, 1),
        _step(_RET, _ERRNO | errno.ENOSYS),
        *_refuse(_OPENAT2, errno.ENOSYS),
    ]
    for number in machine.special:
        code += _refuse(number, errno.EPERM)
    for number, argument in machine.modes.items():
        code += [
            _step(_JEQ, number, 0, 4),
            _step(_LD, 16 + 8 * argument),
            _step(_JSET, _SUID_BITS, 0, 1),
            _step(_RET, _ERRNO | errno.EPERM),
            _step(_RET, _ALLOW),
        ]
    if not processes:
        for number in machine.starting:
            code += _refuse(number, errno.EPERM)
        code += [
            *_refuse(_CLONE3, errno.ENOSYS),
            _step(_JEQ, machine.clone, 0, 3),
            _step(_LD, 16),
            _step(_JSET, _CLONE_THREAD, 1, 0),
            _step(_RET, _ERRNO | errno.EPERM),
        ]
    return b"".join([*code, _step(_RET, _ALLOW)])


def _refuse(number: int, code: int) -> list[bytes]:
    return [_step(_JEQ, number, 0, 1), _step(_RET, _ERRNO | code)]


def _step(operation: int, value: int, if_true: int = 0, if_false: int = 0) -> bytes:
    return struct.pack("HBBI", operation, if_true, if_false, value)


def _try_mode() -> str:
    try:
        os.chmod("/nowhere", 0o4755)  # noqa: S103 -- it must fail
    except PermissionError:
        return ""
    except OSError:
        pass
    return "files can be made to run as their owner all the same"


def _try_fork() -> str:
    try:
        pid = os.fork()
    except PermissionError:
        return ""
    if not pid:
        os._exit(0)
    os.waitpid(pid, 0)
    return "processes can be started all the same"
