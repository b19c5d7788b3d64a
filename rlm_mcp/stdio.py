"""One client over standard input and output, until it is gone or a signal comes.

A line is a message. Whatever a client sends, the server lives on: what is no message is answered with an error,
and what would take memory without bound is refused or made to wait. Knows nothing of tools or sessions.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
import time
from collections import deque
from collections.abc import AsyncGenerator, Callable, Generator, Iterator
from contextlib import asynccontextmanager, contextmanager
from types import FrameType
from typing import Any

import anyio
import anyio.abc
import anyio.lowlevel
import mcp_types as types
from mcp.server.lowlevel import Server
from mcp.server.models import InitializationOptions
from mcp.shared.message import SessionMessage
from pydantic import ValidationError

from .descriptors import Sink, Source, sink, source, standard_streams

MESSAGE_BYTES = 64 * 1024 * 1024
"""How long one message of a client may be."""
REQUESTS_AT_WORK = 1000
"""How many requests of a client may be without an answer at once."""
UNREAD_BYTES = 16 * 1024 * 1024
"""How much may wait for a client to read it, before the client is read from no more and answers have to wait."""

BUSY = -32050
"""The code of the error for a request beyond those."""

_LAST_WORDS_SECONDS = 0.5
_LOOK_SECONDS = 1.0
_HOSTS_PATIENCE_SECONDS = 0.4


class Stopped(Exception):
    """A signal asked the server to end, and it has stopped serving."""

    def __init__(self, signal_number: int) -> None:
        self.signal_number = signal_number
        super().__init__(f"The server was asked to end by {signal.Signals(signal_number).name}.")


async def serve_stdio(
    server: Server[Any],
    *,
    first_request: Callable[[], None] | None = None,
    initialization_options: InitializationOptions | None = None,
) -> None:
    """Serve the client at standard input and output until it is gone.

    `first_request` is called once, after the first answer was written. Raises `Stopped` when a signal came;
    the next one then ends the process at once.
    """
    options = initialization_options or server.create_initialization_options()
    signals: list[int] = []
    if sys.stdin is None or sys.stdout is None:  # pyright: ignore[reportUnnecessaryComparison]
        return  # closed before we were started: there is no client
    with standard_streams() as (stdin, stdout), _last_signal(signals):
        wire = _wire(stdin, stdout, first_request)
        async with wire as (incoming, outgoing), anyio.create_task_group() as watchers:
            await watchers.start(_watch_signals, incoming, signals)
            watchers.start_soon(_watch_client, incoming, outgoing)
            await server.run(incoming, outgoing, options)
            watchers.cancel_scope.cancel()
    if signals:
        raise Stopped(signals[0])


@asynccontextmanager
async def _wire(
    stdin: int, stdout: int, first_request: Callable[[], None] | None
) -> AsyncGenerator[tuple[Incoming, Outgoing], None]:
    entrance, way_out = source(stdin), sink(stdout)
    outgoing = Outgoing(way_out, first_request)
    incoming = Incoming(entrance, outgoing)
    try:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(outgoing.drain, incoming.end)
            yield incoming, outgoing
            with anyio.move_on_after(_LAST_WORDS_SECONDS):
                await outgoing.drained()
            tasks.cancel_scope.cancel()
    finally:
        entrance.close()
        way_out.close()


# ---- what ends it


async def _watch_signals(
    incoming: Incoming, signals: list[int], *, task_status: anyio.abc.TaskStatus[None]
) -> None:
    """End the input at the first signal. Where signals are not ours to handle, end it at none."""
    wanted = _signals()
    if not wanted:
        task_status.started()
        return
    with anyio.open_signal_receiver(*wanted) as received:
        task_status.started()
        async for number in received:
            signals.append(number)
            break
    leave = _leaving_after(signals[0])
    for number in wanted:
        signal.signal(number, leave)
    incoming.end()


def _signals() -> list[signal.Signals]:
    """Return those that ask us to end. nohup starts us with one ignored, and that is to be respected."""
    if sys.platform == "win32" or threading.current_thread() is not threading.main_thread():
        return []
    wanted = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
    return [each for each in wanted if each == signal.SIGINT or signal.getsignal(each) is not signal.SIG_IGN]


def _leaving_after(first: int) -> Callable[[int, FrameType | None], None]:
    """Return what a further signal does: it ends the process at once, if it is no part of the same farewell.

    Hosts send SIGINT and, a tenth of a second later, SIGTERM, whatever we do meanwhile; what is being
    written down by then is worth the rest of their patience.
    """
    began = time.monotonic()

    def leave(number: int, _frame: FrameType | None) -> None:
        if number == first or time.monotonic() - began > _HOSTS_PATIENCE_SECONDS:
            os._exit(128 + number)

    return leave


@contextmanager
def _last_signal(signals: list[int]) -> Generator[None, None, None]:
    """Have signals handled as they were before, unless one came: then the next one is the last."""
    before = {each: signal.getsignal(each) for each in _signals()}
    try:
        yield
    finally:
        for number, handler in before.items():
            if not signals and handler is not None:
                signal.signal(number, handler)


async def _watch_client(incoming: Incoming, outgoing: Outgoing) -> None:
    """End the input when its writer is gone without our seeing the end.

    Somebody else may hold the other end open when our parent dies; and as long as nobody reads what we write,
    we do not read either.
    """
    parent, written = os.getppid(), -1
    while os.getppid() == parent:
        if outgoing.full() and outgoing.written_bytes == written and incoming.hung_up():
            break
        written = outgoing.written_bytes
        await anyio.sleep(_LOOK_SECONDS)
    incoming.end()


# ---- from the client


class Refused(Exception):
    """A line that nobody is to work on, and the answer to it."""

    def __init__(self, code: int, text: str, *, request: types.RequestId | None = None) -> None:
        self.answer = types.JSONRPCError(
            jsonrpc="2.0", id=request, error=types.ErrorData(code=code, message=text)
        )
        super().__init__(text)


class Incoming(anyio.abc.ObjectReceiveStream[SessionMessage | Exception]):
    """The messages of a client, in their order. What is none is answered here."""

    def __init__(self, entrance: Source, outgoing: Outgoing) -> None:
        self._source = entrance
        self._outgoing = outgoing
        self._lines = Lines(MESSAGE_BYTES)
        self._unread: deque[bytes | bytearray | None] = deque()

    async def receive(self) -> SessionMessage | Exception:
        while await self._more():
            try:
                return SessionMessage(self._admitted(message_of(self._unread.popleft())))
            except Refused as refused:
                await self._outgoing.refuse(refused)
        self.end()
        raise anyio.EndOfStream

    async def _more(self) -> bool:
        """Read until there is a line, and tell whether there is one."""
        await self._outgoing.room()
        at_end = False
        while not self._unread and not at_end:
            data = await self._source.read()
            at_end = not data
            self._unread.extend(self._lines.feed(data or b"\n"))
        return bool(self._unread)

    def _admitted(self, message: types.JSONRPCMessage) -> types.JSONRPCMessage:
        match message:
            case types.JSONRPCRequest() if not self._outgoing.begin(message.id):
                raise Refused(
                    BUSY,
                    f"This server works on at most {REQUESTS_AT_WORK} requests of a client at once. "
                    f"The request was not begun; send it again after some of the others were answered.",
                    request=message.id,
                )
            case types.JSONRPCNotification(
                method="notifications/cancelled", params={"requestId": str() | int() as request}
            ):
                self._outgoing.settle(request)
            case _:
                pass
        return message

    def end(self) -> None:
        """Let it be as if the client had ended its input here."""
        self._unread.clear()
        self._lines = Lines(MESSAGE_BYTES)
        self._source.stop()
        self._outgoing.hurry()

    def hung_up(self) -> bool:
        """Tell whether the client has ended its input, though not all of it is read."""
        return self._source.hung_up()

    async def aclose(self) -> None:
        self.end()


def message_of(line: bytes | bytearray | None) -> types.JSONRPCMessage:
    """Return the message that a line is; None stands for one that was too long. Raises `Refused`."""
    if line is None:
        raise Refused(
            types.INVALID_REQUEST,
            f"This message is longer than {MESSAGE_BYTES} bytes and was left out. "
            f"Put large data in a file and send its path.",
        )
    try:
        return types.jsonrpc_message_adapter.validate_json(line, by_name=False)
    except ValidationError as error:
        first = error.errors(include_url=False, include_context=False, include_input=False)[0]
        if first["type"] == "json_invalid":
            raise Refused(types.PARSE_ERROR, f"This line was left out: {first['msg']}.") from None
        hint = "one message a line, and no batches" if line.lstrip().startswith(b"[") else "see its fields"
        raise Refused(
            types.INVALID_REQUEST, f"This line is JSON but no message of JSON-RPC 2.0 ({hint})."
        ) from None


class Lines:
    """Bytes in any portions in, lines out. A line longer than the bound is told as None and not kept."""

    def __init__(self, bound: int) -> None:
        self._bound = bound
        self._begun = bytearray()
        self._skips = False

    def feed(self, data: bytes) -> Iterator[bytes | bytearray | None]:
        """Give the lines that end in `data`, without their ends and without those that are empty."""
        *ends, begun = data.split(b"\n")
        for end in ends:
            yield from self._grow(end)
            line, self._begun = self._begun, bytearray()
            if line and not self._skips and not line.isspace():
                yield line
            self._skips = False
        yield from self._grow(begun)

    def _grow(self, part: bytes) -> Iterator[None]:
        if self._skips:
            return
        self._begun += part
        if len(self._begun) > self._bound:
            self._begun, self._skips = bytearray(), True
            yield None


# ---- to the client


class Outgoing(anyio.abc.ObjectSendStream[SessionMessage]):
    """The messages for a client, each written whole and in their order.

    They are written at once where that needs no waiting, and else by `drain`. It also knows how many requests
    are still without an answer.
    """

    def __init__(self, way_out: Sink, first_written: Callable[[], None] | None) -> None:
        self.written_bytes = 0
        self._sink = way_out
        self._first_written = first_written
        self._unwritten: deque[memoryview] = deque()
        self._unwritten_bytes = 0
        self._more, self._less = anyio.Event(), anyio.Event()
        self._at_work: dict[str, int] = {}  # some clients cancel "7" when they mean 7
        self._count_at_work = 0
        self._hurries = self._closed = self._broken = False

    # -- requests at work

    def begin(self, request: types.RequestId) -> bool:
        """Count a request, and tell whether there may be one more."""
        if self._count_at_work >= REQUESTS_AT_WORK:
            return False
        self._at_work[str(request)] = self._at_work.get(str(request), 0) + 1
        self._count_at_work += 1
        return True

    def settle(self, request: types.RequestId) -> None:
        """Count a request no more: it was answered, or nobody waits for its answer."""
        count = self._at_work.pop(str(request), 0)
        if count > 1:
            self._at_work[str(request)] = count - 1
        self._count_at_work -= count > 0

    # -- writing

    async def send(self, item: SessionMessage) -> None:
        await self.room()
        if self._closed:
            raise anyio.ClosedResourceError
        if self._broken:
            raise anyio.BrokenResourceError
        message = item.message
        data = memoryview(_line_of(message))
        if isinstance(message, types.JSONRPCResponse | types.JSONRPCError) and message.id is not None:
            self.settle(message.id)
        written = 0 if self._unwritten else self._write_now(data)
        if written < len(data):
            self._keep(data[written:])
        else:
            self._one_is_written()

    async def refuse(self, refused: Refused) -> None:
        """Answer what nobody is to work on."""
        try:
            await self.send(SessionMessage(refused.answer))
        except (anyio.BrokenResourceError, anyio.ClosedResourceError):
            pass  # nobody is there to read it
        await anyio.lowlevel.checkpoint()  # a flood of these must not keep others from working

    def _write_now(self, data: memoryview) -> int:
        try:
            written = self._sink.write_now(data)
        except OSError:
            self._break()
            raise anyio.BrokenResourceError from None
        self.written_bytes += written
        return written

    def _keep(self, data: memoryview) -> None:
        self._unwritten.append(data)
        self._unwritten_bytes += len(data)
        self._more.set()

    def _one_is_written(self) -> None:
        first, self._first_written = self._first_written, None
        if first:
            first()

    async def drain(self, gone: Callable[[], None]) -> None:
        """Write what could not be written at once, until the client is `gone`."""
        while not self._broken:
            while self._unwritten and not self._broken:
                await self._write_some()
            self._more = anyio.Event()
            await self._more.wait()
        gone()

    async def _write_some(self) -> None:
        data = self._unwritten[0]
        try:
            written = await self._sink.write(data)
        except OSError:
            self._break()
            return
        self.written_bytes += written
        self._unwritten_bytes -= written
        if written < len(data):
            self._unwritten[0] = data[written:]
        else:
            self._unwritten.popleft()
            self._one_is_written()
        self._wake()

    def _break(self) -> None:
        self._broken = True
        self._unwritten.clear()
        self._unwritten_bytes = 0
        self._more.set()
        self._wake()

    def _wake(self) -> None:
        self._less.set()
        self._less = anyio.Event()

    # -- waiting for the client

    def full(self) -> bool:
        """Tell whether so much waits to be read that there is to be no more of it."""
        return self._unwritten_bytes > UNREAD_BYTES and not self._hurries

    async def room(self) -> None:
        """Wait until the client has read enough."""
        while self.full():
            await self._less.wait()

    async def drained(self) -> None:
        """Wait until the client has read everything, or is gone."""
        while self._unwritten:
            await self._less.wait()

    def hurry(self) -> None:
        """Let nobody wait for room any more: what comes now are last words."""
        self._hurries = True
        self._wake()

    async def aclose(self) -> None:
        self._closed = True


def _line_of(message: types.JSONRPCMessage) -> bytes:
    try:
        return message.model_dump_json(by_alias=True, exclude_unset=True).encode() + b"\n"
    except ValueError:  # half of a surrogate pair, which UTF-8 cannot say and clients refuse
        plain = message.model_dump(by_alias=True, exclude_unset=True)
        return json.dumps(plain, ensure_ascii=False).encode(errors="replace") + b"\n"
