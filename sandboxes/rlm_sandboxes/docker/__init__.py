"""The docker sandbox: one container for each program, on any engine that speaks Docker's API."""

from .facts import Facts
from .sandbox import DockerSandbox

__all__ = ["DockerSandbox", "Facts"]
