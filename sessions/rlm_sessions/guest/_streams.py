"""The views of `sys`, whose streams are the ones that are in use at the moment.

Code that sets `sys.stdout` means to redirect what is printed, so that goes through to the interpreter. Strict mode
never hands out the interpreter's own streams: `sys.stdout.buffer.raw` is a class that opens files.
"""

from __future__ import annotations

import sys
import types
from typing import Any


def _shared(name: str) -> Any:
    """Return a property that stands for a name of the real `sys`: what libraries read and set too."""

    def get(view: types.ModuleType) -> Any:
        return getattr(sys, name)

    def put(view: types.ModuleType, value: Any) -> None:
        setattr(sys, name, value)

    return property(get, put)


class SystemView(types.ModuleType):
    """The view of `sys` in permissive mode."""

    stdin = _shared("stdin")
    stdout = _shared("stdout")
    stderr = _shared("stderr")
    argv = _shared("argv")
    path = _shared("path")


class Output:
    """What a cell needs of `sys.stdout`."""

    encoding = "utf-8"

    def write(self, text: str) -> int:
        """Print a text as it is."""
        return sys.stdout.write(text)

    def writelines(self, lines: Any) -> None:
        """Print texts as they are."""
        sys.stdout.writelines(lines)

    def flush(self) -> None:
        """Let go of what is still held back."""
        sys.stdout.flush()

    def isatty(self) -> bool:
        """Return that nobody is at a keyboard."""
        return False


class Errors(Output):
    """What a cell needs of `sys.stderr`."""

    def write(self, text: str) -> int:
        """Print a text as it is."""
        return sys.stderr.write(text)

    def writelines(self, lines: Any) -> None:
        """Print texts as they are."""
        sys.stderr.writelines(lines)

    def flush(self) -> None:
        """Let go of what is still held back."""
        sys.stderr.flush()


def _redirected(name: str) -> Any:
    """Return a property that gives a stand-in for a stream, or the very object that a cell has put there."""

    def get(view: StrictSystemView) -> Any:
        current = getattr(sys, name)
        return current if current is view._given.get(name) else view._stand_ins[name]

    def put(view: StrictSystemView, value: Any) -> None:
        current = getattr(sys, name)
        if current is not view._given.get(name):
            view._original[name] = current
        view._given[name] = view._original[name] if value is view._stand_ins[name] else value
        setattr(sys, name, view._given[name])
        if value is view._stand_ins[name]:
            del view._given[name]

    return property(get, put)


class StrictSystemView(types.ModuleType):
    """The view of `sys` in strict mode."""

    __slots__ = ("_given", "_original", "_stand_ins")

    stdout = _redirected("stdout")
    stderr = _redirected("stderr")

    def __init__(self, name: str, doc: str | None) -> None:
        super().__init__(name, doc)
        self._stand_ins = {"stdout": Output(), "stderr": Errors()}
        self._given: dict[str, Any] = {}
        self._original: dict[str, Any] = {}
