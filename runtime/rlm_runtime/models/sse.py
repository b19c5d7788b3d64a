"""Server-sent events, as far as models use them: the data of each event. No I/O."""

from __future__ import annotations


class Events:
    """The events of one stream. Give it bytes as they come; it gives the data of what is complete."""

    def __init__(self) -> None:
        self._begun: list[bytes] = []  # parts of a line whose end has not come yet
        self._data: list[str] = []

    def feed(self, chunk: bytes) -> list[str]:
        """Return the data of the events that this chunk completes."""
        if b"\n" not in chunk:
            self._begun.append(chunk)
            return []
        *lines, rest = b"".join([*self._begun, chunk]).split(b"\n")
        self._begun = [rest]
        return [data for line in lines for data in self._line(line.removesuffix(b"\r"))]

    def end(self) -> list[str]:
        """Return the data of an event that no empty line followed."""
        return self.feed(b"\n\n")

    def _line(self, line: bytes) -> list[str]:
        if line:
            name, _, value = line.partition(b":")
            if name == b"data":
                self._data.append(value.removeprefix(b" ").decode("utf-8", "replace"))
            return []
        whole, self._data = self._data, []
        return ["\n".join(whole)] if whole else []
