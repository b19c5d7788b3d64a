"""The server's end of the keeper: starts it, tells it what to keep, hears what was kept."""

from __future__ import annotations

import base64
import json
import os
import socket
import subprocess
import sys
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import anyio
import anyio.abc

from . import keeper as process

_SOURCE = Path(__file__).parent.parent
_READ_BYTES = 1 << 18
_END_SECONDS = 25.0
_BOOTSTRAP = """
import sys, types
package = types.ModuleType("rlm_sessions")
package.__path__ = [sys.argv[3]]
sys.modules["rlm_sessions"] = package
from rlm_sessions.keeping import keeper
keeper.main(int(sys.argv[1]), int(sys.argv[2]))
"""


class Keeping:
    """What is known of the snapshots of one session.

    `number` is the last step whose snapshot is whole. `problem` says why the last one is not, or
    is "" where all is well.
    """

    def __init__(
        self, on_report: Callable[[dict[str, Any]], None], tidy: Callable[[], Awaitable[None]]
    ) -> None:
        self.tidy = tidy
        self.number = 0
        self.tried = 0
        self.problem = ""
        self.over = False
        self._on_report = on_report
        self._news = anyio.Event()

    def take(self, report: dict[str, Any]) -> None:
        """Take in one report."""
        if "closed" in report:
            self.over = True
            self.problem = self.problem or str(report["closed"])
        elif "kept" in report:
            self.number = self.tried = max(self.number, int(report["kept"]))
            self.problem = ""
        elif "failed" in report:
            self.tried = max(self.tried, int(report["failed"]))
            self.problem = str(report["reason"])
        self._on_report(report)
        news, self._news = self._news, anyio.Event()
        news.set()

    async def reached(self, number: int) -> bool:
        """Wait until it is known what came of the step `number`; return whether it, or a later one, is kept."""
        while self.tried < number and not self.over:
            await self._news.wait()
        return self.number >= number

    async def ended(self) -> None:
        """Wait until everything is written, and the project is let go of."""
        while not self.over:
            await self._news.wait()


class Keepers:
    """Keeps the keeper: starts it when it is needed, and again should it die. `open_keepers` makes one."""

    def __init__(self, tasks: anyio.abc.TaskGroup) -> None:
        self._tasks = tasks
        self._opening = anyio.Lock()
        self._keeper: _Keeper | None = None

    async def keep(
        self,
        stream: socket.socket,
        folder: Path,
        *,
        most_bytes: int,
        durable: bool,
        lock: int | None = None,
        early: bytes = b"",
        on_report: Callable[[dict[str, Any]], None] = lambda report: None,
    ) -> Keeping:
        """Have what arrives at `stream` kept in `folder`, and `lock` held meanwhile.

        `early` is what has arrived there already.
        """
        async with self._opening:
            keeper = self._keeper
            if keeper is None or keeper.gone:
                keeper = self._keeper = await self._tasks.start(_run_keeper)
            order = {
                "folder": str(folder),
                "most_bytes": most_bytes,
                "durable": durable,
                "early": base64.b64encode(early).decode(),
            }
            descriptors = [stream.fileno(), *([] if lock is None else [lock])]
            return await keeper.keep(order, descriptors, on_report)


@asynccontextmanager
async def open_keepers() -> AsyncGenerator[Keepers, None]:
    """Lend a keeper; at the end wait until it has written everything down."""
    stack = AsyncExitStack()
    tasks = await stack.enter_async_context(anyio.create_task_group())
    try:
        yield Keepers(tasks)
    finally:
        tasks.cancel_scope.cancel()
        await stack.aclose()  # and not the group around the caller's block, whose errors are its own


class _Keeper:
    def __init__(self, orders: Any, reports: socket.socket) -> None:
        self.gone = False
        self._orders = orders
        self._reports = reports
        self._numbers = 0
        self._keepings: dict[int, Keeping] = {}

    async def keep(
        self,
        order: dict[str, Any],
        descriptors: list[int],
        on_report: Callable[[dict[str, Any]], None],
    ) -> Keeping:
        self._numbers += 1
        number = self._numbers

        async def tidy() -> None:
            await self._orders({"id": number}, [])

        keeping = self._keepings[number] = Keeping(on_report, tidy)
        await self._orders({"id": number, **order}, descriptors)
        return keeping

    async def listen(self) -> None:
        """Take in reports until the keeper is gone."""
        held = bytearray()
        try:
            while data := await _receive(self._reports):
                held += data
                while (report := _next(held)) is not None:
                    self._take(report)
        finally:
            self.gone = True
            for keeping in self._keepings.values():
                keeping.take({"closed": "the process that writes snapshots down has ended"})

    def _take(self, report: dict[str, Any]) -> None:
        number = report.pop("id")
        keeping = self._keepings.get(number)
        if keeping is not None:
            keeping.take(report)
        if "closed" in report:
            self._keepings.pop(number, None)


def _next(held: bytearray) -> dict[str, Any] | None:
    if len(held) < process.LENGTH.size:
        return None
    (length,) = process.LENGTH.unpack_from(held)
    end = process.LENGTH.size + length
    if len(held) < end:
        return None
    report: dict[str, Any] = json.loads(bytes(held[process.LENGTH.size : end]))
    del held[:end]
    return report


async def _receive(end: socket.socket) -> bytes:
    while True:
        try:
            return end.recv(_READ_BYTES)
        except BlockingIOError:
            await anyio.wait_readable(end)
        except OSError:
            return b""


async def _run_keeper(*, task_status: anyio.abc.TaskStatus[_Keeper]) -> None:
    """Start a keeper and listen to it until it, or we, end."""
    reports, their_reports = socket.socketpair()
    reports.setblocking(False)
    with reports, their_reports:
        if not hasattr(socket, "send_fds") or sys.platform == "win32":
            keeper = _Keeper(_order_threads(process.Reports(their_reports)), reports)
            task_status.started(keeper)
            await keeper.listen()
            return
        orders, their_orders = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with orders:
            with their_orders:
                started = await _spawn(their_orders, their_reports)
            their_reports.close()
            orders.setblocking(False)
            keeper = _Keeper(_order_process(orders), reports)
            task_status.started(keeper)
            try:
                await keeper.listen()
            finally:
                orders.close()
                with anyio.CancelScope(shield=True):
                    await _end(started)


def _order_process(orders: socket.socket) -> Any:
    async def order(facts: dict[str, Any], descriptors: list[int]) -> None:
        data = json.dumps(facts).encode()
        while True:
            try:
                socket.send_fds(orders, [data], descriptors)
            except BlockingIOError:
                await anyio.wait_writable(orders)
            except OSError:
                return  # it is gone, and listen() says so
            else:
                return

    return order


def _order_threads(reports: process.Reports) -> Any:
    """Where descriptors cannot be handed to another process, threads of ours keep; they end with us."""

    async def order(facts: dict[str, Any], descriptors: list[int]) -> None:
        copies = [os.dup(descriptor) for descriptor in descriptors]
        process.take(facts, copies, reports)

    return order


async def _spawn(*ends: socket.socket) -> anyio.abc.Process:
    numbers = [end.fileno() for end in ends]
    command = [sys.executable, "-I", "-S", "-B", "-c", _BOOTSTRAP, *map(str, numbers), str(_SOURCE)]
    return await anyio.open_process(
        command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        cwd="/",
        env={"LANG": "C.UTF-8", "PATH": "/usr/bin:/bin"},
        pass_fds=numbers,
        start_new_session=True,
    )


async def _end(started: anyio.abc.Process) -> None:
    with anyio.move_on_after(_END_SECONDS):
        await started.wait()
    if started.returncode is None:
        started.kill()
        await started.wait()
    await started.aclose()
