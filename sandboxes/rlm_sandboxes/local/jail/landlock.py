"""Landlock: the kernel's own list of the folders this process may read and write.

It needs no privilege, works as any user, and cannot be undone. Rules stand for
the files themselves and not for their names, so links and renames lead nowhere.
"""

from __future__ import annotations

import ctypes
import os
from collections.abc import Iterable
from functools import lru_cache

from . import system

_CREATE_RULESET, _ADD_RULE, _RESTRICT_SELF = 444, 445, 446

EXECUTE, WRITE_FILE, READ_FILE, READ_DIR = 1, 2, 4, 8
REMOVE_DIR, REMOVE_FILE, MAKE_CHAR, MAKE_DIR, MAKE_REG, MAKE_SOCK = 16, 32, 64, 128, 256, 512
MAKE_FIFO, MAKE_BLOCK, MAKE_SYM, REFER, TRUNCATE, IOCTL_DEV = 1024, 2048, 4096, 8192, 16384, 32768

_READ = EXECUTE | READ_FILE | READ_DIR
_WRITE = WRITE_FILE | REMOVE_DIR | REMOVE_FILE | MAKE_DIR | MAKE_REG | MAKE_SYM | REFER | TRUNCATE
_OF_FILES = EXECUTE | WRITE_FILE | READ_FILE | TRUNCATE | IOCTL_DEV  # what a rule on a plain file may say
_HANDLED_SINCE = {1: (1 << 13) - 1, 2: (1 << 14) - 1, 3: (1 << 15) - 1, 5: (1 << 16) - 1}

_NET_TCP = 0b11  # bind and connect, since version 4
_SCOPE = 0b11  # abstract unix sockets and signals, since version 6


@lru_cache(maxsize=1)
def version() -> int:
    """Return which version of Landlock the kernel offers, 0 for none."""
    try:
        return system.syscall(_CREATE_RULESET, 0, 0, 1)
    except OSError:
        return 0


def restrict(readable: Iterable[str], writable: Iterable[str], *, network: bool) -> int:
    """Allow this process, for good, to read and write below these paths and nowhere else.

    Return the version of Landlock that does it. Paths that are not there are left out.
    """
    found = version()
    if not found:
        raise OSError("this kernel has no Landlock, or it is switched off")
    handled = max(mask for since, mask in _HANDLED_SINCE.items() if since <= found)
    ruleset = _create(handled, found, network)
    try:
        for path in readable:
            _allow(ruleset, path, _READ & handled)
        for path in writable:
            _allow(ruleset, path, (_READ | _WRITE) & handled)
        system.syscall(_RESTRICT_SELF, ruleset, 0)
    finally:
        os.close(ruleset)
    return found


def _create(handled: int, found: int, network: bool) -> int:
    tcp = _NET_TCP if found >= 4 and not network else 0
    scope = _SCOPE if found >= 6 else 0
    fields = _Attributes(handled, tcp, scope)
    size = 8 if found < 4 else 16 if found < 6 else 24
    return system.syscall(_CREATE_RULESET, ctypes.byref(fields), size, 0)


_Attributes = ctypes.c_uint64 * 3


class _PathBeneath(ctypes.Structure):
    _pack_ = 1
    _fields_ = [("allowed", ctypes.c_uint64), ("parent", ctypes.c_int32)]


def _allow(ruleset: int, path: str, access: int) -> None:
    try:
        parent = os.open(path, os.O_PATH | os.O_CLOEXEC)
    except (FileNotFoundError, PermissionError):
        return  # it is not there, or out of reach without us
    try:
        if not os.path.isdir(path):
            access &= _OF_FILES
        rule = _PathBeneath(access, parent)
        system.syscall(_ADD_RULE, ruleset, 1, ctypes.byref(rule), 0)
    finally:
        os.close(parent)
