"""Does what one-line requests say, so that a test can see a sandbox from within."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable
from typing import Any


def main(channel: Any) -> None:
    """Answer requests, one JSON text a line, until the other end is gone."""
    pending: bytes = b""
    while True:
        try:
            data: bytes = channel.receive(65536)
        except KeyboardInterrupt:
            channel.send(b'"interrupted"\n')
            continue
        if not data:
            return
        *lines, pending = (pending + bytes(data)).split(b"\n")
        for line in lines:
            _answer(channel, json.loads(line))


def exit_code_of_a_fork() -> int:
    """Return 77 if this process may not fork."""
    try:
        return 0 if os.fork() else 1
    except PermissionError:
        return 77


def _aside(channel: Any, request: dict[str, Any]) -> None:
    channel.side.send(request["text"].encode())


def fail(channel: Any) -> None:
    """Do not come up."""
    raise RuntimeError("this program never comes up")


def _answer(channel: Any, request: dict[str, Any]) -> None:
    result: Any
    try:
        result = _DO[request["do"]](channel, request)
    except KeyboardInterrupt:
        result = "interrupted"
    channel.send(json.dumps(result).encode() + b"\n")


def _spin(channel: Any, request: dict[str, Any]) -> None:
    channel.send(b'"spinning"\n')
    while True:
        pass


def _evaluate(channel: Any, request: dict[str, Any]) -> str:
    try:
        return repr(eval(request["code"]))
    except Exception as problem:
        return f"{type(problem).__name__}: {problem}"


def _end(channel: Any, request: dict[str, Any]) -> None:
    sys.exit(request["code"]) if request.get("softly") else os._exit(request["code"])


_DO: dict[str, Callable[[Any, dict[str, Any]], Any]] = {
    "aside": _aside,
    "echo": lambda channel, request: request["text"],
    "repeat": lambda channel, request: "x" * request["size"],
    "spin": _spin,
    "evaluate": _evaluate,
    "end": _end,
}
