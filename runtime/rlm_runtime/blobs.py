"""Contexts as they were given, each once, named by the SHA-256 of its bytes: `folder/<64 digits>`.

A blob is there whole or not at all, and never changes. Everything here blocks and belongs in a worker thread.
"""

from __future__ import annotations

import mmap
import os
import re
import secrets
from collections.abc import Sequence
from hashlib import sha256
from pathlib import Path
from typing import BinaryIO

from rlm_sessions import private_folder

from .errors import TrajectoryError

PREFIX = "sha256:"
REPLACED = "[secret]"
TEMPORARY = ".tmp-"

_REF = re.compile(r"sha256:[0-9a-f]{64}")
_PIECE_BYTES = 1024 * 1024
_NOFOLLOW: int = getattr(os, "O_NOFOLLOW", 0)


def bytes_of(text: str) -> bytes:
    """Return a text as it is kept, also one with characters that are none."""
    return text.encode("utf-8", "surrogatepass")


def text_of(data: bytes) -> str:
    """Return a text that was kept."""
    return data.decode("utf-8", "surrogatepass")


def ref_of(data: bytes) -> str:
    """Return the name of some bytes."""
    return PREFIX + sha256(data).hexdigest()


class Blobs:
    """The blobs in `folder`, in which none of `secrets` stands."""

    def __init__(self, folder: Path, secrets: Sequence[str] = ()) -> None:
        self.folder = folder
        self._secrets = [bytes_of(each) for each in secrets]

    def keep(self, data: bytes) -> str:
        """Keep some bytes and return their name."""
        for secret in self._secrets:
            data = data.replace(secret, REPLACED.encode())
        ref = ref_of(data)
        if not self._is_there(ref):
            private_folder(self.folder)
            beside = self._beside()
            try:
                with open(_new(beside), "wb") as file:
                    file.write(data)
                beside.replace(self.path(ref))
            finally:
                beside.unlink(missing_ok=True)
        return ref

    def keep_file(self, path: Path) -> tuple[str, int]:
        """Keep what is in a file, however large; return its name and how many bytes it has."""
        if self._holds_secret(path):
            data = path.read_bytes()
            return self.keep(data), len(data)
        private_folder(self.folder)
        beside = self._beside()
        try:
            with path.open("rb") as source, open(_new(beside), "wb") as file:
                digest, size = _copied(source, file)
            ref = PREFIX + digest
            if not self._is_there(ref):
                beside.replace(self.path(ref))
            return ref, size
        finally:
            beside.unlink(missing_ok=True)

    def path(self, ref: str) -> Path:
        """Return where a blob is, or would be. Raise `TrajectoryError` for what is no name of one."""
        if not _REF.fullmatch(ref):
            raise TrajectoryError(f"{ref[:100]!r} is no name of anything that is kept.")
        return self.folder / ref.removeprefix(PREFIX)

    def read(self, ref: str) -> bytes:
        """Return a blob. Raise `TrajectoryError` if it is not there, or not what it was."""
        try:
            data = self.path(ref).read_bytes()
        except OSError as problem:
            raise TrajectoryError(f"What {ref} names is not there any more: {problem.strerror}.") from problem
        if ref_of(data) != ref:
            raise TrajectoryError(f"What {ref} names is damaged: {self.path(ref)} holds something else.")
        return data

    def _is_there(self, ref: str) -> bool:
        """Whether a blob is there; it is used again then, and so is not removed as one that nobody names."""
        try:
            os.utime(self.path(ref))
        except OSError:
            return False
        return True

    def _beside(self) -> Path:
        return self.folder / f"{TEMPORARY}{secrets.token_hex(8)}"

    def _holds_secret(self, path: Path) -> bool:
        if not self._secrets or not path.stat().st_size:
            return False
        with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as view:
            return any(view.find(secret) >= 0 for secret in self._secrets)


def _new(path: Path) -> int:
    return os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | _NOFOLLOW, 0o600)


def _copied(source: BinaryIO, target: BinaryIO) -> tuple[str, int]:
    digest, size = sha256(), 0
    while piece := source.read(_PIECE_BYTES):
        digest.update(piece)
        size += len(piece)
        target.write(piece)
    return digest.hexdigest(), size
