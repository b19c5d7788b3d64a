"""Removing trajectories: those that somebody names, and those beyond a bound, the oldest first.

What is being written is never removed: its writer holds a lock. Neither is a file that is no trajectory of ours, nor
one of a form that this program does not know. With the last trajectory that names a context goes the context. It
is named only a moment after it was kept: while a run just begins, those kept or used within the last hour stay.

Several processes may do this to one folder; one at a time does. Everything here blocks and belongs in a worker thread.
"""

from __future__ import annotations

import json
import os
import re
import stat
import time
from collections import Counter
from collections.abc import Collection, Generator, Iterable, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from .blobs import PREFIX, TEMPORARY
from .errors import TrajectoryError
from .events import SCHEMA
from .log import BLOBS, MOMENT_CHARACTERS
from .trajectory import is_running, placed

try:
    import fcntl
except ImportError:  # a system without this kind of lock
    fcntl = None  # type: ignore[assignment,unused-ignore]

DAY_SECONDS = 24 * 3600.0
ALWAYS_KEPT = 20

_STAMP = ".swept"
_EVERY_SECONDS = 3600.0
_FRESH_SECONDS = 3600.0
_COARSE_SECONDS = 0.1  # how exactly file systems note times
_HEAD_BYTES, _MAX_HEAD_BYTES = 64 * 1024, 16 * 1024 * 1024
_NAME = re.compile(rf"\d{{8}}T\d{{{MOMENT_CHARACTERS - 9}}}-[A-Za-z0-9_-]{{8,64}}")
_REF = re.compile(PREFIX.encode() + rb"([0-9a-f]{64})")
_DIGITS = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True)
class Bound:
    """How much is kept in a folder: what was written to within so many days, and so many bytes; None for any."""

    days: float | None = None
    most_bytes: int | None = None


@dataclass(frozen=True)
class Kept:
    """A trajectory as it lies on the disk, with the contexts it names."""

    path: Path
    size_bytes: int
    written_at: float
    refs: frozenset[str]

    @property
    def id(self) -> str:
        """Its name."""
        return self.path.stem


@dataclass(frozen=True)
class Removed:
    """What was removed: trajectories, how many contexts and leftovers, and what that freed."""

    ids: tuple[str, ...] = ()
    contexts: int = 0
    freed_bytes: int = 0


# ---- what there is


def kept_in(folder: Path) -> list[Kept]:
    """Return the trajectories in `folder`, the newest first, without those of others and of unknown forms."""
    found = (_kept(path) for _, path in placed(folder))
    return [each for each in found if each is not None]


def _kept(path: Path) -> Kept | None:
    try:
        facts, head = path.lstat(), _head_of(path)
    except OSError:
        return None
    if not _is_ours(path, head):
        return None
    return Kept(path, facts.st_size, facts.st_mtime, frozenset(each.decode() for each in _REF.findall(head)))


def _head_of(path: Path) -> bytes:
    """Return the beginning of a file, with its first line, which tells what a run is."""
    with path.open("rb") as file:
        head = file.read(_HEAD_BYTES)
        return head if b"\n" in head else head + file.readline(_MAX_HEAD_BYTES)


def _is_ours(path: Path, head: bytes) -> bool:
    try:
        first = json.loads(head.partition(b"\n")[0])
        return bool(first["trajectory_id"] == path.stem and 1 <= first["schema"] <= SCHEMA)
    except (ValueError, LookupError, TypeError, RecursionError):
        return _NAME.fullmatch(path.stem) is not None and b'"schema"' not in head[:20]  # damaged, or empty


def size_of(folder: Path) -> int:
    """Return how many bytes there are in `folder`: trajectories and contexts."""
    return sum(each.size_bytes for each in kept_in(folder)) + sum(_blobs(folder).values())


def _blobs(folder: Path) -> dict[str, int]:
    """Return the sizes of the contexts, by the digits of their names."""
    return {name: facts.st_size for name, facts in _files(folder / BLOBS).items() if _DIGITS.fullmatch(name)}


def _files(folder: Path) -> dict[str, os.stat_result]:
    found: dict[str, os.stat_result] = {}
    with suppress(OSError), os.scandir(folder) as entries:
        for entry in entries:
            with suppress(OSError):
                facts = entry.stat(follow_symlinks=False)
                if stat.S_ISREG(facts.st_mode):
                    found[entry.name] = facts
    return found


# ---- what is too much


def beyond(folder: Path, bound: Bound, *, least: int = 0) -> list[Kept]:
    """Return what is too much in `folder`, the oldest first. The newest `least` stay, and what is being written."""
    every = kept_in(folder)
    candidates = [each for each in every[least:][::-1] if not _busy(each)]
    doomed = {} if bound.days is None else _old(candidates, time.time() - bound.days * DAY_SECONDS)
    if bound.most_bytes is not None:
        doomed |= _too_many(candidates, every, doomed, _blobs(folder), bound.most_bytes)
    return [each for each in candidates if each.path in doomed]


def _old(candidates: Iterable[Kept], before: float) -> dict[Path, Kept]:
    return {each.path: each for each in candidates if each.written_at < before}


def _too_many(
    candidates: Iterable[Kept],
    every: Iterable[Kept],
    doomed: Mapping[Path, Kept],
    blobs: Mapping[str, int],
    most_bytes: int,
) -> dict[Path, Kept]:
    """Return the oldest, as many as have to go beside those that go anyhow."""
    uses = Counter(ref for each in every for ref in each.refs)
    total = sum(each.size_bytes for each in every) + sum(blobs.values())
    more: dict[Path, Kept] = {}
    for each in (*doomed.values(), *(one for one in candidates if one.path not in doomed)):
        if each.path not in doomed:
            if total <= most_bytes:
                break
            more[each.path] = each
        uses.subtract(each.refs)
        total -= each.size_bytes + sum(blobs.get(ref, 0) for ref in each.refs if not uses[ref])
    return more


def _busy(kept: Kept) -> bool:
    try:
        return _is_busy(kept.path, kept.size_bytes)
    except OSError:
        return True  # it is gone


def _is_busy(path: Path, size_bytes: int) -> bool:
    """Whether somebody writes to it. Of one that is empty, only a lock tells."""
    try:
        return is_running(path)
    except TrajectoryError:
        return not size_bytes and path.lstat().st_mtime > time.time() - _FRESH_SECONDS


# ---- removing


def remove(folder: Path, doomed: Iterable[Kept]) -> Removed:
    """Remove trajectories from `folder` but those that are being written, and the contexts that nobody names then."""
    gone, freed = list[str](), 0
    for each in doomed:
        with suppress(OSError):
            if not _busy(each):
                each.path.unlink()
                gone.append(each.id)
                freed += each.size_bytes
    count, more = sweep(folder)
    return Removed(tuple(gone), count, freed + more)


def sweep(folder: Path) -> tuple[int, int]:
    """Remove contexts that no trajectory names, and what a writer that was killed left; return how many, and bytes."""
    with _alone(folder) as alone:
        if not alone:
            return 0, 0
        began = time.time()
        named, begins = _named(folder)
        old, before = began - _FRESH_SECONDS, began - _COARSE_SECONDS
        count = freed = 0
        for name, facts in _files(folder / BLOBS).items():
            spare = _DIGITS.fullmatch(name) is not None and name not in named
            until = before if spare and not begins else old
            if (spare or name.startswith(TEMPORARY)) and _unlinked(folder / BLOBS / name, until):
                count, freed = count + 1, freed + facts.st_size
        return count, freed


def _named(folder: Path) -> tuple[Collection[str], bool]:
    """Return the names of contexts in all that may be a trajectory, and whether one begins that names none yet."""
    named, begins = set[str](), False
    for _, path in placed(folder):
        with suppress(OSError):
            head = _head_of(path)
            named.update(each.decode() for each in _REF.findall(head))
            begins = begins or (b"\n" not in head and _is_busy(path, 0))
    return named, begins


def _unlinked(path: Path, until: float) -> bool:
    """Remove a context that was kept and used before `until`, also if somebody takes it into use at this moment."""
    aside = path.with_name(f"{TEMPORARY}{path.name[:32]}")
    try:
        if path.lstat().st_mtime >= until:
            return False
        path.rename(aside)
        if aside.lstat().st_mtime >= until:
            aside.rename(path)
            return False
        aside.unlink()
    except OSError:
        return False
    return True


@contextmanager
def _alone(folder: Path) -> Generator[bool]:
    """Hold the right to remove contexts; the value is whether nobody else has it."""
    if fcntl is None:
        yield True
        return
    try:
        file = os.open(folder, os.O_RDONLY)
    except OSError:
        yield False
        return
    try:
        yield _is_locked(file)
    finally:
        os.close(file)


def _is_locked(file: int) -> bool:
    assert fcntl is not None
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:
        pass  # a file system without locks
    return True


# ---- by itself


def keep_within(folder: Path, bound: Bound, *, new_bytes: int = 0) -> Removed:
    """Remove what is too much, if nobody did within the hour, or if a tenth of what may be kept has just come.

    Some of the newest stay whatever their age, so that a clock that is wrong does not cost everything.
    """
    much = bound.most_bytes is not None and new_bytes * 10 > bound.most_bytes
    if not (much or _is_due(folder)):
        return Removed()
    old = beyond(folder, Bound(days=bound.days), least=ALWAYS_KEPT)
    many = beyond(folder, Bound(most_bytes=bound.most_bytes), least=1)
    return remove(folder, {each.path: each for each in (*old, *many)}.values())


def _is_due(folder: Path) -> bool:
    """Whether it was long ago that anybody did this, which is noted."""
    stamp = folder / _STAMP
    try:
        since = time.time() - stamp.lstat().st_mtime
        if 0 <= since < _EVERY_SECONDS:
            return False
        os.utime(stamp)
    except OSError:
        with suppress(OSError):
            os.close(os.open(stamp, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600))
    return True
