"""Reading and replacing a file that belongs to another program.

What is there is never lost: a copy is kept beside it, the new file takes its place in one step with
the same mode and owner, through a link if it is one, and only if nobody changed it since it was read.
"""

from __future__ import annotations

import os
import secrets
import stat
import sys
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from .errors import DoorError

_BOM = b"\xef\xbb\xbf"
_MAX_BYTES = 64 * 1024 * 1024


class FileTrouble(DoorError):
    """A client's file cannot be read, understood or replaced."""

    def __init__(self, path: Path, why: str, advice: str) -> None:
        self.path = path
        self.why = why
        super().__init__(f"{path} {why}. Nothing was written. {advice}")


@dataclass(frozen=True)
class ClientFile:
    """A file as it was when it was read. `data` is None if there was none."""

    path: Path
    target: Path
    data: bytes | None

    @property
    def text(self) -> str:
        """What is in it; empty if there is none. Raise `FileTrouble`."""
        try:
            return (self.data or b"").removeprefix(_BOM).decode()
        except UnicodeDecodeError as problem:
            why = f"is no UTF-8 text (byte {problem.start})"
            raise FileTrouble(self.path, why, "Save it as UTF-8, or add the entry by hand.") from problem


def read(path: Path) -> ClientFile:
    """Return the file at `path` as it is now. Raise `FileTrouble`."""
    try:
        target = path.resolve()
        return ClientFile(path, target, _bytes_of(target))
    except (OSError, RuntimeError) as problem:
        why = f"cannot be read: {getattr(problem, 'strerror', None) or problem}"
        raise FileTrouble(path, why, "Mend that, or add the entry by hand.") from problem


def replace(file: ClientFile, text: str, *, shared: bool = False) -> Path | None:
    """Write `text` in place of `file`; return where the copy of what was there is kept, if there was something.

    A file that was not there is for this account alone unless it is `shared`. Raise `FileTrouble` if it has
    changed since it was read.
    """
    try:
        file.target.parent.mkdir(parents=True, exist_ok=True)
        with _alone(file.target.parent):
            temporary = _written_beside(file, text.encode(), 0o666 if shared else 0o600)
            try:
                if _bytes_of(file.target) != file.data:
                    raise FileTrouble(file.path, "was changed by another program meanwhile", "Try again.")
                backup = _copy_beside(file)
                temporary.replace(file.target)
                return backup
            finally:
                temporary.unlink(missing_ok=True)
    except (OSError, UnicodeEncodeError) as problem:
        why = f"cannot be replaced: {getattr(problem, 'strerror', None) or problem}"
        raise FileTrouble(file.path, why, "Mend that, or add the entry by hand.") from problem


def _bytes_of(target: Path) -> bytes | None:
    try:
        if not stat.S_ISREG(target.stat().st_mode):
            raise OSError("it is no ordinary file")
        if target.stat().st_size > _MAX_BYTES:
            raise OSError("it is too large for a list of servers")
        return target.read_bytes()
    except FileNotFoundError:
        return None


def _written_beside(file: ClientFile, data: bytes, mode: int) -> Path:
    """Return a new file with `data`, and with the mode and the owner of `file` if that is there."""
    path = file.target.with_name(f".{file.target.name}.{secrets.token_hex(4)}.tmp")
    _create(path, file, data, mode if file.data is None else 0o600)
    return path


def _copy_beside(file: ClientFile) -> Path | None:
    if file.data is None:
        return None
    number = 1
    while True:
        path = file.target.with_name(f"{file.target.name}.bak-{number}")
        try:
            _create(path, file, file.data)
        except FileExistsError:
            number += 1
        else:
            return path


def _create(path: Path, like: ClientFile, data: bytes, mode: int = 0o600) -> None:
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode), "wb") as opened:
        if sys.platform != "win32":
            _make_alike(opened.fileno(), like)
        opened.write(data)
        opened.flush()
        os.fsync(opened.fileno())


def _make_alike(descriptor: int, like: ClientFile) -> None:
    assert sys.platform != "win32"
    if like.data is None:
        return
    facts = like.target.stat()
    if (facts.st_uid, facts.st_gid) != (os.geteuid(), os.getegid()):
        try:
            os.fchown(descriptor, facts.st_uid, facts.st_gid)
        except PermissionError:
            pass
    os.fchmod(descriptor, stat.S_IMODE(facts.st_mode))


@contextmanager
def _alone(folder: Path) -> Generator[None]:
    """Keep others of us out of `folder`, where the system can."""
    if sys.platform == "win32":
        yield
        return
    import fcntl

    descriptor = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)
