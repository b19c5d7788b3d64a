"""Spawned processes on a POSIX system, held by what all of these have: sessions, signals and a shell."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from ..limits import Limits
from ..sandbox import Usage
from .spawned import SpawnedSandbox
from .systems import View

# Waits for a word from the host, which never comes if the host is killed: then its input just ends.
_REAPER = """trap '' HUP INT TERM; read -r over || { kill -s KILL -- "-$1"; rm -rf -- "$2"; }"""
_REAPER_ENVIRONMENT = {"PATH": "/usr/bin:/bin"}


class Posix:
    """A system that limits what a process uses and walls in nothing. macOS builds on it, and tests run it."""

    layers = frozenset(("rlimits", "memory"))
    walls: frozenset[str] = frozenset()
    ends_families = False  # one that leaves its session and loses its parent is not found again

    @property
    def spawning(self) -> dict[str, Any]:
        return {"start_new_session": True}

    def environment(self, scratch: str) -> dict[str, str]:
        return {"LANG": "C.UTF-8", "PATH": "/usr/bin:/bin", "HOME": scratch, "TMPDIR": scratch}

    def request(self, view: View, limits: Limits) -> dict[str, Any]:
        return {}

    def hold(self, pid: int, is_alive: Callable[[], bool], folder: str, request: dict[str, Any]) -> Family:
        return Family(pid, is_alive, folder, self.measure)

    def measure(self, pid: int) -> Usage:
        """Return what a process uses, by /proc."""
        from .processes import measure

        return measure(pid, Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19])


class PosixSandbox(SpawnedSandbox):
    """A sandbox without walls, which shows at work what the one on macOS has in common with it."""

    def __init__(
        self,
        *,
        python: Path | None = None,
        preload: tuple[str, ...] = (),
        layers: frozenset[str] = Posix.layers,
    ) -> None:
        super().__init__(Posix(), python=python, preload=preload, layers=layers)


class Family:
    """A process that leads its own session, and those that descend from it."""

    def __init__(
        self, pid: int, is_alive: Callable[[], bool], folder: str, measure: Callable[[int], Usage]
    ) -> None:
        self._pid = pid
        self._is_alive = is_alive
        self._measure = measure
        self._reaper = subprocess.Popen(
            ["/bin/sh", "-c", _REAPER, "rlm-reaper", str(pid), folder],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            cwd="/",
            env=_REAPER_ENVIRONMENT,
            start_new_session=True,
        )

    def interrupt(self) -> None:
        if self._is_alive():
            _send(os.kill, self._pid, signal.SIGINT)

    def pause(self) -> None:
        if self._is_alive():
            _send(os.killpg, self._pid, signal.SIGSTOP)

    def resume(self) -> None:
        if self._is_alive():
            _send(os.killpg, self._pid, signal.SIGCONT)

    def usage(self) -> Usage:
        return self._measure(self._pid)

    def kill(self) -> None:
        """Stop everyone first, so that nobody is born meanwhile, and then end them."""
        stopped: set[int] = set()
        try:
            while found := members(self._pid, running(), leader_is_alive=self._is_alive()) - stopped:
                for pid in found:
                    _send(os.kill, pid, signal.SIGSTOP)
                stopped |= found
        finally:
            if self._is_alive():
                stopped.add(self._pid)
            for pid in stopped:
                _send(os.kill, pid, signal.SIGKILL)

    def close(self) -> None:
        """Let the reaper go: there is nothing left for it to do."""
        self._reaper.communicate(b"over\n")


class Kin(NamedTuple):
    """To whom a process belongs."""

    parent: int
    group: int


def members(leader: int, processes: Mapping[int, Kin], *, leader_is_alive: bool) -> set[int]:
    """Return the processes of the leader's group, and their descendants."""
    if not leader_is_alive and leader in processes:
        return set()  # another has the number by now, so nobody of the group is left: it would keep it taken
    family = {pid for pid, kin in processes.items() if kin.group == leader}
    while children := {pid for pid, kin in processes.items() if kin.parent in family} - family:
        family |= children
    return family


def running() -> dict[int, Kin]:
    """Return all processes there are, but those that only wait to be taken note of."""
    if sys.platform == "linux":
        return _running_by_proc()
    command = ["/bin/ps", "-A", "-o", "pid=,ppid=,pgid=,stat="]
    return listed(subprocess.run(command, capture_output=True, check=True, env={}).stdout)


def listed(table: bytes) -> dict[int, Kin]:
    """Return the processes in what `ps` wrote."""
    rows = [line.split() for line in table.splitlines()]
    return {int(row[0]): Kin(int(row[1]), int(row[2])) for row in rows if not row[3].startswith(b"Z")}


def _running_by_proc() -> dict[int, Kin]:
    found: dict[int, Kin] = {}
    for folder in Path("/proc").iterdir():
        if folder.name.isdecimal():
            try:
                state, parent, group = (folder / "stat").read_text().rpartition(")")[2].split()[:3]
            except OSError:
                continue  # it has ended
            if state not in "ZX":
                found[int(folder.name)] = Kin(int(parent), int(group))
    return found


def _send(send: Callable[[int, int], None], pid: int, number: int) -> None:
    try:
        send(pid, number)
    except (ProcessLookupError, PermissionError):
        pass  # it is gone, or so nearly that macOS refuses to signal it
