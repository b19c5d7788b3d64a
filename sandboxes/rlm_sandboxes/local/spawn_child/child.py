"""One spawned process: closes what its system can close, tells the host what holds, runs the program.

    host -> child   one line, the request
    child -> host   one line, the layers that were tried; one more when the program has been loaded
    then            whatever the program and the host have to say to one another

An interpreter that is not trusted is executed after the first answer and comes
through here again, with a second request and the walls already around it.
"""

from __future__ import annotations

import faulthandler
import importlib
import json
import os
import signal
import site
import sys
import traceback
from collections.abc import Callable
from importlib.machinery import ModuleSpec
from importlib.util import spec_from_file_location
from typing import Any, NamedTuple, NoReturn

from .channel import PipeChannel

EXIT_NOT_CLOSED, EXIT_PROGRAM_FAILED = 71, 70
_REQUEST_BYTES = 1 << 16
_CRASH_BYTES = 4000

Found = tuple[str, bool, str]
Steps = dict[str, Callable[[], str]]


class Ends(NamedTuple):
    """The three pipes to the host, away from the numbers that foreign code reads and prints to."""

    reader: int
    writer: int
    crashes: int


def main() -> NoReturn:
    """Do what the host's request says, and end."""
    ends, status = Ends(0, 1, 2), EXIT_NOT_CLOSED
    try:
        request = json.loads(_receive_request())
        ends = _move_ends()
        faulthandler.enable(file=ends.crashes)
        found = _close(request)
        channel = PipeChannel(ends.reader, ends.writer)
        channel.send(json.dumps({"layers": found}).encode() + b"\n")
        _require(request["walls"], found)
        if request["execute"]:
            _execute(request["execute"], ends)
        status = EXIT_PROGRAM_FAILED
        entry = _load(request)
        signal.signal(signal.SIGINT, signal.default_int_handler)  # a host in the background has it ignored
        channel.send(b'{"up": true}\n')
        entry(channel)
        status = 0
    except SystemExit as end:
        status = end.code if isinstance(end.code, int) else 0 if end.code is None else 1
    except BaseException as problem:
        _tell(ends.crashes, problem)
    finally:
        os._exit(status)


def _receive_request() -> bytes:
    data = b""
    while not data.endswith(b"\n"):
        more = os.read(0, _REQUEST_BYTES)
        if not more:
            os._exit(0)
        data += more
    return data


def _move_ends() -> Ends:
    ends = Ends(os.dup(0), os.dup(1), os.dup(2))
    null = os.open(os.devnull, os.O_RDWR)
    for standard in (0, 1, 2):
        os.dup2(null, standard)
    os.close(null)
    for fd in ends:
        os.set_inheritable(fd, False)  # Windows hands on copies of these three
    return ends


def _close(request: dict[str, Any]) -> list[Found]:
    """Put each layer in place and return what was found to hold when it was tried."""
    os.umask(0o077)
    os.chdir(request["folder"])
    if sys.platform == "win32":
        from .windows import listen

        listen(request["interrupts"])
    found: list[Found] = []
    for name, step in _steps(request).items():
        reason = _put(step) if name in request["layers"] else "switched off"
        found.append((name, not reason, reason))
    return found


def _steps(request: dict[str, Any]) -> Steps:
    """Return the layers of this system, each with what puts it in place and says why it does not hold."""
    if sys.platform == "win32":
        from .windows import steps
    elif sys.platform == "darwin":
        from .seatbelt import steps
    else:
        from .posix import steps
    return {} if request["adopted"] else steps(request)


def _put(step: Callable[[], str]) -> str:
    """Return why a layer does not hold, or "" where it does."""
    try:
        return step()
    except (OSError, ValueError, AttributeError) as problem:  # the last where a library lacks a function
        return str(problem) or type(problem).__name__


def _require(walls: list[str], found: list[Found]) -> None:
    """Let nothing of the project's in if a wall is missing that has to be around it."""
    held = {name for name, holds, _ in found if holds}
    if not held.issuperset(walls):
        raise PermissionError("what would have to hold it does not hold")


def _execute(command: list[str], ends: Ends) -> NoReturn:
    """Become the interpreter that was asked for."""
    for standard, end in enumerate(ends):
        os.dup2(end, standard)
    os.execve(command[0], command, dict(os.environ))


class _Finder:
    """Finds the packages that the program consists of, when they are imported and not before."""

    def __init__(self, packages: list[tuple[str, str]]) -> None:
        self._folders = dict(packages)

    def find_spec(self, name: str, path: object = None, target: object = None) -> ModuleSpec | None:
        folder = self._folders.get(name)
        if folder is None:
            return None
        return spec_from_file_location(
            name, os.path.join(folder, "__init__.py"), submodule_search_locations=[folder]
        )


def _load(request: dict[str, Any]) -> Callable[[Any], object]:
    sys.meta_path.insert(0, _Finder(request["packages"]))
    for folder in request["site"]:
        site.addsitedir(folder)
    for module in request["preload"]:
        importlib.import_module(module)
    module, function = request["entry"].split(":")
    entry: Callable[[Any], object] = getattr(importlib.import_module(module), function)
    return entry


def _tell(crashes: int, problem: BaseException) -> None:
    """Write down why this process ends where the host looks for it."""
    text = "".join(traceback.format_exception(type(problem), problem, problem.__traceback__))
    try:
        os.write(crashes, text[-_CRASH_BYTES:].encode("utf-8", "backslashreplace"))
    except OSError:
        pass  # the host is gone
