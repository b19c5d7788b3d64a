"""The keeper: a process that writes snapshots down, so that they outlive the server that asked for them.

Each session has a thread here, which reads what its guest tells of itself. When the server
is gone, the keeper goes on until the guests have told all, a few seconds at most, and holds
the locks of their projects until then.

    server -> keeper   what to keep where, with the guest's stream and the lock, as descriptors
    keeper -> server   what was kept, or why not

It runs in a process of its own with nothing but the standard library.
"""

from __future__ import annotations

import base64
import json
import os
import signal
import socket
import struct
import sys
import threading
from pathlib import Path
from typing import Any

from ..guest import states
from .writing import StateWriter

ORDER_BYTES = 1 << 16
LENGTH = struct.Struct("!I")
_READ_BYTES = 1 << 20
_LINGER_SECONDS = 20.0


def main(orders_fd: int, reports_fd: int) -> None:
    """Serve the server at the other end of these two until it is gone."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)  # it ends when all is written, and not before
    os.umask(0o077)
    orders = socket.socket(fileno=orders_fd)
    reports = Reports(socket.socket(fileno=reports_fd))
    while True:
        data, descriptors, _, _ = socket.recv_fds(orders, ORDER_BYTES, 8, socket.MSG_CMSG_CLOEXEC)
        if not data:
            break
        take(json.loads(data), descriptors, reports)
    signal.alarm(int(_LINGER_SECONDS))
    for thread in threading.enumerate():
        if thread is not threading.current_thread():
            thread.join()


def take(order: dict[str, Any], descriptors: list[int], reports: Reports) -> None:
    """Carry out one order, in a thread."""
    does = keep if "folder" in order else tidy
    threading.Thread(target=does, args=(order, descriptors, reports), daemon=True).start()


class Reports:
    """Tells the server; from many threads, one message after the other."""

    def __init__(self, end: socket.socket) -> None:
        self._end = end
        self._lock = threading.Lock()

    def send(self, message: dict[str, Any]) -> None:
        """Send one message, if there is still somebody to hear it."""
        data = json.dumps(message).encode()
        try:
            with self._lock:
                self._end.sendall(LENGTH.pack(len(data)) + data)
        except OSError:
            pass


_writers: dict[int, StateWriter] = {}


def tidy(order: dict[str, Any], descriptors: list[int], reports: Reports) -> None:
    """Let a session take no more place than it needs, now that its last step is known to be answered for."""
    writer = _writers.get(order["id"])
    if writer is not None:
        writer.tidy(answered=True)


def keep(order: dict[str, Any], descriptors: list[int], reports: Reports) -> None:
    """Write down what one session tells, until it is over; then let go of its project."""
    stream = socket.socket(fileno=descriptors[0])
    stream.setblocking(True)
    try:
        with stream:
            problem = _follow(order, stream, reports)
    except Exception as raised:  # whatever it is, the server must hear that nothing is kept any more
        problem = f"{type(raised).__name__}: {raised}"
    finally:
        for descriptor in descriptors[1:]:
            os.close(descriptor)
    reports.send({"id": order["id"], "closed": problem})


def _follow(order: dict[str, Any], stream: socket.socket, reports: Reports) -> str:
    writer = StateWriter(Path(order["folder"]), most_bytes=order["most_bytes"], durable=order["durable"])
    _writers[order["id"]] = writer
    decoder = states.StateDecoder()
    try:
        data = base64.b64decode(order["early"]) or _receive(stream)
        while data:
            for record in decoder.feed(data):
                report = writer.take(record)
                if report is not None:
                    reports.send({"id": order["id"], **report})
            data = _receive(stream)
    except states.StateError as problem:
        return f"what its guest tells of itself makes no sense: {problem}"
    finally:
        del _writers[order["id"]]
        writer.close()
    return ""


def _receive(stream: socket.socket) -> bytes:
    try:
        return stream.recv(_READ_BYTES)
    except ConnectionError:
        return b""


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]))
