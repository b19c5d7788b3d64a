"""Peers that are measured in environments of their own: each runs there in a driver, which takes requests in lines."""

from __future__ import annotations

import json
import subprocess
import threading
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any, Protocol, Self, TypeVar

from .measuring import Table
from .running import Measurement, line_of

_PATIENCE_SECONDS = 180.0
_END_SECONDS = 60.0


class PeerFailed(Exception):
    """A peer cannot do what is measured."""

    def __init__(self, peer: str, what: str) -> None:
        self.peer = peer
        super().__init__(f"{peer}: {what}")


@dataclass(frozen=True)
class Peer:
    """A peer that is installed, and how its driver is started."""

    name: str
    command: tuple[str, ...]

    @contextmanager
    def driven(self) -> Generator[Driver, None, None]:
        """Keep a driver for the length of a block; what it made goes with it."""
        driver = Driver(self)
        try:
            yield driver
        finally:
            driver.close()


class Driver:
    """The process in which a peer runs. Its methods block."""

    def __init__(self, peer: Peer) -> None:
        self._peer = peer
        self._process = subprocess.Popen(
            peer.command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            start_new_session=True,  # so that Ctrl-C leaves it time to clean up
        )

    def ask(self, do: str, **facts: Any) -> dict[str, Any]:
        """Have something done; return what came of it."""
        assert self._process.stdin is not None and self._process.stdout is not None
        deadline = threading.Timer(_PATIENCE_SECONDS, self._process.terminate)
        deadline.start()
        try:
            self._process.stdin.write(json.dumps({"do": do, **facts}).encode() + b"\n")
            self._process.stdin.flush()
            line = self._process.stdout.readline()
        except BrokenPipeError:
            line = b""
        finally:
            deadline.cancel()
        if not line:
            raise PeerFailed(self._peer.name, f"it ended, or did not answer within {_PATIENCE_SECONDS:.0f} s")
        answer: dict[str, Any] = json.loads(line)
        if "error" in answer:
            raise PeerFailed(self._peer.name, answer["error"])
        return answer

    def seconds(self, do: str, *, printed: str = "", **facts: Any) -> float:
        """Have something done that must print this; return how long it took by a clock in the driver."""
        answer = self.ask(do, **facts)
        if answer["output"].strip() != printed:
            raise PeerFailed(
                self._peer.name, f"it answered {answer['output'][:80]!r} in place of {printed!r}"
            )
        return float(answer["seconds"])

    def close(self) -> None:
        """End it, when it has cleaned up."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        try:
            self._process.wait(_END_SECONDS)
        finally:
            self._process.kill()
            self._process.wait()


class WithPeers(Protocol):
    """What a measurement gets where there are peers."""

    @property
    def peers(self) -> Sequence[Peer]: ...

    def without(self, name: str) -> Self: ...


Bench = TypeVar("Bench", bound=WithPeers)


async def spared(measurement: Measurement[Bench], bench: Bench, rounds: int) -> list[Table]:
    """Measure; without a peer, when that fails."""
    missing: list[str] = []
    while True:
        try:
            tables = await measurement.measure(bench, rounds)
        except PeerFailed as problem:
            if problem.peer not in [peer.name for peer in bench.peers]:
                raise
            bench = bench.without(problem.peer)
            missing.append(f"not measured, because it failed: {line_of(problem)}")
        else:
            return [replace(table, notes=[*table.notes, *missing]) for table in tables]
