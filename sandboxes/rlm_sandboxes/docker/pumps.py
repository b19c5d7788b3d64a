"""The server's end of the pump: starts it when the first container needs it, and gives it streams."""

from __future__ import annotations

import socket
import ssl
import subprocess
import sys
import threading
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import anyio
import anyio.abc

from . import pump
from .streams import as_socket, give_back

_PROGRAM = Path(__file__).with_name("pump.py")
_BY_PROCESS = hasattr(socket, "send_fds") and sys.platform != "win32"


def _pass_on(raw: Any, stream: socket.socket, state: socket.socket, crash: socket.socket) -> None:
    try:
        pump.pass_on(stream, state, crash)
    finally:
        give_back(raw, stream)


class Pumps:
    """Keeps the pump: starts it when it is needed, and again should it die. `open_pumps` makes one."""

    def __init__(self) -> None:
        self._opening = anyio.Lock()
        self._orders: socket.socket | None = None
        self._started: anyio.abc.Process | None = None

    async def take(self, raw: Any) -> tuple[socket.socket, socket.socket]:
        """Have what the SDK gave passed on; return where the state comes out, and the words of a crash.

        What is encrypted can be read in this process only.
        """
        stream = as_socket(raw)
        state, state_in = socket.socketpair()
        crash, crash_in = socket.socketpair()
        crash.setblocking(False)
        if isinstance(stream, ssl.SSLSocket) or not _BY_PROCESS:
            stream.setblocking(True)
            ends = (raw, stream, state_in, crash_in)
            threading.Thread(target=_pass_on, args=ends, name="rlm-docker-pump", daemon=True).start()
            return state, crash
        try:
            await self._hand_over([stream, state_in, crash_in])
        except BaseException:
            state.close()
            crash.close()
            raise
        finally:
            give_back(raw, stream)
            state_in.close()
            crash_in.close()
        return state, crash

    async def _hand_over(self, ends: list[socket.socket]) -> None:
        numbers = [end.fileno() for end in ends]
        async with self._opening:
            while True:
                orders = self._orders or await self._start()
                try:
                    socket.send_fds(orders, [b"."], numbers)
                except BlockingIOError:
                    await anyio.wait_writable(orders)
                except OSError:
                    await self._end()  # it was killed; another one takes its place
                else:
                    return

    async def _start(self) -> socket.socket:
        orders, theirs = socket.socketpair()
        with theirs:
            self._started = await anyio.open_process(
                [sys.executable, "-I", "-S", "-B", str(_PROGRAM), str(theirs.fileno())],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                cwd="/",
                env={"LANG": "C.UTF-8", "PATH": "/usr/bin:/bin"},
                pass_fds=[theirs.fileno()],
                start_new_session=True,
            )
        orders.setblocking(False)
        self._orders = orders
        return orders

    async def _end(self) -> None:
        orders, started, self._orders, self._started = self._orders, self._started, None, None
        if orders is not None:
            orders.close()
        if started is not None:
            with anyio.move_on_after(pump.END_SECONDS):
                await started.wait()
            if started.returncode is None:
                started.kill()
                await started.wait()
            await started.aclose()

    async def close(self) -> None:
        """End the pump when it has passed on everything."""
        with anyio.CancelScope(shield=True):
            await self._end()


@asynccontextmanager
async def open_pumps() -> AsyncGenerator[Pumps, None]:
    """Lend a pump; at the end wait until it has passed on everything."""
    pumps = Pumps()
    try:
        yield pumps
    finally:
        await pumps.close()
