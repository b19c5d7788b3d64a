"""Snapshots as files: what one folder of them looks like, and reading them back.

    000000000012.state     a head of fixed length, the pickle, the manifest; checked by a digest
    blobs/ab/abcdef...     large values by the hash of their content, each written once

A file that has its name is whole: it is written under another one first. Nothing here
looks into a pickle; that is done in the jail only.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

FORMAT = 1
HEAD_BYTES = 256
_PIECE_BYTES = 1 << 20
_STATE = re.compile(r"[0-9]{12}\.state")


class Damaged(Exception):
    """A file is not what was once written."""


class Kept(NamedTuple):
    """A snapshot that lies there: what was written after the step `number`."""

    number: int
    path: Path
    manifest: dict[str, Any]
    manifest_bytes: bytes
    pickle_bytes: int
    digest: str

    def pickled(self) -> Iterator[bytes]:
        """Return the pickle, piece by piece."""
        return _part(self.path, HEAD_BYTES, self.pickle_bytes)


def head(*, pickle_bytes: int, manifest_bytes: int, digest: str) -> bytes:
    """Return the beginning of a file whose parts are of these lengths."""
    facts = {"format": FORMAT, "pickle": pickle_bytes, "manifest": manifest_bytes, "digest": digest}
    return json.dumps(facts).encode().ljust(HEAD_BYTES - 1) + b"\n"


def state_file(folder: Path, number: int) -> Path:
    """Return where the snapshot after the step `number` lies."""
    return folder / f"{number:012d}.state"


def blob_file(folder: Path, digest: str) -> Path:
    """Return where the value with this hash lies."""
    return folder / "blobs" / digest[:2] / digest


def numbers(folder: Path) -> list[int]:
    """Return the numbers of all snapshots in a folder, the newest first."""
    try:
        names = os.listdir(folder)
    except OSError:
        return []
    return sorted((int(name[:12]) for name in names if _STATE.fullmatch(name)), reverse=True)


def look(folder: Path, number: int) -> Kept:
    """Return what a snapshot says of itself; raise `Damaged` if it makes no sense."""
    path = state_file(folder, number)
    try:
        with open(path, "rb") as file:
            facts = json.loads(file.read(HEAD_BYTES))
            if facts["format"] != FORMAT:
                raise Damaged(f"it is of format {facts['format']}, and this program reads format {FORMAT}")
            pickle_bytes, manifest_bytes = int(facts["pickle"]), int(facts["manifest"])
            if os.fstat(file.fileno()).st_size != HEAD_BYTES + pickle_bytes + manifest_bytes:
                raise Damaged("it is of another length than it should be")
            file.seek(HEAD_BYTES + pickle_bytes)
            data = file.read(manifest_bytes)
        manifest = json.loads(data)
        blobs_of(manifest)
        return Kept(number, path, manifest, data, pickle_bytes, str(facts["digest"]))
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as problem:
        raise Damaged(f"it cannot be read: {problem}") from problem


def read(folder: Path, number: int) -> Kept:
    """Return a snapshot; raise `Damaged` if it is not what was written."""
    kept = look(folder, number)
    digest = hashlib.sha256()
    try:
        for piece in kept.pickled():
            digest.update(piece)
    except OSError as problem:
        raise Damaged(f"it cannot be read: {problem}") from problem
    digest.update(kept.manifest_bytes)
    if digest.hexdigest() != kept.digest:
        raise Damaged("it is not what was written")
    return kept


def blobs_of(manifest: dict[str, Any]) -> dict[str, int]:
    """Return the hashes of the large values that a snapshot refers to, and their sizes."""
    found: dict[str, int] = {}
    for entry in manifest.get("blobs", []):
        _, digest, size = entry
        if isinstance(digest, str) and len(digest) == 64 and set(digest) <= set("0123456789abcdef"):
            found[digest] = int(size)
    return found


def blob_is_whole(folder: Path, digest: str, size: int) -> bool:
    """Return whether a large value is there and is what it was."""
    found = hashlib.sha256()
    try:
        path = blob_file(folder, digest)
        if path.stat().st_size != size:
            return False
        for piece in pieces(path):
            found.update(piece)
    except OSError:
        return False
    return found.hexdigest() == digest


def pieces(path: Path) -> Iterator[bytes]:
    """Return the content of a file, piece by piece."""
    return _part(path, 0, None)


def _part(path: Path, start: int, length: int | None) -> Iterator[bytes]:
    with open(path, "rb") as file:
        file.seek(start)
        while piece := file.read(_PIECE_BYTES if length is None else min(length, _PIECE_BYTES)):
            length = None if length is None else length - len(piece)
            yield piece
