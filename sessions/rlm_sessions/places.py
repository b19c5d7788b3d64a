"""Where everything lies that outlives a session, and how it is kept from growing without bound.

    root/projects/<key>/project.json      which project it is
                        lock              held by the one that has the project open
                        journal/ state/ outputs/

All of it is for this account alone: folders have mode 0700 and files 0600. A folder that is a
symbolic link, or belongs to somebody else, is refused, because what is written there could be read
or replaced by others. What lies in a project's folders is data of a program that nobody has read;
it is measured and removed here, and never followed, opened or believed.

Everything here blocks and belongs in a worker thread.
"""

from __future__ import annotations

import errno
import json
import os
import secrets
import shutil
import stat
import time
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import platformdirs

from .errors import SessionError
from .locks import LockUnusable, Owner, OwnerLock
from .projects import Project, is_key

KINDS = ("journal", "state", "outputs")
UNUSED_SECONDS = 90 * 24 * 3600.0

_NOFOLLOW: int = getattr(os, "O_NOFOLLOW", 0)
_DIRECTORY: int = getattr(os, "O_DIRECTORY", 0)
_CLOEXEC: int = getattr(os, "O_CLOEXEC", 0)
_TEMPORARY, _TEMPORARY_SECONDS = ".tmp-", 3600.0
_MAX_FACTS_BYTES = 1024 * 1024
_BLOCK_BYTES = 4096


class PlaceError(SessionError):
    """A place on the disk cannot be used."""

    def __init__(self, path: Path, why: str, advice: str) -> None:
        self.path = path
        self.why = why
        super().__init__(f"{path} cannot be used: {why}. {advice}")


class ProjectInUse(PlaceError):
    """What is kept of a project cannot be removed while somebody has it open."""

    def __init__(self, path: Path, owner: Owner | None) -> None:
        self.owner = owner
        who = f"process {owner.pid} on {owner.host} has" if owner else "another process has"
        super().__init__(
            path, f"{who} this project open", "Nothing was removed. End that one, and try again."
        )


@dataclass(frozen=True)
class ProjectPlaces:
    """Where one project's things lie. The folders are there."""

    key: str
    folder: Path

    @property
    def lock(self) -> Path:
        """The file that an `OwnerLock` locks."""
        return self.folder / "lock"

    @property
    def journal(self) -> Path:
        """The folder of the journal."""
        return self.folder / "journal"

    @property
    def state(self) -> Path:
        """The folder of the snapshots."""
        return self.folder / "state"

    @property
    def outputs(self) -> Path:
        """The folder of whole outputs and images."""
        return self.folder / "outputs"


@dataclass(frozen=True)
class Kept:
    """What is kept of a project. `bytes_by_kind` has an item for each kind of data, and "other"."""

    key: str
    name: str
    folder: str | None
    bytes_by_kind: dict[str, int]
    last_used: float

    @property
    def bytes(self) -> int:
        """How much it is in all."""
        return sum(self.bytes_by_kind.values())


def default_root() -> Path:
    """Return where this system has programs keep their state."""
    return platformdirs.user_state_path("rlm-mcp", appauthor=False)


class Places:
    """What is kept under the folder `root`, for all projects."""

    def __init__(self, root: Path) -> None:
        self.root = root

    @property
    def _projects(self) -> Path:
        return self.root / "projects"

    @property
    def _trash(self) -> Path:
        return self.root / "trash"

    def project(self, project: Project) -> ProjectPlaces:
        """Return where the things of `project` lie, and note that it is used. Raise `PlaceError`."""
        places = ProjectPlaces(project.key, self._projects / project.key)
        try:
            self.root.parent.mkdir(parents=True, exist_ok=True)
            for folder in (self.root, self._projects, places.folder):
                private_folder(folder)
            for kind in KINDS:
                private_folder(places.folder / kind)
            sweep(places.folder)
            _note(places.folder / "project.json", project)
        except OSError as problem:
            why, advice = (
                problem.strerror or str(problem),
                "Nothing of this project can be kept until that is mended.",
            )
            raise PlaceError(places.folder, why, advice) from problem
        return places

    def folder_of(self, key: str) -> Path | None:
        """Return the folder of a project as it was when it was used last; None if it has none, or is not known."""
        path = _facts(self._projects / key / "project.json").get("folder")
        return Path(path) if isinstance(path, str) and Path(path).is_dir() else None

    def kept(self) -> list[Kept]:
        """Return what is kept, the last used first."""
        found = [_kept(self._projects / name) for name in self._keys()]
        return sorted(found, key=lambda kept: (-kept.last_used, kept.key))

    def _keys(self) -> list[str]:
        try:
            with os.scandir(self._projects) as entries:
                return [
                    entry.name
                    for entry in entries
                    if is_key(entry.name) and entry.is_dir(follow_symlinks=False)
                ]
        except (FileNotFoundError, NotADirectoryError):
            return []

    def purge(self, key: str) -> int:
        """Remove all that is kept of a project, and return how many bytes that freed; 0 if there is nothing.

        Raise `ProjectInUse` if somebody has the project open. It is gone at once and as a whole: what
        cannot be removed now is removed by the next purge.
        """
        if not is_key(key):
            raise ValueError(f"{key!r} is not the key of a project.")
        folder = self._projects / key
        if not folder.is_dir() or folder.is_symlink():
            return 0
        lock = OwnerLock(folder / "lock")
        try:
            if not lock.acquire():
                raise ProjectInUse(folder, lock.owner())
            return self._remove(folder)
        except FileNotFoundError:
            return 0
        except OSError as problem:
            raise PlaceError(
                folder, problem.strerror or str(problem), "It may be removed in part."
            ) from problem
        finally:
            lock.release()

    def _remove(self, folder: Path) -> int:
        freed = folder_bytes(folder)
        private_folder(self._trash)
        folder.rename(self._trash / secrets.token_hex(8))
        _empty(self._trash)
        return freed

    def make_room(
        self, most_bytes: int, keep: Collection[str] = (), *, unused_seconds: float = UNUSED_SECONDS
    ) -> list[Kept]:
        """Remove what was not used for `unused_seconds`, then the least recently used beyond `most_bytes`.

        Unused means: for so long before the project that was used last. What the clock says now is not
        asked, because a wrong one would cost everything. Projects in `keep`, and those that somebody has
        open, stay. Return what was removed.
        """
        kept = self.kept()
        total, removed = sum(each.bytes for each in kept), list[Kept]()
        latest = max((each.last_used for each in kept), default=0.0)
        for each in reversed(kept):
            idle = latest - each.last_used > unused_seconds
            if each.key not in keep and (idle or total > most_bytes) and self._purged(each.key):
                removed.append(each)
                total -= each.bytes
        return removed

    def _purged(self, key: str) -> bool:
        try:
            self.purge(key)
        except (PlaceError, LockUnusable):
            return False
        return True


# ---- what is known of a project


def _note(path: Path, project: Project) -> None:
    old = _facts(path)
    folder = old.get("folder") if project.folder is None else str(project.folder)
    facts = {"key": project.key, "name": project.name, "folder": folder, "created": old.get("created")}
    facts["created"] = facts["created"] or datetime.now(UTC).isoformat(timespec="seconds")
    if facts == old:
        os.utime(path)
    else:
        write_atomically(path, json.dumps(facts, indent=2).encode() + b"\n")


def _facts(path: Path) -> dict[str, Any]:
    try:
        file = os.open(path, os.O_RDONLY | os.O_NONBLOCK | _NOFOLLOW | _CLOEXEC)
    except OSError:
        return {}
    with os.fdopen(file, "rb") as opened:
        try:
            facts: dict[str, Any] = json.loads(opened.read(_MAX_FACTS_BYTES))
        except (OSError, ValueError, RecursionError):
            return {}
    return facts if type(facts) is dict else {}


def _kept(folder: Path) -> Kept:
    facts, last_used = _facts(folder / "project.json"), 0.0
    sizes: dict[str, int] = dict.fromkeys((*KINDS, "other"), 0)
    for kind, size, changed in _things(folder):
        sizes[kind] += size
        last_used = max(last_used, changed)
    last_used = max(last_used, _changed(folder))  # one that was just made holds nothing yet
    name, path = facts.get("name"), facts.get("folder")
    return Kept(
        folder.name,
        name if isinstance(name, str) else folder.name,
        path if isinstance(path, str) else None,
        sizes,
        last_used,
    )


def _changed(path: Path) -> float:
    try:
        return path.lstat().st_mtime
    except OSError:
        return 0.0


def _things(folder: Path) -> Iterator[tuple[str, int, float]]:
    for entry in _entries(folder):
        if entry.is_dir(follow_symlinks=False):
            kind = entry.name if entry.name in KINDS else "other"
            for below in _files(Path(entry.path)):
                yield kind, _size(below), below.st_mtime
        elif facts := _lstat(entry):
            yield "other", _size(facts), facts.st_mtime


# ---- measuring


def folder_bytes(path: Path) -> int:
    """Return how much is in a folder and all below it, in whole blocks; 0 if it is not there."""
    return sum(_size(facts) for facts in _files(path))


def _files(path: Path) -> Iterator[os.stat_result]:
    folders = [str(path)]
    while folders:
        for entry in _entries(folders.pop()):
            if entry.is_dir(follow_symlinks=False):
                folders.append(entry.path)
            if facts := _lstat(entry):
                yield facts


def _entries(path: Path | str) -> list[os.DirEntry[str]]:
    try:
        with os.scandir(path) as entries:
            return list(entries)
    except OSError:  # removed meanwhile, or closed to us by what wrote it
        return []


def _lstat(entry: os.DirEntry[str]) -> os.stat_result | None:
    try:
        return entry.stat(follow_symlinks=False)
    except OSError:
        return None


def _size(facts: os.stat_result) -> int:
    """Return the size in whole blocks: a million tiny files fill a disk although they hold next to nothing."""
    size = 0 if stat.S_ISDIR(facts.st_mode) else facts.st_size
    return -(-size // _BLOCK_BYTES) * _BLOCK_BYTES


# ---- folders and files for this account alone


def private_folder(path: Path) -> None:
    """Make the folder `path` if it is not there, and see to it that it is for this account alone.

    Raise `PlaceError` for one that is a symbolic link or belongs to somebody else.
    """
    try:
        path.mkdir(mode=0o700)
    except FileExistsError:
        pass
    try:
        file = os.open(path, os.O_RDONLY | _DIRECTORY | _NOFOLLOW | _CLOEXEC) if _DIRECTORY else None
    except OSError as problem:
        if problem.errno not in (errno.ELOOP, errno.ENOTDIR, errno.EMLINK):
            raise
        advice = "Name the folder itself as the place for our data, or remove what lies there."
        raise PlaceError(path, "it is a symbolic link or no folder", advice) from None
    if file is None:  # a system without owners and modes of this kind
        return
    try:
        _make_private(path, file)
    finally:
        os.close(file)


def _make_private(path: Path, folder: int) -> None:
    facts = os.fstat(folder)
    if facts.st_uid != os.geteuid():
        advice = "Name a folder of your own as the place for our data."
        raise PlaceError(path, f"it belongs to another account (number {facts.st_uid})", advice)
    if stat.S_IMODE(facts.st_mode) != 0o700:
        os.fchmod(folder, 0o700)


def write_atomically(path: Path, data: bytes, *, durable: bool = False) -> None:
    """Write a file of mode 0600 so that anyone at any time finds the old one or the new one, whole.

    With `durable` it is on the disk on return, and the new one is what a power cut leaves.
    """
    temporary = path.with_name(f"{_TEMPORARY}{secrets.token_hex(8)}")
    try:
        file = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | _NOFOLLOW | _CLOEXEC, 0o600)
        try:
            write_whole(file, data)
            if durable:
                os.fsync(file)
        finally:
            os.close(file)
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    if durable:
        sync_folder(path.parent)


def write_whole(file: int, data: bytes) -> None:
    """Write all of `data`, in as many writes as that takes."""
    rest = memoryview(data)
    while rest:
        rest = rest[os.write(file, rest) :]


def sync_folder(path: Path) -> None:
    """See to it that the names in a folder are on the disk."""
    if not _DIRECTORY:  # a system on which folders cannot be opened
        return
    folder = os.open(path, os.O_RDONLY | _DIRECTORY | _CLOEXEC)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def sweep(folder: Path) -> None:
    """Remove from a folder what a crash left of files that were being written; recent ones stay."""
    for entry in _entries(folder):
        facts = _lstat(entry) if entry.name.startswith(_TEMPORARY) else None
        if facts and time.time() - facts.st_mtime > _TEMPORARY_SECONDS and not stat.S_ISDIR(facts.st_mode):
            Path(entry.path).unlink(missing_ok=True)


# ---- removing


def _empty(folder: Path) -> None:
    """Remove all in `folder`, however deep and of whatever modes; what resists stays."""
    if not _DIRECTORY:  # a system on which folders cannot be opened
        for entry in _entries(folder):
            shutil.rmtree(entry.path, ignore_errors=True)
        return
    top = os.open(folder, os.O_RDONLY | _DIRECTORY | _NOFOLLOW | _CLOEXEC)
    try:
        # Folders below move up to the top before they are emptied, so that no depth, and
        # no path that is longer than the system takes, can stop this.
        waiting = [entry.name for entry in _entries(folder)]
        while waiting:
            waiting += _empty_one(top, waiting.pop())
    finally:
        os.close(top)


def _empty_one(top: int, name: str) -> list[str]:
    """Remove `name` with its files; return the new names of the folders that were in it."""
    try:
        facts = os.stat(name, dir_fd=top, follow_symlinks=False)
        if not stat.S_ISDIR(facts.st_mode):
            os.unlink(name, dir_fd=top)
            return []
        folder = os.open(name, os.O_RDONLY | _DIRECTORY | _NOFOLLOW | _CLOEXEC, dir_fd=top)
    except OSError:
        return []
    moved = list[str]()
    try:
        with os.scandir(folder) as entries:
            for entry in list(entries):
                _unlink_or_move(entry, folder, top, moved)
    except OSError:
        return moved
    finally:
        os.close(folder)
    try:
        os.rmdir(name, dir_fd=top)
    except OSError:
        pass
    return moved


def _unlink_or_move(entry: os.DirEntry[str], folder: int, top: int, moved: list[str]) -> None:
    try:
        if entry.is_dir(follow_symlinks=False):
            os.chmod(entry.name, 0o700, dir_fd=folder)  # a folder that is closed to us cannot be moved either
            name = secrets.token_hex(8)
            os.rename(entry.name, name, src_dir_fd=folder, dst_dir_fd=top)
            moved.append(name)
        else:
            os.unlink(entry.name, dir_fd=folder)
    except OSError:
        return
