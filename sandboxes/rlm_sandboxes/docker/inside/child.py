"""The program's process: loads the program, closes what there is to close, tells the host what holds, runs it.

    host -> child   one line, what to load          child -> host   one line, when it has been loaded
    host -> child   one line, the limits            child -> host   one line, the layers that were tried
    then            whatever the program and the host have to say to one another

Between the two the process can wait for as long as it takes: a warm container is one that does.
"""

from __future__ import annotations

import faulthandler
import importlib
import json
import os
import signal
import site
import socket
import sys
import traceback
from collections.abc import Callable
from typing import Any, NoReturn

from .channel import PipeChannel
from .filters import hand_over, install, prepare
from .tries import steps

EXIT_PROGRAM_FAILED = 70
_REQUEST_BYTES = 1 << 16
_CRASH_BYTES = 4000

Found = tuple[str, bool, str]


def main(gate: socket.socket) -> NoReturn:
    """Do what the host's two requests say, and end."""
    crashes, status = 2, EXIT_PROGRAM_FAILED
    try:
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # until there is something to interrupt
        reader, writer, crashes = _move_ends()
        faulthandler.enable(file=crashes)
        channel = PipeChannel(reader, writer, crashes)
        entry = _load(_request(channel))
        channel.send(json.dumps({"python": list(sys.version_info[:3])}).encode() + b"\n")
        request = _request(channel)
        channel.copies = _can_copy(request["limits"], gate)
        found = _close(request, gated=channel.copies)
        channel.send(json.dumps({"layers": found, "copies": channel.copies}).encode() + b"\n")
        signal.signal(signal.SIGINT, signal.default_int_handler)
        entry(channel)
        status = 0
    except SystemExit as end:
        status = end.code if isinstance(end.code, int) else 0 if end.code is None else 1
    except BaseException as problem:
        _tell(crashes, problem)
    finally:
        os._exit(status)


def _move_ends() -> tuple[int, int, int]:
    """Put the three pipes to the host away from the numbers that foreign code reads and prints to."""
    ends = os.dup(0), os.dup(1), os.dup(2)
    null = os.open(os.devnull, os.O_RDWR)
    for standard in (0, 1, 2):
        os.dup2(null, standard)
    os.close(null)
    return ends


def _request(channel: PipeChannel) -> dict[str, Any]:
    data = b""
    while not data.endswith(b"\n"):
        more = channel.receive(_REQUEST_BYTES)
        if not more:
            os._exit(0)
        data += more
    request: dict[str, Any] = json.loads(data)
    return request


def _load(request: dict[str, Any]) -> Callable[[Any], object]:
    """Load the program, with the image's own packages in reach."""
    os.environ.update(request["environment"])
    prepare(request["limits"])
    site.addsitepackages(site.venv(site.removeduppaths()) or set())
    for module in request["preload"]:
        importlib.import_module(module)
    module, function = request["entry"].split(":")
    entry: Callable[[Any], object] = getattr(importlib.import_module(module), function)
    return entry


def _can_copy(limits: dict[str, Any], gate: socket.socket) -> bool:
    """Have the guard asked about each copy of this process; return whether there can be any."""
    with gate:
        return bool(limits["processes"]) or hand_over(gate)


def _close(request: dict[str, Any], *, gated: bool) -> list[Found]:
    os.umask(0o077)
    os.chdir(request["folder"])
    layers = steps(request)
    layers["filter"] = lambda: install(request["limits"], gated=gated)
    found: list[Found] = []
    for name, step in layers.items():
        try:
            reason = step()
        except (OSError, ValueError, AttributeError) as problem:
            reason = str(problem) or type(problem).__name__
        found.append((name, not reason, reason))
    return found


def _tell(crashes: int, problem: BaseException) -> None:
    """Write down why this process ends where the host looks for it."""
    text = "".join(traceback.format_exception(type(problem), problem, problem.__traceback__))
    try:
        os.write(crashes, text[-_CRASH_BYTES:].encode("utf-8", "backslashreplace"))
    except OSError:
        pass  # the host is gone
