"""Snapshots as files: what one folder of them looks like, and reading them back.

    000000000012.state     a header line, the manifest, the pickle; checked by a digest
    blobs/ab/abcdef...     large values by the hash of their content, each written once

A file that has its name is whole: it is written under another one first. Nothing here
looks into a pickle; that is done in the jail only.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

FORMAT = 1
_MAX_HEADER_BYTES = 4096
_PIECE_BYTES = 1 << 20


class Damaged(Exception):
    """A file is not what was once written."""


class Kept(NamedTuple):
    """A snapshot that was read back: what was written after the step `number`."""

    number: int
    manifest: dict[str, Any]
    pickled: bytes
    manifest_bytes: bytes
    digest: str


def header(manifest: int, pickled: int, digest: str) -> bytes:
    """Return the first line of a file whose parts are of these lengths."""
    facts = {"format": FORMAT, "manifest": manifest, "pickle": pickled, "digest": digest}
    return json.dumps(facts).encode() + b"\n"


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
    except FileNotFoundError:
        return []
    return sorted((int(name[:-6]) for name in names if _is_state(name)), reverse=True)


def _is_state(name: str) -> bool:
    return name.endswith(".state") and name[:-6].isdigit()


def read(folder: Path, number: int) -> Kept:
    """Return a snapshot; raise `Damaged` if it is not what was written."""
    path = state_file(folder, number)
    try:
        with path.open("rb") as file:
            facts = _header(file.readline(_MAX_HEADER_BYTES))
            manifest, pickled = file.read(facts["manifest"]), file.read(facts["pickle"])
        digest = hashlib.sha256(pickled)
        digest.update(manifest)
        if digest.hexdigest() != facts["digest"]:
            raise Damaged(f"{path.name} is not what was written")
        told = json.loads(manifest)
    except (OSError, ValueError, KeyError, TypeError) as problem:
        raise Damaged(f"{path.name} cannot be read: {problem}") from problem
    if not isinstance(told, dict):
        raise Damaged(f"{path.name} has no list of what it holds")
    return Kept(number, told, pickled, manifest, digest.hexdigest())


def _header(line: bytes) -> dict[str, Any]:
    facts = json.loads(line)
    if facts["format"] != FORMAT:
        raise Damaged(f"it is of format {facts['format']}, and this program reads format {FORMAT}")
    if min(int(facts["manifest"]), int(facts["pickle"])) < 0:
        raise Damaged("its lengths make no sense")
    return dict(facts)


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
    with path.open("rb") as file:
        while piece := file.read(_PIECE_BYTES):
            yield piece
