"""Jobs: what goes on by itself, whoever waits for it: cells, and runs, whose calls the client may have to answer.

A job is over, or it waits for the client when some of its calls lie there and nothing else moves. It ends with
whoever started it, until it has waited once: from then on anybody may answer, and it ends by itself, when it is
cancelled, or when nobody answered for too long.
"""

from __future__ import annotations

import math
import time
from collections import defaultdict
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import anyio
import anyio.abc
import anyio.to_thread

from .errors import CellWaits, JobExpired, JobLost
from .tenants import Tenant
from .waiting import Call, Desk, Spec, new_handle
from .waiting_records import Record, cells_waiting_in, read_record

if TYPE_CHECKING:
    from mcp_types import CallToolResult

    from .progress import Teller
    from .stories import Story

QUIET_SECONDS = 0.1
MOST_ENDED = 200
MOST_TOLD = 20  # of answers that nobody wants, each told with what is wanted
_LEAVING_SECONDS = 5.0

_Session = tuple[Tenant, str]  # whose, and the key of the project


class Job:
    """Something that goes on by itself."""

    def __init__(
        self,
        spec: Spec,
        session: _Session,
        place: Path,
        *,
        answer_seconds: float,
        desk: Desk | None = None,
        handle: str = "",
    ) -> None:
        self.handle = handle or new_handle()
        self.spec = spec
        self.session = session
        self.desk = desk or Desk()
        self.again = desk is not None
        self.over = anyio.Event()
        self.waited = False
        self.keeps = False  # its result is kept for whoever asks for it later
        self.story: Story | None = None
        self.began, self.began_at = anyio.current_time(), time.time()
        self.abandon: Callable[[], Awaitable[None]] | None = None
        self.rounds = 0
        self.notes: list[str] = []
        self.unwritten = ""  # why what waits is not on disk
        self.listeners: list[Teller] = []
        self.shown = set[str]()  # the calls whose prompts the client has seen
        self._record = Record(place, self.handle)
        self._answer_seconds = answer_seconds
        self._scope = anyio.CancelScope()
        self._result: CallToolResult | None = None
        self._problem: Exception | None = None
        self._displaced: Exception | None = None
        self._writing = anyio.Lock()
        self._leaving = self._closed = False
        self.desk.on_change = self._mind_time

    @property
    def trajectory_id(self) -> str:
        """Where it is logged; nothing if it is no run, or has not yet begun."""
        return "" if self.story is None else self.story.trajectory_id

    @property
    def left(self) -> bool:
        """Whether it ended here and goes on elsewhere, or later."""
        return self._leaving

    @property
    def cancelled(self) -> bool:
        """Whether somebody ended it."""
        return isinstance(self._problem, JobLost)

    @property
    def waits(self) -> bool:
        """Whether it waits for the client, who was told so."""
        return self.waited and not self.over.is_set() and bool(self.desk.open())

    def result(self) -> CallToolResult:
        """Return what came of it, or raise what went wrong."""
        if self._problem is not None:
            raise self._problem
        assert self._result is not None
        return self._result

    async def run(self, body: Callable[[Job], Awaitable[CallToolResult]]) -> None:
        """Do it. This never raises what the job does."""
        try:
            with self._scope:
                self._result = await body(self)
        except Exception as problem:  # noqa: BLE001 -- whoever waits for it is told
            self._problem = problem
        else:
            if self._scope.cancelled_caught:
                self._problem = self._why_cancelled()
        finally:
            self._closed = True
            with anyio.CancelScope(shield=True):
                await self._remove()
            self.over.set()
            self.desk.stir()

    def _why_cancelled(self) -> Exception:
        if self._displaced is not None:
            return self._displaced
        if anyio.current_time() >= self._scope.deadline:
            return JobExpired(self.handle, self._answer_seconds)
        return JobLost(self.handle)

    async def hear(self, stream: str, text: str) -> None:
        """Take in what it printed."""
        for listener in self.listeners:
            await listener.hear(stream, text)

    def cancel(self, because: Exception | None = None) -> None:
        """End it."""
        self._displaced = because
        self._scope.cancel()

    async def leave(self) -> None:
        """End it with the server. What it waits for stays written down, and it begins anew from where it began."""
        self._leaving = True
        try:
            if self.waits and self.abandon is not None:
                with anyio.move_on_after(_LEAVING_SECONDS, shield=True):
                    await self.abandon()
                    await self.over.wait()
        finally:
            self._scope.cancel()

    async def attend(self) -> bool:
        """Wait until it is over, which is True, or until it waits for the client and nothing else moves."""
        while not self.over.is_set():
            news = self.desk.news
            if not self.desk.open():
                await news.wait()
                continue
            with anyio.move_on_after(QUIET_SECONDS) as quiet:
                await news.wait()
            if quiet.cancelled_caught and self.desk.open():
                await self._begin_waiting()
                return False
        return True

    async def _begin_waiting(self) -> None:
        self.waited = True
        self._mind_time()
        self.spec = replace(self.spec, expires_at=time.time() + self._answer_seconds)
        await self._write()

    def _mind_time(self) -> None:
        """Have it end by itself if nobody answers what is open from now on."""
        if self._scope.cancel_called:
            return
        until = anyio.current_time() + self._answer_seconds if self.desk.open() else math.inf
        self._scope.deadline = until if self.waited else math.inf

    async def give(self, answers: Mapping[str, Any]) -> list[str]:
        """Take answers; return what is to be said of those that are not taken. What is taken survives a restart."""
        told, left_out = list[str](), 0
        for id_, value in answers.items():
            if len(told) >= MOST_TOLD and id_ not in self.desk.calls:
                left_out += 1
            elif said := await self.desk.refusal(id_, value):
                told.append(said)
        await self._write()
        self.desk.hand_over()
        return [*told, *([f"{left_out} more answers are for calls that are not here"] if left_out else [])]

    async def _write(self) -> None:
        async with self._writing:
            if not self._closed:
                calls = list(self.desk.calls.values())
                with anyio.CancelScope(shield=True):
                    self.unwritten = await anyio.to_thread.run_sync(self._written, calls)

    def _written(self, calls: list[Call]) -> str:
        try:
            self._record.write(self.spec, calls)
        except OSError as problem:
            return (
                f"This is lost if the server ends, because it could not be written down ({problem.strerror})."
            )
        return ""

    async def _remove(self) -> None:
        if self.waited and not self._leaving:
            async with self._writing:
                await anyio.to_thread.run_sync(self._record.remove)


class Jobs:
    """The jobs of a server."""

    def __init__(self, tasks: anyio.abc.TaskGroup) -> None:
        self._tasks = tasks
        self._jobs: dict[str, Job] = {}
        self._ended: dict[str, Job] = {}
        self._steps: defaultdict[_Session, set[Job | anyio.CancelScope]] = defaultdict(set)
        self._looked: set[_Session] = set()
        self._looking = anyio.Lock()
        self._asleep: dict[_Session, str] = {}
        self.waking = anyio.Lock()

    # ---- jobs

    def start(self, job: Job, body: Callable[[Job], Awaitable[CallToolResult]], *, in_line: bool) -> None:
        """Have a job begin. One that is `in_line` has the session to itself."""
        self._jobs[job.handle] = job
        if in_line:
            self._steps[job.session].add(job)
        self._asleep.pop(job.session, None)
        self._tasks.start_soon(self._run, job, body)

    async def _run(self, job: Job, body: Callable[[Job], Awaitable[CallToolResult]]) -> None:
        try:
            await job.run(body)
        finally:
            self._jobs.pop(job.handle, None)
            self._discard(job.session, job)
            if (job.waited or job.keeps) and not job.left:
                self._ended[job.handle] = job
                while len(self._ended) > MOST_ENDED:
                    self._ended.pop(next(iter(self._ended)))

    async def attend(self, job: Job) -> bool:
        """Do as `Job.attend`. What stands in line behind a cell that waits is told so, and not kept."""
        over = await job.attend()
        if not over:
            for step in self._steps.get(job.session, set()) - {job}:
                step.cancel(CellWaits(job)) if isinstance(step, Job) else step.cancel()
        return over

    def found(self, handle: str, tenant: Tenant) -> Job | None:
        """Return a job of a tenant that goes on, or that waited and is over."""
        job = self._jobs.get(handle) or self._ended.get(handle)
        return job if job is not None and job.session[0] == tenant else None

    def of(self, tenant: Tenant) -> list[Job]:
        """Return the jobs of a tenant that wait for the client."""
        return [job for job in self._jobs.values() if job.session[0] == tenant and job.waits]

    def all_of(self, tenant: Tenant) -> list[Job]:
        """Return the jobs of a tenant that go on, and the runs whose results are kept."""
        every = [*self._jobs.values(), *(job for job in self._ended.values() if job.story is not None)]
        return [job for job in every if job.session[0] == tenant]

    def close(self) -> None:
        """End all jobs."""
        for job in list(self._jobs.values()):
            self._tasks.start_soon(job.leave)

    # ---- the line of a session

    def in_line(self, session: _Session) -> int:
        """Return how many steps stand in line in a session, besides the one that is at work."""
        return max(0, len(self._steps.get(session, ())) - 1)

    async def check(self, session: _Session, place: Path) -> None:
        """Raise `CellWaits` if a cell of a session waits for the client, also since before a restart."""
        for step in self._steps.get(session, ()):
            if isinstance(step, Job) and step.waits:
                raise CellWaits(step)
        await self._look(session, place)
        asleep = self._asleep.get(session)
        if asleep is not None:
            found = await anyio.to_thread.run_sync(read_record, place, asleep)
            if found is not None:
                raise CellWaits(asleep)
            self._asleep.pop(session, None)

    async def _look(self, session: _Session, place: Path) -> None:
        """Take note, once, of a cell that waits since before a restart."""
        if session in self._looked:
            return
        async with self._looking:
            if session in self._looked:
                return
            for handle in await anyio.to_thread.run_sync(cells_waiting_in, place):
                if handle not in self._jobs:
                    self._asleep[session] = handle
            self._looked.add(session)

    async def put_away(self, session: _Session) -> None:
        """Have a cell that waits in a session go on later, from where it began, as after a restart."""
        job = self.waiting_in(session)
        if isinstance(job, Job):
            await job.leave()
            self._asleep[session] = job.handle

    def forget(self, session: _Session) -> None:
        """Take note that what waits on disk for a session is no more."""
        self._asleep.pop(session, None)

    def waiting_in(self, session: _Session) -> Job | str | None:
        """Return the job that waits in a session, or the handle of one that waits on disk."""
        jobs = (step for step in self._steps.get(session, ()) if isinstance(step, Job) and step.waits)
        return next(jobs, None) or self._asleep.get(session)

    @asynccontextmanager
    async def step(self, session: _Session, place: Path) -> AsyncGenerator[None]:
        """Have a step in a session that is no job. Raise `CellWaits` if it would wait for the client."""
        await self.check(session, place)
        scope = anyio.CancelScope()
        self._steps[session].add(scope)
        try:
            with scope:
                yield
        finally:
            self._discard(session, scope)
        if scope.cancelled_caught:
            raise CellWaits(self.waiting_in(session) or "")

    def _discard(self, session: _Session, step: Job | anyio.CancelScope) -> None:
        steps = self._steps.get(session)
        if steps is not None:
            steps.discard(step)
            if not steps:
                del self._steps[session]
