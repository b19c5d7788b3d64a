"""A log: where a run writes what happens, as it happens.

    folder/<trajectory_id>.jsonl    one event a line
    folder/blobs/<sha256>           contexts

When `write` returns, the system has the line: a process that is killed a moment later loses nothing that anybody
has acted upon. (A machine that loses its power may lose the last seconds.) Many writes at once share one change to
a thread, where all that takes long is done. A log that cannot be written, such as on a full disk, says so in
`problem` and does not stop the run: what was paid for is worth more than its record.

Who writes holds a lock on the file, by which a reader tells a run that goes on from one that was cut off.
"""

from __future__ import annotations

import json
import logging
import os
import re
import secrets as random
import socket
import time
from collections import Counter, deque
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import partial
from inspect import isawaitable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import anyio
import anyio.to_thread

from rlm_sessions import Scribe, SessionError

from .blobs import Blobs, bytes_of
from .contexts import ContextFile
from .errors import TrajectoryError
from .event_lines import BASE, LineWriter, plain, worth_hiding
from .events import Event, Kind

if TYPE_CHECKING:
    from .pruning import Bound

try:
    import fcntl
except ImportError:  # a system without this kind of lock
    fcntl = None  # type: ignore[assignment,unused-ignore]

Listener: TypeAlias = Callable[[Event], Awaitable[None] | None]

SUFFIX = ".jsonl"
MOMENT = "%Y%m%dT%H%M%S%f"
MOMENT_CHARACTERS = 21
BLOBS = "blobs"

_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,99}")
_CLOSING_SECONDS = 10.0
_LOCK_TRIES, _LOCK_SECONDS = 200, 0.01
_FLAGS: int = getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_CLOEXEC", 0)
_log = logging.getLogger(__name__)


def new_id(mark: str = "") -> str:
    """Return a name for a trajectory: later ones sort behind earlier ones, and none can be guessed.

    It ends with `mark`, where its maker means to find it by that.
    """
    return f"{datetime.now(UTC):{MOMENT}}-{mark or random.token_hex(8)}"


def checked_id(trajectory_id: str) -> str:
    """Return an id that somebody gave; raise `TrajectoryError` if it could be anything but a plain name."""
    if not _ID.fullmatch(trajectory_id):
        raise TrajectoryError(
            f"{trajectory_id[:100]!r} is no id of a trajectory. It has letters, digits, '-' and '_', at most 100."
        )
    return trajectory_id


@asynccontextmanager
async def open_log(
    folder: Path,
    trajectory_id: str | None = None,
    *,
    secrets: Sequence[str] = (),
    bound: Bound | None = None,
) -> AsyncGenerator[Log]:
    """Begin a trajectory in `folder`. Wherever one of `secrets` would stand in it, it is left out.

    Now and then, when one has ended, older ones beyond `bound` are removed.

    Raise `TrajectoryError` if there is one of that id, or the folder cannot be used.
    """
    id_ = new_id() if trajectory_id is None else checked_id(trajectory_id)
    file = await anyio.to_thread.run_sync(_create, folder, id_)
    log = Log(id_, file, Blobs(folder / BLOBS, worth_hiding(secrets)), secrets)
    try:
        yield log
    finally:
        with anyio.move_on_after(_CLOSING_SECONDS, shield=True):
            await log.aclose()
            if bound is not None:
                work = partial(_tidy, folder, bound, log.kept_bytes)
                await anyio.to_thread.run_sync(work, abandon_on_cancel=True)


def _tidy(folder: Path, bound: Bound, new_bytes: int) -> None:
    from .pruning import keep_within

    try:
        removed = keep_within(folder, bound, new_bytes=new_bytes)
    except OSError:
        _log.warning("Old trajectories in %s could not be removed.", folder, exc_info=True)
        return
    if removed.ids:
        _log.info("%d old trajectories in %s were removed.", len(removed.ids), folder)


def _create(folder: Path, id_: str) -> int:
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_EXCL | _FLAGS
        file = os.open(folder / f"{id_}{SUFFIX}", flags, 0o600)
    except FileExistsError:
        raise TrajectoryError(
            f"There is a trajectory {id_} already. Leave the id out to get a new one."
        ) from None
    except OSError as problem:
        advice = "Name another folder by log_dir in [rlm]."
        raise TrajectoryError(f"No log can be written in {folder}: {problem.strerror}. {advice}") from problem
    lock(file)
    return file


def lock(file: int) -> None:
    """Lock a log for its writer. Somebody who just looks whether it is locked is waited for. It blocks."""
    if fcntl is None:
        return
    for _ in range(_LOCK_TRIES):
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            time.sleep(_LOCK_SECONDS)
        except OSError:
            return  # a file system without locks
        else:
            return


def is_written(file: int) -> bool | None:
    """Return whether somebody has a log open to write; None where that cannot be told."""
    if fcntl is None:
        return None
    try:
        fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:
        return None
    fcntl.flock(file, fcntl.LOCK_UN)
    return False


@dataclass
class _Entry:
    kind: Kind
    base: Mapping[str, Any]
    facts: Mapping[str, Any]
    event: Event = field(default_factory=dict[str, Any])


@dataclass
class _Batch:
    entries: list[_Entry] = field(default_factory=list[_Entry])
    written: bool = False


class Log:
    """Where a run writes what happens. `open_log` makes one; `Log.nowhere()` writes to nobody but its listeners.

    Listeners hear every event but the texts, whole and in order, after it was written. They must be quick.
    """

    def __init__(
        self, trajectory_id: str, file: int | None, blobs: Blobs | None, secrets: Sequence[str] = ()
    ) -> None:
        self.trajectory_id = trajectory_id
        self.listeners: list[Listener] = []
        self.problem = ""
        self.kept_bytes = 0
        self._file = file
        self._blobs = blobs
        self._secrets = worth_hiding(secrets)
        self._lines = LineWriter(trajectory_id, secrets)
        self._batch = _Batch()
        self._untold = deque[Event]()
        self._scribe = Scribe()
        self._turn = anyio.Lock(fast_acquire=True)
        self._children: Counter[str] = Counter()
        self._torn = False

    @classmethod
    def nowhere(cls, trajectory_id: str | None = None, *, secrets: Sequence[str] = ()) -> Log:
        """Return a log that keeps nothing."""
        return cls(trajectory_id or new_id(), None, None, secrets)

    def call_id(self, parent: str) -> str:
        """Return the name of the next call that `parent` makes."""
        self._children[parent] += 1
        return f"{parent}.{self._children[parent]}"

    async def write(
        self, kind: Kind, *, call_id: str, parent_call_id: str, depth: int, **facts: Any
    ) -> Event:
        """Write one event and return it, with its whole texts."""
        if taken := facts.keys() & set(BASE):
            raise TypeError(f"{sorted(taken)[0]!r} has a meaning of its own in every event.")
        base = {"call_id": call_id, "parent_call_id": parent_call_id, "depth": depth}
        if kind == "run_started":
            facts = facts | {"process": {"pid": os.getpid(), "host": socket.gethostname()}}
        entry, batch = _Entry(kind, base, facts), self._batch
        batch.entries.append(entry)
        async with self._turn:
            if not batch.written:
                await self._write_out()
            await self._tell_all()
        return entry.event

    async def keep(self, value: Any) -> dict[str, Any]:
        """Keep a context, once, and return what an event says of it: its type, its size and its name.

        The name is empty where it could not be kept; `problem` says why.

        A value is a text, bytes, a `ContextFile`, the `Path` of a file, or JSON.
        """
        if self._blobs is None:
            return await anyio.to_thread.run_sync(_described, value)
        try:
            facts = await anyio.to_thread.run_sync(_kept, self._blobs, value)
        except (OSError, SessionError) as problem:
            self.problem = f"A context could not be kept: {problem}."
            return await anyio.to_thread.run_sync(_described, value)
        self._lines.know(facts["ref"])
        self.kept_bytes += facts["size"]
        return facts

    async def aclose(self) -> None:
        """Write what is left and let go of the file. What is written afterwards is written nowhere."""
        async with self._turn:
            await self._write_out()
            await self._tell_all()
            file, self._file = self._file, None
            if file is not None:
                await self._scribe.now(partial(os.close, file))
            self._scribe.close()

    async def _write_out(self) -> None:
        """Write all that waits, for everybody."""
        batch, self._batch = self._batch, _Batch()
        if self._file is None:
            for entry in batch.entries:
                entry.event, _ = self._lines.lines(entry.kind, entry.base, entry.facts)
        elif batch.entries:
            await self._scribe.now(partial(self._write_all, batch.entries, self._file))
        batch.written = True
        if self.listeners:
            self._untold += [entry.event for entry in batch.entries]

    def _write_all(self, entries: list[_Entry], file: int) -> None:
        data = b""
        for entry in entries:
            entry.event, lines = self._lines.lines(entry.kind, entry.base, entry.facts)
            data += lines
        try:
            _append(file, b"\n" + data if self._torn else data)
            self._torn = False
        except OSError as problem:
            self._torn = True  # perhaps a part of a line was written
            self.problem = f"A part of the log could not be written: {problem.strerror or problem}."

    async def _tell_all(self) -> None:
        """Tell the listeners what was written. What a caller that is cancelled leaves untold, the next one tells."""
        while self._untold:
            await self._tell(self._untold.popleft())

    async def _tell(self, event: Event) -> None:
        for listener in tuple(self.listeners):
            try:
                told = listener(event)
                if isawaitable(told):
                    await told
            except Exception:  # noqa: BLE001 -- who only looks on must not end a run
                self.listeners.remove(listener)
                _log.exception(
                    "Somebody who listened to trajectory %s failed, and hears no more.", self.trajectory_id
                )

    def hide(self, value: Any) -> Any:
        """Return a value as the log has it, without secrets."""
        return plain(value, self._secrets)


def _append(file: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(file, view) :]


def _kept(blobs: Blobs, value: Any) -> dict[str, Any]:
    facts = _described(value)
    if "name" in facts:
        ref, size = blobs.keep_file(_path(value))
        return facts | {"size": size, "ref": ref}
    return facts | {"ref": blobs.keep(_bytes(value))}


def _described(value: Any) -> dict[str, Any]:
    if isinstance(value, (Path, ContextFile)):
        path = _path(value)
        form = value.form if isinstance(value, ContextFile) else "bytes"
        return {"type": "file", "size": path.stat().st_size, "ref": "", "name": path.name, "form": form}
    if isinstance(value, str):
        return {"type": "text", "size": len(value), "ref": ""}
    kind = "bytes" if isinstance(value, (bytes, bytearray)) else "json"
    return {"type": kind, "size": len(_bytes(value)), "ref": ""}


def _path(value: Path | ContextFile) -> Path:
    return value.path if isinstance(value, ContextFile) else value


def _bytes(value: Any) -> bytes:
    if isinstance(value, str):
        return bytes_of(value)
    return bytes(value) if isinstance(value, (bytes, bytearray)) else json.dumps(plain(value)).encode()
