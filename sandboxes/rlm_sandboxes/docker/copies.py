"""Copies of folders, for engines that share no files with this machine."""

from __future__ import annotations

import os
import stat
import tarfile
import tempfile
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

from ..errors import SandboxUnavailable
from ..limits import MIB
from .plans import Folder

MOST_BYTES, MOST_FILES = 256 * MIB, 20_000
LEFT_OUT = frozenset(
    (".git", ".mypy_cache", ".pytest_cache", ".ruff_cache", ".tox", ".venv", "__pycache__", "node_modules")
)
_LOOKED_AT = 10 * MOST_FILES
_WITHOUT_WAITING = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_NOFOLLOW", 0)
_AS_FOLDER = _WITHOUT_WAITING | getattr(os, "O_DIRECTORY", 0)


@dataclass
class Copy:
    """A folder as a tar archive, in a file that is gone when it is closed, and what is not in it."""

    path: Path
    archive: IO[bytes]
    left_out: list[str] = field(default_factory=list[str])


def pack_folder(folder: Folder, user: tuple[int, int]) -> Copy:
    """Return a copy of a folder. What may be written belongs to `user`, all else to root.

    Raise `SandboxUnavailable` if it is larger than what is copied. Links stay links. Left out is what can be
    made again, what cannot be read, and what is no file, folder or link.
    """
    found = _measured(folder.path)
    copy = Copy(folder.path, tempfile.TemporaryFile())  # noqa: SIM115 -- whoever gets it closes it
    unread = 0
    with tarfile.open(fileobj=copy.archive, mode="w", format=tarfile.PAX_FORMAT) as archive:
        for path in found.paths:
            archive.inodes.clear()  # type: ignore[attr-defined]  # each name of a file is a file of its own
            try:
                _add(archive, path, folder, user)
            except OSError:
                unread += 1
            if archive.offset > 2 * MOST_BYTES:  # with heads and rounding, what was measured is less
                copy.archive.close()
                raise SandboxUnavailable(
                    f"The folder {folder.path} grows while it is copied. Try again later."
                )
    copy.left_out = sorted(found.skipped)
    if unread:
        copy.left_out.append(f"{unread} that cannot be read")
    copy.archive.seek(0)
    return copy


@dataclass
class _Measured:
    paths: list[Path] = field(default_factory=list[Path])
    skipped: set[str] = field(default_factory=set[str])


def _measured(folder: Path) -> _Measured:
    """Look at what there is to copy. Raise `SandboxUnavailable` if it is too much."""
    found, sizes = _Measured([folder]), Counter[str]()
    for path, facts in _below(folder, found.skipped):
        found.paths.append(path)
        sizes[path.relative_to(folder).parts[0]] += facts.st_size if stat.S_ISREG(facts.st_mode) else 0
        if len(found.paths) > _LOOKED_AT:
            break
    size, count = sizes.total(), len(found.paths) - 1
    if size <= MOST_BYTES and count <= MOST_FILES:
        return found
    largest, of_that = sizes.most_common(1)[0]
    raise SandboxUnavailable(
        f"The folder {folder} cannot be copied to the container engine, which shares no files with this machine: "
        f"it has {size // MIB} MiB in {count} files, of that {of_that // MIB} MiB in {largest}, and "
        f"{MOST_BYTES // MIB} MiB in {MOST_FILES} files is the most. Name a smaller folder, set files = 'none', "
        "or use an engine on this machine."
    )


def _below(folder: Path, skipped: set[str]) -> Iterator[tuple[Path, os.stat_result]]:
    for place, folders, files in os.walk(folder):
        skipped |= LEFT_OUT.intersection(folders)
        folders[:] = sorted(set(folders) - LEFT_OUT)
        for name in (*folders, *sorted(files)):
            try:
                path = Path(place, name)
                yield path, path.lstat()
            except OSError:
                continue  # it went meanwhile


def _add(archive: tarfile.TarFile, path: Path, folder: Folder, user: tuple[int, int]) -> None:
    entry: Any = archive.gettarinfo(str(path), str(path.relative_to(folder.path)))
    if entry is None:
        return  # it is a socket
    if entry.isdir():
        os.close(open_within(folder.path, path, _AS_FOLDER))  # whether what is in it can be seen
    entry.uid, entry.gid = user if folder.writable else (0, 0)
    entry.uname = entry.gname = ""
    entry.mode |= 0o755 if entry.isdir() else 0o444
    if entry.isdir() or entry.issym():
        archive.addfile(entry)
    elif entry.isreg():
        with os.fdopen(open_within(folder.path, path), "rb") as file:
            entry.size = min(entry.size, os.fstat(file.fileno()).st_size, MOST_BYTES)
            archive.addfile(entry, file)


def open_within(folder: Path, path: Path, how: int = _WITHOUT_WAITING) -> int:
    """Open what is in `folder`, by no link: somebody else may be changing what is there."""
    if os.open not in os.supports_dir_fd:
        return os.open(path, how)
    *above, name = (".", *path.relative_to(folder).parts)
    at = os.open(folder, _AS_FOLDER)
    try:
        for part in above:
            below = os.open(part, _AS_FOLDER, dir_fd=at)
            os.close(at)
            at = below
        return os.open(name, how, dir_fd=at)
    finally:
        os.close(at)
