"""A lock that a dead owner cannot hold.

It is the operating system's lock on an open file, so it ends with the last process that holds
that file open, however that process ends. Nothing here waits, and nothing is ever broken by
age or by a process number: those are only told to people, and the lock alone decides.

A child that is forked and keeps the file open holds the lock as well; a program that is started gets it
only if `fileno()` is passed on to it.
"""

from __future__ import annotations

import contextlib
import json
import os
import socket
import stat
import sys
import threading
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from .errors import SessionError

if sys.platform == "win32":
    import msvcrt
else:
    import fcntl

_FLAGS: int = (
    os.O_RDWR | getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NOCTTY", 0)
)
_FACTS_BYTES = 512  # always written whole, so that who reads meanwhile sees the old owner or the new one
_TRIES = 100


class LockUnusable(SessionError):
    """The file of a lock cannot be used."""

    def __init__(self, path: Path, why: str) -> None:
        self.path = path
        self.why = why
        super().__init__(
            f"The lock file {path} cannot be used: {why}. Whether somebody else has this project open is not "
            "known, so it was not opened. Look at that file, and remove it if it is no lock file of ours."
        )


@dataclass(frozen=True)
class Owner:
    """Who took a lock. `alive` says whether that process still runs, as far as it can be seen from here."""

    pid: int
    host: str
    started: str
    alive: bool


class OwnerLock:
    """An exclusive lock on the file `path`, not held at first. Safe to use from several threads."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._file: int | None = None
        self._guard = threading.Lock()

    @property
    def held(self) -> bool:
        """Whether this object holds the lock."""
        return self._file is not None

    def acquire(self) -> bool:
        """Take the lock if nobody holds it; return whether it is held now. Raise `LockUnusable`."""
        with self._guard:
            if self._file is None:
                try:
                    self._file = self._take()
                except OSError as problem:
                    raise LockUnusable(self.path, _reason(problem)) from problem
            return self._file is not None

    def _take(self) -> int | None:
        # The file may be removed between opening and locking it; a lock on a file without a name excludes nobody.
        for _ in range(_TRIES):
            file = os.open(self.path, _FLAGS | os.O_CREAT, 0o600)
            try:
                if not stat.S_ISREG(os.fstat(file).st_mode):
                    raise LockUnusable(self.path, "it is no regular file")
                locked = _lock(file)
                if locked and _is_still(self.path, file):
                    _note_owner(file)
                    held, file = file, -1
                    return held
            finally:
                if file >= 0:
                    os.close(file)
            if not locked:
                return None
        raise LockUnusable(self.path, "somebody keeps removing it")

    def fileno(self) -> int:
        """Return the open file that carries the lock; a process that it is passed to holds the lock too."""
        if self._file is None:
            raise ValueError(f"The lock {self.path} is not held, so there is no file to pass on.")
        return self._file

    def owner(self) -> Owner | None:
        """Return who took the lock last, or None if nobody has or it cannot be read."""
        try:
            file = os.open(self.path, _FLAGS)
        except OSError:
            return None
        try:
            return _owner(json.loads(os.read(file, _FACTS_BYTES)))
        except (OSError, ValueError):
            return None
        finally:
            os.close(file)

    def release(self) -> None:
        """Give the lock back, if it is held; a process that the file was passed to keeps it."""
        with self._guard:
            if self._file is not None:
                os.close(self._file)
                self._file = None


def _reason(problem: OSError) -> str:
    return problem.strerror or str(problem)


def _is_still(path: Path, file: int) -> bool:
    try:
        return os.path.samestat(path.lstat(), os.fstat(file))
    except FileNotFoundError:
        return False


def _note_owner(file: int) -> None:
    facts = {"pid": os.getpid(), "host": socket.gethostname(), "started": datetime.now(UTC).isoformat()}
    with contextlib.suppress(OSError):  # on a full disk the lock holds as well, only namelessly
        os.lseek(file, 0, os.SEEK_SET)
        os.write(file, json.dumps(facts).encode().ljust(_FACTS_BYTES - 1) + b"\n")


def _owner(value: Any) -> Owner | None:
    facts: dict[str, Any] = value
    if type(facts) is not dict:
        return None
    pid, host, started = (facts.get(name) for name in ("pid", "host", "started"))
    if not (isinstance(pid, int) and pid > 0 and isinstance(host, str) and isinstance(started, str)):
        return None
    return Owner(pid, host, started, host != socket.gethostname() or runs(pid))


if sys.platform == "win32":

    def _lock(file: int) -> bool:
        os.lseek(file, 1 << 30, os.SEEK_SET)  # far behind the facts: what is locked cannot be read there
        try:
            msvcrt.locking(file, msvcrt.LK_NBLCK, 1)
        except OSError:
            return False
        return True

    def runs(pid: int) -> bool:
        """Return whether there is such a process, as far as that can be seen."""
        return True  # to ask is to end it: os.kill knows no harmless signal there

else:

    def _lock(file: int) -> bool:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True

    def runs(pid: int) -> bool:
        """Return whether there is such a process, as far as that can be seen."""
        try:
            os.kill(pid, 0)
        except (ProcessLookupError, OverflowError):
            return False
        except OSError:
            return True
        return True
