"""Writing snapshots down, from the stream in which a guest tells them.

What a guest says is data: it is bounded, checked and stored, never unpickled. Whatever
happens meanwhile, the last whole snapshot stays: a new one takes its place only when
nothing of it is missing any more.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import math
import os
import threading
import time
from pathlib import Path
from typing import Any

from ..guest import states
from . import files
from .files import blob_file, blobs_of, state_file

_SYNC_SECONDS = 1.0
_CHEAP_BYTES = 16 * 1024 * 1024  # an older snapshot is kept as a reserve while it costs no more than this


class _Refused(Exception):
    """This snapshot cannot be kept, and why."""


class StateWriter:
    """Writes the snapshots of one session into `folder`, which may grow to `most_bytes`.

    With `durable`, a snapshot is reported when the disk has it; else when the system has it,
    and the disk gets it within moments. What is deleted to make place is deleted after that.
    """

    def __init__(self, folder: Path, *, most_bytes: int, durable: bool) -> None:
        self._folder = folder
        self._most_bytes = most_bytes
        self._durable = durable
        self._number = 0
        self._refused: str | None = None
        self._pickle: list[bytes] = []
        self._pickle_bytes = 0
        self._manifest = b""
        self._blob: _Blob | None = None
        self._blobs: dict[str, int] = {}
        self._unsynced: list[Path] = []
        self._synced_at = 0.0
        self._lock = threading.Lock()
        self._whole: dict[int, dict[str, int]] = {}  # the snapshots that are there, and their large values
        self._digests: dict[int, str] = {}
        self._look()
        self._clean_up()

    def take(self, record: Any) -> dict[str, Any] | None:
        """Take in one record; return what to report when it ends a snapshot."""
        with self._lock:
            return self._take(record)

    def _take(self, record: Any) -> dict[str, Any] | None:
        if isinstance(record, states.Begin):
            self._begin(record.number)
        elif isinstance(record, states.Same):
            return self._again(record.number, record.digest.hex())
        elif isinstance(record, states.GivenUp):
            self._drop()
            return {"failed": record.number, "reason": f"what it holds could not be told: {record.reason}"}
        elif isinstance(record, states.End):
            return self._end(record.digest.hex())
        elif self._refused is None:
            self._take_part(record)
        return None

    def _begin(self, number: int) -> None:
        self._drop()
        self._number = number

    def _drop(self) -> None:
        """Forget a snapshot that is not whole."""
        if self._blob is not None:
            self._blob.discard()
        self._blob, self._refused = None, None
        self._pickle, self._pickle_bytes, self._manifest, self._blobs = [], 0, b"", {}

    def _take_part(self, record: Any) -> None:
        try:
            if isinstance(record, states.BlobStart):
                self._finish_blob()
                self._check_room(record.size)
                self._blob = _Blob(self._folder, record.hash, record.size)
            elif isinstance(record, states.Data):
                assert self._blob is not None
                self._blob.write(record.data)
            elif isinstance(record, states.Pickle):
                self._finish_blob()
                self._pickle.append(record.data)
                self._pickle_bytes += len(record.data)
                self._check_room(0)
            elif isinstance(record, states.Manifest):
                self._finish_blob()
                self._manifest = record.data
        except (OSError, _Refused) as problem:
            self._refuse(problem)

    def _refuse(self, problem: Exception) -> None:
        self._refused = _in_words(problem)
        if self._blob is not None:
            self._blob.discard()
        self._blob, self._pickle = None, []

    def _check_room(self, more: int) -> None:
        new = sum(self._blobs.values()) + more + self._pickle_bytes
        if new > self._most_bytes:
            raise _Refused(
                f"what is to be kept is larger than the {self._most_bytes} bytes that are allowed for it"
            )

    def _finish_blob(self) -> None:
        if self._blob is None:
            return
        blob, self._blob = self._blob, None
        self._unsynced.append(blob.finish())
        self._blobs[blob.digest] = blob.size

    # ---- ends of a snapshot

    def _end(self, digest: str) -> dict[str, Any]:
        number, problem = self._number, self._refused
        try:
            if problem is None:
                return self._write(digest)
        except (OSError, ValueError, TypeError, _Refused) as raised:
            problem = _in_words(raised)
        finally:
            self._drop()
        return {"failed": number, "reason": problem}

    def _write(self, digest: str) -> dict[str, Any]:
        manifest = json.loads(self._manifest)
        blobs = blobs_of(manifest)
        if sum(blobs.values()) + self._pickle_bytes > self._most_bytes:
            raise _Refused(
                f"what is to be kept is larger than the {self._most_bytes} bytes that are allowed for it"
            )
        if not all(blob_file(self._folder, blob).exists() for blob in blobs):
            return {"again": self._number}  # what it thought to be here is not: all once more
        head = files.header(len(self._manifest), self._pickle_bytes, digest)
        path = _write_file(state_file(self._folder, self._number), [head, self._manifest, *self._pickle])
        self._whole[self._number], self._digests[self._number] = blobs, digest
        self._unsynced.append(path)
        self._settle()
        return {
            "kept": self._number,
            "digest": digest,
            "blobs": sorted(blobs),
            "hashed": manifest.get("hashed", []),
            "lost": manifest.get("lost", []),
            "bytes": self._pickle_bytes + sum(blobs.values()),
        }

    def _again(self, number: int, digest: str) -> dict[str, Any]:
        """The step `number` changed nothing: the newest snapshot is also that of this step."""
        self._drop()
        newest = max(self._whole, default=None)
        if newest is None or number < newest or self._digests.get(newest) != digest:
            return {"again": number}
        try:
            _link(state_file(self._folder, newest), state_file(self._folder, number))
            self._whole[number], self._digests[number] = self._whole[newest], digest
            self._unsynced.append(state_file(self._folder, number))
            self._settle()
        except OSError as problem:
            return {"failed": number, "reason": _in_words(problem)}
        return {"kept": number, "same": True}

    # ---- disk

    def _settle(self) -> None:
        if self._durable or time.monotonic() - self._synced_at > _SYNC_SECONDS:
            self._sync()
            self._clean_up()

    def _sync(self) -> None:
        """Have the disk take in everything that was written."""
        unsynced, self._unsynced = self._unsynced, []
        folders: set[Path] = set()
        for path in unsynced:
            try:
                _sync_path(path)
            except FileNotFoundError:
                continue  # it got another name, and that stands in the list too
            folders.add(path.parent)
        for folder in folders:
            _sync_path(folder)
        self._synced_at = time.monotonic()

    def _look(self) -> None:
        """See which snapshots are there."""
        for number in files.numbers(self._folder)[:3]:
            with contextlib.suppress(files.Damaged):
                found = files.read(self._folder, number)
                self._whole[number], self._digests[number] = blobs_of(found.manifest), found.digest

    def _clean_up(self, *, most_extra: float = math.inf) -> None:
        """Delete older snapshots, and the large values that none needs any more.

        The last two stay, because a server that dies may never have told anybody of the last step;
        once it is known to have done so, the one before stays only while it costs little.
        """
        if not self._whole:
            return  # none can be read: let whoever asks for them say so, and delete nothing
        newest, *older = sorted(self._whole, reverse=True)
        keeps, blobs = {newest}, dict(self._whole[newest])
        if older:
            extra = {blob: size for blob, size in self._whole[older[0]].items() if blob not in blobs}
            if sum(extra.values()) <= most_extra:
                keeps.add(older[0])
                blobs.update(extra)
        for number in files.numbers(self._folder):
            if number not in keeps and number < newest:
                state_file(self._folder, number).unlink(missing_ok=True)
                self._whole.pop(number, None)
                self._digests.pop(number, None)
        self._remove_blobs(blobs)

    def _remove_blobs(self, kept: dict[str, int]) -> None:
        blobs = self._folder / "blobs"
        if not blobs.is_dir():
            return
        for path in blobs.glob("*/*"):
            if path.name not in kept and path.name not in self._blobs:
                path.unlink(missing_ok=True)

    def close(self) -> None:
        """Leave everything on disk, whole."""
        with self._lock:
            self._drop()
        self.tidy(answered=False)

    def tidy(self, *, answered: bool) -> None:
        """Take no more place than needed, with everything on disk."""
        with self._lock, contextlib.suppress(OSError):
            if self._unsynced:
                self._sync()
            self._clean_up(most_extra=_CHEAP_BYTES if answered else math.inf)


class _Blob:
    """A large value on its way to its file."""

    def __init__(self, folder: Path, digest: str, size: int) -> None:
        self.digest = digest
        self.size = size
        self._left = size
        self._path = blob_file(folder, digest)
        self._path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._temporary = self._path.with_name(f".{digest}.{os.getpid()}.new")
        self._found = hashlib.sha256()
        self._file = os.open(self._temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW, 0o600)

    def write(self, data: bytes) -> None:
        self._found.update(data)
        self._left -= len(data)
        _write_all(self._file, data)

    def finish(self) -> Path:
        """Give the value its name, if it is what it was said to be."""
        os.close(self._file)
        self._file = -1
        if self._left or self._found.hexdigest() != self.digest:
            self.discard()
            raise _Refused("a large value arrived that is not what was announced")
        self._temporary.rename(self._path)
        return self._path

    def discard(self) -> None:
        if self._file >= 0:
            os.close(self._file)
            self._file = -1
        self._temporary.unlink(missing_ok=True)


def _write_file(path: Path, parts: list[bytes]) -> Path:
    temporary = path.with_name(f".{path.name}.{os.getpid()}.new")
    file = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW, 0o600)
    try:
        try:
            for part in parts:
                _write_all(file, part)
        finally:
            os.close(file)
        temporary.rename(path)
    except OSError:
        temporary.unlink(missing_ok=True)
        raise
    return path


def _link(old: Path, new: Path) -> None:
    """Give a file a second name; where that cannot be, copy it."""
    if new == old:
        return
    new.unlink(missing_ok=True)
    try:
        new.hardlink_to(old)
    except OSError as problem:
        if problem.errno in (errno.ENOSPC, errno.EDQUOT, errno.EROFS):
            raise
        _write_file(new, [old.read_bytes()])


def _write_all(file: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(file, view) :]


def _sync_path(path: Path) -> None:
    flags = os.O_RDONLY | os.O_CLOEXEC | getattr(os, "O_DIRECTORY", 0) * path.is_dir()
    file = os.open(path, flags)
    try:
        os.fsync(file)
    finally:
        os.close(file)


def _in_words(problem: Exception) -> str:
    if isinstance(problem, OSError) and problem.errno in (errno.ENOSPC, errno.EDQUOT):
        return "the disk is full"
    if isinstance(problem, OSError) and problem.errno in (errno.EROFS, errno.EACCES, errno.EPERM):
        return "the disk cannot be written to"
    if isinstance(problem, OSError):
        return problem.strerror or str(problem)
    return str(problem)
