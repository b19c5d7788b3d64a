"""A client of an MCP server over pipes: lines of JSON and a clock, and the same for every server.

The clock of a request runs from the first byte of it that is written to the last byte of its answer that is
read, so making and reading JSON on this side is not counted.
"""

from __future__ import annotations

import json
import os
import select
import subprocess
import tempfile
import threading
import time
from collections import deque
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

Call = tuple[str, dict[str, Any]]
"""The name of a tool, and its arguments."""
Era = Literal["2025", "2026"]
"""The revision of the protocol: the last one with a handshake, or the first one without."""

_PATIENCE_SECONDS = 60.0
_PORTION = 1 << 20
_CLIENT = {"name": "bench", "version": "1"}
_HANDSHAKE = {"protocolVersion": "2025-11-25", "capabilities": {}, "clientInfo": _CLIENT}
_WITH_EACH = {
    "io.modelcontextprotocol/protocolVersion": "2026-07-28",
    "io.modelcontextprotocol/clientInfo": _CLIENT,
    "io.modelcontextprotocol/clientCapabilities": {},
}


class ServerFailed(Exception):
    """A server that is measured has ended, kept silent, or answered with an error."""

    def __init__(self, server: str, what: str, log: str = "") -> None:
        self.server = server
        super().__init__(f"{server}: {what}" + (f"\n{log}" if log else ""))


class Answer(NamedTuple):
    """What came back for a request, how long it was, and how long it took."""

    request: int
    result: dict[str, Any]
    size_bytes: int
    seconds: float


class Line(NamedTuple):
    """A line that a server wrote, and when its end was read."""

    text: bytes
    heard: float


class WireClient:
    """A server in a process of its own, and the pipes to it. `began` is when it was started in `folder`."""

    def __init__(
        self, name: str, command: Sequence[str], *, folder: Path, environment: Mapping[str, str]
    ) -> None:
        self.folder = folder
        self._name = name
        self._log = tempfile.TemporaryFile()  # noqa: SIM115 -- closed with the server
        self._with_each: dict[str, Any] = {}
        self._number = 0
        self._sent: dict[int, float] = {}
        self._early: dict[int, Answer] = {}
        self._parts: list[bytes] = []
        self._lines: deque[Line] = deque()
        self.began = time.perf_counter()
        self._process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._log,
            cwd=folder,
            env=environment,
            bufsize=0,
        )
        self.pid = self._process.pid

    # ---- asking

    def greet(self, era: Era = "2025") -> float:
        """Open the conversation; return how long after its start the server had answered."""
        if era == "2025":
            self.ask("initialize", _HANDSHAKE)
            seconds = time.perf_counter() - self.began
            self._write({"jsonrpc": "2.0", "method": "notifications/initialized"})
        else:
            self._with_each = {"_meta": _WITH_EACH}
            self.ask("server/discover")
            seconds = time.perf_counter() - self.began
        return seconds

    def ask(self, method: str, params: Mapping[str, Any] | None = None) -> Answer:
        """Send a request and wait for its answer."""
        return self.wait(self.send(method, params))

    def call(self, call: Call) -> Answer:
        """Call a tool, which must not fail, and wait for its answer."""
        return self.wait(self.send_call(call))

    def send(self, method: str, params: Mapping[str, Any] | None = None) -> int:
        """Send a request and return its number."""
        self._number += 1
        request = {"jsonrpc": "2.0", "id": self._number, "method": method}
        self._write(request | {"params": {**(params or {}), **self._with_each}}, number=self._number)
        return self._number

    def send_call(self, call: Call) -> int:
        """Send the call of a tool and return its number."""
        return self.send("tools/call", {"name": call[0], "arguments": call[1]})

    # ---- hearing

    def wait(self, request: int) -> Answer:
        """Return the answer to a request."""
        while request not in self._early:
            answer = self._next()
            self._early[answer.request] = answer
        return self._early.pop(request)

    def hear(self) -> Answer:
        """Return the next answer, whichever request it belongs to."""
        return self._early.pop(next(iter(self._early))) if self._early else self._next()

    def has(self, request: int) -> bool:
        """Tell whether the answer to a request has come already."""
        while self._lines or self._readable(0):
            if not self._lines:
                self._read()
            while self._lines:
                if answer := self._answer(self._lines.popleft()):
                    self._early[answer.request] = answer
        return request in self._early

    def _next(self) -> Answer:
        while True:
            while not self._lines:
                if not self._readable(_PATIENCE_SECONDS):
                    raise self._failed(f"it said nothing for {_PATIENCE_SECONDS:g} s")
                self._read()
            if answer := self._answer(self._lines.popleft()):
                return answer

    def _answer(self, line: Line) -> Answer | None:
        """Return the answer that a line is; None for a message that nobody asked for."""
        message = json.loads(line.text)
        if "id" not in message or "method" in message:
            return None
        seconds = line.heard - self._sent.pop(message["id"])
        return Answer(message["id"], self._well(message), len(line.text), seconds)

    def _well(self, message: dict[str, Any]) -> dict[str, Any]:
        result: dict[str, Any] = message.get("result", {})
        if "error" in message or result.get("isError"):
            raise self._failed(f"it answered with an error: {str(message)[:1000]}")
        return result

    # ---- bytes

    @property
    def _stdout(self) -> int:
        assert self._process.stdout is not None
        return self._process.stdout.fileno()

    def _write(self, message: dict[str, Any], *, number: int | None = None) -> None:
        assert self._process.stdin is not None
        data = memoryview(json.dumps(message).encode() + b"\n")
        if number is not None:
            self._sent[number] = time.perf_counter()
        try:
            while data:
                data = data[os.write(self._process.stdin.fileno(), data) :]
        except BrokenPipeError:
            raise self._failed("it reads no more") from None

    def _readable(self, seconds: float) -> bool:
        return bool(select.select([self._stdout], [], [], seconds)[0])

    def _read(self) -> None:
        """Read what there is, and keep the lines that end in it."""
        data = os.read(self._stdout, _PORTION)
        heard = time.perf_counter()
        if not data:
            raise self._failed("it has ended")
        first, *others = data.split(b"\n")
        self._parts.append(first)
        for other in others:
            self._lines.append(Line(b"".join(self._parts), heard))
            self._parts = [other]

    def _failed(self, what: str) -> ServerFailed:
        self._log.seek(0)
        return ServerFailed(self._name, what, self._log.read()[-2000:].decode(errors="replace"))

    # ---- the end

    def end(self) -> float:
        """Close the server's input; return how long after that it was gone."""
        assert self._process.stdin is not None
        began = time.perf_counter()
        self._process.stdin.close()
        killer = threading.Timer(_PATIENCE_SECONDS, self._process.kill)
        killer.start()
        self._process.wait()
        seconds = time.perf_counter() - began
        killer.cancel()
        return seconds

    def close(self) -> None:
        """End the server if it has not ended, and close the pipes to it."""
        for stream in (self._process.stdin, self._process.stdout):
            assert stream is not None
            stream.close()
        try:
            self._process.wait(timeout=5)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._log.close()
