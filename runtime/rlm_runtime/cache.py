"""Answers that were given before, by content: so that nobody pays twice for one prompt.

    folder/<two digits>/<key>.<nth>     one answer: JSON, written beside its place and put there at once

A cell that asks one prompt five times wants five answers. So each is stored with its number among the same
prompts of its cell, and a cell that is run again gets the same ones in the same order. What is not whole is
taken as not there. Several processes may have one folder; the answers used longest ago go first when it is full.

An answer is on disk, for a process that is killed, when `put` returns. Many reads and writes at once share one
change to a thread.
"""

from __future__ import annotations

import json
import os
import secrets
import stat
import time
from collections.abc import AsyncGenerator, Callable, Iterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any, Generic, TypeVar

import anyio
import anyio.lowlevel
import anyio.to_thread

from .model import Request
from .retries import said

MAX_BYTES = 256 * 1024 * 1024
MAX_ANSWERS = 50_000

T = TypeVar("T")

_FORM = 1
_TEMPORARY, _TEMPORARY_SECONDS = ".tmp-", 3600.0
_SWEPT_TO = 0.9
_NOFOLLOW: int = getattr(os, "O_NOFOLLOW", 0)


@dataclass(frozen=True)
class Stored:
    """An answer as code in a cell gets it, and who gave it."""

    answer: Mapping[str, Any]
    text: str
    model: str = ""


def key_of(request: Request, model: str, *, steady: bool = False) -> str:
    """Return the name of a request by its content and by the model that is asked.

    A `steady` one is the same when a run is begun anew and finds in the store what it had asked for.
    """
    messages = [said(message) for message in request.messages]
    if steady:
        from .prompts import without_counts

        messages = [facts | {"content": without_counts(str(facts["content"]))} for facts in messages]
    return key_of_facts(
        {
            "model": model,
            "messages": messages,
            "tools": [[tool.name, tool.description, tool.parameters] for tool in request.tools],
            "max_tokens": request.max_tokens,
            "temperature": request.temperature,
            "schema": request.schema,
            "stop": request.stop,
        }
    )


def key_of_facts(facts: Mapping[str, Any]) -> str:
    """Return a name for anything that is JSON, by its content."""
    return sha256(json.dumps(facts, sort_keys=True, default=dict).encode()).hexdigest()


class AnswerStore:
    """The answers in `folder`, which is for this account alone. It holds at most so many, and so many bytes."""

    def __init__(self, folder: Path, *, max_bytes: int = MAX_BYTES, max_answers: int = MAX_ANSWERS) -> None:
        self._files = _Files(folder, max_bytes, max_answers)
        self._hand = _Hand()
        self._asking: dict[tuple[str, int], _Turn] = {}

    async def get(self, key: str, nth: int) -> Stored | None:
        """Return the `nth` answer of `key`, from 0; None if there is none."""
        return await self._hand.do(lambda: self._files.read(key, nth))

    async def put(self, key: str, nth: int, stored: Stored) -> None:
        """Keep an answer, in place of the one that was there."""
        await self._hand.do(lambda: self._files.write(key, nth, stored))

    @asynccontextmanager
    async def asking(self, key: str, nth: int) -> AsyncGenerator[None]:
        """Hold the right to ask for this answer: whoever wants the same one waits, and then finds it stored."""
        turn = self._asking.setdefault((key, nth), _Turn(anyio.Lock(fast_acquire=True)))
        turn.wanted += 1
        try:
            async with turn.lock:
                yield
        finally:
            turn.wanted -= 1
            if not turn.wanted:
                del self._asking[key, nth]


@dataclass
class _Turn:
    lock: anyio.Lock
    wanted: int = 0


class _Files:
    """The files of a store. Everything here blocks."""

    def __init__(self, folder: Path, max_bytes: int, max_answers: int) -> None:
        self._folder = folder
        self._max_bytes = max_bytes
        self._max_answers = max_answers
        self._bytes: int | None = None
        self._answers = 0

    def read(self, key: str, nth: int) -> Stored | None:
        path = self._path(key, nth)
        try:
            data = _bytes_of(path, self._max_bytes)
            os.utime(path)
        except OSError:
            return None
        stored = _stored(data)
        if stored is None:
            path.unlink(missing_ok=True)
        return stored

    def write(self, key: str, nth: int, stored: Stored) -> None:
        facts = {"form": _FORM, "answer": stored.answer, "text": stored.text, "model": stored.model}
        data = json.dumps(facts).encode()
        if len(data) > self._max_bytes // 4:
            return  # one that would drive out all the others
        path = self._path(key, nth)
        try:
            _put(path, data)
        except FileNotFoundError:
            for folder in (self._folder, path.parent):
                folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            _put(path, data)
        self._keep_bounds(len(data))

    def _path(self, key: str, nth: int) -> Path:
        return self._folder / key[:2] / f"{key}.{nth}"

    def _keep_bounds(self, added: int) -> None:
        """Remove what was used longest ago when there is too much. What others add is seen at the next count."""
        if self._bytes is not None:
            self._bytes += added
            self._answers += 1
            if self._bytes <= self._max_bytes and self._answers <= self._max_answers:
                return
        there = sorted(self._all(), key=lambda each: each[0], reverse=True)
        self._bytes = sum(size for _, size, _ in there)
        self._answers = len(there)
        if self._bytes <= self._max_bytes and self._answers <= self._max_answers:
            return
        while there and (
            self._bytes > self._max_bytes * _SWEPT_TO or self._answers > self._max_answers * _SWEPT_TO
        ):
            _, size, path = there.pop()
            path.unlink(missing_ok=True)
            self._bytes -= size
            self._answers -= 1

    def _all(self) -> Iterator[tuple[float, int, Path]]:
        """Return when each was used, how large it is, and where it is; remove what a killed process left."""
        for folder in _entries(self._folder):
            for path in _entries(folder) if folder.is_dir() else ():
                try:
                    facts = path.lstat()
                except OSError:
                    continue
                if not path.name.startswith(_TEMPORARY):
                    yield facts.st_mtime, facts.st_size, path
                elif facts.st_mtime < time.time() - _TEMPORARY_SECONDS:
                    path.unlink(missing_ok=True)


def _entries(folder: Path) -> list[Path]:
    try:
        return list(folder.iterdir())
    except OSError:
        return []


def _bytes_of(path: Path, most: int) -> bytes:
    descriptor = os.open(path, os.O_RDONLY | _NOFOLLOW)
    with open(descriptor, "rb") as file:  # noqa: PTH123 -- it is open already
        facts = os.fstat(descriptor)
        if not stat.S_ISREG(facts.st_mode) or facts.st_size > most:
            raise OSError("this is no answer")
        return file.read()


def _put(path: Path, data: bytes) -> None:
    """Have `path` hold `data`, all of it or what was there before."""
    beside = f"{path.parent}/{_TEMPORARY}{secrets.token_hex(8)}"
    descriptor = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL | _NOFOLLOW, 0o600)
    try:
        try:
            _write_all(descriptor, data)
        finally:
            os.close(descriptor)
        os.replace(beside, path)  # noqa: PTH105 -- a `Path` of its own for each answer is what takes longest here
    except BaseException:
        Path(beside).unlink(missing_ok=True)
        raise


def _write_all(descriptor: int, data: bytes) -> None:
    rest = memoryview(data)
    while rest:
        rest = rest[os.write(descriptor, rest) :]


def _stored(data: bytes) -> Stored | None:
    try:
        facts: Any = json.loads(data)
        if facts["form"] != _FORM:
            return None
        answer, text, model = facts["answer"], facts["text"], facts["model"]
    except (ValueError, LookupError, TypeError, RecursionError):
        return None
    whole = isinstance(answer, dict) and isinstance(text, str) and isinstance(model, str)
    return Stored(answer, text, model) if whole else None  # pyright: ignore[reportUnknownArgumentType]


class _Hand:
    """Does in a thread what blocks: all that came while it was busy together, with one change of threads.

    Whoever comes first does it for all; when that is done, the next who still waits takes over.
    """

    def __init__(self) -> None:
        self._jobs: list[_Job[Any]] = []
        self._busy = False

    async def do(self, work: Callable[[], T]) -> T:
        """Have `work` done; return what it returns, or raise what it raises."""
        job = _Job(work)
        self._jobs.append(job)
        try:
            while not job.done:
                if not self._busy:
                    await self._do_all()
                else:
                    job.news = anyio.Event()
                    await job.news.wait()
        finally:
            if job in self._jobs:
                self._jobs.remove(job)
            self._call_next()
        return job.outcome()

    async def _do_all(self) -> None:
        self._busy = True
        jobs: list[_Job[Any]] = []
        try:
            await anyio.lowlevel.checkpoint()  # let everybody come who is about to
            jobs, self._jobs = self._jobs, []
            with anyio.CancelScope(shield=True):  # others wait for it too
                await anyio.to_thread.run_sync(_run_all, jobs)
        finally:
            self._busy = False
            for job in jobs:
                job.news.set()

    def _call_next(self) -> None:
        if self._jobs and not self._busy:
            self._jobs[0].news.set()


class _Job(Generic[T]):
    """Something to be done, and what came of it."""

    def __init__(self, work: Callable[[], T]) -> None:
        self.done = False
        self.news = anyio.Event()
        self._work = work
        self._results: list[T] = []
        self._problem: Exception | None = None

    def run(self) -> None:
        """Do it, and keep what comes of it."""
        try:
            self._results.append(self._work())
        except Exception as problem:  # noqa: BLE001 -- it is raised where the job was given
            self._problem = problem
        self.done = True

    def outcome(self) -> T:
        """Return or raise what came of it."""
        if self._problem is not None:
            raise self._problem
        return self._results[0]


def _run_all(jobs: list[_Job[Any]]) -> None:
    for job in jobs:
        job.run()
