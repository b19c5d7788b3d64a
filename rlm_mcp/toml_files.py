"""Reading a TOML file that anybody may have written: never waiting, never without bounds, never outside.

What the values mean is not known here.
"""

from __future__ import annotations

import errno
import hashlib
import os
import re
import stat
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .toml_lines import Place

MAX_BYTES = 1024 * 1024

_PLACE = re.compile(r" \(at line (\d+), column (\d+)\)")
_FLAGS = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_NOCTTY", 0)


class FileProblem(Exception):
    """A file cannot be used: `where` in it, and `why`."""

    def __init__(self, where: str, why: str) -> None:
        self.where = where
        self.why = why
        super().__init__(f"{where}: {why}")


@dataclass(frozen=True)
class Document:
    """What a file says. `digest` is that of the very bytes which were read."""

    path: Path
    digest: str
    values: Mapping[str, Any] = field(repr=False)
    lines: Mapping[Place, int] = field(repr=False)

    def where(self, *place: str | int) -> str:
        """Return the file and the line of what is at `place`, or else of what it is in."""
        while place and place not in self.lines:
            place = place[:-1]
        return f"{self.path}:{self.lines.get(place, 1)}"


def read_document(path: Path, *, within: Path | None = None) -> Document | None:
    """Return what the file says; None if there is none. Raise `FileProblem`.

    With `within`, a link that leads out of that folder is not followed.
    """
    content = read_bytes(path, within=within)
    if content is None:
        return None
    try:
        text = content.decode("utf-8-sig").replace("\r\n", "\n")
    except UnicodeDecodeError as error:
        line = content[: error.start].count(b"\n") + 1
        raise FileProblem(
            f"{path}:{line}", "this is not UTF-8, as TOML must be. Save the file as UTF-8."
        ) from None
    return _parsed(path, content, text)


def _parsed(path: Path, content: bytes, text: str) -> Document:
    import tomllib  # here, because most servers start without any file

    from .toml_lines import TooDeep, lines_of

    try:
        lines = lines_of(text)
        values = tomllib.loads(text)
    except TooDeep as error:
        raise FileProblem(
            f"{path}:{error.line}", f"{error}, and no setting is so deep. Take it out."
        ) from None
    except tomllib.TOMLDecodeError as error:
        raise _syntax(path, str(error), text) from None
    except (ValueError, RecursionError):
        raise FileProblem(str(path), "it holds a number too long to be read. Take it out.") from None
    return Document(path, hashlib.sha256(content).hexdigest(), values, lines)


def read_bytes(path: Path, *, within: Path | None = None, most: int = MAX_BYTES) -> bytes | None:
    """Return what is in a file; None if there is none. Raise `FileProblem`."""
    try:
        opened = os.open(_real(path, within), _FLAGS | (getattr(os, "O_NOFOLLOW", 0) if within else 0))
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (OSError, ValueError) as error:
        raise FileProblem(str(path), f"it cannot be read: {_why(error)}") from error
    try:
        if not stat.S_ISREG(os.fstat(opened).st_mode):
            raise FileProblem(str(path), "it is no ordinary file, and cannot be read. Move it away.")
        with open(opened, "rb", closefd=False) as file:
            content = file.read(most + 1)
    except OSError as error:
        raise FileProblem(str(path), f"it cannot be read: {_why(error)}") from error
    finally:
        os.close(opened)
    if len(content) > most:
        raise FileProblem(str(path), f"it is larger than {most} bytes, and was not read. Make it smaller.")
    return content


def _real(path: Path, within: Path | None) -> str:
    if within is None:
        return os.fspath(path)
    real = os.path.realpath(path)
    if not Path(real).is_relative_to(os.path.realpath(within)):
        raise FileProblem(
            str(path), "it is a link that leads out of the project, and was not read. Put a file there."
        )
    return real


def _why(error: Exception) -> str:
    if isinstance(error, OSError) and error.errno == errno.ELOOP:
        return "it is a link that leads to itself. Put a file there, or remove it."
    text = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
    return f"{text}. Mend that, or move it away."


def _syntax(path: Path, message: str, text: str) -> FileProblem:
    found = _PLACE.search(message)
    what = message.partition(" (at ")[0]
    place = f"{found[1]}:{found[2]}" if found else str(text.count("\n", 0, len(text.rstrip())) + 1)
    return FileProblem(f"{path}:{place}", f"this is not TOML: {what}. Mend that line.")
