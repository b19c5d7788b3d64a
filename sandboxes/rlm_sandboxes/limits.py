"""What one program in a sandbox may use and see.

A value, not a mechanism: each backend keeps these limits with what its system
offers, and its processes report in their `Isolation` which layer holds.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from pathlib import Path
from typing import Literal, TypeAlias, cast, get_args

from .errors import LimitsInvalid

Files: TypeAlias = Literal["none", "read", "write"]

KIB, MIB, GIB = 1024, 1024**2, 1024**3


@dataclass(frozen=True, kw_only=True)
class Limits:
    """What one program in a sandbox may use and see.

    `wall_seconds`, `cpu_seconds` and `output_bytes` count for one cell; everything else counts
    for the whole life of the program. `grace_seconds` lies between the interrupt that a limit
    sends and the kill that follows when the program does not stop.

    Two switches open something. `files` is about the folder that the program was started for:
    "none" hides it, "read" shows it read-only, "write" lets the program change everything in
    it. `network` puts the program on the machine's own network, from where it reaches whatever
    the machine reaches, services on loopback included.
    """

    wall_seconds: float = 120.0
    cpu_seconds: float = 300.0
    grace_seconds: float = 1.0
    memory_bytes: int = 2 * GIB
    processes: int = 0
    threads: int = 64
    open_files: int = 256
    file_bytes: int = 512 * MIB
    scratch_bytes: int = 512 * MIB
    output_bytes: int = 16 * MIB
    files: Files = "read"
    network: bool = False
    readable: tuple[Path, ...] = ()

    def __post_init__(self) -> None:
        for field in fields(self):
            _check(field.name, getattr(self, field.name))


_SMALLEST: dict[str, int | float] = {
    "wall_seconds": 0.001,
    "cpu_seconds": 0.001,
    "grace_seconds": 0.0,
    "memory_bytes": 32 * MIB,
    "processes": 0,
    "threads": 4,
    "open_files": 16,
    "file_bytes": 0,
    "scratch_bytes": 64 * KIB,
    "output_bytes": 1 * KIB,
}
_LARGEST = 2**53


def _check(name: str, value: object) -> None:
    if name == "files":
        if value not in get_args(Files):
            raise LimitsInvalid(name, value, 'one of "none", "read" and "write"')
    elif name == "network":
        if not isinstance(value, bool):
            raise LimitsInvalid(name, value, "true or false")
    elif name == "readable":
        if not _are_absolute_paths(value):
            raise LimitsInvalid(name, value, "absolute paths")
    else:
        _check_number(name, value)


def _are_absolute_paths(value: object) -> bool:
    if not isinstance(value, tuple):
        return False
    paths = cast("tuple[object, ...]", value)
    return all(isinstance(path, Path) and path.is_absolute() for path in paths)


def _check_number(name: str, value: object) -> None:
    smallest = _SMALLEST[name]
    kind = "a whole number" if isinstance(smallest, int) else "a number"
    if isinstance(value, bool) or not isinstance(
        value, (int,) if isinstance(smallest, int) else (int, float)
    ):
        raise LimitsInvalid(name, value, kind)
    if not smallest <= value <= _LARGEST:  # also refuses NaN
        raise LimitsInvalid(name, value, f"{kind} from {smallest} to {_LARGEST}")
