"""Whole outputs and images, readable by id for a while after a cell was answered with a part of them.

Each is one file, named for its id and how long it is, and nothing else: a crash leaves a whole
output or none. The oldest make room for new ones; whoever holds an id that is gone is told so.

Everything here blocks and belongs in a worker thread; all of it is safe to use from several.
"""

from __future__ import annotations

import os
import re
import secrets
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple, TextIO

from .errors import SessionError
from .places import PlaceError, private_folder, write_whole

MOST_BYTES = 64 * 1024 * 1024
MOST_SECONDS = 7 * 24 * 3600.0
CHUNK_CHARACTERS = 20_000
MEMORY_BYTES = 256 * 1024

_ID = re.compile(r"c(\d{1,12})-[0-9a-f]{16}")
_NAME = re.compile(r"(c\d{1,12}-[0-9a-f]{16})\.(\d{1,15})\.(txt|png|jpg|gif|svg|md|html|bin)")
_MIMES = {
    "txt": "text/plain",
    "png": "image/png",
    "jpg": "image/jpeg",
    "gif": "image/gif",
    "svg": "image/svg+xml",
    "md": "text/markdown",
    "html": "text/html",
    "bin": "application/octet-stream",
}
_SUFFIXES = {mime: suffix for suffix, mime in _MIMES.items() if suffix != "txt"}
_TEMPORARY, _TEMPORARY_SECONDS = ".tmp-", 24 * 3600.0
_SKIP_CHARACTERS = 1024 * 1024
_FLAGS: int = getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_CLOEXEC", 0)


class OutputNotFound(SessionError):
    """There is no output of that id, or none any more."""

    def __init__(self, id: str) -> None:  # noqa: A002 -- what it is called everywhere
        self.id = id
        super().__init__(
            f"There is no output {id[:60]!r}: old ones are removed after a while. Run the cell again to get it anew."
        )


class OutputsFull(SessionError):
    """A whole output cannot be kept; what is shown of it is all there is."""

    def __init__(self, why: str) -> None:
        self.why = why
        super().__init__(
            f"The whole output cannot be kept: {why}. What was shown of it is all there is. "
            "To see more, run the cell again and print a part, or write to a file."
        )


@dataclass(frozen=True)
class Kept:
    """An output or image that can be read. `total` counts characters of text, and bytes of all else."""

    id: str
    cell: int
    mime: str
    total: int
    size_bytes: int
    kept_at: float


@dataclass(frozen=True)
class Chunk:
    """A part of an output: `text`, or `data` for what is none. `next_offset` is None at the end."""

    id: str
    mime: str
    total: int
    text: str | None = None
    data: bytes | None = None
    next_offset: int | None = None


class _File(NamedTuple):
    kept: Kept
    path: Path
    changed: int


class Outputs:
    """The outputs kept in `folder`, of which the oldest go beyond `most_bytes` and after `most_seconds`."""

    def __init__(
        self, folder: Path, *, most_bytes: int = MOST_BYTES, most_seconds: float = MOST_SECONDS
    ) -> None:
        self.folder = folder
        self.most_bytes = most_bytes
        self.most_seconds = most_seconds
        self._guard = threading.Lock()

    def begin(self, cell: int, *, memory_bytes: int = MEMORY_BYTES) -> OutputWriter:
        """Return what takes in the output of a cell. Nothing is written to the disk before `memory_bytes`."""
        return OutputWriter(self, cell, memory_bytes)

    def keep_image(self, cell: int, mime: str, data: bytes) -> str:
        """Keep an image, or another thing to look at, and return its id. Raise `OutputsFull`."""
        if len(data) > self.most_bytes:
            raise OutputsFull(
                f"it has {len(data)} bytes, and all outputs together may have {self.most_bytes}"
            )
        temporary = self.new_file()
        try:
            with os.fdopen(temporary.file, "wb") as file:
                file.write(data)
            suffix = _SUFFIXES.get(mime, "bin")
            return self.settle(temporary.path, cell, f"{len(data)}.{suffix}")
        except OSError as problem:
            temporary.path.unlink(missing_ok=True)
            raise OutputsFull(_reason(problem)) from problem

    def read(self, id: str, *, offset: int = 0, limit: int = CHUNK_CHARACTERS) -> Chunk:  # noqa: A002
        """Return up to `limit` characters of a text from `offset` on, or bytes of what is no text.

        Raise `OutputNotFound`.
        """
        found = self._find(id)
        kept, offset, limit = found.kept, max(offset, 0), max(limit, 0)
        try:
            file = os.open(found.path, os.O_RDONLY | _FLAGS)
        except OSError:
            raise OutputNotFound(id) from None
        with os.fdopen(file, "rb") as opened:
            end = min(offset + limit, kept.total)
            following = end if end < kept.total else None
            if kept.mime != "text/plain":
                opened.seek(min(offset, kept.total))
                return Chunk(id, kept.mime, kept.total, data=opened.read(limit), next_offset=following)
        text = _text(found, offset, limit)
        return Chunk(id, kept.mime, kept.total, text=text, next_offset=following)

    def kept(self, limit: int = 100) -> list[Kept]:
        """Return what can be read, the newest first."""
        return [file.kept for file in reversed(self._files())][:limit]

    # ---- for the writer

    def new_file(self) -> _Temporary:
        """Make a file for an output that is not whole yet. Raise `OutputsFull`."""
        path = self.folder / f"{_TEMPORARY}{secrets.token_hex(8)}"
        try:
            private_folder(self.folder)
            return _Temporary(path, os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | _FLAGS, 0o600))
        except OSError as problem:
            raise OutputsFull(_reason(problem)) from problem
        except PlaceError as problem:
            raise OutputsFull(problem.why) from problem

    def settle(self, temporary: Path, cell: int, ending: str) -> str:
        """Make room for an output that is whole, give it its name, and return its id."""
        id_ = f"c{cell}-{secrets.token_hex(8)}"
        with self._guard:
            newest = self._make_room(temporary.stat().st_size)
            # Order hangs on these times, and the clock may have been set back.
            now = max(time.time_ns(), newest + 1)
            os.utime(temporary, ns=(now, now))
            temporary.rename(self.folder / f"{id_}.{ending}")
        return id_

    def _make_room(self, coming_bytes: int) -> int:
        files = self._files()
        total = sum(file.kept.size_bytes for file in files) + coming_bytes
        for file in files:
            if total <= self.most_bytes and time.time() - file.kept.kept_at <= self.most_seconds:
                break
            file.path.unlink(missing_ok=True)
            total -= file.kept.size_bytes
        self._sweep()
        return files[-1].changed if files else 0

    def _sweep(self) -> None:
        for path in self.folder.glob(f"{_TEMPORARY}*"):
            try:
                if time.time() - path.lstat().st_mtime > _TEMPORARY_SECONDS:
                    path.unlink()
            except OSError:
                continue

    def _files(self) -> list[_File]:
        """Return the files of outputs, the oldest first."""
        try:
            with os.scandir(self.folder) as entries:
                found = [file for entry in entries if (file := _file(entry))]
        except OSError:
            return []
        return sorted(found, key=lambda file: (file.changed, file.kept.id))

    def _find(self, id: str) -> _File:  # noqa: A002
        if _ID.fullmatch(id):
            for file in self._files():
                if file.kept.id == id:
                    return file
        raise OutputNotFound(id)


class _Temporary(NamedTuple):
    path: Path
    file: int


class OutputWriter:
    """Takes in the output of one cell, to be kept or discarded at its end. `Outputs.begin` makes one."""

    def __init__(self, outputs: Outputs, cell: int, memory_bytes: int) -> None:
        self._outputs = outputs
        self._cell = cell
        self._memory_bytes = memory_bytes
        self._held: list[bytes] = []
        self._held_bytes = 0
        self._written_bytes = 0
        self._characters = 0
        self._temporary: _Temporary | None = None
        self._over: OutputsFull | None = None
        self._done = False
        self._guard = threading.Lock()

    def write(self, text: str) -> None:
        """Take in more. Raise `OutputsFull` once if there is no room for it; then all of it is lost."""
        data = text.encode("utf-8", "surrogatepass")
        with self._guard:
            if self._over is not None or self._done:
                return
            self._held.append(data)
            self._held_bytes += len(data)
            self._characters += len(text)
            if self._held_bytes > self._memory_bytes:
                self._spill()

    def keep(self) -> str:
        """Make all that was taken in readable, and return its id. Raise `OutputsFull`."""
        with self._guard:
            if self._done:
                raise ValueError("This output was kept or discarded before.")
            if self._over is not None:
                raise self._over
            self._spill()
            assert self._temporary is not None
            try:
                os.close(self._temporary.file)
                id_ = self._outputs.settle(self._temporary.path, self._cell, f"{self._characters}.txt")
            except OSError as problem:
                self._temporary.path.unlink(missing_ok=True)
                self._over = OutputsFull(_reason(problem))
                raise self._over from problem
            finally:
                self._temporary, self._done = None, True
            return id_

    def discard(self) -> None:
        """Forget all that was taken in, unless it was kept."""
        with self._guard:
            self._done = True
            self._drop()

    def _drop(self) -> None:
        self._held.clear()
        self._held_bytes = 0
        if self._temporary is not None:
            os.close(self._temporary.file)
            self._temporary.path.unlink(missing_ok=True)
            self._temporary = None

    def _spill(self) -> None:
        """Write what is held to the disk."""
        most = self._outputs.most_bytes
        try:
            if self._written_bytes + self._held_bytes > most:
                raise OutputsFull(f"it is longer than all outputs together may be ({most} bytes)")
            self._temporary = self._temporary or self._outputs.new_file()
            write_whole(self._temporary.file, b"".join(self._held))
        except OutputsFull as problem:
            self._over = problem
            self._drop()
            raise
        except OSError as problem:
            self._over = OutputsFull(_reason(problem))
            self._drop()
            raise self._over from problem
        self._written_bytes += self._held_bytes
        self._held.clear()
        self._held_bytes = 0


def _reason(problem: OSError) -> str:
    return problem.strerror or str(problem)


def _file(entry: os.DirEntry[str]) -> _File | None:
    match = _NAME.fullmatch(entry.name)
    try:
        if match is None or not entry.is_file(follow_symlinks=False):
            return None
        facts = entry.stat(follow_symlinks=False)
    except OSError:  # removed, this moment
        return None
    cell = int(match[1][1:].split("-")[0])
    kept = Kept(match[1], cell, _MIMES[match[3]], int(match[2]), facts.st_size, facts.st_mtime)
    return _File(kept, Path(entry.path), facts.st_mtime_ns)


def _text(found: _File, offset: int, limit: int) -> str:
    """Return some characters of a text file without holding more of it than a part."""
    errors = "surrogatepass"
    while True:
        try:
            with found.path.open(encoding="utf-8", errors=errors, newline="") as file:
                if found.kept.size_bytes == found.kept.total:  # a byte for each character
                    file.seek(min(offset, found.kept.total))
                else:
                    _skip(file, offset)
                return file.read(limit)
        except FileNotFoundError:
            raise OutputNotFound(found.kept.id) from None
        except UnicodeDecodeError:  # the file was damaged: what is left of it is better than nothing
            errors = "replace"


def _skip(file: TextIO, characters: int) -> None:
    while characters > 0:
        read = len(file.read(min(characters, _SKIP_CHARACTERS)))
        if not read:
            return
        characters -= read
