"""The journal of a project: all that happened in it, in order, for good or until it is too much.

    journal/000001.jsonl     one entry per line, oldest first; readable with jq
            000002.jsonl     ...

    {"n":7,"time":"2026-01-31T12:00:00.000000Z","kind":"cell","cell":3,"code":"x = 1"}

`n` grows with every entry and across restarts, and alone says what came first: `time` is what the
clock said, and clocks are set back. An entry is one write at the end of a file, so it outlives the
process as soon as `append` returns, and a power cut too where `durable` asks for that. After a
crash the last line may be half an entry; it is sealed with a line end and left out, as is
any line that was damaged. Nothing that lies there can make reading fail.

One `Journal` writes; any number of others, in other processes too, may read meanwhile.
Everything here blocks and belongs in a worker thread; all of it is safe to use from several.
"""

from __future__ import annotations

import os
import re
import sqlite3
import threading
import time
from collections.abc import Callable, Collection, Generator, Iterator
from contextlib import ExitStack, closing
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from .errors import SessionError
from .journal_entries import OWN_NAMES, Entry, holds, is_kind, members, needles, parse
from .journal_index import Index, Row, Wanted, segment_path, segments
from .places import PlaceError, private_folder, sync_folder

SEGMENT_BYTES = 16 * 1024 * 1024
MOST_BYTES = 256 * 1024 * 1024
ENTRY_BYTES = 1024 * 1024
MOST_SECONDS = 90 * 24 * 3600.0

_PAGE_BYTES = 8 * 1024 * 1024
_FEW = 500  # places of a text in a segment; for more, it is faster to look at all its rows
_HEAD_BYTES = 256  # at least what comes before the facts in a line, and its end
_NUMBER = re.compile(rb'^\{"n":(\d{1,18}),', re.MULTILINE)
_APPEND: int = os.O_RDWR | os.O_APPEND | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_CLOEXEC", 0)


class JournalUnwritable(SessionError):
    """An entry could not be written; what was written before stays readable."""

    def __init__(self, folder: Path, why: str) -> None:
        self.folder = folder
        self.why = why
        super().__init__(
            f"The journal in {folder} cannot be written: {why}. What happens now is not recorded, and is gone "
            "when the session ends; what was recorded stays readable. As soon as writing works again, so does this."
        )


@dataclass(frozen=True)
class Page:
    """Some entries, and the number to pass on as `after` (or `before`, newest first) for those that follow.

    `next` is None on the last page. `damaged` counts the lines of the whole journal that cannot be read.
    """

    entries: tuple[Entry, ...]
    next: int | None = None
    damaged: int = 0


class _Misplaced(Exception):
    """An entry is not where the index says."""


class Journal:
    """The journal in one folder. `Journal.open` makes one."""

    def __init__(
        self,
        folder: Path,
        *,
        segment_bytes: int,
        most_bytes: int,
        entry_bytes: int,
        most_seconds: float,
        writes: bool,
    ) -> None:
        self.folder = folder
        self._segment_bytes = segment_bytes
        self._most_bytes = most_bytes
        self._entry_bytes = entry_bytes
        self._most_seconds = most_seconds
        self._writes = writes
        self._writing, self._reading = threading.Lock(), threading.Lock()
        self._closed = False
        self._file: int | None = None
        self._segment = 0
        self._size = 0
        self._torn = False
        self._new_names = False
        self._n = 0
        self._index: Index | None = None

    @classmethod
    def open(
        cls,
        folder: Path,
        *,
        segment_bytes: int = SEGMENT_BYTES,
        most_bytes: int = MOST_BYTES,
        entry_bytes: int = ENTRY_BYTES,
        most_seconds: float = MOST_SECONDS,
        writes: bool = True,
    ) -> Journal:
        """Open the journal in `folder`, to write and read it, or only to read.

        A segment takes about `segment_bytes`; the oldest are removed beyond `most_bytes` and after
        `most_seconds`. A disk that cannot be written is no error here: `append` tells.
        """
        journal = cls(
            folder,
            segment_bytes=min(segment_bytes, most_bytes // 2),
            most_bytes=most_bytes,
            entry_bytes=max(entry_bytes, 16 * _HEAD_BYTES),
            most_seconds=most_seconds,
            writes=writes,
        )
        if writes:
            journal._take_up()
        return journal

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the files. What was appended is on its way to the disk anyway."""
        with self._writing, self._reading:
            self._closed = True
            self._leave_segment()
            if self._index is not None:
                self._index.close()
                self._index = None

    # ---- taking up where the last one stopped

    def _take_up(self) -> None:
        found = segments(self.folder)
        self._n = _last_number(found, self._entry_bytes)
        self._segment = max(found, default=0)
        try:
            private_folder(self.folder)
            if self._segment:
                self._enter_segment(self._segment)
                self._make_room(0)
            if self._torn:
                self._write(b"")
        except (OSError, PlaceError):  # not now, then; appending tries again, and tells
            return

    def _enter_segment(self, number: int, flags: int = 0) -> None:
        file = os.open(segment_path(self.folder, number), _APPEND | flags, 0o600)
        self._leave_segment()
        self._file, self._segment = file, number
        self._size = os.fstat(file).st_size
        self._torn = self._size > 0 and not _ends_line(segment_path(self.folder, number))

    def _leave_segment(self) -> None:
        if self._file is not None:
            os.close(self._file)
            self._file = None

    # ---- appending

    def append(self, kind: str, /, *, cell: int | None = None, durable: bool = False, **facts: Any) -> int:
        """Write an entry and return its number. Raise `JournalUnwritable`.

        With `durable` it is on the disk on return, and with it all that came before.

        `facts` are values of JSON; what is none is written as text. One that would be longer than
        `entry_bytes` has its long texts cut to head and tail; then `cut` says of each,
        by its path, how many characters are missing and the hash of the whole.
        """
        if not is_kind(kind):
            raise ValueError(f"{kind!r} is not a kind: it must be a short plain word.")
        if wrong := OWN_NAMES & facts.keys():
            raise ValueError(f"An entry has facts of its own under these names: {', '.join(sorted(wrong))}.")
        if cell is not None and not -(2**62) < cell < 2**62:
            raise ValueError(f"{cell} is not the number of a cell.")
        about = b"" if cell is None else b',"cell":%d' % cell
        about += members(facts, self._entry_bytes - _HEAD_BYTES)
        with self._writing:
            if self._closed or not self._writes:
                raise JournalUnwritable(
                    self.folder, "it was closed" if self._closed else "it was opened to read only"
                )
            try:
                return self._append(kind, about, durable)
            except PlaceError as problem:
                raise JournalUnwritable(self.folder, problem.why) from problem
            except OSError as problem:
                raise JournalUnwritable(self.folder, problem.strerror or str(problem)) from problem

    def _append(self, kind: str, about: bytes, durable: bool) -> int:
        n = self._n + 1
        line = f'{{"n":{n},"time":"{_now()}","kind":"{kind}"'.encode() + about + b"}\n"
        self._ready_for(len(line))
        self._n = n  # even half an entry has used its number up
        self._write(line)
        if durable:
            self._make_durable()
        return n

    def _ready_for(self, length: int) -> None:
        """See to it that a segment is open that has room for a line."""
        if self._file is None:
            private_folder(self.folder)
        if self._file is None and self._segment and segment_path(self.folder, self._segment).exists():
            self._enter_segment(self._segment)
        if self._file is not None and (not self._size or self._size + length <= self._segment_bytes):
            return
        if self._file is not None:
            os.fsync(self._file)  # so that an entry that is durable has none before it that is not
        self._make_room(max(self._segment_bytes, length))
        self._enter_segment(self._segment + 1, os.O_CREAT | os.O_EXCL)
        self._new_names = True

    def _write(self, line: bytes) -> None:
        """Write a line with one write, which also seals half a line that is there."""
        assert self._file is not None
        line = b"\n" + line if self._torn else line
        written = os.write(self._file, line)
        self._size += written
        self._torn = line[written - 1 : written] != b"\n"
        if written < len(line):  # a write is short where room runs out; the next one says why
            rest = os.write(self._file, line[written:])
            self._size += rest
            self._torn = written + rest < len(line)
            if self._torn:
                raise OSError(0, "only a part of the entry could be written")

    def _make_durable(self) -> None:
        assert self._file is not None
        os.fsync(self._file)
        if self._new_names:
            sync_folder(self.folder)
            self._new_names = False

    def _make_room(self, coming_bytes: int) -> None:
        """Remove the oldest segments beyond the caps. The newest stays, for the sake of its numbers."""
        found = {number: (path, path.stat()) for number, path in segments(self.folder).items()}
        total = sum(facts.st_size for _, facts in found.values()) + coming_bytes
        oldest = time.time() - self._most_seconds
        for path, facts in list(found.values())[:-1]:
            if total <= self._most_bytes and facts.st_mtime >= oldest:
                break
            path.unlink(missing_ok=True)
            total -= facts.st_size

    # ---- reading

    def entries(
        self,
        *,
        kind: str | Collection[str] | None = None,
        cell: int | None = None,
        after: int | None = None,
        before: int | None = None,
        since: datetime | None = None,
        until: datetime | None = None,
        text: str | None = None,
        limit: int = 100,
        newest_first: bool = False,
    ) -> Page:
        """Return the entries that meet all conditions, in the order of their numbers.

        `after` and `before` bound the numbers and are not part of what is found; `text` must occur, as
        written, in a text among the facts. A page ends early where its entries are long.
        """
        kinds = (kind,) if isinstance(kind, str) else None if kind is None else tuple(kind)
        wanted = Wanted(kinds, cell, after, before, _time(since), _time(until))
        with self._reading:
            try:
                return self._page(wanted, text, limit, newest_first, strict=True)
            except (sqlite3.Error, _Misplaced):
                self._throw_index_away()
                return self._page(wanted, text, limit, newest_first, strict=False)

    def last(self, kind: str) -> Entry | None:
        """Return the newest entry of a kind, or None."""
        return next(iter(self.entries(kind=kind, limit=1, newest_first=True).entries), None)

    def _page(
        self, wanted: Wanted, text: str | None, limit: int, newest_first: bool, *, strict: bool
    ) -> Page:
        index = self._up_to_date()
        found: list[Entry] = []
        size, following = 0, None
        with ExitStack() as stack:
            source = _Source(self.folder, stack, strict=strict)
            if text:
                matching = source.entries_with(text, index, wanted, newest_first)
            else:
                matching = source.entries(index, wanted, newest_first)
            for entry, length in stack.enter_context(closing(matching)):
                if len(found) >= limit or (found and size + length > _PAGE_BYTES):
                    following = found[-1]["n"] if found else None
                    break
                found.append(entry)
                size += length
        return Page(tuple(found), following, index.damaged())

    def _up_to_date(self) -> Index:
        if self._index is not None:
            try:
                self._index.catch_up()
            except sqlite3.Error:
                self._throw_index_away()
            else:
                return self._index
        beside = (
            (Index.in_file, Index.anew_in_file) if self._writes and not self._closed else (Index.from_file,)
        )
        for make in beside:
            try:
                return self._caught_up(make)
            except (sqlite3.Error, OSError):  # damaged, or there is no room for it: then without
                continue
        return self._caught_up(Index.in_memory)

    def _caught_up(self, make: Callable[[Path], Index]) -> Index:
        index = make(self.folder)
        try:
            index.catch_up()
        except BaseException:
            index.close()
            raise
        self._index = index
        return index

    def _throw_index_away(self) -> None:
        if self._index is not None:
            self._index.close()
            self._index = None
        if self._writes and not self._closed:
            try:
                self._index = Index.anew_in_file(self.folder)
            except (sqlite3.Error, OSError):
                return


class _Source:
    """Reads entries for one page from where an index says that they lie."""

    def __init__(self, folder: Path, stack: ExitStack, *, strict: bool) -> None:
        self._folder = folder
        self._stack = stack
        self._strict = strict
        self._files: dict[int, int | None] = {}

    def entries(self, index: Index, wanted: Wanted, newest_first: bool) -> Generator[tuple[Entry, int]]:
        for row in index.rows(wanted, newest_first=newest_first):
            line = self._line(row)
            entry = None if line is None else self._entry(row, line)
            if entry is not None:
                yield entry, row.length

    def entries_with(
        self, text: str, index: Index, wanted: Wanted, newest_first: bool
    ) -> Generator[tuple[Entry, int]]:
        sought = needles(text)
        for segment in index.segments(wanted, newest_first=newest_first):
            data = self._whole(segment)
            for row in self._rows_with(sought, data, segment, index, wanted, newest_first):
                entry = self._entry(row, data[row.start : row.start + row.length])
                if entry is not None and holds(entry, text):
                    yield entry, row.length

    def _rows_with(
        self,
        sought: Collection[bytes],
        data: bytes,
        segment: int,
        index: Index,
        wanted: Wanted,
        newest_first: bool,
    ) -> Iterator[Row]:
        """Yield the rows of a segment in whose lines a needle is: by its few places, or row by row."""
        lines = _lines_with(sought, data, most=_FEW)
        if lines is None:
            for row in index.rows(wanted, newest_first=newest_first, segment=segment):
                if any(data.find(needle, row.start, row.start + row.length) >= 0 for needle in sought):
                    yield row
            return
        numbers = {entry["n"] for entry in map(parse, lines) if entry is not None}
        for n in sorted(numbers, reverse=newest_first):
            yield from index.rows(wanted, newest_first=newest_first, segment=segment, n=n)

    def _entry(self, row: Row, line: bytes) -> Entry | None:
        entry = parse(line)
        if entry is not None and entry["n"] == row.n:
            return entry
        if self._strict:
            raise _Misplaced
        return None

    def _line(self, row: Row) -> bytes | None:
        if row.segment not in self._files:
            self._files[row.segment] = self._opened(row.segment)
        file = self._files[row.segment]
        if file is None:
            return None
        os.lseek(file, row.start, os.SEEK_SET)
        return os.read(file, row.length)

    def _opened(self, segment: int) -> int | None:
        try:
            file = os.open(segment_path(self._folder, segment), os.O_RDONLY)
        except FileNotFoundError:  # removed to make room, this moment
            return None
        self._stack.callback(os.close, file)
        return file

    def _whole(self, segment: int) -> bytes:
        try:
            return segment_path(self._folder, segment).read_bytes()
        except FileNotFoundError:
            return b""


def _lines_with(sought: Collection[bytes], data: bytes, *, most: int) -> list[bytes] | None:
    """Return the lines in which a needle is, or None if they are more than `most`."""
    lines: list[bytes] = []
    for needle in sought:
        place = data.find(needle)
        while place >= 0:
            if len(lines) == most:
                return None
            end = data.find(b"\n", place) + 1 or len(data)
            lines.append(data[data.rfind(b"\n", 0, place) + 1 : end])
            place = data.find(needle, end)
    return lines


# ---- times and numbers


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="microseconds")[:-6] + "Z"


def _time(moment: datetime | None) -> str | None:
    if moment is None:
        return None
    if moment.tzinfo is None:
        raise ValueError("A time without a time zone is given, and it could mean any of them.")
    return moment.astimezone(UTC).isoformat(timespec="microseconds")[:-6] + "Z"


def _last_number(found: dict[int, Path], entry_bytes: int) -> int:
    """Return the highest number in the newest segment that has any, even if the entry itself is damaged."""
    for path in reversed(found.values()):
        for tail in (2 * entry_bytes, None):
            numbers = _NUMBER.findall(_tail(path, tail))
            if numbers:
                return max(map(int, numbers))
    return 0


def _tail(path: Path, most: int | None) -> bytes:
    try:
        with path.open("rb") as file:
            size = file.seek(0, os.SEEK_END)
            file.seek(0 if most is None else max(0, size - most))
            return file.read(SEGMENT_BYTES * 8)
    except OSError:
        return b""


def _ends_line(path: Path) -> bool:
    return _tail(path, 1) == b"\n"
