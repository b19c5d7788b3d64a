"""The guest's two threads: the main one does what the host sends, the other reads it meanwhile.

An idle main thread reads by itself, because handing a frame from thread to thread takes longer
than many a cell. Once it is busy for more than a moment, or waits for an answer, the reader
stands in: it answers at once what may not wait for a running cell (the answers to its calls, the
list of variables) and passes everything else on, in order. Who reads holds the lock `_reading`.
"""

from __future__ import annotations

import json
import os
import queue
import signal
import sys
import threading
import time
from typing import Any, Callable, NoReturn

from . import errors, policy, restoring, variables, wire
from .calls import CallFailed, Calls
from .inbox import open_inbox
from .interrupts import Interrupts
from .keeping import TICK_MILLISECONDS, Keeping
from .outlet import NoInput, Outlet, Printed
from .repl import Repl
from .snapshots import Snapshots
from .wire import Frame

_FLUSH_MILLISECONDS = 50
_MOMENT_SECONDS = 0.005
_EXIT_BROKEN_WIRE = 65
_LEAVE_SECONDS = 30

_Told = tuple[bytes, dict[str, Any]]  # the body and the facts of a reply
_STEPS = ("run", "set", "load", "delete")


def main(channel: Any) -> None:
    """Serve the host at the other end of `channel` until it is gone."""
    token = _receive_exactly(channel, wire.TOKEN_BYTES)
    guest = _Guest(channel, token)
    guest.begin()
    threading.Thread(target=guest.read, name="reader", daemon=True).start()
    guest.work()


def _receive_exactly(channel: Any, size: int) -> bytes:
    data = b""
    while len(data) < size:
        more = channel.receive(size - len(data))
        if not more:
            os._exit(0)
        data += more
    return data


class _Guest:
    def __init__(self, channel: Any, token: bytes) -> None:
        self._channel = channel
        self._decoder = wire.Decoder(token)
        self._interrupts = Interrupts()
        self._outlet = Outlet(channel.send, token, self._interrupts)
        self._calls = Calls(self._outlet, self._hurry)
        self._work: queue.SimpleQueue[Frame | None] = queue.SimpleQueue()
        self._reading = threading.Lock()
        self._nudges: queue.SimpleQueue[None] = queue.SimpleQueue()
        self._begun = 0
        self._resting = False
        self._repl: Repl | None = None
        self._keeping: Keeping | None = None
        self._blobs: dict[str, bytearray] = {}
        self._main = threading.get_ident()
        self._stepping = False
        self._gone = False
        self._inbox = open_inbox(channel, _catch_standard_descriptors())
        self._running = False

    def begin(self) -> None:
        """Become what the host's first frame says."""
        self._set_up(self._next())

    def _set_up(self, frame: Frame) -> None:
        self._interrupts.install()
        mode = frame.facts["policy"]
        missing = "" if mode == "off" else policy.unavailable_because() or ""
        if missing:
            mode = "off"
        policy.open_doors(network=frame.facts["network"], processes=frame.facts["processes"])
        os.environ.update(frame.facts["environment"])
        sys.stdin = NoInput()
        sys.stdout = sys.__stdout__ = Printed(self._outlet, "out")  # type: ignore[misc, assignment]
        sys.stderr = sys.__stderr__ = Printed(self._outlet, "err")  # type: ignore[misc, assignment]
        sys.argv = [""]
        _reseed()
        tools = json.loads(frame.body) if frame.body else []
        self._repl = Repl(self._outlet, self._calls, self._interrupts, mode, tools)
        if frame.facts["keeps"]:
            snapshots = Snapshots(self._repl.namespace, self._repl.builtins, mode)
            self._keeping = Keeping(snapshots, self._channel, self._outlet)
        version = list(sys.version_info[:3])
        self._outlet.frame("ready", python=version, policy=mode, policy_missing=missing)

    # ---- the reader thread

    def read(self) -> NoReturn:
        """Read in place of the main thread whenever that is busy for longer, for ever."""
        while True:
            begun = self._begun
            self._wait_for_nudge()
            if self._reading.acquire(blocking=False):
                self._stand_in()
            elif begun == self._begun:
                self._flush()
                self._rest(begun)

    def _wait_for_nudge(self) -> None:
        try:
            self._nudges.get(timeout=_MOMENT_SECONDS)
        except queue.Empty:
            pass

    def _rest(self, begun: int) -> None:
        """Wait until the main thread has something to do again."""
        self._resting = True
        if begun == self._begun:  # else it may not have seen that a nudge is needed
            self._nudges.get()
        self._resting = False

    def _hurry(self) -> None:
        """Have somebody read at once, and not only in a moment."""
        if (
            not self._reading.locked() and self._nudges.qsize() <= self._resting
        ):  # one ends its rest, and no more
            self._nudges.put(None)

    def _stand_in(self) -> None:
        """Read until there is work for the main thread, which then reads by itself when it is done."""
        try:
            self._take_turn()
            while self._work.empty():
                self._take_turn()
        finally:
            self._reading.release()
            self._work.put(None)  # where it waits for work, let it see that nobody reads

    # ---- what both do

    def _take_turn(self) -> None:
        """Take in what comes next: from the host, or printed past Python."""
        for data in self._inbox.wait(self._patience()):
            if data is None:
                self._pass_on_printed()
            else:
                self._take_in(data)
        self._flush()

    def _patience(self) -> int | None:
        """Return how many milliseconds may pass before there is something to do, should nothing come."""
        if self._running:
            return _FLUSH_MILLISECONDS
        return TICK_MILLISECONDS if self._keeping is not None and self._keeping.busy else None

    def _take_in(self, data: bytes) -> None:
        if not data:
            self._leave()
        try:
            for frame in self._decoder.feed(data):
                self._dispatch(frame)
        except wire.WireError:
            os._exit(_EXIT_BROKEN_WIRE)

    def _leave(self) -> NoReturn:
        """End, because the host is gone; but have told before what the host was told of.

        A step that is under way is given up: nobody will ever hear that it ended.
        """
        self._gone = True
        if self._keeping is None:
            os._exit(0)
        if threading.get_ident() == self._main:
            self._finish()
        if self._stepping:
            self._give_up_step()
        self._keeping.ask_for_time()
        self._work.put(Frame("leave", {}))
        time.sleep(_LEAVE_SECONDS)
        os._exit(0)

    def _give_up_step(self) -> NoReturn:
        try:
            if hasattr(signal, "pthread_kill") and threading.get_ident() != self._main:
                signal.pthread_kill(self._main, signal.SIGINT)
            if self._keeping is not None:
                self._keeping.wait_for_copy()
        finally:
            os._exit(0)

    def _finish(self) -> NoReturn:
        try:
            if self._keeping is not None:
                self._keeping.finish()
        finally:
            os._exit(0)

    def _do_leave(self, frame: Frame) -> NoReturn:
        self._finish()

    def _dispatch(self, frame: Frame) -> None:
        if frame.kind == "answer":
            self._calls.answer(frame.facts["call"], frame.facts.get("problem", ""), frame.body)
        elif frame.kind == "variables" and self._repl is not None:
            listed = json.dumps(variables.describe_all(self._repl.namespace)).encode()
            self._outlet.frame("reply", listed, id=frame.facts["id"])
        else:
            self._running = self._running or frame.kind == "run"
            self._work.put(frame)

    def _pass_on_printed(self) -> None:
        data = self._inbox.printed()
        try:
            self._outlet.write("out", data.decode("utf-8", "backslashreplace"))
        except BaseException:
            pass  # over the limit: what comes this way is dropped, the pipe stays empty

    def _flush(self) -> None:
        try:
            self._outlet.flush()
        except OSError:
            os._exit(0)

    # ---- the main thread

    def work(self) -> NoReturn:
        """Do what the host asks, one thing after the other, for ever."""
        while True:
            frame = self._next()
            self._begun += 1
            if self._keeping is not None and frame.kind in _STEPS:
                self._keeping.settle()
            self._stepping = frame.kind in _STEPS
            if self._gone:
                self._finish()
            if self._resting:
                self._nudges.put(None)
            handler: Callable[[Frame], None] = getattr(self, "_do_" + frame.kind)
            try:
                handler(frame)
            except OSError:  # the host is gone, and never heard the answer
                self._give_up_step()
            if self._keeping is not None and frame.kind in _STEPS:
                self._keeping.after(frame.facts["cell" if frame.kind == "run" else "id"])

    def _next(self) -> Frame:
        while True:
            if self._work.empty() and self._reading.acquire(blocking=False):
                while self._work.empty():
                    self._take_turn()
                    self._tick()
                self._reading.release()
            frame = self._get_work()
            if frame is not None:
                return frame

    def _get_work(self) -> Frame | None:
        if self._keeping is None or not self._keeping.busy:
            return self._work.get()
        try:
            return self._work.get(timeout=TICK_MILLISECONDS / 1000)
        except queue.Empty:
            self._tick()
            return None

    def _tick(self) -> None:
        if self._keeping is not None and self._keeping.busy:
            self._keeping.tick()

    def _do_run(self, frame: Frame) -> None:
        assert self._repl is not None
        cell = frame.facts["cell"]
        self._calls.cell = cell
        self._outlet.begin_cell(cell, frame.facts["output_bytes"])
        code = frame.body.decode("utf-8", "surrogatepass")
        ran = self._repl.run(cell, code, is_answered=frame.facts.get("answered", False))
        self._calls.forget()
        self._pass_on_printed()
        self._before_answer()
        self._running = False
        self._outlet.frame("ran", json.dumps(ran._asdict()).encode(), cell=cell)

    def _before_answer(self) -> None:
        if self._keeping is not None and self._stepping:
            self._keeping.before_answer()
        self._stepping = False  # from here on, what it did must not be lost

    def _do_get(self, frame: Frame) -> None:
        def get(namespace: dict[str, Any]) -> _Told:
            exported = variables.export(namespace[frame.facts["name"]], frame.facts["max_bytes"])
            return exported.body, {"form": exported.form}

        self._on_namespace(frame, get)

    def _do_set(self, frame: Frame) -> None:
        def put(namespace: dict[str, Any]) -> _Told:
            namespace[frame.facts["name"]] = variables.take(frame.facts["form"], frame.body)
            return b"", {}

        self._on_namespace(frame, put)

    def _do_load(self, frame: Frame) -> None:
        def load(namespace: dict[str, Any]) -> _Told:
            facts = frame.facts
            before = namespace.get(facts["name"]) if facts["append"] else None
            value, files = variables.load(json.loads(frame.body), facts["form"], before, one=facts["one"])
            namespace[facts["name"]] = value
            for file in files:
                if self._keeping is not None and file.exact:
                    self._keeping.recall(file.content, file.digest)
            told = [[file.name, file.digest, len(file.content)] for file in files]
            return json.dumps(told).encode(), {"length": variables.length_of(value)}

        self._on_namespace(frame, load)

    def _do_delete(self, frame: Frame) -> None:
        def delete(namespace: dict[str, Any]) -> _Told:
            del namespace[frame.facts["name"]]
            return b"", {}

        self._on_namespace(frame, delete)

    def _do_kept(self, frame: Frame) -> None:
        if self._keeping is not None:
            self._keeping.kept(json.loads(frame.body))

    def _do_keep(self, frame: Frame) -> None:
        if self._keeping is not None:
            self._keeping.settle()
            self._keeping.after(frame.facts["number"])

    def _do_mark(self, frame: Frame) -> None:
        if self._keeping is not None:
            self._keeping.mark(frame.body)

    def _do_blob(self, frame: Frame) -> None:
        digest, start = frame.facts["hash"], frame.facts["start"]
        try:
            held = self._blobs.get(digest)
            if held is None:
                held = self._blobs[digest] = bytearray(frame.facts["size"])
            held[start : start + len(frame.body)] = frame.body
        except MemoryError:
            self._blobs[digest] = bytearray()

    def _do_restore(self, frame: Frame) -> None:
        assert self._repl is not None
        repl, blobs, self._blobs = self._repl, self._blobs, {}

        def restore(namespace: dict[str, Any]) -> _Told:
            manifest = json.loads(frame.body)
            pickled = blobs.pop("pickle", bytearray())
            whole = {digest: data for digest, data in blobs.items() if data}
            recall = None if self._keeping is None else self._keeping.recall
            told = restoring.restore(
                namespace, repl.builtins, repl.mode, manifest, pickled, whole, found_large=recall
            )
            return json.dumps(told._asdict()).encode(), {}

        self._on_namespace(frame, restore)

    def _on_namespace(self, frame: Frame, act: Callable[[dict[str, Any]], _Told]) -> None:
        """Do something with the variables, and tell the host in its own words why it cannot be done."""
        assert self._repl is not None
        try:
            with self._interrupts.let_in():
                body, facts = act(self._repl.namespace)
        except BaseException as problem:  # the values are the user's, and may do anything
            told = [errors.class_name(problem), errors.message_of(problem)[:1000]]
            body, facts = b"", {"problem": told}
        self._before_answer()
        self._outlet.frame("reply", body, id=frame.facts["id"], **facts)


def _catch_standard_descriptors() -> int:
    """Point descriptors 1 and 2 at a pipe and return its other end: for what is printed past Python."""
    reader, writer = os.pipe()
    for standard in (1, 2):
        os.dup2(writer, standard)
    os.close(writer)
    return reader


def _reseed() -> None:
    """Give libraries that were loaded before the fork random numbers of their own."""
    numpy_random = sys.modules.get("numpy.random")
    if numpy_random is not None:
        numpy_random.seed()


__all__ = ["CallFailed", "main"]
