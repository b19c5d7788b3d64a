"""The promise every sandbox keeps, and the small values it speaks in.

A sandbox isolates a *program*: some Python with a way in. It knows nothing of
what the program does, and it moves bytes to and from it without reading them.
Every backend passes the contract suite in `tests/contracts/`.
"""

from __future__ import annotations

import socket
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from .limits import Limits


@dataclass(frozen=True)
class Package:
    """A folder of Python source that a program brings along, and the name it is imported by."""

    name: str
    folder: Path


@dataclass(frozen=True)
class Program:
    """A Python program to run in a sandbox.

    `entry` is "module:function" within `package`. The function is called with one argument, a
    channel (`send(bytes)`, `receive(size) -> bytes`, `fileno()`; where the backend has them also
    `side`, a second way out with `send`, `copies`, and `ask_for_time()`), and the program is over
    when it returns. `libraries` are packages that lie ready for import beside it, and
    `preload` are modules loaded before the first process starts, where the backend can do so.
    """

    package: Package
    entry: str
    libraries: tuple[Package, ...] = ()
    preload: tuple[str, ...] = ()


@dataclass(frozen=True)
class Layer:
    """One layer of isolation, and whether it holds for a particular process."""

    name: str
    holds: bool
    detail: str = ""

    def __str__(self) -> str:
        return self.name if self.holds else f"no {self.name} ({self.detail})"


@dataclass(frozen=True)
class Isolation:
    """What keeps a particular process inside, as tried from within it and not as hoped for.

    `strong` means that files outside, other processes and the network are out of reach
    even for code that does all it can.
    """

    layers: tuple[Layer, ...]
    strong: bool

    def __str__(self) -> str:
        held = "+".join(layer.name for layer in self.layers if layer.holds) or "none"
        missing = ", ".join(str(layer) for layer in self.layers if not layer.holds)
        return f"{held}; {missing}" if missing else held

    @property
    def contained(self) -> bool:
        """Whether the process is in a container, where nothing is but what was put there for it."""
        return any(layer.holds and layer.name.partition("(")[0] == "container" for layer in self.layers)

    def holds(self, *names: str) -> bool:
        """Return whether every named layer holds."""
        return {layer.name for layer in self.layers if layer.holds} >= set(names)


@dataclass(frozen=True)
class Usage:
    """What a process has used up to now."""

    cpu_seconds: float
    memory_bytes: int
    threads: int


class Process(Protocol):
    """A program at work in a sandbox.

    Bytes arrive in order and whole, or not at all. Nothing of what the program sends is to be
    trusted. All methods but `kill` raise `ProcessEnded` once the program is over.
    """

    @property
    def isolation(self) -> Isolation:
        """What keeps this process inside."""
        ...

    @property
    def side_channel(self) -> socket.socket | None:
        """Where a second stream of bytes from the program arrives, if the backend has one.

        Whoever reads it may be another process than the one that started the program.
        """
        ...

    @property
    def copies(self) -> bool:
        """Whether the program can fork a copy of itself, when `let_copy` has been called."""
        ...

    def let_copy(self) -> None:
        """Let the program fork one copy of itself, if no other is there. It cannot live for long."""
        ...

    async def send(self, data: bytes) -> None:
        """Send all of `data`. Waits while the program does not read."""
        ...

    async def receive(self) -> bytes:
        """Return the next bytes that the program sent, at least one."""
        ...

    async def interrupt(self) -> None:
        """Ask the program to stop what it does, as Ctrl-C would; it may refuse."""
        ...

    async def pause(self) -> None:
        """Give the program no more processor time until `resume`."""
        ...

    async def resume(self) -> None:
        """Let a paused program go on."""
        ...

    async def usage(self) -> Usage:
        """Return what the program has used up to now, as the system counts it."""
        ...

    async def kill(self) -> None:
        """End the program and everything it started, at once. It cannot refuse."""
        ...


class Sandbox(Protocol):
    """A place that isolates programs."""

    def start(
        self, program: Program, workdir: Path | None, limits: Limits
    ) -> AbstractAsyncContextManager[Process]:
        """Start `program` for the folder `workdir`, or for none, within `limits`.

        Leaving the context kills the process and everything it started, and removes its
        scratch folder.
        """
        ...
