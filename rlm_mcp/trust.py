"""Which projects the user has trusted to ask for more than the user's own settings allow.

Kept is the digest of a project's `rlm.toml` as it was when the user looked at it. Another file, or the same
one changed by a single byte, is not trusted.
"""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, TypeAlias

from .toml_files import FileProblem, read_bytes

Standing: TypeAlias = Literal["trusted", "changed", "never"]

_NAME = "trusted.json"
_VERSION = 1


@dataclass(frozen=True)
class Trusted:
    """What the user has trusted: digests by the real path of the project's folder.

    `problem` says why nothing is trusted although there is a file.
    """

    digests: Mapping[str, str] = field(default_factory=dict[str, str])
    problem: str = ""

    def standing(self, folder: Path, digest: str) -> Standing:
        """Return whether a project's file is trusted as it is now; "changed" if it was, as it was before."""
        known = self.digests.get(_real(folder))
        if known is None:
            return "never"
        return "trusted" if known == digest else "changed"


def trust_file(config_dir: Path) -> Path:
    """Return where it is kept."""
    return config_dir / _NAME


def read_trusted(config_dir: Path) -> Trusted:
    """Return what the user has trusted. A file that somebody else may have written counts for nothing."""
    path = trust_file(config_dir)
    try:
        content = read_bytes(path)
        if content is None:
            return Trusted()
        _refuse_foreign(path)
        return Trusted(_digests(content))
    except FileProblem as error:
        return Trusted(problem=str(error))
    except (OSError, ValueError, RecursionError) as error:
        return Trusted(problem=f"{path}: it cannot be used ({error}), so no project is trusted. Remove it.")


def trust(config_dir: Path, folder: Path, digest: str) -> None:
    """Trust a project's file as it was when it had this digest. Raise `OSError`."""
    known = dict(read_trusted(config_dir).digests)
    known[_real(folder)] = digest
    _write(trust_file(config_dir), known)


def distrust(config_dir: Path, folder: Path) -> bool:
    """Trust a project no more; return whether it was trusted. Raise `OSError`."""
    known = dict(read_trusted(config_dir).digests)
    if known.pop(_real(folder), None) is None:
        return False
    _write(trust_file(config_dir), known)
    return True


def _real(folder: Path) -> str:
    return os.path.realpath(folder)


def _refuse_foreign(path: Path) -> None:
    if not hasattr(os, "getuid"):
        return
    status = path.stat()
    if status.st_uid not in (0, os.getuid()) or status.st_mode & 0o022:
        raise FileProblem(
            str(path),
            "others may write to it, so no project is trusted. Make it yours alone (chmod 600), or remove it.",
        )


def _digests(content: bytes) -> dict[str, str]:
    data: Any = json.loads(content)
    try:
        return {str(folder): str(digest) for folder, digest in data["projects"].items()}
    except (KeyError, TypeError, AttributeError):
        raise ValueError("it does not hold what it should") from None


def _write(path: Path, digests: Mapping[str, str]) -> None:
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    text = json.dumps({"version": _VERSION, "projects": dict(sorted(digests.items()))}, indent=2) + "\n"
    replace_file(path, text.encode())


def replace_file(path: Path, content: bytes, *, mode: int = 0o600) -> None:
    """Put a file in the place of another in one step, so that no reader sees half of it. Raise `OSError`."""
    descriptor, temporary = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        Path(temporary).chmod(mode)
        Path(temporary).replace(path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise
