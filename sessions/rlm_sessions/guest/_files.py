"""Files by path, and file descriptors only where the session opened them itself.

The guest's channel to the host is a descriptor like any other; code that could write to a number could speak for
the guest.
"""

from __future__ import annotations

import codecs
import io
import os
from typing import Any

from ._names import Door
from ._refusals import Refused

_NOT_OURS = Door("this session did not open it", "Open the file by its path.")
_OPENER = Door("an opener may name any descriptor of the process", "Open the file by its path.")


class Files:
    """The file functions of one session."""

    def __init__(self) -> None:
        self._opened: set[int] = set()

    def open(self, file: Any, mode: str = "r", *args: Any, **kwargs: Any) -> Any:
        """As the builtin."""
        if isinstance(file, int):
            self._let_go(file)
        if kwargs.get("opener") is not None or len(args) > 5:
            raise Refused("open() with an opener", _OPENER)
        return open(file, mode, *args, **kwargs)

    def open_descriptor(self, *args: Any, **kwargs: Any) -> int:
        """As `os.open`."""
        return self._keep(os.open(*args, **kwargs))

    def close(self, fd: int) -> None:
        """As `os.close`."""
        os.close(self._let_go(fd))

    def read(self, fd: int, length: int, /) -> bytes:
        """As `os.read`."""
        return os.read(self._own(fd), length)

    def write(self, fd: int, data: Any, /) -> int:
        """As `os.write`."""
        return os.write(self._own(fd), data)

    def mkstemp(self, *args: Any, **kwargs: Any) -> tuple[int, Any]:
        """As `tempfile.mkstemp`."""
        import tempfile

        descriptor, path = tempfile.mkstemp(*args, **kwargs)
        return self._keep(descriptor), path

    def codecs_open(self, filename: Any, *args: Any, **kwargs: Any) -> Any:
        """As `codecs.open`, which takes a number too."""
        return vars(codecs)["open"](os.fspath(filename), *args, **kwargs)  # on its way out, and still used

    def file_io_class(self) -> type:
        """Return a class that does what `io.FileIO` does."""
        own = self._own

        class FileIO(io.FileIO):
            """As the original, by path."""

            def __init__(self, file: Any, *args: Any, **kwargs: Any) -> None:
                super().__init__(own(file) if isinstance(file, int) else file, *args, **kwargs)

        return FileIO

    def _own(self, descriptor: int) -> int:
        if descriptor not in self._opened:
            raise Refused(f"file descriptor {descriptor!r}", _NOT_OURS)
        return descriptor

    def _keep(self, descriptor: int) -> int:
        self._opened.add(descriptor)
        return descriptor

    def _let_go(self, descriptor: int) -> int:
        self._opened.discard(self._own(descriptor))
        return descriptor
