"""Which files are meant: one path, several, or a pattern within a project's folder."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from .errors import FilesNotFound

MOST_FILES = 10_000


def matching(folder: Path | None, paths: str | Path | Sequence[Path]) -> Path | Sequence[Path]:
    """Return the files that `paths` means; a text is a pattern. Raise `FilesNotFound`. It blocks.

    Links that lead out of the folder are left out, and so are folders.
    """
    if not isinstance(paths, str):
        return paths
    if folder is None:
        raise FilesNotFound(paths, "the project has no folder; name the files by their paths")
    if Path(paths).is_absolute() or ".." in Path(paths).parts:
        raise FilesNotFound(paths, "a pattern is taken within the project's folder")
    root = folder.resolve()
    found = sorted(
        path for path in folder.glob(paths) if path.is_file() and path.resolve().is_relative_to(root)
    )
    if not found:
        raise FilesNotFound(paths, f"nothing in {folder} matches")
    if len(found) > MOST_FILES:
        raise FilesNotFound(
            paths, f"{len(found)} files match, and {MOST_FILES} can be loaded at once; narrow it"
        )
    return found
