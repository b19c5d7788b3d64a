"""How an exception in a cell is told: the user's own lines, bounded, and the limit it speaks of."""

from __future__ import annotations

import errno
import linecache
import traceback
from typing import Any

from .outlet import OutputLimit

MAX_MESSAGE = 4_000
MAX_TRACEBACK = 16_000
_KEPT_SOURCES = 500


class CellSources:
    """The text of recent cells, where tracebacks and `inspect` look for it."""

    def __init__(self) -> None:
        self._names: list[str] = []

    def add(self, name: str, code: str) -> None:
        """Keep the text of a cell, and let go of the oldest."""
        linecache.cache[name] = (len(code), None, code.splitlines(keepends=True), name)
        self._names.append(name)
        if len(self._names) > _KEPT_SOURCES:
            linecache.cache.pop(self._names.pop(0), None)


def describe(problem: BaseException, ours: str) -> dict[str, Any]:
    """Return what the host is told about an exception that ended a cell.

    `ours` is the folder of the guest, whose frames are left out.
    """
    return {
        "name": class_name(problem),
        "message": _cut(message_of(problem), MAX_MESSAGE),
        "traceback": _cut(_traceback(problem, ours), MAX_TRACEBACK),
        "limit": limit_of(problem),
    }


def class_name(problem: BaseException) -> str:
    """Return the name of an exception's class, whatever that class says of itself."""
    return str.__str__(type.__dict__["__name__"].__get__(type(problem)))[:200]


def message_of(problem: BaseException) -> str:
    """Return what an exception says, as a plain text; its own `__str__` may do anything."""
    try:
        text = str(problem)
        return text if type(text) is str else str.__str__(text)
    except BaseException as second:
        return f"(its message could not be made: {class_name(second)})"


def _traceback(problem: BaseException, ours: str) -> str:
    try:
        told = traceback.TracebackException.from_exception(problem, limit=-200, compact=True)
        began = any(frame.filename.startswith("<cell ") for frame in told.stack)
        _trim(told, ours)
        if not began:  # a cell that cannot be compiled has no frames but those of the compiler
            told.stack = traceback.StackSummary.from_list([])
        return "".join(told.format())
    except BaseException as second:
        return f"{class_name(problem)} (no traceback could be made: {class_name(second)})\n"


def _trim(told: Any, ours: str) -> None:
    """Leave the frames of cells and of the project, and the last one, which raised."""
    frames = [frame for frame in told.stack if not frame.filename.startswith((ours, "<frozen "))]
    own = [frame for frame in frames if not _is_installed(frame.filename)]
    if frames and own and frames[-1] is not own[-1]:
        own.append(frames[-1])
    told.stack = traceback.StackSummary.from_list(own or frames)
    for other in (told.__cause__, told.__context__, *(getattr(told, "exceptions", None) or ())):
        if other is not None:
            _trim(other, ours)


def _is_installed(filename: str) -> bool:
    return "/lib/python" in filename or "site-packages" in filename or "rlm_sessions/guest" in filename


def _cut(text: str, size: int) -> str:
    if len(text) <= size:
        return text
    left_out = len(text) - size
    return f"{text[: size // 2]}\n[... {left_out} characters left out ...]\n{text[-size // 2 :]}"


_BY_CODE = {
    errno.EFBIG: "file_bytes",
    errno.ENOSPC: "scratch_bytes",
    errno.EDQUOT: "scratch_bytes",
    errno.EMFILE: "open_files",
    errno.ENFILE: "open_files",
    errno.EROFS: "files",
    errno.ENOMEM: "memory_bytes",
    errno.ENETUNREACH: "network",
}
_BY_MODULE = {"socket.py": "network", "subprocess.py": "processes", "popen_fork.py": "processes"}


def limit_of(problem: BaseException) -> str | None:
    """Return which limit of the sandbox an exception speaks of, if it is one."""
    try:
        return _limit_of(problem)
    except BaseException:  # a class of the user's own, with properties that do anything
        return None


def _limit_of(problem: BaseException) -> str | None:
    own = _own_limit(problem)
    cause = problem.__cause__ or problem.__context__
    if own is None and isinstance(cause, (OSError, MemoryError)):
        return _limit_of(cause)
    return own


def _own_limit(problem: BaseException) -> str | None:
    if isinstance(problem, OutputLimit):
        return "output_bytes"
    if isinstance(problem, MemoryError):
        return "memory_bytes"
    if isinstance(problem, RuntimeError) and "start new thread" in str(problem):
        return "threads"
    if getattr(problem, "errno", None) in (errno.EPERM, errno.EAGAIN):
        return _BY_MODULE.get(_raising_file(problem))
    if isinstance(problem, PermissionError):
        return "files" if problem.filename is not None else None
    if isinstance(problem, OSError):
        return _BY_CODE.get(problem.errno or 0)
    return None


def _raising_file(problem: BaseException) -> str:
    last = ""
    trace = problem.__traceback__
    while trace is not None:
        name = trace.tb_frame.f_code.co_filename.rpartition("/")[2]
        last = name if name in _BY_MODULE else last
        trace = trace.tb_next
    return last
