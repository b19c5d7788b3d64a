"""The kernel calls that the standard library of Python 3.9 does not have, by ctypes.

Each raises `OSError` with the kernel's own reason. No policy is made here.
"""

from __future__ import annotations

import ctypes
import os
import platform
from functools import lru_cache

from .syscalls import MACHINES, NUMBERS

CLONE_NEWNS, CLONE_NEWUTS, CLONE_NEWIPC = 0x00020000, 0x04000000, 0x08000000
CLONE_NEWUSER, CLONE_NEWPID, CLONE_NEWNET = 0x10000000, 0x20000000, 0x40000000

MS_RDONLY, MS_NOSUID, MS_NODEV, MS_NOEXEC, MS_REMOUNT = 1, 2, 4, 8, 32
MS_BIND, MS_REC, MS_PRIVATE = 0x1000, 0x4000, 1 << 18
MNT_DETACH = 2
MOUNT_ATTR_RDONLY, MOUNT_ATTR_NOSUID, MOUNT_ATTR_NODEV, MOUNT_ATTR_IDMAP = 1, 2, 4, 0x100000

PR_SET_PDEATHSIG, PR_SET_DUMPABLE, PR_SET_SECCOMP = 1, 4, 22
PR_SET_NO_NEW_PRIVS, PR_GET_NO_NEW_PRIVS, PR_CAP_AMBIENT = 38, 39, 47

_AT_FDCWD, _AT_EMPTY_PATH, _AT_RECURSIVE = -100, 0x1000, 0x8000
_OPEN_TREE_CLONE, _MOVE_MOUNT_F_EMPTY_PATH = 1, 4
_OPEN_TREE, _MOVE_MOUNT, _PIDFD_OPEN, _MOUNT_SETATTR = 428, 429, 434, 442  # the same on every machine

libc = ctypes.CDLL(None, use_errno=True)
libc.prctl.argtypes = [ctypes.c_int, *[ctypes.c_ulong] * 4]
libc.prctl.restype = ctypes.c_int

_Header, _Sets, _MountAttributes = ctypes.c_uint32 * 2, ctypes.c_uint32 * 6, ctypes.c_uint64 * 4


def warm_up() -> None:
    """Find the C library's functions now, once, and not again in every copy of this process."""
    for name in ("syscall", "unshare", "setns", "mount", "umount2", "capset", "capget", "sendto", "recvfrom"):
        getattr(libc, name)
    capabilities()


@lru_cache(maxsize=1)
def machine() -> str:
    """Return the kernel's name for this machine, or "" if its calls are not in our table."""
    name = platform.machine()
    return name if name in MACHINES else ""


def number(name: str) -> int | None:
    """Return the number of the system call `name` on this machine, if it has it."""
    return NUMBERS[name][MACHINES.index(machine())]


def syscall(call: int, *arguments: object) -> int:
    """Make a system call by number; integers go as machine words."""
    words = [ctypes.c_long(a) if isinstance(a, int) else a for a in arguments]
    return _checked(libc.syscall(ctypes.c_long(call), *words))


def unshare(flags: int) -> None:
    """Leave the namespaces named by `flags` for new ones."""
    _checked(libc.unshare(flags))


def enter_namespace(fd: int, kind: int) -> None:
    """Enter the namespace that `fd` stands for."""
    _checked(libc.setns(fd, kind))


def mount(source: str, target: str, kind: str | None, flags: int, options: str = "") -> None:
    """Call mount(2)."""
    _checked(libc.mount(_c(source), _c(target), _c(kind), ctypes.c_ulong(flags), _c(options or None)))


def unmount_lazily(target: str) -> None:
    """Detach the mount at `target` now and release it when nothing uses it any more."""
    _checked(libc.umount2(_c(target), MNT_DETACH))


def swap_root(new_root: str) -> None:
    """Make `new_root` the root folder and let go of the old one."""
    os.chdir(new_root)
    pivot = number("pivot_root")
    assert pivot is not None
    syscall(pivot, b".", b".")
    unmount_lazily(".")
    os.chdir("/")


def clone_mounts(path: str) -> int:
    """Return a descriptor of a detached copy of everything mounted at and below `path`."""
    flags = _OPEN_TREE_CLONE | _AT_RECURSIVE | os.O_CLOEXEC
    return syscall(_OPEN_TREE, _AT_FDCWD, _c(path), flags)


def restrict_mounts(fd: int, attributes: int, user_namespace: int = 0) -> None:
    """Set `attributes` on the detached mounts `fd`, and below; map owners through a user namespace."""
    fields = _MountAttributes(attributes, 0, 0, user_namespace)
    flags = _AT_EMPTY_PATH | _AT_RECURSIVE
    syscall(_MOUNT_SETATTR, fd, b"", flags, ctypes.byref(fields), ctypes.sizeof(fields))


def attach_mounts(fd: int, target: str) -> None:
    """Put the detached mounts `fd` at `target`."""
    syscall(_MOVE_MOUNT, fd, b"", _AT_FDCWD, _c(target), _MOVE_MOUNT_F_EMPTY_PATH)


def pidfd_open(pid: int) -> int:
    """Return a descriptor that stands for the process `pid` and for no other that may follow it."""
    return syscall(_PIDFD_OPEN, pid, 0)


def prctl(option: int, *arguments: int) -> int:
    """Call prctl(2)."""
    return _checked(libc.prctl(option, *(*arguments, 0, 0, 0, 0)[:4]))


def drop_all_capabilities() -> None:
    """Give up every capability. With PR_SET_NO_NEW_PRIVS beside it, nothing gives one back."""
    libc.prctl(PR_CAP_AMBIENT, 4, 0, 0, 0)
    header = _Header(0x20080522, 0)
    _checked(libc.capset(ctypes.byref(header), ctypes.byref(_Sets())))


def capabilities() -> int:
    """Return the effective and permitted capabilities of this process, as bits."""
    header, data = _Header(0x20080522, 0), _Sets()
    _checked(libc.capget(ctypes.byref(header), ctypes.byref(data)))
    return (data[0] | data[1]) | (data[3] | data[4]) << 32


def _checked(result: int) -> int:
    if result == -1:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))
    return result


def _c(text: str | None) -> bytes | None:
    return None if text is None else os.fsencode(text)
