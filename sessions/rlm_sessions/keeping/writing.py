"""Writing snapshots down, from the stream in which a guest tells them.

What a guest says is data: it is bounded, checked and stored, never unpickled. Whatever
happens meanwhile, the last whole snapshot stays: a new one takes its place only when
nothing of it is missing any more.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import math
import os
import shutil
import threading
import time
from pathlib import Path
from typing import Any

from ..guest import states
from . import files
from .files import blob_file, blobs_of, state_file

_SYNC_SECONDS = 1.0
_MOST_NUMBER = 10**12
_MOST_LOST, _MOST_BLOBS = 1000, 20_000
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
        self._state: _State | None = None
        self._blob: _Blob | None = None
        self._blobs: dict[str, int] = {}  # the large values that came with this snapshot
        self._unsynced: list[Path] = []
        self._synced_at = 0.0
        self._lock = threading.Lock()
        self._whole: dict[int, dict[str, int]] = {}  # the snapshots that are there, and their large values
        self._digests: dict[int, str] = {}
        with contextlib.suppress(OSError):  # whoever is to write there hears of it
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
        try:
            if not 0 < number < _MOST_NUMBER:
                raise _Refused("its number makes no sense")
            self._state = _State(state_file(self._folder, number))
        except (OSError, _Refused) as problem:
            self._refuse(problem)

    def _drop(self) -> None:
        """Forget a snapshot that is not whole, and what came with it."""
        for part in (self._blob, self._state):
            if part is not None:
                part.discard()
        needed = {blob for blobs in self._whole.values() for blob in blobs}
        for blob in self._blobs.keys() - needed:
            blob_file(self._folder, blob).unlink(missing_ok=True)
        self._blob, self._state, self._refused, self._blobs = None, None, None, {}

    def _take_part(self, record: Any) -> None:
        try:
            assert self._state is not None
            if isinstance(record, states.Data):
                assert self._blob is not None
                self._blob.write(record.data)
                return
            self._finish_blob()
            if isinstance(record, states.BlobStart):
                self._check_room(record.size)
                self._blob = _Blob(self._folder, record.hash, record.size)
            elif isinstance(record, states.Pickle):
                self._check_room(len(record.data))
                self._state.write_pickle(record.data)
            elif isinstance(record, states.Manifest):
                self._state.write_manifest(record.facts, record.data)
        except (OSError, _Refused) as problem:
            self._refuse(problem)

    def _refuse(self, problem: Exception) -> None:
        why = _in_words(problem)
        self._drop()
        self._refused = why

    def _check_room(self, more: int) -> None:
        held = self._state.pickle_bytes if self._state is not None else 0
        if sum(self._blobs.values()) + more + held > self._most_bytes:
            raise _Refused(_too_large(self._most_bytes))

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
        state = self._state
        if state is None:
            raise _Refused("it has no beginning")
        blobs, told = blobs_of(state.manifest), _told(state.manifest)
        if sum(blobs.values()) + state.pickle_bytes > self._most_bytes:
            raise _Refused(_too_large(self._most_bytes))
        if not all(blob_file(self._folder, blob).exists() for blob in blobs):
            return {"again": self._number}  # what it thought to be here is not: all once more
        self._unsynced.append(state.finish(digest))
        self._state = None
        self._whole[self._number], self._digests[self._number] = blobs, digest
        self._settle()
        size = state.pickle_bytes + sum(blobs.values())
        return {"kept": self._number, "digest": digest, "blobs": sorted(blobs), "bytes": size, **told}

    def _again(self, number: int, digest: str) -> dict[str, Any]:
        """The step `number` changed nothing: the newest snapshot is also that of this step."""
        self._drop()
        newest = max(self._whole, default=None)
        if newest is None or not newest <= number < _MOST_NUMBER or self._digests.get(newest) != digest:
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
        """See which snapshots are there, and remove what a keeper that was killed left half written."""
        for path in (*self._folder.glob(".*.new"), *self._folder.glob("blobs/*/.*.new")):
            path.unlink(missing_ok=True)
        for number in files.numbers(self._folder)[:3]:
            with contextlib.suppress(files.Damaged):
                found = files.look(self._folder, number)
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


class _State:
    """The file of a snapshot on its way to its name."""

    def __init__(self, path: Path) -> None:
        self.pickle_bytes = 0
        self.manifest: dict[str, Any] = {}
        self._manifest_bytes = 0
        self._path = path
        self._temporary = path.with_name(f".{path.name}.{os.getpid()}.new")
        self._file = _create(self._temporary)
        _write_all(self._file, bytes(files.HEAD_BYTES))

    def write_pickle(self, data: bytes) -> None:
        self.pickle_bytes += len(data)
        _write_all(self._file, data)

    def write_manifest(self, facts: dict[str, Any], data: bytes) -> None:
        self.manifest, self._manifest_bytes = facts, len(data)
        _write_all(self._file, data)

    def finish(self, digest: str) -> Path:
        """Give it its name."""
        lengths = {"pickle_bytes": self.pickle_bytes, "manifest_bytes": self._manifest_bytes}
        os.pwrite(self._file, files.head(**lengths, digest=digest), 0)
        os.close(self._file)
        self._file = -1
        self._temporary.rename(self._path)
        return self._path

    def discard(self) -> None:
        if self._file >= 0:
            os.close(self._file)
            self._file = -1
        self._temporary.unlink(missing_ok=True)


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
        self._file = _create(self._temporary)

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


def _told(manifest: dict[str, Any]) -> dict[str, Any]:
    """Return what the server is to know of a manifest, bounded: a guest says in it what it likes."""
    lost = [
        [str(word)[:300] for word in each] for each in manifest.get("lost", [])[:_MOST_LOST] if len(each) == 3
    ]
    hashed = [list(each) for each in manifest.get("hashed", [])]
    if len(hashed) > _MOST_BLOBS or len(manifest.get("blobs", [])) > _MOST_BLOBS:
        raise _Refused(f"it has more than {_MOST_BLOBS} large values")
    plain = all(isinstance(word, (int, str)) and len(str(word)) < 100 for each in hashed for word in each)
    return {"lost": lost, "hashed": hashed if plain else []}


def _too_large(most_bytes: int) -> str:
    return f"what is to be kept is larger than the {most_bytes} bytes that are allowed for it"


def _create(path: Path) -> int:
    return os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)


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
        temporary = new.with_name(f".{new.name}.{os.getpid()}.new")
        shutil.copyfile(old, temporary)
        temporary.rename(new)


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
