"""Copies of folders, for engines that share no files with this machine."""

from __future__ import annotations

import io
import os
import tarfile
from pathlib import Path

from ..errors import SandboxUnavailable
from ..limits import MIB
from .plans import Folder

MOST_BYTES, MOST_FILES = 256 * MIB, 20_000


def pack_folder(folder: Folder, user: tuple[int, int]) -> bytes:
    """Return a folder as a tar archive. What may be written belongs to `user`, all else to root.

    Raise `SandboxUnavailable` if it is larger than what is copied. Links stay links; what is no file, folder
    or link is left out.
    """
    target = io.BytesIO()
    size = count = 0
    with tarfile.open(fileobj=target, mode="w", format=tarfile.PAX_FORMAT) as archive:
        archive.addfile(_owned(archive.gettarinfo(str(folder.path), "."), folder, user))
        for path in _below(folder.path):
            try:
                entry = archive.gettarinfo(str(path), str(path.relative_to(folder.path)))
            except OSError:
                continue  # it went meanwhile
            if not (entry.isreg() or entry.isdir() or entry.issym() or entry.islnk()):
                continue
            size, count = size + entry.size, count + 1
            if size > MOST_BYTES or count > MOST_FILES:
                raise SandboxUnavailable(
                    f"The folder {folder.path} cannot be copied to the container engine: it has more than "
                    f"{MOST_BYTES // MIB} MiB or {MOST_FILES} files. Name a smaller folder, or set files = 'none'."
                )
            _add(archive, path, _owned(entry, folder, user))
    return target.getvalue()


def _below(folder: Path) -> list[Path]:
    found: list[Path] = []
    for place, folders, files in os.walk(folder):
        found += [Path(place, name) for name in (*folders, *files)]
        if len(found) > MOST_FILES:
            break
    return found


def _add(archive: tarfile.TarFile, path: Path, entry: tarfile.TarInfo) -> None:
    if not entry.isreg():
        archive.addfile(entry)
        return
    with path.open("rb") as file:
        content = file.read(entry.size)
    entry.size = len(content)
    archive.addfile(entry, io.BytesIO(content))


def _owned(entry: tarfile.TarInfo, folder: Folder, user: tuple[int, int]) -> tarfile.TarInfo:
    entry.uid, entry.gid = user if folder.writable else (0, 0)
    entry.uname = entry.gname = ""
    entry.mode |= 0o755 if entry.isdir() else 0o444
    return entry
