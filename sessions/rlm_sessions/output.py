"""What a cell printed, kept within bounds however much it is: its beginning and its end."""

from __future__ import annotations

from collections import deque


def shorten(text: str, *, keep: int) -> str:
    """Return `text` with its middle left out, so that about `keep` characters remain.

    Both ends stay, because a traceback says most at its end and a table at its start.
    """
    output = Output(keep)
    output.add(text)
    return output.text()


class Output:
    """Text that grows, of which about `keep` characters are held, half of them from each end."""

    def __init__(self, keep: int) -> None:
        self.characters = 0
        self._head_room = keep - keep // 2
        self._tail_room = keep // 2
        self._head: list[str] = []
        self._tail: deque[str] = deque()
        self._tail_size = 0

    def add(self, text: str) -> None:
        """Take in more text."""
        if not text:
            return
        self.characters += len(text)
        if self._head_room:
            self._head.append(text[: self._head_room])
            taken = len(self._head[-1])
            self._head_room -= taken
            text = text[taken:]
        if text:
            self._add_to_tail(text[-self._tail_room :] if self._tail_room else "")

    def _add_to_tail(self, text: str) -> None:
        self._tail.append(text)
        self._tail_size += len(text)
        while self._tail and self._tail_size - len(self._tail[0]) >= self._tail_room:
            self._tail_size -= len(self._tail.popleft())

    @property
    def left_out(self) -> int:
        """How many characters of the middle are not in `text()`."""
        return self.characters - sum(map(len, self._head)) - len(self._end())

    def _end(self) -> str:
        end = "".join(self._tail)
        return end[-self._tail_room :] if self._tail_room else ""

    def text(self) -> str:
        """Return what is held, with a line between that says how much was left out."""
        head, tail = "".join(self._head), self._end()
        if not self.left_out:
            return head + tail
        return f"{head}\n[... {self.left_out} characters left out ...]\n{tail}"
