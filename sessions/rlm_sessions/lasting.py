"""The session of one project: always there, whatever becomes of the process in which it runs.

It is asleep on disk, or awake in a guest. A step (a cell, or a variable that is set, loaded or
deleted) wakes it; what there is to say about that is said with the answer to the step, as notes.
"""

from __future__ import annotations

import logging
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Collection, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any, Literal, Protocol, TypeVar, cast

import anyio
import anyio.abc
import anyio.to_thread

from rlm_sandboxes import Isolation, Limits, ProcessEnded, Sandbox, Usage

from .asking import Answer
from .claims import Claim
from .errors import SessionEnded
from .files_named import matching
from .found import Found, forget_state, last_step, look, put_aside
from .journal import JournalUnwritable
from .keeping.files import Kept
from .keeping.keepers import Keepers
from .projects import Project, check_place
from .results import CellError, CellResult, Loaded, Lost, More, Restored, Value, Variable, open_otherwise
from .scribe import Scribe
from .session import MAX_VALUE_BYTES, OnOutput, Policy, Session, open_session
from .telling import Keep
from .whole_outputs import WholeOutput

_log = logging.getLogger(__name__)
_CODE_SHOWN = 200
_MOST_NAMED, _MOST_FILES_NAMED = 20, 200
_TRIES = 3
_MOST_BEHIND, _SMALL_CHARACTERS = 1_000, 16 * 1024
_ENDED_BEFORE_WRITTEN = (
    "The cell ran to its end, and then its guest ended before the state was written down. "
    "What was there before this cell comes back with the next one; nothing that this cell did is kept."
)

T = TypeVar("T")
State = Literal["asleep", "idle", "busy"]


@dataclass(frozen=True)
class Care:
    """How sessions are run and kept; the same for all of a manager unless one is opened otherwise."""

    limits: Limits = field(default_factory=Limits)
    policy: Policy = "auto"
    durable: bool = False
    shown_characters: int = 20_000
    state_bytes: int = 4 * 1024**3
    more: More = open_otherwise  # what a cell that reached a limit is told about raising it


@dataclass(frozen=True)
class SessionInfo:
    """What can be seen of a session without waiting for it."""

    project: Project
    state: State
    step: int
    code: str = ""  # what runs, shortened
    since_seconds: float = 0.0
    waiting: int = 0
    used_at: float = 0.0
    memory_bytes: int = 0
    kept_step: int = 0
    problem: str = ""

    def __str__(self) -> str:
        if self.state != "busy":
            return f"{self.project.name}: {self.state} after step {self.step}"
        more = f"; {self.waiting} more wait" if self.waiting else ""
        return (
            f"{self.project.name}: busy with step {self.step} for {self.since_seconds:.1f} s ({self.code!r}){more}. "
            "It can be interrupted, and keeps its variables then."
        )


class Places(Protocol):
    """Who decides how many sessions may be awake."""

    async def make_place(self, session: ProjectSession) -> None:
        """Return when `session` may be awake."""
        ...


class ProjectSession:
    """The session of one project. A manager makes it, and knows how many may be awake."""

    def __init__(
        self,
        project: Project,
        claim: Claim | None,
        *,
        sandbox: Sandbox,
        keepers: Keepers,
        care: Care,
        answer: Answer | None,
        tasks: anyio.abc.TaskGroup,
        places: Places,
        scribe: Scribe,
        note: str = "",
    ) -> None:
        self.project = project
        self._claim = claim
        self._sandbox = sandbox
        self._keepers = keepers
        self._care = care
        self._answer = answer
        self._tasks = tasks
        self._places = places
        self._scribe = scribe
        self._line = anyio.Lock(fast_acquire=True)
        self._waiting = 0
        self.waking = False  # it has a place among those that are awake, and no guest yet
        self._session: Session | None = None
        self._isolation: Isolation | None = None
        self._put_down = anyio.Event()
        self._asleep = anyio.Event()
        self._asleep.set()
        self._notes: list[str] = [note] if note else []
        self._step = 0
        self._closed = False
        self._why_ended = ""
        self._told_lost_of = 0
        self._told_problem = ""
        self._told_journal_problem = ""
        self._doing = ""
        self._since = 0.0
        self._memory_bytes = 0
        self.used_at = time.monotonic()

    # ---- looking

    def info(self) -> SessionInfo:
        """Return what is going on, without waiting."""
        session = self._session
        keeping = session.keeping if session is not None else None
        return SessionInfo(
            project=self.project,
            state="busy" if self._doing else "asleep" if session is None else "idle",
            step=self._step,
            code=self._doing[:_CODE_SHOWN],
            since_seconds=time.monotonic() - self._since if self._doing else 0.0,
            waiting=self._waiting,
            used_at=self.used_at,
            memory_bytes=self._memory_bytes,
            kept_step=keeping.number if keeping is not None else self._step,
            problem=keeping.problem if keeping is not None else "",
        )

    @property
    def isolation(self) -> Isolation | None:
        """What keeps its guest inside; None before it was awake for the first time."""
        return self._isolation

    @property
    def awake(self) -> bool:
        """Whether it has a guest."""
        return self._session is not None

    @property
    def busy(self) -> bool:
        """Whether a step is at work, or waits."""
        return self._line.locked() or self._waiting > 0

    @property
    def claimed(self) -> Claim | None:
        """What of the project is ours on disk; None for a session in memory only."""
        return self._claim

    async def usage(self) -> Usage | None:
        """Return what its guest uses; None while it is asleep."""
        if self._session is None:
            return None
        try:
            usage = await self._session.usage()
        except ProcessEnded:
            return None
        self._memory_bytes = usage.memory_bytes
        return usage

    # ---- steps

    async def run(
        self,
        code: str,
        *,
        on_output: OnOutput | None = None,
        wall_seconds: float | None = None,
        answer: Answer | None = None,
    ) -> CellResult:
        """Run one cell. Whatever happened to the session before, its variables are there.

        `wall_seconds` is in place of the limit of that name, for this cell; `answer` is asked what it asks,
        in place of who answers otherwise.
        """
        answer = self._answer if answer is None else answer
        async with self._turn(code):
            return await self._on_guest(
                lambda session: self._run(session, code, on_output, wall_seconds, answer)
            )

    async def _run(
        self,
        session: Session,
        code: str,
        on_output: OnOutput | None,
        wall_seconds: float | None,
        answer: Answer | None,
    ) -> CellResult:
        step = session.next_step
        whole = None if self._claim is None else WholeOutput(self._claim.outputs, step, on_output)
        self._begin_entry("cell", step, code=code)
        try:
            result = await session.run(
                code,
                on_output=whole.take if whole else on_output,
                wall_seconds=wall_seconds,
                answer=None if answer is None else partial(self._call, answer, step),
            )
        except BaseException as problem:
            if whole is not None:
                whole.discard()
            if not isinstance(problem, SessionEnded):
                self._give_up("ran", step, session)
                raise
            if not problem.began:
                raise
            result = CellResult(step, error=CellError("SessionLost", str(problem)), lost=True)
            whole = None
        try:
            result = await self._finish(session, result, whole)
            self._step = max(self._step, 0 if result.lost else step)
            await self._record("ran", step, **_facts(result))
        except BaseException:
            self._give_up("ran", step, session)
            raise
        notes = self._take_notes()
        return replace(result, notes=notes) if notes else result

    def _give_up(self, kind: str, step: int, session: Session) -> None:
        """Record a step for which nobody waits any more, or that failed. What it did stays."""
        if not session.over:
            self._step = max(self._step, step)
            self._begin_entry(kind, step, unheard=True)

    async def _on_guest(self, act: Callable[[Session], Awaitable[T]]) -> T:
        """Do something in the guest; once more in another one if it was gone before it began."""
        try:
            return await act(await self._wake())
        except SessionEnded as ended:
            if ended.began:
                raise
        return await act(await self._wake())

    async def _finish(self, session: Session, result: CellResult, whole: WholeOutput | None) -> CellResult:
        if result.lost:
            self._why_ended = result.error.message if result.error else "its guest is gone"
            result = replace(result, error=self._explain(result.error))
        elif self._care.durable and not await session.kept() and session.over:
            result = replace(result, lost=True, error=CellError("CellKilled", _ENDED_BEFORE_WRITTEN))
        if whole is None:
            return result
        if not (result.left_out or result.displays):
            whole.discard()
            self._notes += whole.problems
            return result
        kept = await whole.end(is_long=result.left_out > 0)
        displays = await whole.keep_displays(result.displays)
        self._notes += whole.problems
        return replace(result, output_id=kept, displays=displays)

    def _explain(self, error: CellError | None) -> CellError | None:
        """Say of a cell that took its guest along that the state before it comes back."""
        if error is None or self._claim is None:
            return error
        reason = error.message.replace("The session and its variables are lost: ", "Its process is gone: ")
        back = "What was there before this cell comes back with the next one; nothing that this cell did is kept."
        return replace(error, name="CellKilled", message=f"{reason} {back}")

    async def variables(self) -> list[Variable]:
        """Return what variables there are. A running cell is not waited for."""
        if self._session is not None and not self._session.over and not self.waking:
            return await self._session.variables()
        async with self._turn("(list the variables)"):
            return await self._on_guest(lambda session: session.variables())

    async def get(self, name: str, *, max_bytes: int = MAX_VALUE_BYTES) -> Value:
        """Return the value of a variable."""
        async with self._turn(f"(read {name})"):
            return await self._on_guest(lambda session: session.get(name, max_bytes=max_bytes))

    async def set(self, name: str, value: Any) -> tuple[str, ...]:
        """Set a variable to text, bytes or plain data; return what there is to say."""

        async def put(session: Session) -> dict[str, Any]:
            await session.set(name, value)
            return {"type": type(value).__name__}

        return await self._change("set", name, put)

    async def load(
        self,
        name: str,
        paths: str | Path | Sequence[Path],
        *,
        form: Literal["text", "bytes"] = "text",
        append: bool = False,
    ) -> Loaded:
        """Have the guest read files into a variable; return what it holds then.

        One path gives one text. Several, or a pattern such as "**/*.md" within the project's folder,
        give a dictionary with a part for each file, by its path there. With `append` they are added to
        what the variable holds.
        """
        loaded: list[Loaded] = []
        found = await anyio.to_thread.run_sync(matching, self.project.folder, paths)

        async def load(session: Session) -> dict[str, Any]:
            loaded.append(
                await session.load(name, found, form=form, append=append, within=self.project.folder)
            )
            files = [[file.name, file.digest] for file in loaded[0].files]
            return {"length": loaded[0].length, "count": len(files), "files": files[:_MOST_FILES_NAMED]}

        self._notes += await self._change("load", name, load)
        return loaded[0]

    async def delete(self, name: str) -> tuple[str, ...]:
        """Delete a variable; return what there is to say."""

        async def delete(session: Session) -> dict[str, Any]:
            await session.delete(name)
            return {}

        return await self._change("delete", name, delete)

    async def _change(
        self, kind: str, name: str, act: Callable[[Session], Awaitable[dict[str, Any]]]
    ) -> tuple[str, ...]:
        async with self._turn(f"({kind} {name})"):
            return await self._on_guest(lambda session: self._change_in(session, kind, name, act))

    async def _change_in(
        self,
        session: Session,
        kind: str,
        name: str,
        act: Callable[[Session], Awaitable[dict[str, Any]]],
    ) -> tuple[str, ...]:
        step = session.next_step
        try:
            facts = await act(session)
            self._step = max(self._step, step)
            if self._care.durable:
                await session.kept()
            await self._record(kind, step, name=name, **facts)
        except BaseException:
            self._give_up(kind, step, session)
            raise
        return self._take_notes()

    async def interrupt(self) -> bool:
        """Interrupt the running cell; return False if none runs. The session keeps its variables."""
        return self._session is not None and await self._session.interrupt()

    async def abandon(self) -> None:
        """End the guest together with the cell that runs in it. What that cell did is not kept."""
        if self._session is not None:
            await self._session.kill()

    @asynccontextmanager
    async def _turn(self, doing: str) -> AsyncGenerator[None, None]:
        """Wait in line for a turn."""
        self._waiting += 1
        try:
            await self._line.acquire()
        finally:
            self._waiting -= 1
        try:
            if self._closed:
                raise SessionEnded("it was closed")
            self._doing, self._since = doing, time.monotonic()
            yield
        finally:
            self._doing = ""
            self.used_at = time.monotonic()
            self._line.release()

    def _take_notes(self) -> tuple[str, ...]:
        keeping = self._session.keeping if self._session is not None else None
        if keeping is not None and keeping.problem != self._told_problem:
            self._told_problem = keeping.problem
            self._notes.append(_of_writing(keeping.problem, keeping.number))
        notes, self._notes = tuple(self._notes), []
        return notes

    # ---- records

    def _begin_entry(self, kind: str, step: int, **facts: Any) -> None:
        """Write an entry without waiting for it: what is waited for later comes after it in line."""
        if self._claim is not None:
            journal = self._claim.journal

            def append() -> None:
                with suppress(JournalUnwritable):  # the entry of its end fails too, and says so
                    journal.append(kind, cell=step, **facts)

            self._scribe.soon(append)

    async def _record(self, kind: str, step: int | None, **facts: Any) -> None:
        if self._claim is None:
            return
        journal, durable = self._claim.journal, self._care.durable

        def append() -> None:
            journal.append(kind, cell=step, durable=durable, **facts)

        try:
            if durable:  # the disk may take its time, and others need not wait for that
                await anyio.to_thread.run_sync(append)
            else:
                await self._scribe.now(append)
            problem = ""
        except JournalUnwritable as raised:
            problem = str(raised)
        if problem and not self._told_journal_problem:
            self._notes.append(problem)
        self._told_journal_problem = problem

    async def _call(self, answer: Answer, step: int, name: str, payload: Any) -> Any:
        """Ask who answers, and record question and answer."""
        await self._record_call("call", step, name=name, payload=payload)
        try:
            said = await answer(name, payload)
        except Exception as problem:
            await self._record_call("answer", step, name=name, problem=f"{type(problem).__name__}: {problem}")
            raise
        await self._record_call("answer", step, name=name, answer=said)
        return said

    async def _record_call(self, kind: str, step: int, **facts: Any) -> None:
        """Record a call or an answer: without waiting for it where it is small, as there may be very many.

        Each comes before the entry of the cell's end, which is waited for.
        """
        if self._scribe.behind < _MOST_BEHIND and all(map(_is_small, facts.values())):
            self._begin_entry(kind, step, **facts)
        else:
            await self._record(kind, step, **facts)

    # ---- waking and sleeping

    async def _wake(self) -> Session:
        if self._session is not None and not self._session.over:
            return self._session
        if self._session is not None:
            self._why_ended = self._why_ended or "its guest is gone"
            await self._lay_down()
        try:
            await self._places.make_place(self)
            return await (self._start(None) if self._claim is None else self._wake_from(self._claim))
        finally:
            self.waking = False

    async def _wake_from(self, claim: Claim) -> Session:
        found = await anyio.to_thread.run_sync(look, claim, self._step)
        self._notes += found.notes
        try:
            session = await self._start(found)
            if found.kept is not None:
                session = await self._bring_back(session, found, found.kept)
        except BaseException:  # a guest without its variables must not be taken for one that has none
            await self._lay_down()
            raise
        self._tell_of_lost_steps(found)
        self._step = max(self._step, found.after)
        self._why_ended = ""
        return session

    async def _start(self, found: Found | None) -> Session:
        await anyio.to_thread.run_sync(check_place, self.project)
        keep = None
        if self._claim is not None and found is not None:
            keep = Keep(
                self._keepers,
                self._claim.places.state,
                most_bytes=self._care.state_bytes,
                durable=self._care.durable,
                lock=self._claim.lock.fileno(),
                after=found.after,
            )
        self._put_down, self._asleep = anyio.Event(), anyio.Event()
        session: Session = await self._tasks.start(self._be_awake, keep)
        return session

    async def _be_awake(self, keep: Keep | None, *, task_status: anyio.abc.TaskStatus[Session]) -> None:
        """Hold a guest until it is to be put down."""
        started = False
        try:
            async with open_session(
                self._sandbox,
                project=self.project.folder,
                limits=self._care.limits,
                policy=self._care.policy,
                shown_characters=self._care.shown_characters,
                keep=keep,
                more=self._care.more,
            ) as session:
                self._session, started = session, True
                self._isolation = session.isolation
                task_status.started(session)
                await self._put_down.wait()
        except Exception:
            if not started:
                raise
            _log.exception("A session of %s did not end as it should.", self.project.key)
        finally:
            self._session = None
            self._asleep.set()

    async def _bring_back(self, session: Session, found: Found, kept: Kept) -> Session:
        assert self._claim is not None
        folder, why = self._claim.places.state, ""
        for _ in range(_TRIES):
            try:
                restored = await session.restore(kept, folder)
            except SessionEnded as ended:  # by what it reads, or by chance, so it is tried again
                why = ended.reason
                await self._lay_down()
                session = await self._start(found)
            else:
                self._note_restored(kept, restored)
                lost = [str(each) for each in restored.lost]
                await self._record("restored", kept.number, variables=len(restored.names), lost=lost)
                return session
        await anyio.to_thread.run_sync(put_aside, folder, kept.number)
        self._notes.append(
            f"The state after step {kept.number} could not be read back ({why}). It was put aside, under another "
            f"name in {folder}."
        )
        again = await anyio.to_thread.run_sync(look, self._claim, self._step)
        self._notes += again.notes
        return session if again.kept is None else await self._bring_back(session, again, again.kept)

    def _note_restored(self, kept: Kept, restored: Restored) -> None:
        if self._why_ended:
            self._notes.append(f"The session ended and is back with its state after step {kept.number}.")
        elif not self._step:
            count = len(restored.names)
            self._notes.append(
                f"The session is back from disk with its state after step {kept.number}: "
                f"{count} variable{'' if count == 1 else 's'}."
            )
        if restored.lost and kept.number != self._told_lost_of:
            self._notes.append(_could_not_be_kept(restored.lost))
        self._told_lost_of = kept.number
        self._notes += restored.notes

    def _tell_of_lost_steps(self, found: Found) -> None:
        """Say which steps had an answer, and are not in the state that came back."""
        number = found.kept.number if found.kept is not None else 0
        steps = [step for step in found.answered if step > number]
        if steps:
            which = ", ".join(map(str, steps[:_MOST_NAMED])) + (" ..." if len(steps) > _MOST_NAMED else "")
            self._notes.append(
                f"What step {which} did is lost: the session ended before it was written down."
            )
        if found.begun:
            self._notes.append(
                f"Step {found.begun} was at work when its server or its engine ended; "
                "nothing that it did to the variables is kept."
            )

    async def sleep(self) -> bool:
        """Put the session to sleep on disk, if it is idle and nothing is lost by it; return whether it sleeps."""
        try:
            self._line.acquire_nowait()
        except anyio.WouldBlock:
            return False
        try:
            return await self._sleep()
        finally:
            self._line.release()

    async def _sleep(self) -> bool:
        session = self._session
        if session is None:
            return True
        if self._claim is None or not (session.over or await session.kept()):
            return False
        if session.keeping is not None:
            await session.keeping.tidy()
        await self._lay_down()
        await self._record("slept", None, after=self._step)
        return True

    async def close(self) -> None:
        """Put the session to sleep as far as that can be, and let go of its project, for good."""
        async with self._line:
            self._closed = True
            if self._session is not None:
                if not self._session.over:
                    await self._session.kept(seconds=5)
                await self._lay_down()
            if self._claim is not None:
                claim, self._claim = self._claim, None
                await anyio.to_thread.run_sync(claim.release)

    async def reset(self) -> None:
        """Forget all variables and what is kept of them. The journal stays."""
        async with self._line:
            if self._session is not None:
                await self._lay_down()
            if self._claim is not None:
                await anyio.to_thread.run_sync(forget_state, self._claim.places.state)
                self._step = max(self._step, await anyio.to_thread.run_sync(last_step, self._claim))
                await self._record("reset", self._step)
            self._why_ended = ""

    async def _lay_down(self) -> None:
        with anyio.CancelScope(shield=True):
            self._put_down.set()
            await self._asleep.wait()


def _of_writing(problem: str, number: int) -> str:
    if not problem:
        return "The state is written down again."
    return (
        f"The state could not be written down: {problem}. The session goes on in memory; what is on disk is its "
        f"state after step {number}."
    )


def _could_not_be_kept(lost: Sequence[Lost]) -> str:
    named = "; ".join(map(str, lost[:_MOST_NAMED]))
    more = f"; and {len(lost) - _MOST_NAMED} more" if len(lost) > _MOST_NAMED else ""
    return f"Not kept: {named}{more}."


def _is_small(value: Any) -> bool:
    """Return whether plain data is short as JSON, without going through what is long."""
    left, todo = _SMALL_CHARACTERS, [value]
    while todo and left > 0:
        item = todo.pop()
        if isinstance(item, str):
            left -= len(item)
        elif isinstance(item, dict | list | tuple):
            many = cast("Collection[Any]", item)
            left -= len(many)
            todo += [*many, *(many.values() if isinstance(many, dict) else ())] if left > 0 else []
        left -= 10
    return left > 0


def _facts(result: CellResult) -> dict[str, Any]:
    """Return what the journal says of a cell that is over."""
    error = None if result.error is None else {"name": result.error.name, "message": result.error.message}
    facts: dict[str, Any] = {
        "seconds": round(result.duration_seconds, 6),
        "waited_seconds": round(result.waited_seconds, 6),
        "final": result.final,
        "output": result.output,
        "output_characters": result.output_characters,
        "value": result.value,
        "error": error,
        "limit": result.error.limit if result.error else None,
        "changed": list(result.changed),
        "removed": list(result.removed),
        "displays": [shown.mime for shown in result.displays],
        "output_id": result.output_id,
        "lost": result.lost,
    }
    return {key: fact for key, fact in facts.items() if fact not in (None, [], "", 0, False)}
