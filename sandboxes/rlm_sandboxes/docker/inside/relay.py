"""The way of what the host sends to the program, which never holds an end of the host's own pipe."""

from __future__ import annotations

import os
import select

_READ_BYTES = 1 << 16


class Relay:
    """Passes on from the pipe `reader` to the pipe `writer`, and never waits for either."""

    def __init__(self, reader: int, writer: int) -> None:
        self._reader = reader
        self._writer = writer
        self._held = b""
        os.set_blocking(writer, False)

    def register(self, poll: select.poll) -> None:
        """Have `poll` wait for what there is to do. That the host is gone is always waited for."""
        poll.register(self._reader, 0 if self._held else select.POLLIN)
        if self._held:
            poll.register(self._writer, select.POLLOUT)

    def pass_on(self, happened: dict[int, int], poll: select.poll) -> bool:
        """Pass on what can be; return False, with the writer closed, when the host is gone."""
        events = happened.get(self._reader, 0)
        if events & ~select.POLLIN:
            self._pass_on_rest()
            return False
        if events or self._writer in happened:
            waited = bool(self._held)
            self._step()
            if waited:
                poll.unregister(self._writer)
            self.register(poll)
        return True

    def _step(self) -> bool:
        """Pass on one piece; return whether there may be more to do now."""
        piece = self._held or os.read(self._reader, _READ_BYTES)
        try:
            self._held = piece[os.write(self._writer, piece) :] if piece else b""
        except BlockingIOError:
            self._held = piece
        except BrokenPipeError:  # the program listens no more
            self._held = b""
        return bool(piece) and not self._held

    def _pass_on_rest(self) -> None:
        while self._step():
            pass
        os.close(self._writer)
