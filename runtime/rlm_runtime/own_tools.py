"""Tools that come with the runtime: reading files of given folders, and running code in a session of its own."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from .errors import REPLExecutionError, RLMError, ToolNotFoundError
from .tools import Tool

if TYPE_CHECKING:
    from .rooms import Rooms

FILE_READ, EXECUTE_CODE = "file_read", "execute_code"
MOST_BYTES = 1_000_000

_NO_LINKS: int = getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_NONBLOCK", 0)
_FOLDER: int = getattr(os, "O_DIRECTORY", 0)


def file_read(allowed_paths: Sequence[str | Path] = (".",)) -> Tool:
    """Return a tool that reads files: those in `allowed_paths`, or these files themselves, and no others.

    Where a link leads is what counts. A pattern is a name like any other.
    """
    roots = [Path(each).expanduser().absolute() for each in allowed_paths]

    def read(path: str, offset: int = 0, length: int = MOST_BYTES) -> str:
        return _read(_allowed(path, [root.resolve() for root in roots]), offset, length)

    count = {"type": "integer", "minimum": 0}
    shown = ", ".join(map(str, allowed_paths)) or "nothing"
    return Tool(
        FILE_READ,
        f"Read a text file, or a part of it. Files in these places can be read: {shown}.",
        {
            "type": "object",
            "properties": {
                "path": {"type": "string"},
                "offset": {**count, "description": "the first byte to read"},
                "length": {**count, "maximum": MOST_BYTES, "description": "how many bytes to read at most"},
            },
            "required": ["path"],
            "additionalProperties": False,
        },
        read,
    )


def _allowed(path: str, roots: Sequence[Path]) -> tuple[Path, Path]:
    """Return the place a file is in, and its path from there."""
    for root in roots:
        found = Path(root, path).resolve()
        if found.is_relative_to(root) and found.exists():
            return root, found.relative_to(root)
    if any(Path(root, path).resolve().is_relative_to(root) for root in roots):
        raise FileNotFoundError(f"There is no file {path!r}.")
    raise PermissionError(f"{path!r} is in none of the places that may be read.")


def _read(place: tuple[Path, Path], offset: int, length: int) -> str:
    file = _open(*place)
    if not stat.S_ISREG(os.fstat(file).st_mode):
        os.close(file)
        raise PermissionError(f"{str(place[1])!r} is no file.")
    with os.fdopen(file, "rb") as opened:
        opened.seek(offset)
        return opened.read(min(length, MOST_BYTES)).decode("utf-8", "replace")


def _open(root: Path, path: Path) -> int:
    """Open a file step by step from its place, so that no link is followed that was put there a moment ago."""
    if os.open not in os.supports_dir_fd:
        return os.open(root / path, os.O_RDONLY | getattr(os, "O_BINARY", 0))
    at = os.open(root, os.O_RDONLY | _NO_LINKS)
    for number, name in enumerate(path.parts, 1):
        kind = _FOLDER if number < len(path.parts) else 0
        try:
            below = os.open(name, os.O_RDONLY | _NO_LINKS | kind, dir_fd=at)
        finally:
            os.close(at)
        at = below
    return at


def execute_code(rooms: Rooms) -> Tool:
    """Return a tool that runs code in a fresh session each time, which sees no files and asks nobody."""

    async def run(code: str) -> str:
        async with rooms.room(_nobody) as session:
            result = await session.run(code)
        if result.error is not None:
            said = f"{result.error.name}: {result.error.message}"
            raise REPLExecutionError(said, result.error.traceback or said)
        return result.output + (result.value or "")

    return Tool(
        EXECUTE_CODE,
        "Run Python code in a session of its own, without the variables of the REPL. Returns what it prints, "
        "and the value of its last expression.",
        {
            "type": "object",
            "properties": {"code": {"type": "string"}},
            "required": ["code"],
            "additionalProperties": False,
        },
        run,
    )


async def _nobody(name: str, payload: Any) -> NoReturn:
    raise RLMError(f"Code that {EXECUTE_CODE} runs cannot ask anybody ({name}).")


def check_names(tools: Iterable[Tool | str]) -> None:
    """Raise `ToolNotFoundError` for a name that no tool of ours has."""
    for tool in tools:
        if isinstance(tool, str) and tool not in (FILE_READ, EXECUTE_CODE):
            raise ToolNotFoundError(tool, [EXECUTE_CODE, FILE_READ])


def tools_of(given: Iterable[Tool | str], rooms: Rooms) -> tuple[Tool, ...]:
    """Return tools, of which some are named only."""
    named = {FILE_READ: file_read, EXECUTE_CODE: lambda: execute_code(rooms)}
    return tuple(named[each]() if isinstance(each, str) else each for each in given)
