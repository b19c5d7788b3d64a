"""What there is to know of a container engine."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Facts:
    """What an engine is and can do."""

    address: str
    version: str
    remote: bool
    rootless: bool
    remapped: bool
    runtimes: tuple[str, ...]
    default_runtime: str
    cpu_limits: bool
    task_limits: bool
    podman: bool
