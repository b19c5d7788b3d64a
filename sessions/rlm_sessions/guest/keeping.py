"""Keeping what the session holds: after each step it is told to whoever writes it down.

Little is told at once, by the main thread between two steps. Much is told by a copy of this process, made in
a moment, while the main thread goes on. A step never begins before the state after the one before it is told,
or held by such a copy; and when the host is gone, what it has been answered for is told first.
"""

from __future__ import annotations

import gc
import os
import signal
import time
import warnings
from typing import Any, Callable, NoReturn

from .outlet import Outlet
from .snapshots import Snapshots

TICK_MILLISECONDS = 10
_AT_ONCE_SECONDS = 0.0015
_COPY_SECONDS = 110
_PATIENCE_SECONDS = 0.05
_MOST_REFUSALS = 20
_MOST_SKIPPED = 32

_fork: Any = getattr(os, "fork", None)
_WITHOUT_WAITING = getattr(os, "WNOHANG", 0)


class Keeping:
    """Tells the state after each step, by the second way out of `channel` or by frames."""

    def __init__(self, snapshots: Snapshots, channel: Any, outlet: Outlet) -> None:
        side = getattr(channel, "side", None)
        self._snapshots = snapshots
        self._outlet = outlet
        self._by_frames = side is None
        self._send: Callable[[bytes], None] = side.send if side is not None else self._send_frame
        self._copies = side is not None and bool(channel.copies) and _fork is not None
        self._ask_for_time: Callable[[], None] = getattr(channel, "ask_for_time", lambda: None)
        self._pending: int | None = None
        self._copy: int | None = None
        self._copied_at = 0.0
        self._copy_seconds = 0.0  # how long the last one took
        self._refusals = 0
        self._skip = 0
        self._skipped = 0

    def _send_frame(self, data: bytes) -> None:
        self._outlet.frame("state", data)

    @property
    def busy(self) -> bool:
        """Whether `tick` should be called again soon."""
        return self._pending is not None or self._copy is not None

    def after(self, number: int) -> None:
        """Keep the state after the step `number`, which is over."""
        self._pending = number
        if not self._tell_at_once():
            self.tick()

    def tick(self) -> None:
        """Do what can be done without waiting."""
        self._reap(_WITHOUT_WAITING)
        if self._pending is not None and self._copy is None:
            self._tell_by_copy()

    def settle(self) -> None:
        """Return only when the state as it is now is told, or held by a copy."""
        while self._pending is not None:
            self._reap(0)
            if not self._tell_by_copy():
                time.sleep(0.001)

    def before_answer(self) -> None:
        """Wait a moment for the state after the step before: should this process die, only one step is lost.

        Where the copy before took longer than that, this one will too, and there is no sense in waiting.
        """
        if self._copy_seconds > _PATIENCE_SECONDS:
            return
        deadline = time.monotonic() + _PATIENCE_SECONDS
        while self._copy is not None and time.monotonic() < deadline:
            time.sleep(0.0005)
            self._reap(_WITHOUT_WAITING)

    def finish(self) -> None:
        """The host is gone: tell what is not told yet, before this process ends."""
        self.ask_for_time()
        self._reap(0)
        if self._pending is not None:
            self._tell_here()

    def ask_for_time(self) -> None:
        """The host is gone: say so if something is not told yet."""
        if self.busy:
            self._ask_for_time()

    def wait_for_copy(self) -> None:
        """The host is gone, and the main thread is within a step: what it holds now is nothing to be kept."""
        if self._copy is not None:
            self._ask_for_time()
            self._reap(0)

    def recall(self, value: Any, digest: str) -> None:
        """Remember the hash of a large value that was brought back."""
        self._snapshots.recall(value, digest)

    def kept(self, message: dict[str, Any]) -> None:
        """Take in what is known to be written down."""
        self._snapshots.kept(message)
        if message.get("hashed"):
            self._skip = self._skipped = 0

    def mark(self, mark: bytes) -> None:
        """Mark a point between two snapshots, for somebody who has not heard what was told before."""
        self._reap(0)
        if self._by_frames:
            self._outlet.frame("marked")
        else:
            self._send(mark)

    # ---- the ways of telling

    def _tell_at_once(self) -> bool:
        """Tell a state that is small enough for it; return False if it is not."""
        assert self._pending is not None
        if self._copy is not None:
            return False  # its bytes are still under way
        if self._skip:
            self._skip -= 1
            return False
        if self._snapshots.dump(self._pending, self._send, deadline=time.monotonic() + _AT_ONCE_SECONDS):
            self._pending, self._skipped = None, 0
            return True
        self._skipped = min(_MOST_SKIPPED, 2 * self._skipped + 1)
        self._skip = self._skipped if self._copies else 0
        return False

    def _tell_by_copy(self) -> bool:
        """Tell by a copy, or by ourselves where there can be none; return False if it is to be tried again."""
        assert self._pending is not None
        if not self._copies or self._refusals >= _MOST_REFUSALS:
            self._tell_here()
            return True
        self._snapshots.copying(self._pending)
        try:
            self._outlet.frame("copying")
        except OSError:  # the host is gone, and nobody can let us
            self._tell_here()
            return True
        try:
            pid = self._make_copy()
        except OSError:  # the host did not let us, or not yet
            self._refusals += 1
            return False
        if pid == 0:
            self._be_the_copy()
        self._copy, self._pending, self._refusals = pid, None, 0
        self._copied_at = time.monotonic()
        return True

    def _make_copy(self) -> int:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # that there are other threads is known
            pid: int = _fork()
            return pid

    def _be_the_copy(self) -> NoReturn:
        status = 1
        try:
            gc.disable()
            signal.signal(signal.SIGALRM, signal.SIG_DFL)
            signal.signal(signal.SIGINT, signal.SIG_IGN)
            signal.alarm(_COPY_SECONDS)
            self._outlet.mute()
            self._ask_for_time()
            assert self._pending is not None
            self._snapshots.dump(self._pending, self._send)
            status = 0
        finally:
            os._exit(status)

    def _tell_here(self) -> None:
        assert self._pending is not None
        number, self._pending, self._refusals = self._pending, None, 0
        self._snapshots.copying(number)
        try:
            self._snapshots.dump(number, self._send)
        except OSError:
            pass  # nobody writes it down any more, which the host knows

    def _reap(self, flags: int) -> None:
        """Take note of the end of the copy."""
        if self._copy is None:
            return
        try:
            if os.waitpid(self._copy, flags)[0]:
                self._copy = None
                self._copy_seconds = time.monotonic() - self._copied_at
        except ChildProcessError:
            self._copy = None
        except KeyboardInterrupt:
            pass


__all__ = ["TICK_MILLISECONDS", "Keeping"]
