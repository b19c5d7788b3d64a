"""The host's end of what a guest tells of its state: who writes it down, and what of it is written.

The bytes themselves go past us, from the guest to the keeper. Where the guest has no way of its own
to the keeper, they come as frames and are passed on.
"""

from __future__ import annotations

import json
import secrets
import socket
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import anyio

from rlm_sandboxes import Process, ProcessEnded

from .errors import SessionEnded
from .guest.wire import Frame
from .keeping.keepers import Keepers, Keeping

KEPT_SECONDS = 30.0  # a snapshot of gigabytes, to a slow disk
MOST_STATE_BYTES = 4 * 1024**3
_LOOKS, _LOOK_SECONDS = 300, 0.02  # in all longer than a sandbox looks for the reason of an end
_LAST_WORDS_SECONDS = 5.0
_MARK_BYTES, _EARLY_BYTES = 32, 16 * 1024
_REST_SECONDS = 0.05  # longer each time, so that one that never works does not keep us busy


@dataclass(frozen=True)
class Keep:
    """Where the state of a session is kept, and by whom. Its steps are counted from `after` on."""

    keepers: Keepers
    folder: Path
    most_bytes: int = MOST_STATE_BYTES
    durable: bool = False
    lock: int | None = None
    after: int = 0


class Guest(Protocol):
    """What is needed of the session whose guest tells."""

    @property
    def paused(self) -> bool:
        """Whether the guest is at rest."""
        ...

    @property
    def over(self) -> bool:
        """Whether the guest is gone."""
        ...

    async def send(self, frame: Frame) -> None:
        """Send the guest a frame. Raise `SessionEnded` if it is gone."""
        ...

    def end(self, reason: str) -> SessionEnded:
        """Note that the session is over, and return the error for it."""
        ...

    def stir(self) -> None:
        """Note that the guest was at work a moment ago."""
        ...


class Telling:
    """What one guest tells of its state. `step` is the last one that is over."""

    def __init__(self, keep: Keep, process: Process, guest: Guest) -> None:
        self.step = keep.after
        self.takers: dict[str, Callable[[Frame], Coroutine[Any, Any, None]]] = {
            "copying": self._take_copying,
            "state": self._take_state,
            "marked": self._take_marked,
        }
        self._keep = keep
        self._process = process
        self._guest = guest
        self._keeping: Keeping | None = None
        self._again = anyio.Lock()
        self._keepers_used = 0
        self._relay: socket.socket | None = None
        self._marked = anyio.Event()
        self._news: list[Frame] = []
        self._is_news = anyio.Event()
        self._blobs: list[str] = []

    @property
    def keeping(self) -> Keeping:
        """What is known to be written."""
        assert self._keeping is not None
        return self._keeping

    async def begin(self) -> None:
        """Have a keeper listen. What the guest begins with is written already, or nothing."""
        self._keeping = await self._begin(b"")
        self._keeping.number = self._keeping.tried = self.step

    async def _begin(self, early: bytes) -> Keeping:
        stream = self._process.side_channel
        if stream is None:
            self._relay, stream = socket.socketpair()
            self._relay.setblocking(False)
        keep = self._keep
        keeping = await keep.keepers.keep(
            stream,
            keep.folder,
            most_bytes=keep.most_bytes,
            durable=keep.durable,
            lock=keep.lock,
            early=early,
            on_report=self._take_report,
        )
        if self._relay is not None:
            stream.close()
        return keeping

    async def end(self) -> None:
        """Wait until everything is written, and the project is let go of. The guest is gone by now."""
        if self._relay is not None:
            self._relay.close()
        with anyio.move_on_after(KEPT_SECONDS, shield=True):
            await self.keeping.ended()

    async def kept(self, seconds: float) -> bool:
        """Wait until the state after the last step is written; return False if it cannot be."""
        with anyio.move_on_after(seconds):
            while not await self.keeping.reached(self.step):
                if self._guest.over or not self.keeping.over:
                    return False
                try:
                    await self._go_on()
                except SessionEnded:
                    return False
            return True
        return False

    async def let_last_end(self) -> None:
        """Give what was held before a cell the time to be written, before the guest is killed.

        A guest that is stopped does nothing any more, but its copy goes on.
        """
        if self.keeping.tried >= self.step:
            return
        with anyio.move_on_after(_LAST_WORDS_SECONDS):
            try:
                await self._process.pause()
                await self.keeping.reached(self.step)
            except ProcessEnded:
                return

    # ---- when the keeper dies

    async def _go_on(self) -> None:
        """Have another keeper go on, from a point that the guest marks in what it tells."""
        async with self._again:
            if not self.keeping.over:
                return
            self._keepers_used += 1
            await anyio.sleep(_REST_SECONDS * min(self._keepers_used, 100) - _REST_SECONDS)
            kept = self.keeping.number
            if self._relay is not None:
                self._relay.close()
                self._relay = None
            mark, self._marked = secrets.token_bytes(_MARK_BYTES), anyio.Event()
            await self._guest.send(Frame("mark", {}, mark))
            keeping = await self._begin(await self._find(mark))
            keeping.number = keeping.tried = kept
            self._keeping = keeping
            await self._guest.send(Frame("keep", {"number": self.step}))
            self._guest.stir()

    async def _find(self, mark: bytes) -> bytes:
        """Read and forget what the guest has told up to its mark; return what it has told since."""
        stream = self._process.side_channel
        if stream is None:
            await self._marked.wait()
            return b""
        stream.setblocking(False)
        held = b""
        while mark not in held:
            if self._guest.over:
                raise self._guest.end("the guest is gone")
            more = None
            with anyio.move_on_after(0.1):  # to look whether the guest is there
                await anyio.wait_readable(stream)
                more = stream.recv(_EARLY_BYTES)
                held = held[-len(mark) :] + more
            if more == b"":
                await self._let_end_be_heard()
                raise self._guest.end("the guest is gone")
        return held.partition(mark)[2]

    async def _let_end_be_heard(self) -> None:
        """Leave it to who listens to the guest to say why it is gone."""
        for _ in range(_LOOKS):
            if self._guest.over:
                return
            await anyio.sleep(_LOOK_SECONDS)

    # ---- what the guest says

    async def _take_marked(self, frame: Frame) -> None:
        self._marked.set()

    async def _take_copying(self, frame: Frame) -> None:
        self._process.let_copy()

    async def _take_state(self, frame: Frame) -> None:
        rest = memoryview(frame.body)
        while rest and self._relay is not None:
            try:
                rest = rest[self._relay.send(rest) :]
            except BlockingIOError:
                await anyio.wait_writable(self._relay)
            except OSError:
                return  # nobody writes it down any more, which its keeper has said

    # ---- what the keeper says

    def _take_report(self, report: dict[str, Any]) -> None:
        """Keep for the guest what it can make use of: which large values need not be told again."""
        if "closed" in report:
            self._is_news.set()
        elif "again" in report:
            self._tell({"number": report["again"], "digest": "", "hashed": [], "blobs": []})
            self._news.append(Frame("keep", {"number": report["again"]}))
        elif "blobs" in report and (report["hashed"] or report["blobs"] != self._blobs):
            told = {key: report[key] for key in ("digest", "hashed", "blobs")}
            self._tell({"number": report["kept"], **told})

    def has(self, blobs: list[str]) -> None:
        """Tell the guest that these large values are written already."""
        self._tell({"number": 0, "digest": "", "hashed": [], "blobs": blobs})

    def _tell(self, message: dict[str, Any]) -> None:
        self._blobs = message["blobs"]
        self._news.append(Frame("kept", {}, json.dumps(message).encode()))
        self._is_news.set()

    async def pass_on_news(self) -> None:
        """Pass on to the guest what there is to say, unless it rests; then it is told before its next step."""
        while not self._guest.over:
            await self._is_news.wait()
            self._is_news = anyio.Event()
            try:
                if self.keeping.over:
                    await self._go_on()
                if not self._guest.paused:
                    await self.pass_on()
            except SessionEnded:
                return

    async def pass_on(self) -> None:
        """Pass on what there is to say."""
        while self._news:
            await self._guest.send(self._news.pop(0))
