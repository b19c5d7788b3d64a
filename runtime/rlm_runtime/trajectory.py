"""Trajectories: what happened in runs, as a reader sees it, also while a run goes on.

A log that ends in the middle of a line was cut off there; that line never happened. Lines in between that cannot
be read are counted and passed over. Long texts stay in the file until somebody asks for them.

Everything here blocks and belongs in a worker thread. Writing is in `log.py`, the form in `events.py`.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, BinaryIO, Literal, TypeAlias, cast

from rlm_sessions import process_runs

from .blobs import Blobs, text_of
from .errors import TrajectoryError
from .event_lines import digest_of, event_of, shared, whole, within
from .events import RUN, SCHEMA, Event
from .log import (
    BLOBS,
    MOMENT,
    MOMENT_CHARACTERS,
    SUFFIX,
    Listener,
    Log,
    checked_id,
    is_written,
    new_id,
    open_log,
)

__all__ = [
    "Call",
    "Listener",
    "Log",
    "State",
    "Summary",
    "Totals",
    "Trajectory",
    "checked_id",
    "find",
    "new_id",
    "open_log",
    "placed",
    "read",
    "summary_of",
    "trajectories",
]

State: TypeAlias = Literal["running", "ended", "cut"]

_HEAD_BYTES, _TAIL_BYTES = 64 * 1024, 64 * 1024
_MAX_HEAD_BYTES = 16 * 1024 * 1024
_NOFOLLOW: int = getattr(os, "O_NOFOLLOW", 0)


# ---- a list of them


@dataclass(frozen=True)
class Summary:
    """A trajectory as a list tells of it. What only its end says is None while it goes on, or was cut off."""

    id: str
    path: Path
    state: State
    started_at: str
    last_at: str
    title: str
    model: str
    events: int
    size_bytes: int
    finish: str = ""
    reason: str = ""
    error: Mapping[str, Any] | None = None
    tokens: int | None = None
    cost_usd: float | None = None
    duration_ms: float | None = None
    calls: int | None = None
    depth_reached: int | None = None

    @property
    def failed(self) -> bool:
        """Whether it ended without the answer it was for, or did not end."""
        whole_answer = self.finish in ("answered", "direct", "")
        return self.state == "cut" or bool(self.error) or (self.state == "ended" and not whole_answer)


def trajectories(folder: Path) -> Iterator[Summary]:
    """Yield those in `folder`, the newest first. Of each, only the head and the tail are read."""
    for _, path in placed(folder):
        with suppress(OSError, TrajectoryError):  # it is gone, or nobody knows what it is
            yield summary_of(path)


def placed(folder: Path) -> list[tuple[str, Path]]:
    """Return the files of those in `folder`, the newest first, each with the time it began."""
    try:
        with os.scandir(folder) as entries:
            files = [entry for entry in entries if entry.name.endswith(SUFFIX) and entry.name[0] != "."]
            found = [(_order(entry), entry.name) for entry in files if entry.is_file(follow_symlinks=False)]
    except OSError:
        return []
    return [(order, folder / name) for order, name in sorted(found, reverse=True)]


def _order(entry: os.DirEntry[str]) -> str:
    """Return the time a trajectory began; ids that somebody chose say nothing of it."""
    begins = entry.name[:MOMENT_CHARACTERS]
    if len(begins) == MOMENT_CHARACTERS and begins[8] == "T" and begins.replace("T", "").isdigit():
        return begins
    return f"{datetime.fromtimestamp(entry.stat().st_mtime, UTC):{MOMENT}}"


def find(folders: Sequence[Path], beginning: str) -> Path:
    """Return the trajectory whose id is `beginning`, or the only one that begins so. Raise `TrajectoryError`."""
    checked_id(beginning)
    found = [path for folder in folders for _, path in placed(folder) if path.name.startswith(beginning)]
    exact = [path for path in found if path.stem == beginning]
    if len(exact or found) == 1:
        return (exact or found)[0]
    if found:
        names = ", ".join(path.stem for path in found[:5])
        raise TrajectoryError(
            f"{len(found)} trajectories begin with {beginning!r}: {names}. Write more of the id."
        )
    raise TrajectoryError(f"There is no trajectory {beginning!r}. `rlm logs` lists what there is.")


def summary_of(path: Path) -> Summary:
    """Return what a list tells of a trajectory. Raise `TrajectoryError` if it tells nothing."""
    with _opened(path) as file:
        size = os.fstat(file.fileno()).st_size
        first, started = _head(file, path)
        last, ended = _tail(file, size)
        last = last or first
        state = _state(file, bool(ended), started)
    usage = ended.get("token_usage")
    tokens = _all_tokens(usage) if isinstance(usage, dict) else None
    return Summary(
        id=path.stem,
        path=path,
        state=state,
        started_at=first["time"],
        last_at=last["time"],
        title=str(started.get("title", "")),
        model=str(started.get("model") or within(started, "answerer", "name") or ""),
        events=last["n"],
        size_bytes=size,
        finish=str(ended.get("finish", "")),
        reason=_plain_text(ended.get("reason", "")),
        error=ended.get("error"),
        tokens=tokens,
        cost_usd=ended.get("cost_usd"),
        duration_ms=ended.get("duration_ms"),
        calls=ended.get("calls"),
        depth_reached=ended.get("depth_reached"),
    )


def _plain_text(value: Any) -> str:
    return value if isinstance(value, str) else ""


def _head(file: BinaryIO, path: Path) -> tuple[Event, Event]:
    """Return the first event, and the one that says what the run is, which usually is the same."""
    first: Event = {}
    file.seek(0)
    while file.tell() < _MAX_HEAD_BYTES and (line := file.readline(_MAX_HEAD_BYTES)).endswith(b"\n"):
        event = event_of(line)
        if event is None:
            continue
        _check(event, path)
        if event["kind"] == "text":
            continue
        first = first or event
        if event["kind"] == "run_started" or file.tell() > _HEAD_BYTES:
            return first, event if event["kind"] == "run_started" else {}
    if not first:
        raise TrajectoryError(f"{path.name} holds no events yet.")
    return first, {}


def _tail(file: BinaryIO, size: int) -> tuple[Event, Event]:
    """Return the last event, and the one that says how the run ended; empty if they are not within reach."""
    reach = _TAIL_BYTES
    while True:
        file.seek(max(0, size - reach))
        lines = file.read(min(reach, size)).split(b"\n")[:-1]
        events = (event for line in reversed(lines) if (event := event_of(line)) is not None)
        last = next((event for event in events if event["kind"] != "text"), Event())
        if last or reach >= min(size, _MAX_HEAD_BYTES):  # the last line may be a long one
            break
        reach *= 4
    likely = (event_of(line) for line in reversed(lines) if b'"run_ended"' in line)
    return last, next((event for event in likely if event is not None and _ends_run(event)), Event())


def _ends_run(event: Event) -> bool:
    return (event["kind"], event["call_id"]) == ("run_ended", RUN)


def _state(file: BinaryIO, ended: bool, started: Event) -> State:
    if ended:
        return "ended"
    return "running" if _is_written(file, started) else "cut"


def _is_written(file: BinaryIO, started: Event) -> bool:
    """Whether somebody has the log open to write; or where that cannot be told, whether who began it still runs."""
    written = is_written(file.fileno())
    if written is None:
        process: Any = started.get("process", {})
        return bool(process.get("host") == socket.gethostname() and process_runs(int(process.get("pid", 0))))
    return written


def is_running(path: Path) -> bool:
    """Return whether somebody writes a trajectory. Raise `OSError` if it is not there."""
    with _opened(path) as file:
        if (written := is_written(file.fileno())) is not None:
            return written
        first, started = _head(file, path)
        return _is_written(file, started or first)


def _opened(path: Path) -> BinaryIO:
    return open(os.open(path, os.O_RDONLY | _NOFOLLOW), "rb")  # noqa: PTH123 -- as it is opened, links are not followed


def _check(event: Event, path: Path) -> None:
    if event["schema"] > SCHEMA:
        raise TrajectoryError(
            f"{path.name} has the form {event['schema']}, and this program knows those up to {SCHEMA}. Update it."
        )


# ---- one of them


@dataclass
class Call:
    """A call of a run, and what it led to; the run itself is the call "0"."""

    id: str
    parent: str
    depth: int
    name: str = ""
    started: Event | None = None
    ended: Event | None = None
    cells: list[tuple[Event, Event | None]] = field(default_factory=list[tuple[Event, Event | None]])
    notes: list[Event] = field(default_factory=list[Event])
    children: list[Call] = field(default_factory=list["Call"])


@dataclass(frozen=True)
class Totals:
    """What a run came to, by its events up to now. A cost of None is not known."""

    calls: int
    input_tokens: int
    output_tokens: int
    cost_usd: float | None
    depth_reached: int

    @property
    def tokens(self) -> int:
        """All tokens."""
        return self.input_tokens + self.output_tokens


class Trajectory:
    """A trajectory that was read. `events` have names in place of long texts; `whole` puts those in."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.id = path.stem
        self.events: list[Event] = []
        self.damaged = 0
        self.torn = False
        self.state: State = "running"
        self.read_to = 0
        self._texts: dict[int, tuple[int, int]] = {}
        self._by_n: dict[int, Event] = {}
        self.blobs = Blobs(path.parent / BLOBS)

    def read_on(self) -> list[Event]:
        """Read what was written since, and return the events of it."""
        with _opened(self.path) as file:
            state_before = _is_written(file, self.started or {})
            file.seek(self.read_to)
            found = [event for event in self._lines(file) if event["kind"] != "text"]
            self.events += found
            self._by_n |= {event["n"]: event for event in found}
            # Whoever wrote until now may have written more since: then it is still taken for running.
            self.state = "ended" if self.ended is not None else "running" if state_before else "cut"
        return found

    def _lines(self, file: BinaryIO) -> Iterator[Event]:
        self.torn = False
        for line in file:
            if not line.endswith(b"\n"):
                self.torn = True
                return
            at, self.read_to = self.read_to, self.read_to + len(line)
            event = event_of(line)
            if event is None:
                self.damaged += line != b"\n"
                continue
            _check(event, self.path)
            if event["kind"] == "text":
                self._texts[event["n"]] = (at, len(line))
            yield event

    # ---- texts

    def event(self, n: int) -> Event:
        """Return the event with this number, whole. Raise `TrajectoryError` if there is none."""
        if (event := self._by_n.get(n)) is None:
            most = self.events[-1]["n"] if self.events else 0
            raise TrajectoryError(f"The trajectory {self.id} has no event {n}. Its events go up to {most}.")
        return self.whole(event)

    def whole(self, event: Event) -> Event:
        """Return an event with its whole texts. Raise `TrajectoryError` if one of them is lost."""
        facts = dict(event)
        if isinstance(facts.get("prompt"), list):
            facts["prompt"] = self._messages(facts["prompt"], event["n"])
        return cast("Event", whole(facts, self.text))

    def _messages(self, messages: list[Any], at: int) -> list[Any]:
        """Return a conversation with what it has in common with earlier ones."""
        parts: list[list[Any]] = []
        latest = at
        while (same := shared(messages)) is not None:
            parts.append(messages[1:])
            n = same[0]
            earlier: Any = self._by_n.get(n, {}).get("prompt") if n < latest else None
            if not isinstance(earlier, list):
                raise TrajectoryError(f"Event {n}, whose prompt others go on from, is lost.")
            messages, latest = cast("list[object]", earlier), n
        return [message for part in (messages, *reversed(parts)) for message in part]

    def text(self, ref: int | str) -> str:
        """Return the text of that name. Raise `TrajectoryError` if it is lost."""
        if isinstance(ref, str):
            return text_of(self.blobs.read(ref))
        if ref not in self._texts:
            raise TrajectoryError(f"The text {ref} of the trajectory {self.id} is not there any more.")
        at, length = self._texts[ref]
        with _opened(self.path) as file:
            file.seek(at)
            event = event_of(file.read(length)) or {}
        text = event.get("text")
        if not isinstance(text, str) or digest_of(text) != event.get("sha256"):
            raise TrajectoryError(f"The text {ref} of the trajectory {self.id} is damaged.")
        return text

    # ---- what it says

    @property
    def started(self) -> Event | None:
        """The event that says what the run is."""
        return next((event for event in self.events if event["kind"] == "run_started"), None)

    @property
    def ended(self) -> Event | None:
        """The event that says how the run ended; None while it did not."""
        return next((event for event in reversed(self.events) if _ends_run(event)), None)

    def tree(self) -> Call:
        """Return the run as a tree of calls."""
        calls = {RUN: Call(RUN, "", 0, "run")}
        for event in self.events:
            _place(event, calls)
        for call in list(calls.values()):
            if call.id != RUN:
                calls.get(call.parent, calls[RUN]).children.append(call)
        return calls[RUN]

    def totals(self) -> Totals:
        """Return what the events come to."""
        calls = inputs = outputs = depth = 0
        cost: float | None = 0.0
        for event in self.events:
            depth = max(depth, event["depth"])
            calls += event["kind"] == "call_started" and event["depth"] > 0
            usage: Any = event.get("token_usage")
            if event["kind"] in ("call_ended", "note") and isinstance(usage, dict):
                given, answered = _tokens(usage)
                inputs, outputs = inputs + given, outputs + answered
                one: Any = event.get("cost_usd")
                cost = None if one is None or cost is None else cost + one
        return Totals(calls, inputs, outputs, cost, depth)


def _tokens(usage: Any) -> tuple[int, int]:
    return int(usage.get("input_tokens", 0)), int(usage.get("output_tokens", 0))


def _all_tokens(usage: Any) -> int:
    """Return all tokens, of a usage that tells them together or apart."""
    return int(usage.get("total_tokens") or usage.get("tokens") or sum(_tokens(usage)))


def _place(event: Event, calls: dict[str, Call]) -> None:
    call = calls.setdefault(event["call_id"], Call(event["call_id"], event["parent_call_id"], event["depth"]))
    match event["kind"]:
        case "call_started" | "run_started":
            call.started = call.started or event
            call.name = call.name or str(event.get("name", ""))
        case "call_ended" | "run_ended":
            call.ended = event
        case "cell_started":
            call.cells.append((event, None))
        case "cell_ended" if call.cells:
            call.cells[-1] = (call.cells[-1][0], event)
        case "note":
            call.notes.append(event)
        case _:
            pass


def read(path: Path) -> Trajectory:
    """Return a trajectory. Raise `TrajectoryError` if there is none."""
    trajectory = Trajectory(path)
    try:
        trajectory.read_on()
    except OSError as problem:
        raise TrajectoryError(f"{path} cannot be read: {problem.strerror}.") from problem
    return trajectory
