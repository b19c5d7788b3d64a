"""Where each entry of a journal lies, so that none has to be read before it is asked for.

The index is never the truth. It holds a row for each entry of the segments (the files
`000001.jsonl` and so on), is brought up to date from them when somebody asks, and can
be thrown away at any time: whatever is missing, damaged or behind is read again. It trusts no
segment to be what it was: one that shrank or was replaced is read anew, and lines that
are no entries are counted and left out.

Not safe to use from several threads at once.
"""

from __future__ import annotations

import os
import re
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from .journal_entries import parse

_SEGMENT = re.compile(r"(\d{6,12})\.jsonl")
_FILE = "index.sqlite3"
_VERSION = 1
_BUSY_SECONDS = 10.0
_LOG_BYTES = 1024 * 1024  # of SQLite's own log, which otherwise stays as long as it ever was
_MAX_LINE_BYTES = 64 * 1024 * 1024
_SCHEMA = f"""
    CREATE TABLE entries (
        n INTEGER PRIMARY KEY, segment INTEGER NOT NULL, start INTEGER NOT NULL, length INTEGER NOT NULL,
        kind TEXT NOT NULL, cell INTEGER, time TEXT NOT NULL
    );
    CREATE INDEX by_kind ON entries (kind);
    CREATE INDEX by_cell ON entries (cell);
    CREATE TABLE segments (
        number INTEGER PRIMARY KEY, inode TEXT NOT NULL, size INTEGER NOT NULL, changed INTEGER NOT NULL,
        done INTEGER NOT NULL, damaged INTEGER NOT NULL, first INTEGER NOT NULL, last INTEGER NOT NULL
    );
    PRAGMA user_version = {_VERSION};
"""


class Row(NamedTuple):
    """Where an entry lies."""

    n: int
    segment: int
    start: int
    length: int


@dataclass(frozen=True)
class Wanted:
    """Which entries are asked for; None is no condition. The bounds are not part of what is found."""

    kinds: tuple[str, ...] | None = None
    cell: int | None = None
    after: int | None = None
    before: int | None = None
    since: str | None = None
    until: str | None = None

    def conditions(self) -> tuple[list[str], list[Any]]:
        """Return the conditions in SQL, and their values."""
        # A plus keeps SQLite from finding the rows by that column, after which it would have to sort all of them.
        kind = "+kind" if self.cell is not None else "kind"
        given: list[tuple[str, Any]] = [
            ("cell = ?", self.cell),
            ("n > ?", self.after),
            ("n < ?", self.before),
            ("time >= ?", self.since),
            ("time < ?", self.until),
        ]
        terms = [(term, [value]) for term, value in given if value is not None]
        if self.kinds is not None and len(self.kinds) == 1:
            terms.append((f"{kind} = ?", [self.kinds[0]]))
        elif self.kinds is not None:
            terms.append((f"+kind IN ({', '.join('?' * len(self.kinds))})", list(self.kinds)))
        return [term for term, _ in terms], [value for _, values in terms for value in values]


@dataclass
class _Reading:
    """How far a segment has been read, and what was in it."""

    done: int = 0
    damaged: int = 0
    first: int = 0
    last: int = 0


def segments(folder: Path) -> dict[int, Path]:
    """Return the segments of a journal by their numbers, in order."""
    try:
        with os.scandir(folder) as entries:
            names = [entry.name for entry in entries if entry.is_file(follow_symlinks=False)]
    except (FileNotFoundError, NotADirectoryError):
        return {}
    found = {int(match[1]): folder / name for name in names if (match := _SEGMENT.fullmatch(name))}
    return dict(sorted(found.items()))


def segment_path(folder: Path, number: int) -> Path:
    """Return where the segment of that number lies."""
    return folder / f"{number:06}.jsonl"


class Index:
    """The index of the segments in `folder`, in a database that may be in a file or in memory."""

    def __init__(self, folder: Path, database: sqlite3.Connection) -> None:
        self._folder = folder
        self._database = database

    @classmethod
    def in_file(cls, folder: Path) -> Index:
        """Open the index beside the segments, for the one who writes them. Raise `sqlite3.Error` or `OSError`."""
        path = folder / _FILE
        flags: int = os.O_RDWR | os.O_CREAT | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_CLOEXEC", 0)
        os.close(os.open(path, flags, 0o600))  # SQLite would give it the mode that happens to be the default
        return cls._checked(folder, _connected(str(path)))

    @classmethod
    def anew_in_file(cls, folder: Path) -> Index:
        """Throw the index beside the segments away and begin another."""
        for suffix in ("-wal", "-shm", "-journal", ""):
            (folder / f"{_FILE}{suffix}").unlink(missing_ok=True)
        return cls.in_file(folder)

    @classmethod
    def from_file(cls, folder: Path) -> Index:
        """Take a copy of the index beside the segments into memory, for one who only reads."""
        memory = _connected(":memory:")
        uri = f"{(folder / _FILE).absolute().as_uri()}?mode=ro"
        try:
            with closing(sqlite3.connect(uri, uri=True, timeout=_BUSY_SECONDS)) as file:
                file.backup(memory)
        except sqlite3.Error:
            memory.close()
            raise
        return cls._checked(folder, memory)

    @classmethod
    def in_memory(cls, folder: Path) -> Index:
        """Begin an index that lasts as long as this object."""
        return cls._checked(folder, _connected(":memory:"))

    @classmethod
    def _checked(cls, folder: Path, database: sqlite3.Connection) -> Index:
        try:
            if not database.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]:
                database.executescript(_SCHEMA)
            if database.execute("PRAGMA user_version").fetchone()[0] != _VERSION:
                raise sqlite3.DatabaseError("another version made this index")
        except sqlite3.Error:
            database.close()
            raise
        return cls(folder, database)

    def close(self) -> None:
        """Close the database."""
        self._database.close()

    # ---- bringing it up to date

    def catch_up(self) -> None:
        """Take in what the segments hold by now. Raise `sqlite3.Error` if the index cannot be used."""
        found = segments(self._folder)
        with self._database:
            for number in self._known() - found.keys():
                self._forget(number)
            for number, path in found.items():
                try:
                    self._read(number, path)
                except FileNotFoundError:  # removed to make room, this moment
                    self._forget(number)

    def _known(self) -> set[int]:
        return {number for (number,) in self._database.execute("SELECT number FROM segments")}

    def _forget(self, number: int) -> None:
        self._database.execute("DELETE FROM entries WHERE segment = ?", (number,))
        self._database.execute("DELETE FROM segments WHERE number = ?", (number,))

    def _read(self, number: int, path: Path) -> None:
        facts = path.stat()
        now = (str(facts.st_ino), facts.st_size, facts.st_mtime_ns)
        known = self._database.execute(
            "SELECT inode, size, changed, done, damaged, first, last FROM segments WHERE number = ?",
            (number,),
        ).fetchone()
        if known and known[:3] == now:
            return
        reading = _Reading()
        if known and known[0] == now[0] and known[1] < now[1] and self._still_there(known[6], path):
            reading = _Reading(*known[3:])
        elif known:
            self._forget(number)
        self._database.executemany(
            "INSERT OR IGNORE INTO entries VALUES (?, ?, ?, ?, ?, ?, ?)",
            _rows(number, path, facts.st_size, reading),
        )
        self._database.execute(
            "INSERT OR REPLACE INTO segments VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
            (number, *now, reading.done, reading.damaged, reading.first, reading.last),
        )

    def _still_there(self, n: int, path: Path) -> bool:
        """Return whether the last entry known of a segment is still where it was."""
        row = self._database.execute("SELECT start, length FROM entries WHERE n = ?", (n,)).fetchone()
        if row is None:
            return n == 0
        with path.open("rb") as file:
            file.seek(row[0])
            line = file.read(row[1])
        entry = parse(line)
        return entry is not None and entry["n"] == n and line.startswith(b"{") and line.endswith(b"}\n")

    # ---- asking

    def rows(
        self, wanted: Wanted, *, newest_first: bool, segment: int | None = None, n: int | None = None
    ) -> Iterator[Row]:
        """Yield where the entries lie that are wanted, in the order of their numbers, or the other way round.

        `segment` and `n` narrow them down to those of one segment, and to one.
        """
        terms, values = wanted.conditions()
        if n is not None:
            terms += ["n = ?", "+segment = ?"]
            values += [n, segment]
        elif segment is not None:
            first, last = self._numbers(segment)
            terms += ["n BETWEEN ? AND ?", "+segment = ?"]
            values += [first, last, segment]
        where = f"WHERE {' AND '.join(terms)}" if terms else ""
        order = "DESC" if newest_first else "ASC"
        asked = f"SELECT n, segment, start, length FROM entries {where} ORDER BY n {order}"  # noqa: S608 -- fixed words
        with closing(self._database.execute(asked, values)) as found:
            for row in found:
                yield Row(*row)

    def _numbers(self, segment: int) -> tuple[int, int]:
        found = self._database.execute("SELECT first, last FROM segments WHERE number = ?", (segment,))
        return found.fetchone() or (0, 0)

    def segments(self, wanted: Wanted, *, newest_first: bool) -> list[int]:
        """Return the segments in which entries of the wanted numbers can lie."""
        order = "DESC" if newest_first else "ASC"
        found = self._database.execute(
            f"SELECT number FROM segments WHERE last > ? AND first < ? ORDER BY number {order}",  # noqa: S608 -- fixed words
            (wanted.after or 0, 2**62 if wanted.before is None else wanted.before),
        )
        return [number for (number,) in found]

    def damaged(self) -> int:
        """Return how many lines of all segments are no entries."""
        return int(self._database.execute("SELECT total(damaged) FROM segments").fetchone()[0])


def _connected(name: str) -> sqlite3.Connection:
    database = sqlite3.connect(name, timeout=_BUSY_SECONDS, check_same_thread=False)
    try:
        database.execute("PRAGMA journal_mode = WAL")
        database.execute("PRAGMA synchronous = NORMAL")
        database.execute(f"PRAGMA journal_size_limit = {_LOG_BYTES}")
    except sqlite3.Error:
        database.close()
        raise
    return database


def _rows(number: int, path: Path, size: int, reading: _Reading) -> Iterator[tuple[Any, ...]]:
    """Yield a row for each entry from `reading.done` on; afterwards `reading` says how far that was.

    A last line without an end is left for later: whoever writes it may not have finished.
    """
    with path.open("rb") as file:
        file.seek(reading.done)
        while reading.done < size:
            start, line = reading.done, file.readline(_MAX_LINE_BYTES)
            if not line or (not line.endswith(b"\n") and len(line) < _MAX_LINE_BYTES):
                return
            reading.done += len(line)
            entry = parse(line)
            if entry is None:
                reading.damaged += bool(line.strip())
                continue
            n = entry["n"]
            reading.first = min(reading.first or n, n)
            reading.last = max(reading.last, n)
            yield n, number, start, len(line), entry["kind"], entry.get("cell"), entry["time"]
