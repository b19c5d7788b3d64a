"""A session: one guest in a sandbox, and the variables in it.

The guest runs code that nobody has read, so everything that comes from it is
checked, bounded, and at worst ends this one session. Nothing of it is ever
unpickled, evaluated or imported here.
"""

from __future__ import annotations

import importlib.util
import json
import math
import os
import secrets
import time
from collections import deque
from collections.abc import AsyncGenerator, Awaitable, Callable, Coroutine, Generator, Iterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any, Literal, TypeAlias

import anyio
import anyio.abc
import anyio.lowlevel
import anyio.to_thread

from rlm_sandboxes import (
    Isolation,
    Layer,
    Limits,
    Package,
    Process,
    ProcessEnded,
    Program,
    Sandbox,
    StartFailed,
    Usage,
)

from .asking import Answer, ToolOffer, begin_asking
from .errors import SessionEnded, TooWeak, VariableError, VariableNotFound
from .guest import wire
from .guest.wire import Decoder, Frame, WireError, encode
from .keeping import files
from .keeping.files import Kept
from .keeping.keepers import Keeping
from .output import Output
from .results import (
    CellError,
    CellResult,
    Display,
    Form,
    Loaded,
    More,
    Restored,
    Value,
    Variable,
    advice,
    error_of,
    list_of,
    loaded_of,
    mapping_of,
    number_of,
    open_otherwise,
    optional_text,
    restored_of,
    text_of,
    texts_of,
)
from .telling import KEPT_SECONDS, Keep, Telling

Policy: TypeAlias = Literal["auto", "off", "permissive", "strict"]
OnOutput: TypeAlias = Callable[[str, str], Awaitable[None]]

SHOWN_CHARACTERS = 20_000
MAX_VALUE_BYTES = 16 * 1024 * 1024

_MAX_FRAME_BODY = 32 * 1024 * 1024
_MAX_DISPLAYS, _MAX_DISPLAY_BYTES = 20, 32 * 1024 * 1024
_FORMS = ("text", "bytes", "json", "repr")
_MIMES = ("image/png", "image/jpeg", "text/markdown")
_MAX_CALLS_WAITING, _MAX_REFUSED = 10_000, 100_000
_MAX_CALL_BYTES, _MAX_BYTES_WAITING = 16 * 1024 * 1024, 64 * 1024 * 1024
_MAX_ITEMS = 2_000_000  # in one payload: an empty list costs two bytes there, and sixty here
_MAX_TOLD_BYTES, _MAX_TOLD_ITEMS = 4 * 1024 * 1024, 1_000_000
_LONG_PAYLOAD = 256 * 1024
_READY_SECONDS = 30.0
_FIRST_LOOK_SECONDS = 0.05  # cells shorter than this are not looked at; their processor time is small
_MEMORY_LOOK_SECONDS = 0.1
_IDLE_SECONDS = 0.5
_LISTING_SECONDS = 1.0
_WORTH_TELLING_SECONDS = 0.05


@cache
def guest_program() -> Program:
    """Return the guest, as a sandbox starts it, with the library its language policy stands on."""
    package = Package("rlm_guest", Path(__file__).parent / "guest")
    found = importlib.util.find_spec("RestrictedPython")
    folders = list(found.submodule_search_locations or ()) if found else []
    return Program(
        package, "rlm_guest.main:main", tuple(Package("RestrictedPython", Path(f)) for f in folders[:1])
    )


@asynccontextmanager
async def open_session(
    sandbox: Sandbox,
    *,
    project: Path | None = None,
    limits: Limits | None = None,
    policy: Policy = "auto",
    answer: Answer | None = None,
    tools: Sequence[ToolOffer] = (),
    shown_characters: int = SHOWN_CHARACTERS,
    keep: Keep | None = None,
    more: More = open_otherwise,
) -> AsyncGenerator[Session, None]:
    """Open a session in `sandbox` for the folder `project`, or for none.

    `policy` is the language policy: "auto" is off in a strong container, permissive behind other strong
    walls and strict behind weak ones. `answer` is asked whatever code in a cell asks by `call(name, payload)`.
    With `keep`, the state after each step is written down there; who closes the session waits until it is.
    `more` says what a cell that reached a limit is told about raising it.
    """
    limits = limits or Limits()
    async with AsyncExitStack() as stack:
        endings: list[Callable[[], Awaitable[None]]] = []
        stack.push_async_callback(_await_each, endings)  # when the guest is gone, and so has told all
        process = await stack.enter_async_context(sandbox.start(guest_program(), project, limits))
        session = Session(
            process, limits, answer, shown_characters, after=keep.after if keep else 0, more=more
        )
        await session.begin(policy, keeps=keep is not None, tools=tools)
        if keep is not None:
            endings.append(await session.keep_in(keep))
        tending = AsyncExitStack()
        tasks = await tending.enter_async_context(anyio.create_task_group())
        try:
            for tend in session.tending():
                tasks.start_soon(tend)
            yield session
        finally:
            tasks.cancel_scope.cancel()
            await tending.aclose()  # and not the group around the caller's block, whose errors are its own


async def _await_each(endings: list[Callable[[], Awaitable[None]]]) -> None:
    for ending in endings:
        await ending()


class Session:
    """One guest and its variables. `open_session` makes one.

    One cell runs at a time; whoever comes meanwhile waits in line.
    """

    def __init__(
        self,
        process: Process,
        limits: Limits,
        answer: Answer | None,
        shown_characters: int,
        *,
        after: int = 0,
        more: More = open_otherwise,
    ) -> None:
        self.limits = limits
        self._more = more
        self.isolation: Isolation = process.isolation
        self.python: tuple[int, ...] = ()
        self._process = process
        self._watches_memory = bool(limits.processes) or any(
            layer.name == "memory" and not layer.holds for layer in process.isolation.layers
        )
        self._answer = answer
        self._shown_characters = shown_characters
        self._token = secrets.token_bytes(wire.TOKEN_BYTES)
        self._decoder = Decoder(self._token, max_body=_MAX_FRAME_BODY)
        self._line = anyio.Lock(fast_acquire=True)
        self._sending = anyio.Lock(fast_acquire=True)
        self._numbers = after
        self._questions = 0
        self._telling: Telling | None = None
        self._takers: dict[str, Callable[[Frame], Coroutine[Any, Any, None]]] = {
            "output": self._take_output,
            "display": self._take_display,
            "call": self._take_call,
            "ran": self._take_ran,
            "reply": self._take_reply,
        }
        self._cell: _Cell | None = None
        self._late = Output(shown_characters)
        self._replies: dict[int, _Reply] = {}
        self._listed: list[Variable] = []
        self._ended: SessionEnded | None = None
        self._paused = False
        self._stirred = anyio.Event()
        self._stirred_at = 0.0

    # ---- beginning and ending

    async def begin(self, policy: Policy, *, keeps: bool = False, tools: Sequence[ToolOffer] = ()) -> None:
        """Tell the guest what it is to be, and hear that it is ready."""
        strong = self._process.isolation.strong
        mode = policy if policy != "auto" else _policy_for(self._process.isolation)
        opened = {"network": self.limits.network, "processes": self.limits.processes > 0}
        facts = {"policy": mode, "keeps": keeps, "environment": {"MPLBACKEND": "agg"}, **opened}
        setup = Frame("setup", facts, json.dumps([tool.told() for tool in tools]).encode())
        try:
            with anyio.fail_after(_READY_SECONDS):
                await self._process.send(self._token + encode(self._token, setup))
                ready = await self._first_frame()
        except TimeoutError:
            raise StartFailed(f"The guest was not ready within {_READY_SECONDS:.0f} seconds.") from None
        except (ProcessEnded, WireError) as problem:
            raise StartFailed(f"The guest did not come up: {problem}") from problem
        missing = text_of(ready.facts, "policy_missing", most=500)
        if missing and not strong:
            raise TooWeak(str(self._process.isolation), missing)
        unneeded = "not needed in a container" if policy == "auto" else "switched off"
        held = Layer(f"policy({mode})", mode != "off" and not missing, missing or unneeded)
        self.isolation = Isolation((*self._process.isolation.layers, held), strong=strong)
        self.python = tuple(n for n in ready.facts.get("python", []) if isinstance(n, int))

    async def _first_frame(self) -> Frame:
        while True:
            for frame in self._decoder.feed(await self._process.receive()):
                if frame.kind != "ready":
                    raise WireError("the guest did not say that it is ready")
                return frame

    async def listen(self) -> None:
        """Take in what the guest sends until it is gone."""
        try:
            while True:
                for frame in self._decoder.feed(await self._process.receive()):
                    await self._take(frame)
                await (
                    anyio.lowlevel.checkpoint()
                )  # a guest that never stops sending must not keep us from all else
        except ProcessEnded as problem:
            self._gone(problem)
        except WireError as problem:
            with anyio.CancelScope(shield=True):
                await self._process.kill()
            self.end(f"its guest broke the protocol ({problem})")

    def _gone(self, problem: ProcessEnded) -> SessionEnded:
        """Return the error for a guest that has ended, whether that was heard or found when sending."""
        return self.end(f"the guest {str(problem).removeprefix('The program in the sandbox ').rstrip('.')}")

    def _broken(self, problem: WireError) -> SessionEnded:
        """Return the error for a guest that cannot be believed any more."""
        return self.end(f"its guest broke the protocol ({problem})")

    def end(self, reason: str) -> SessionEnded:
        """Note that the session is over, tell everybody who waits, and return the error for it."""
        ended = self._ended = self._ended or SessionEnded(reason)
        if self._cell is not None:
            self._cell.end()
        for reply in self._replies.values():
            reply.done.set()
        return ended

    @property
    def paused(self) -> bool:
        """Whether the guest is at rest."""
        return self._paused

    async def send(self, frame: Frame) -> None:
        """Send the guest a frame. Raise `SessionEnded` if it is gone."""
        data = encode(self._token, frame)
        async with self._sending:
            await self._send_in_line(data)

    async def _send_answer(self, cell: _Cell, frame: Frame) -> None:
        """Send an answer, in one piece with those that are ready in the same moment."""
        cell.answers.append(encode(self._token, frame))
        if cell.calls_waiting > 1:
            await anyio.lowlevel.checkpoint()
        if not cell.answers:
            return  # it went with another
        async with self._sending:
            answers, cell.answers = cell.answers, []
            if answers:
                await self._send_in_line(b"".join(answers))

    async def _send_in_line(self, data: bytes) -> None:
        if self._ended is not None:
            raise self._ended
        try:
            if self._paused:
                await self._process.resume()
                self._paused = False
            await self._send_whole(data)
        except ProcessEnded as problem:
            raise self._gone(problem) from None

    async def _ask_for(self, frame: Frame) -> None:
        """Send what the guest is to begin with; a guest that is gone has not begun."""
        try:
            await self.send(frame)
        except SessionEnded as ended:
            raise SessionEnded(ended.reason, began=False) from None

    async def _send_whole(self, data: bytes) -> None:
        """Send all of a frame, even for a caller that is cancelled: after half of one the guest understands nothing.

        A guest that takes nothing in for longer than any cell may last is killed.
        """
        seconds = self.limits.wall_seconds + self.limits.grace_seconds
        with anyio.move_on_after(seconds, shield=True) as patience:
            await self._process.send(data)
        if patience.cancelled_caught:
            with anyio.CancelScope(shield=True):
                await self._process.kill()
            raise self.end("its guest did not take in what was sent to it")

    # ---- what the guest sends

    async def _take(self, frame: Frame) -> None:
        take = self._takers.get(frame.kind)
        if take is None:
            raise WireError(f"a frame of an unknown kind {frame.kind[:40]!r} came in")
        await take(frame)

    async def _take_output(self, frame: Frame) -> None:
        text = frame.body.decode("utf-8", "backslashreplace")
        cell = self._cell
        if cell is None or number_of(frame.facts, "cell") != cell.number:
            self._late.add(text)
            return
        cell.output.add(text)
        if cell.output.characters > 2 * self.limits.output_bytes + 1024 * 1024:
            raise WireError("it printed on beyond output_bytes")
        if cell.on_output is not None:
            await cell.on_output(text_of(frame.facts, "stream", most=8), text)

    async def _take_display(self, frame: Frame) -> None:
        cell = self._cell
        if cell is None:
            return
        size = len(frame.body) + sum(len(shown.data) for shown in cell.displays)
        mime = text_of(frame.facts, "mime", most=60)
        if mime in _MIMES and len(cell.displays) < _MAX_DISPLAYS and size <= _MAX_DISPLAY_BYTES:
            cell.displays.append(Display(mime, frame.body))

    async def _take_call(self, frame: Frame) -> None:
        number, name = number_of(frame.facts, "call"), text_of(frame.facts, "name", most=200)
        cell = self._cell
        if cell is None or number_of(frame.facts, "cell") != cell.number:
            return
        problem = ""
        if len(frame.body) > _MAX_CALL_BYTES:
            problem = (
                f"a call may carry {_MAX_CALL_BYTES} bytes, and this one has {len(frame.body)}; send a part"
            )
        elif (
            cell.calls_waiting >= _MAX_CALLS_WAITING
            or cell.bytes_waiting + len(frame.body) > _MAX_BYTES_WAITING
        ):
            problem = f"{cell.calls_waiting} calls with {cell.bytes_waiting} bytes wait already"
        if problem:
            self._refuse(cell, number, problem)
            return
        cell.asks(len(frame.body))
        cell.serve(self._serve_call, cell, number, name, frame.body)

    def _refuse(self, cell: _Cell, number: int, problem: str) -> None:
        if len(cell.refused) >= _MAX_REFUSED:
            raise WireError("it asks on and on without hearing the answers")
        cell.refused.append((number, problem))
        if len(cell.refused) == 1:
            cell.serve(self._answer_refused, cell)

    async def _answer_refused(self, cell: _Cell) -> None:
        try:
            while cell.refused:
                number, problem = cell.refused[0]
                await self.send(_answer_frame(number, "TooManyCalls", problem))
                cell.refused.popleft()
        except SessionEnded:
            return

    async def _serve_call(self, cell: _Cell, number: int, name: str, body: bytes) -> None:
        try:
            answer = await self._ask(cell, number, name, body)
            await self._send_answer(cell, answer)
        except SessionEnded:
            return
        finally:
            cell.hears(len(body))

    async def _ask(self, cell: _Cell, number: int, name: str, body: bytes) -> Frame:
        if cell.answer is None:
            return _answer_frame(number, *_nobody_answers(name))
        try:
            payload = await _parse(body)
        except (ValueError, RecursionError) as wrong:
            return _answer_frame(number, "ValueError", f"the payload of the call cannot be read: {wrong}")
        try:
            begin_asking(cell.number, number)
            return _answer_frame(number, "", await cell.answer(name, payload))
        except Exception as problem:  # noqa: BLE001 -- whatever an answerer raises belongs to who asked
            return _answer_frame(number, type(problem).__name__, str(problem))

    async def _take_ran(self, frame: Frame) -> None:
        cell = self._cell
        if cell is None or number_of(frame.facts, "cell") != cell.number:
            raise WireError("a cell ended that was not running")
        cell.facts = mapping_of(_read(frame.body), "the outcome of a cell")
        cell.end()

    async def _take_reply(self, frame: Frame) -> None:
        number = frame.facts.get("id")
        reply = self._replies.get(number) if isinstance(number, int) else None
        if reply is not None:
            reply.frame = frame
            reply.done.set()

    # ---- keeping the state

    async def keep_in(self, keep: Keep) -> Callable[[], Awaitable[None]]:
        """Have the state after each step from now on written down; return what to await when the guest is gone."""
        self._telling = Telling(keep, self._process, self)
        self._takers |= self._telling.takers
        await self._telling.begin()
        return self._telling.end

    def tending(self) -> list[Callable[[], Coroutine[Any, Any, None]]]:
        """Return what must run as long as the session does."""
        tellings = [] if self._telling is None else [self._telling.pass_on_news]
        return [self.listen, self.rest_when_idle, *tellings]

    @property
    def keeping(self) -> Keeping | None:
        """What is known of its snapshots; None if none are made."""
        return None if self._telling is None else self._telling.keeping

    @property
    def next_step(self) -> int:
        """The number that the next step will have."""
        return self._numbers + 1

    @property
    def over(self) -> bool:
        """Whether its guest is gone."""
        return self._ended is not None

    async def usage(self) -> Usage:
        """Return what its guest has used up to now. Raise `ProcessEnded` if that is gone."""
        return await self._process.usage()

    async def kept(self, *, seconds: float = KEPT_SECONDS) -> bool:
        """Wait until the state after the last step is written down; return False if it cannot be."""
        return self._telling is not None and await self._telling.kept(seconds)

    async def restore(self, kept: Kept, folder: Path) -> Restored:
        """Give a fresh guest the state that was kept in `folder`; return what came back and what did not."""
        there: list[str] = []
        async with self._line:
            for digest, size in files.blobs_of(kept.manifest).items():
                if await anyio.to_thread.run_sync(files.blob_is_whole, folder, digest, size):
                    there.append(digest)
                    await self._send_blob(digest, size, files.pieces(files.blob_file(folder, digest)))
            await self._send_blob("pickle", kept.pickle_bytes, kept.pickled())
            reply = await self._request("", "restore", {}, kept.manifest_bytes)
            if self._telling is not None:
                self._telling.has(there)
            with self._checking():
                return restored_of(_read(reply.body))

    async def _send_blob(self, digest: str, size: int, pieces: Iterator[bytes]) -> None:
        start = 0
        while (piece := await anyio.to_thread.run_sync(next, pieces, None)) is not None:
            await self.send(Frame("blob", {"hash": digest, "size": size, "start": start}, piece))
            start += len(piece)

    # ---- cells

    async def run(
        self,
        code: str,
        *,
        on_output: OnOutput | None = None,
        wall_seconds: float | None = None,
        answer: Answer | None = None,
    ) -> CellResult:
        """Run one cell and return what came of it. `wall_seconds` is in place of the limit of that name.

        `answer` is asked what this cell asks, in place of the session's own. The cell's wall clock stands still
        while one of its calls waits for an answer.

        Raise `SessionEnded` if the session was over before. A caller that is cancelled
        interrupts the cell; the session and its variables stay.
        """
        async with self._line:
            if self._ended is not None:
                raise SessionEnded(self._ended.reason, began=False)
            self._numbers += 1
            cell = _Cell(
                self._numbers,
                Output(self._shown_characters),
                on_output,
                self.limits if wall_seconds is None else replace(self.limits, wall_seconds=wall_seconds),
                self._answer if answer is None else answer,
            )
            cell.output.add(self._take_late())
            self._cell = cell
            try:
                await self._pass_on_news()
                await self._run(cell, code)
                return self._result(cell)
            except SessionEnded:
                with anyio.CancelScope(shield=True):
                    await self._process.kill()
                raise
            finally:
                self._cell = None
                if cell.facts is not None and self._telling is not None:
                    self._telling.step = cell.number
                self.stir()

    def _take_late(self) -> str:
        text, self._late = self._late.text(), Output(self._shown_characters)
        return text

    async def _run(self, cell: _Cell, code: str) -> None:
        body = code.encode("utf-8", "surrogatepass")
        facts = {"cell": cell.number, "output_bytes": self.limits.output_bytes}
        facts["answered"] = cell.answer is not None
        try:
            await self._ask_for(Frame("run", facts, body))
            with anyio.move_on_after(min(_FIRST_LOOK_SECONDS, cell.limits.wall_seconds)):
                await cell.news.wait()
            if not cell.done.is_set():
                await self._accompany(cell)
        finally:
            await self._leave(cell)

    async def _accompany(self, cell: _Cell) -> None:
        """Answer and watch a cell that asks something or takes its time; most do neither."""
        async with anyio.create_task_group() as tasks:
            try:
                cell.serve_in(tasks)
                if await cell.is_done_at(cell.began + _FIRST_LOOK_SECONDS):
                    return
                tasks.start_soon(self._watch, cell)
                await cell.done_or_out_of_time()
                if not cell.done.is_set():
                    await self._stop(cell, "wall_seconds")
            finally:
                await self._leave(cell)
                tasks.cancel_scope.cancel()

    async def _leave(self, cell: _Cell) -> None:
        """Interrupt a cell for which its caller does not wait any longer."""
        if not cell.done.is_set() and self._ended is None:
            with anyio.CancelScope(shield=True):
                await self._stop(cell, None)

    async def _stop(self, cell: _Cell, limit: str | None) -> None:
        """Interrupt the cell and, if it does not stop in time, kill the guest."""
        cell.limit = limit
        end = anyio.current_time() + self.limits.grace_seconds
        while not cell.done.is_set() and anyio.current_time() < end:
            await self._process.interrupt()
            with anyio.move_on_at(min(end, anyio.current_time() + max(0.1, self.limits.grace_seconds / 4))):
                await cell.done.wait()
        if not cell.done.is_set():
            seconds = self.limits.grace_seconds
            if self._telling is not None:
                await self._telling.let_last_end()
            self._ended = SessionEnded(f"a cell did not stop within grace_seconds = {seconds} and was killed")
            await self._process.kill()
            self.end("killed")

    async def _watch(self, cell: _Cell) -> None:
        """Watch what the kernel does not limit by itself: processor time, and memory of several processes."""
        try:
            before = (await self._process.usage()).cpu_seconds
            left = self.limits.cpu_seconds
            while left > 0:
                most = _MEMORY_LOOK_SECONDS if self._watches_memory else math.inf
                await anyio.sleep(min(most, max(0.02, left / (os.cpu_count() or 1))))
                usage = await self._process.usage()
                left = self.limits.cpu_seconds - (usage.cpu_seconds - before)
                if self._watches_memory and usage.memory_bytes > self.limits.memory_bytes:
                    await self._stop(cell, "memory_bytes")
                    return
            await self._stop(cell, "cpu_seconds")
        except ProcessEnded:
            return

    async def kill(self) -> None:
        """End the guest at once. A running cell is lost with it."""
        with anyio.CancelScope(shield=True):
            await self._process.kill()

    async def interrupt(self) -> bool:
        """Interrupt the running cell, as Ctrl-C would; return False if none runs."""
        if self._cell is None or self._ended is not None:
            return False
        await self._process.interrupt()
        return True

    def stir(self) -> None:
        """Note that the guest was at work a moment ago."""
        self._stirred_at = time.monotonic()
        self._stirred.set()

    async def rest_when_idle(self) -> None:
        """Pause the guest a moment after its cell, so that nothing it left behind goes on by itself."""
        while self._ended is None:
            await self._stirred.wait()
            while (idle := time.monotonic() - self._stirred_at) < _IDLE_SECONDS:  # noqa: ASYNC110
                await anyio.sleep(_IDLE_SECONDS - idle)
            await self.kept()  # who is stopped tells nothing any more
            self._stirred = anyio.Event()
            async with self._sending:
                if self._line.locked() or self._replies or self._paused:
                    continue
                self._paused = True
                await self._process.pause()
            if self._telling is not None:
                await self._telling.keeping.tidy()

    def _result(self, cell: _Cell) -> CellResult:
        lost = cell.facts is None
        facts: dict[str, Any] = {"changed": [], "removed": []} if cell.facts is None else cell.facts
        try:
            return CellResult(
                cell=cell.number,
                output=cell.output.text(),
                output_characters=cell.output.characters,
                left_out=cell.output.left_out,
                value=optional_text(facts, "value", most=100_000),
                displays=tuple(cell.displays),
                error=self._error(cell, facts, lost=lost),
                exit_code=optional_text(facts, "exit_code", most=200),
                changed=texts_of(facts, "changed", most=100),
                removed=texts_of(facts, "removed", most=100),
                lost=lost,
                duration_seconds=time.monotonic() - cell.began,
                waited_seconds=cell.waited_seconds,
                final=facts.get("final") is True,
            )
        except WireError as problem:
            raise self._broken(problem) from problem

    def _error(self, cell: _Cell, facts: dict[str, Any], *, lost: bool) -> CellError | None:
        told = error_of(facts, cell.limits, self._more)
        limit = advice(cell.limit, cell.limits, self._more) if cell.limit else ""
        if cell.limit == "wall_seconds" and cell.waited_seconds >= _WORTH_TELLING_SECONDS:
            limit = f"{limit} Not counted are {cell.waited_seconds:.1f} s in which it waited for answers to its calls."
        if lost:
            reason = self._ended.reason if self._ended else "its guest is gone"
            said = f"{limit} " if limit else ""
            return CellError(
                "SessionLost", f"{said}The session and its variables are lost: {reason}.", "", cell.limit
            )
        if cell.limit and told is not None:
            message = f"{limit} The session and its variables are kept."
            return CellError("LimitReached", message, told.traceback, cell.limit)
        return told

    # ---- variables

    async def variables(self) -> list[Variable]:
        """Return what variables there are, without waiting for a running cell.

        Where a cell keeps the interpreter to itself, what was known last is returned.
        """
        with anyio.move_on_after(_LISTING_SECONDS):
            reply = await self._request("", "variables", {})
            with self._checking():
                self._listed = _variables(_read(reply.body))
        return list(self._listed)

    async def get(self, name: str, *, max_bytes: int = MAX_VALUE_BYTES) -> Value:
        """Return the value of a variable, exactly where that can be."""
        async with self._line:
            reply = await self._request(name, "get", {"name": name, "max_bytes": max_bytes})
        with self._checking():
            form = text_of(reply.facts, "form", most=10)
            if form not in _FORMS or len(reply.body) > max_bytes:
                raise WireError("a value came in that is not what was asked for")
            return Value(form, reply.body)

    async def set(self, name: str, value: Any) -> None:
        """Set a variable to text, bytes, or plain data that JSON can carry."""
        form: Form = "text" if isinstance(value, str) else "bytes" if isinstance(value, bytes) else "json"
        body = value.encode("utf-8", "surrogatepass") if isinstance(value, str) else value
        body = body if isinstance(body, bytes) else json.dumps(value).encode()
        if len(body) > wire.MAX_BODY_BYTES:
            much = (
                f"{len(body)} bytes are over the {wire.MAX_BODY_BYTES} that can be sent; load it from a file"
            )
            raise VariableError(name, "TooLarge", much)
        async with self._line:
            await self._step(name, "set", {"name": _checked_name(name), "form": form}, body)

    async def load(
        self,
        name: str,
        paths: Path | Sequence[Path],
        *,
        form: Literal["text", "bytes"] = "text",
        append: bool = False,
        within: Path | None = None,
    ) -> Loaded:
        """Have the guest read files into a variable; return what it holds then.

        One path gives one text, several a dictionary with a part for each, under its path within the
        folder `within`. With `append` they are added to what is there. The files must be visible
        inside the sandbox. No byte of them passes through here, and every byte is kept: what is
        no UTF-8 becomes lone surrogates, as `errors="surrogateescape"` says.
        """
        facts = {"name": _checked_name(name), "form": form, "append": append, "one": isinstance(paths, Path)}
        files = [paths] if isinstance(paths, Path) else paths
        parts = [(_part_name(path, within), str(path)) for path in files]
        async with self._line:
            reply = await self._step(name, "load", facts, json.dumps(parts).encode())
        with self._checking():
            return loaded_of(number_of(reply.facts, "length"), _read(reply.body))

    async def delete(self, name: str) -> None:
        """Delete a variable."""
        async with self._line:
            await self._step(name, "delete", {"name": name})

    async def _step(self, name: str, kind: str, facts: dict[str, Any], body: bytes = b"") -> Frame:
        """Do what may change the state. Whether it does or fails, a step is over."""
        await self._pass_on_news()
        self._numbers += 1
        number = self._numbers
        try:
            return await self._request(name, kind, facts, body, number=number)
        finally:
            if self._ended is None and self._telling is not None:
                self._telling.step = number

    async def _pass_on_news(self) -> None:
        if self._telling is not None:
            await self._telling.pass_on()

    async def _request(
        self, name: str, kind: str, facts: dict[str, Any], body: bytes = b"", *, number: int | None = None
    ) -> Frame:
        if number is None:
            self._questions -= 1  # below zero, so that only steps are counted up
            number = self._questions
        reply = _Reply()
        self._replies[number] = reply
        try:
            await self._ask_for(Frame(kind, {"id": number, **facts}, body))
            with anyio.move_on_after(self.limits.wall_seconds):
                await reply.done.wait()
        finally:
            del self._replies[number]
            self.stir()
        if reply.frame is None:
            raise self._ended or VariableError(name, "TimeoutError", "the guest did not answer in time")
        problem = reply.frame.facts.get("problem")
        if problem is not None:
            with self._checking():
                raise _variable_error(name, problem)
        return reply.frame

    @contextmanager
    def _checking(self) -> Generator[None, None, None]:
        """End the session if what its guest said turns out not to be what it must be."""
        try:
            yield
        except WireError as problem:
            raise self._broken(problem) from problem


def _policy_for(isolation: Isolation) -> Policy:
    """Return the language policy that is wanted behind such walls."""
    if not isolation.strong:
        return "strict"
    return "off" if isolation.contained else "permissive"


class _Cell:
    """A cell at work."""

    def __init__(
        self,
        number: int,
        output: Output,
        on_output: OnOutput | None,
        limits: Limits,
        answer: Answer | None,
    ) -> None:
        self.number = number
        self.output = output
        self.on_output = on_output
        self.limits = limits
        self.answer = answer
        self.answers: list[bytes] = []  # ready to be sent
        self.displays: list[Display] = []
        self.calls_waiting = 0
        self.bytes_waiting = 0
        self.refused: deque[tuple[int, str]] = deque()
        self.began = time.monotonic()
        self.news = anyio.Event()  # it is done, or it asks something
        self.done = anyio.Event()
        self.facts: dict[str, Any] | None = None
        self.limit: str | None = None
        self._waited_seconds = 0.0
        self._waits_since = 0.0
        self._heard = anyio.Event()
        self._tasks: anyio.abc.TaskGroup | None = None
        self._asked: list[tuple[Callable[..., Coroutine[Any, Any, None]], tuple[Any, ...]]] = []

    def end(self) -> None:
        self.done.set()
        self.news.set()
        self._heard.set()

    # ---- its clock, which stands still while a call waits for its answer

    def asks(self, payload_bytes: int) -> None:
        """Note a call that waits for its answer from now on."""
        if not self.calls_waiting:
            self._waits_since = time.monotonic()
        self.calls_waiting += 1
        self.bytes_waiting += payload_bytes

    def hears(self, payload_bytes: int) -> None:
        """Note a call that has its answer."""
        if self.calls_waiting == 1:
            self._waited_seconds = self.waited_seconds
            self._heard.set()
        self.calls_waiting -= 1
        self.bytes_waiting -= payload_bytes

    @property
    def waited_seconds(self) -> float:
        """How long at least one of its calls has waited for an answer."""
        now = time.monotonic() - self._waits_since if self.calls_waiting else 0.0
        return self._waited_seconds + now

    async def is_done_at(self, moment: float) -> bool:
        """Return whether it is done, at once if it is and else at that moment."""
        with anyio.move_on_after(min(moment - time.monotonic(), self.limits.wall_seconds)):
            await self.done.wait()
        return self.done.is_set()

    async def done_or_out_of_time(self) -> None:
        """Return when it is done, or has used up its time."""
        while not self.done.is_set():
            spent = time.monotonic() - self.began - self.waited_seconds
            if self.calls_waiting:
                self._heard = anyio.Event()
                await self._heard.wait()
            elif spent >= self.limits.wall_seconds:
                return
            else:
                with anyio.move_on_after(self.limits.wall_seconds - spent):
                    await self.done.wait()

    # ---- its calls

    def serve(self, answer: Callable[..., Coroutine[Any, Any, None]], *facts: Any) -> None:
        """Have `answer` called in a task, as soon as there is a place for tasks and while the cell runs."""
        if self.done.is_set():
            return
        if self._tasks is not None:
            self._tasks.start_soon(answer, *facts)
        else:
            self._asked.append((answer, facts))
            self.news.set()

    def serve_in(self, tasks: anyio.abc.TaskGroup) -> None:
        """Start the tasks that wait, and from now on each at once."""
        self._tasks, asked = tasks, self._asked
        for answer, facts in asked:
            tasks.start_soon(answer, *facts)


class _Reply:
    def __init__(self) -> None:
        self.done = anyio.Event()
        self.frame: Frame | None = None


async def _parse(body: bytes) -> Any:
    """Return what a guest's JSON says, without holding up the event loop or filling our memory."""
    if len(body) <= _LONG_PAYLOAD:
        return json.loads(body)
    return await anyio.to_thread.run_sync(_parse_long, body)


def _read(body: bytes) -> Any:
    """Return what the guest itself says, which is never large."""
    if len(body) > _MAX_TOLD_BYTES or sum(map(body.count, (b",", b"[", b"{"))) > _MAX_TOLD_ITEMS:
        raise WireError("the guest says too much")
    try:
        return json.loads(body)
    except (ValueError, RecursionError):
        raise WireError("what the guest says cannot be read") from None


def _parse_long(body: bytes) -> Any:
    if sum(map(body.count, (b",", b"[", b"{"))) > _MAX_ITEMS:
        raise ValueError("it has too many parts")
    return json.loads(body)


def _nobody_answers(name: str) -> tuple[str, str]:
    """Return kind and message for a call in a session without an answerer."""
    if name not in ("llm_query", "rlm_query"):
        return "NobodyAnswers", "nobody answers calls in this session"
    return "ModelUnavailable", (
        "there is no model to ask: nobody answers calls in this session. Configure a model, or run the code in a "
        "session that has somebody to answer"
    )


def _answer_frame(number: int, problem: str, content: Any) -> Frame:
    try:
        body = json.dumps(content).encode()
    except (TypeError, ValueError, RecursionError) as wrong:
        problem, body = "TypeError", json.dumps(f"the answer cannot be sent: {wrong}").encode()
    if len(body) > wire.MAX_BODY_BYTES:
        much = f"the answer cannot be sent: {len(body)} bytes are over the {wire.MAX_BODY_BYTES} that can be"
        problem, body = "TooLarge", json.dumps(much).encode()
    return Frame("answer", {"call": number, "problem": problem}, body)


def _part_name(path: Path, within: Path | None) -> str:
    return path.relative_to(within).as_posix() if within and path.is_relative_to(within) else str(path)


def _checked_name(name: str) -> str:
    if not name.isidentifier():
        raise VariableError(name, "ValueError", "a variable's name must be a Python identifier")
    return name


def _variables(told: Any) -> list[Variable]:
    described, _ = list_of(told, "the listing", length=2)
    return [_variable(item) for item in list_of(described, "the variables")]


def _variable(item: Any) -> Variable:
    name, kind, size, preview = list_of(item, "a variable", length=4)
    facts = {"name": name, "type": kind, "size": size, "preview": preview}
    return Variable(
        text_of(facts, "name", most=200),
        text_of(facts, "type", most=200),
        number_of(facts, "size"),
        text_of(facts, "preview", most=400),
    )


def _variable_error(name: str, problem: Any) -> VariableError:
    told, said = list_of(problem, "a problem", length=2)
    kind, message = str(told)[:100], str(said)[:2000]
    if kind == "KeyError":
        return VariableNotFound(name)
    return VariableError(name, kind, message)
