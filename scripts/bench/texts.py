"""A long text as context: how long it takes to be there, and how much memory it takes on its way."""

from __future__ import annotations

import threading
import time
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import anyio.to_thread

from rlm_sandboxes import Sandbox
from rlm_sandboxes.local import LocalSandbox
from rlm_sessions import open_session

from . import memory, peers
from .common import PLAIN, project_folder
from .measuring import Bar, Row, Table
from .observed import ObservedSandbox

_BYTES = 100_000_000
_LINE = b"a line of plain text, as there are many in a log\n"
_SHORT = 4096
_OPEN = f"{PLAIN}, open().read()"


@dataclass(frozen=True)
class _Loaded:
    """What it took to load a text. Memory is counted from before, and `own` is what is no page of a file."""

    seconds: float
    own_at_most: int
    own: int
    resident_at_most: int
    on_the_wire: int = 0


async def measure(rounds: int) -> list[Table]:
    """Measure a text of 100 MB that lies in the project's folder."""
    found: dict[str, list[_Loaded]] = {_OPEN: [], "session.load": []}
    with project_folder() as project:
        path = project / "long.txt"
        path.write_bytes((_LINE * (_BYTES // len(_LINE) + 1))[:_BYTES])
        async with LocalSandbox() as sandbox:
            for _ in range(rounds):
                found[_OPEN].append(await anyio.to_thread.run_sync(_read, path))
                found["session.load"].append(await _load(sandbox, path))
    return [_times(found), _memory(found), _wire(found["session.load"])]


def _times(found: dict[str, list[_Loaded]]) -> Table:
    rows = [Row(name, [one.seconds for one in loaded]) for name, loaded in found.items()]
    return Table("100 MB of text as a variable", rows, _OPEN)


def _memory(found: dict[str, list[_Loaded]]) -> Table:
    rows: list[Row] = []
    for name, loaded in found.items():
        bar = Bar(1.3, "<= 1.3 x") if name != _OPEN else None
        rows += [
            Row(f"{name}: of its own, at most", [one.own_at_most / _BYTES for one in loaded], "x", bar),
            Row(f"{name}: of its own, afterwards", [one.own / _BYTES for one in loaded], "x", bar),
            Row(
                f"{name}: with mapped pages of the file, at most",
                [one.resident_at_most / _BYTES for one in loaded],
                "x",
            ),
        ]
    notes = [
        "The pages of a mapped file are the system's, which keeps them anyway and takes them back when it likes."
    ]
    return Table("Memory for 100 MB of text, to its size", rows, notes=notes)


def _wire(loaded: list[_Loaded]) -> Table:
    row = Row(
        "session.load, both ways",
        [float(one.on_the_wire) for one in loaded],
        "bytes",
        Bar(_SHORT, "none of it"),
    )
    return Table("Bytes on the wire for 100 MB of text", [row])


async def _load(sandbox: Sandbox, path: Path) -> _Loaded:
    observed = ObservedSandbox(sandbox)
    async with open_session(observed, project=path.parent) as session:
        await session.run("1")
        (process,) = observed.processes
        before = process.bytes_on_wire
        with _watching(process.pid) as watched:
            began = time.perf_counter()
            length = (await session.load("text", path)).length
            seconds = time.perf_counter() - began
        sent = process.bytes_on_wire - before
        result = await session.run("len(text)")
        assert length == _BYTES and result.value == str(_BYTES)
        return watched.loaded(seconds, sent)


def _read(path: Path) -> _Loaded:
    with peers.plain_repl() as repl:
        repl.ask("1")
        with _watching(repl.pid) as watched:
            began = time.perf_counter()
            repl.ask(f"text = open({str(path)!r}).read()")
            seconds = time.perf_counter() - began
        assert repl.ask("len(text)")["value"] == str(_BYTES)
        return watched.loaded(seconds)


class _Watched:
    """The memory of a process, looked at all the time from a thread."""

    def __init__(self, pid: int) -> None:
        self.pid = pid
        self.own_before = self.own_at_most = memory.anonymous(pid)
        self.resident_before = memory.resident(pid).now

    def look(self) -> None:
        self.own_at_most = max(self.own_at_most, memory.anonymous(self.pid))

    def loaded(self, seconds: float, on_the_wire: int = 0) -> _Loaded:
        return _Loaded(
            seconds,
            self.own_at_most - self.own_before,
            memory.anonymous(self.pid) - self.own_before,
            memory.resident(self.pid).at_most - self.resident_before,
            on_the_wire,
        )


@contextmanager
def _watching(pid: int) -> Generator[_Watched, None, None]:
    watched, over = _Watched(pid), threading.Event()

    def watch() -> None:
        while not over.wait(0.0005):
            watched.look()

    thread = threading.Thread(target=watch)
    thread.start()
    try:
        yield watched
    finally:
        over.set()
        thread.join()
