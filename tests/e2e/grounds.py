"""What an end-to-end test stands on: a person's folders, how the server is started there, and the programs of npm."""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass
from pathlib import Path

import anyio
import pytest

_ROOT = Path(__file__).parents[2]


def node_program(name: str) -> str:
    """Return the path of a program that came from npm."""
    folder = Path(os.environ.get("RLM_NODE_DIR") or _ROOT / ".node")
    program = folder / "node_modules" / ".bin" / name
    if not program.exists():
        pytest.fail(f"There is no {program}. scripts/test installs it; RLM_NODE_DIR says where it lies.")
    return str(program)


def with_node(environment: dict[str, str]) -> dict[str, str]:
    """Return an environment in which programs from npm find theirs."""
    return environment | {"PATH": os.pathsep.join([str(Path(node_program("node")).parent), os.defpath])}


@dataclass(frozen=True)
class Grounds:
    """A person's home and project, and what the server keeps of them."""

    folder: Path

    @property
    def home(self) -> Path:
        return self.folder / "home"

    @property
    def project(self) -> Path:
        return self.folder / "project"

    @property
    def server(self) -> list[str]:
        """The command that starts the server over stdio, in the Python that runs the tests."""
        return [sys.executable, "-m", "rlm_mcp", "serve"]

    @property
    def environment(self) -> dict[str, str]:
        """All that the server sees of the environment."""
        return {
            "HOME": str(self.home),
            "PATH": os.defpath,
            "PYTHONPATH": os.pathsep.join(sys.path),
            "RLM_CONFIG_DIR": str(self.folder / "config"),
            "RLM_SESSIONS_STATE_DIR": str(self.folder / "state"),
        }

    def make(self) -> Grounds:
        """Make the folders, and return self."""
        for folder in (self.home, self.project):
            folder.mkdir()
        return self


# ---- processes


Running = tuple[int, str]
"""The number of a process, and when it began: numbers are given out again."""


def descendants(pid: int) -> set[Running]:
    """Return all processes that run below this one."""
    parents = dict(_processes())
    found, last = set[Running](), {pid}
    while last:
        below = {running for running, parent in parents.items() if parent in last}
        last = {number for number, _ in below}
        found |= below
    return found


async def all_ended(processes: set[Running]) -> None:
    """Return when none of these processes runs any more."""
    while processes & running():
        await anyio.sleep(0.02)


def running() -> set[Running]:
    """Return all processes of this machine."""
    return {running for running, _ in _processes()}


def _processes() -> list[tuple[Running, int]]:
    found: list[tuple[Running, int]] = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            state, parent, *rest = (folder / "stat").read_text().rpartition(")")[2].split()
        except OSError:  # it has just ended
            continue
        if state != "Z":
            found.append(((int(folder.name), rest[17]), int(parent)))
    return found
