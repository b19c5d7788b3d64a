"""The whole output of a cell, kept as it comes in, while the answer shows a part of it."""

from __future__ import annotations

from dataclasses import replace

import anyio.to_thread

from .outputs import Outputs, OutputsFull, OutputWriter
from .results import Display
from .session import OnOutput

_FLUSH_CHARACTERS = 64 * 1024


class WholeOutput:
    """The whole output of a cell, of which the answer shows a part."""

    def __init__(self, outputs: Outputs, step: int, on_output: OnOutput | None) -> None:
        self.problems: list[str] = []
        self._outputs = outputs
        self._step = step
        self._writer: OutputWriter | None = outputs.begin(step)
        self._on_output = on_output
        self._held: list[str] = []
        self._size = 0

    async def take(self, stream: str, text: str) -> None:
        """Take in a piece, and pass it on."""
        self._held.append(text)
        self._size += len(text)
        if self._size >= _FLUSH_CHARACTERS:
            await self._flush()
        if self._on_output is not None:
            await self._on_output(stream, text)

    async def _flush(self) -> None:
        text, self._held, self._size = "".join(self._held), [], 0
        if self._writer is not None and text:
            try:
                await anyio.to_thread.run_sync(self._writer.write, text)
            except OutputsFull as problem:
                self.problems.append(str(problem))
                self._writer = None

    async def end(self, *, is_long: bool) -> str | None:
        """Keep the whole if the answer showed only a part; return its id."""
        if not is_long or self._writer is None:
            self.discard()
            return None
        await self._flush()
        return await self._keep()

    async def _keep(self) -> str | None:
        writer, self._writer = self._writer, None
        if writer is None:
            return None
        try:
            return await anyio.to_thread.run_sync(writer.keep)
        except OutputsFull as problem:
            self.problems.append(str(problem))
            return None

    async def keep_displays(self, displays: tuple[Display, ...]) -> tuple[Display, ...]:
        """Keep what there is to look at, and return it with the ids under which it stays readable."""
        if not displays:
            return displays
        return await anyio.to_thread.run_sync(self._keep_displays, displays)

    def _keep_displays(self, displays: tuple[Display, ...]) -> tuple[Display, ...]:
        kept = list(displays)
        try:
            for index, display in enumerate(kept):
                found = self._outputs.keep_image(self._step, display.mime, display.data)
                kept[index] = replace(display, id=found)
        except OutputsFull as problem:
            self.problems.append(str(problem))
        return tuple(kept)

    def discard(self) -> None:
        if self._writer is not None:
            self._writer.discard()
            self._writer = None
