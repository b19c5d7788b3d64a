"""How a run is shown while it goes on: its events, and at a terminal a line that says where it stands."""

from __future__ import annotations

import shutil
import sys
import time
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from rlm_runtime import within

from .output import Out
from .trajectory_text import counted, dollars, line_of

if TYPE_CHECKING:
    from rlm_runtime import Event

_REFRESH_SECONDS = 0.2
_CLEAR = "\r\033[K"


@asynccontextmanager
async def shown(out: Out, *, verbose: bool) -> AsyncGenerator[Display]:
    """Show a run for as long as the context is open. The caller's block has to catch its own errors."""
    import anyio

    display = Display(out, verbose=verbose)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(display.refresh)
        try:
            yield display
        finally:
            tasks.cancel_scope.cancel()
            display.clear()


class Display:
    """Shows a run on stderr. The line is only there where somebody sees it."""

    def __init__(self, out: Out, *, verbose: bool) -> None:
        self._out = out
        self._verbose = verbose
        self._live = not out.quiet and out.is_terminal(sys.stderr)
        self._began = time.monotonic()
        self._begun = self._ended = self._tokens = self._depth = self._cells = 0
        self._cost = 0.0

    def hear(self, event: Event) -> None:
        """Take in an event."""
        self._count(event)
        if self._verbose:
            self.clear()
            self._out.talk(line_of(event, self._out))
        self._draw()

    def _count(self, event: Event) -> None:
        self._depth = max(self._depth, event["depth"])
        self._begun += event["kind"] == "call_started"
        self._cells += {"cell_started": 1, "cell_ended": -1}.get(event["kind"], 0)
        if event["kind"] == "call_ended":
            self._ended += 1
            self._tokens += sum(
                int(within(event, "token_usage", name) or 0) for name in ("input_tokens", "output_tokens")
            )
            self._cost += event.get("cost_usd") or 0.0

    async def refresh(self) -> None:
        """Keep the line as it should be."""
        import anyio

        while self._live:
            self._draw()
            await anyio.sleep(_REFRESH_SECONDS)

    def _draw(self) -> None:
        if self._live:
            width = shutil.get_terminal_size().columns - 1
            sys.stderr.write(f"{_CLEAR}{self._line()[:width]}")
            sys.stderr.flush()

    def clear(self) -> None:
        """Take the line away."""
        if self._live:
            sys.stderr.write(_CLEAR)
            sys.stderr.flush()

    def _line(self) -> str:
        at_work = self._begun - self._ended
        parts = [
            f"{time.monotonic() - self._began:.0f} s",
            counted(self._ended, "call"),
            f"{self._tokens:,} tokens",
        ]
        parts += [dollars(self._cost)] if self._cost else []
        parts += [f"depth {self._depth}"] if self._depth else []
        parts += [f"{at_work} at work"] if at_work else ["code runs"] if self._cells else []
        return " · ".join(parts)
