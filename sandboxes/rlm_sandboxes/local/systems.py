"""What a system has to offer for `SpawnedSandbox`, whatever it is called there."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

from ..limits import Limits
from ..sandbox import Usage


class Hold(Protocol):
    """A spawned process and what it started, as the host holds them. Its methods may block for a moment.

    None of them minds if the process is gone, but `usage`, which raises `OSError`.
    """

    def interrupt(self) -> None: ...
    def pause(self) -> None: ...
    def resume(self) -> None: ...
    def usage(self) -> Usage: ...
    def kill(self) -> None: ...
    def close(self) -> None: ...


@dataclass(frozen=True)
class View:
    """The paths that a program is to see, to change and to execute."""

    readable: tuple[str, ...]
    writable: tuple[str, ...]
    executable: tuple[str, ...]


class System(Protocol):
    """How an operating system spawns a process and holds it, and what the process can put around itself."""

    @property
    def layers(self) -> frozenset[str]:
        """The layers that a process can have."""
        ...

    @property
    def walls(self) -> frozenset[str]:
        """The layers that together keep any code in; none where nothing does."""
        ...

    @property
    def ends_families(self) -> bool:
        """Whether all that a process starts ends with it, whatever it does."""
        ...

    @property
    def spawning(self) -> dict[str, Any]:
        """How to spawn a process, as `anyio.open_process` takes it."""
        ...

    def environment(self, scratch: str) -> dict[str, str]:
        """Return all the environment variables that a process gets."""
        ...

    def request(self, view: View, limits: Limits) -> dict[str, Any]:
        """Return what the process has to know beyond the limits to put its layers in place."""
        ...

    def hold(self, pid: int, is_alive: Callable[[], bool], folder: str, request: dict[str, Any]) -> Hold:
        """Take hold of a process that waits for `request`, and let it go on. `folder` goes with it.

        Should the host end, however it does, the system ends the process.
        """
        ...
