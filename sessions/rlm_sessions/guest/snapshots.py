"""Snapshots of a session's variables, as a stream of bytes for the host to keep.

All variables go into one pickle, so that what is shared stays shared, each after the other, so that of a damaged one
the beginning can be read. Large values lie beside it under their hashes and are sent once. What cannot be kept is left
out and named with its reason.

A snapshot is made in one of two ways. *In place*: in the living guest, at once or not at all, and without a trace in
the session. *In a copy*: in a fork of the guest, which has time, and may run what the session's own classes define.
"""

from __future__ import annotations

import hashlib
import sys
import time
from collections.abc import Iterator
from typing import Any, Callable, NamedTuple

from . import states, variables
from ._pickling import Facts, NeedsCopy, Pickler, QuickPickler
from ._rebuilding import versions_of
from ._reductions import MAGIC
from ._unkeepable import reason_for

LARGE = 64 * 1024
MOST_IN_PLACE_BYTES = 64 * 1024
MOST_GATHERED_BYTES = 16 * 1024 * 1024
MOST_ITEMS = 10_000
MOST_ITEMS_IN_ALL = 50_000
_CHARACTERS = 1_000_000
_MAX_TRIES = 5

Send = Callable[[bytes], None]


class Known(NamedTuple):
    """A large value that cannot change, the number under which the host tells of it, and what it tells."""

    value: Any
    token: int
    hash: str | None = None
    size: int | None = None


class Snapshots:
    """Makes the snapshots of one session."""

    def __init__(self, namespace: dict[str, Any], builtins: dict[str, Any], mode: str) -> None:
        self._namespace = namespace
        self._builtins = builtins
        self._mode = mode
        self.known: set[str] = set()
        self._large: dict[int, Known] = {}
        self._recalled: dict[int, tuple[Any, str]] = {}
        self._tokens = 0
        self._bad: set[str] = set()
        self._number = -1
        self._last: bytes | None = None

    # ---- what the host tells

    def kept(self, message: dict[str, Any]) -> None:
        """Take note of what the host has written down: from now on that need not be sent again."""
        self.known = set(message["blobs"])
        hashed = {token: facts for token, *facts in message["hashed"]}
        for key, known in self._large.items():
            if known.token in hashed:
                self._large[key] = Known(known.value, known.token, *hashed[known.token])
        if message["number"] == self._number:
            self._last = bytes.fromhex(message["digest"])

    def recall(self, value: Any, hash: str) -> None:
        """Remember the hash of a large value that was just restored, until the next scan has looked for it."""
        self._recalled[id(value)] = (value, hash)

    # ---- large values that cannot change

    def scan(self) -> None:
        """Look which large texts and bytes there are now. None that is gone is held any longer."""
        found: dict[int, Known] = {}
        for value in self._find_large():
            found[id(value)] = self._large.get(id(value)) or self._new(value)
        self._large = found
        self._recalled = {}

    def _new(self, value: Any) -> Known:
        self._tokens += 1
        recalled = self._recalled.get(id(value))
        return Known(value, self._tokens, None if recalled is None else recalled[1])

    def _find_large(self) -> Iterator[Any]:
        least, left = LARGE, MOST_ITEMS_IN_ALL
        for value in list(self._namespace.values()):
            kind = type(value)
            if kind is str or kind is bytes:
                if len(value) >= least:
                    yield value
            elif (kind is list or kind is tuple or kind is dict) and len(value) <= min(MOST_ITEMS, left):
                left -= len(value)
                items = list(value.values()) if kind is dict else value
                yield from [item for item in items if type(item) in _FIXED and len(item) >= least]

    # ---- making a snapshot

    def copying(self, number: int) -> None:
        """Get ready for a copy that will dump the snapshot `number`; called in the living guest, before each."""
        self._number, self._last = number, None
        self.scan()

    def dump(self, number: int, send: Send, *, deadline: float | None = None) -> bool:
        """Send a snapshot and return whether there is one.

        With a `deadline`, a time of `time.monotonic`, this is done in place: if it cannot be, nothing is sent, and a
        copy has to do it.
        """
        self._number = number
        if deadline is None:
            return self._dump_in_copy(number, send)
        last, self._last = self._last, None
        try:
            record, digest = self._made_in_place(number, deadline, last)
        except BaseException:  # whatever it is, it may go better in a copy
            return False
        send(record)
        self._last = digest
        return True

    def _made_in_place(self, number: int, deadline: float, last: bytes | None) -> tuple[bytes, bytes]:
        self.scan()
        if time.monotonic() > deadline:
            raise NeedsCopy
        blobs = _Blobs(self._large, self.known, None)
        sink = _Gathered(MOST_IN_PLACE_BYTES, strict=True)

        def make(target: Any, blobs: Any) -> Pickler:
            return QuickPickler(target, self._facts(), blobs, LARGE, deadline)

        taken = self._take(make, sink, blobs, in_place=True)
        manifest = states.manifest_bytes(self._manifest(taken, blobs))
        digest = hashlib.sha256(sink.content())
        digest.update(manifest)
        if digest.digest() == last:
            return states.same(number, digest.digest()), digest.digest()
        parts = [states.begin(number), *map(states.pickle_piece, sink.pieces())]
        parts += [states.manifest(manifest), states.end(digest.digest())]
        return b"".join(parts), digest.digest()

    def _dump_in_copy(self, number: int, send: Send) -> bool:
        self._last = None
        send(states.begin(number))
        try:
            self._send_rest(_told_apart(send))
        except _NotSent as problem:
            raise problem.args[0] from None
        except BaseException as problem:  # the session's own code has run, and may have done anything
            send(states.given_up(number, reason_for(problem, None)))
            return False
        return True

    def _send_rest(self, send: Send) -> None:
        def make(target: Any, blobs: Any) -> Pickler:
            return Pickler(target, self._facts(), blobs, LARGE)

        blobs = _Blobs(self._large, self.known, send)
        gathered = _Gathered(MOST_GATHERED_BYTES, strict=False)
        taken = self._take(make, gathered, blobs, in_place=False)
        sink = _Sent(send)
        if gathered.overflowed:  # now it is known what can be kept, so that nothing of it need be taken back
            blobs = blobs.again()
            pickler = make(sink, blobs)
            for item in taken.good.items():
                pickler.dump(item)
        else:
            for piece in gathered.pieces():
                sink.write(piece)
        sink.flush()
        manifest = states.manifest_bytes(self._manifest(taken, blobs))
        sink.digest.update(manifest)
        send(states.manifest(manifest))
        send(states.end(sink.digest.digest()))

    def _facts(self) -> Facts:
        return Facts(self._namespace, self._builtins, self._mode)

    def _variables(self) -> dict[str, Any]:
        return {
            name: value
            for name, value in self._namespace.copy().items()
            if type(name) is str and not (name.startswith("__") and name.endswith("__"))
        }

    # ---- what can be kept

    def _take(self, make: Any, sink: Any, blobs: _Blobs, *, in_place: bool) -> _Taken:
        """Pickle all variables that can be, into `sink`, and find out which cannot."""
        good = self._variables()
        lost: dict[str, list[str]] = {}

        def leave_out(name: str, problem: BaseException) -> None:
            if isinstance(problem, _NotSent):
                raise problem
            value = good.pop(name)
            if isinstance(problem, NeedsCopy) or (in_place and not _is_certain(problem)):
                raise NeedsCopy
            lost[name] = [name, variables.type_name(value), reason_for(problem, value)]

        def try_alone(name: str) -> None:
            try:
                make(_Nowhere(), _NoBlobs()).dump(good[name])
            except BaseException as problem:
                leave_out(name, problem)

        for name in [name for name in good if name in self._bad]:
            try_alone(name)
        for _ in range(_MAX_TRIES):
            sink.clear()
            blobs.clear()
            pickler = make(sink, blobs)
            for name, value in good.items():
                try:
                    pickler.dump((name, value))
                except BaseException as problem:
                    failed = name, problem.with_traceback(None)  # which would hold all values for a while
                    break
            else:
                self._bad = set(lost)
                return _Taken(good, [lost[name] for name in lost if name != "_"], pickler.facts.packages)
            later = list(good)[list(good).index(failed[0]) + 1 :]
            leave_out(*failed)
            for name in later:
                try_alone(name)
        raise RuntimeError("what can be kept changes from moment to moment")

    def _manifest(self, taken: _Taken, blobs: _Blobs) -> dict[str, Any]:
        return {
            "format": states.FORMAT,
            "python": ".".join(map(str, sys.version_info[:3])),
            "magic": MAGIC,
            "versions": versions_of(taken.packages),
            "names": list(taken.good),
            "lost": taken.lost,
            "blobs": [list(blob) for blob in blobs.blobs],
            "hashed": blobs.hashed(),
        }


_FIXED = (str, bytes)


class _Taken(NamedTuple):
    """The variables that can be kept, what is told of the others, and the packages that they come from."""

    good: dict[str, Any]
    lost: list[list[str]]
    packages: Any


class _NotSent(BaseException):
    """What takes the snapshot is gone; no variable is to blame."""


def _told_apart(send: Send) -> Send:
    def send_or_tell(data: bytes) -> None:
        try:
            send(data)
        except BaseException as problem:
            raise _NotSent(problem) from problem

    return send_or_tell


def _is_certain(problem: BaseException) -> bool:
    """Return whether a copy would fail with a variable in the same way."""
    return type(problem).__name__ == "Unkeepable" or type(problem) is RecursionError


# ---- where the bytes of the pickle go


class _Nowhere:
    """Takes the pickle of what is only tried."""

    def write(self, data: Any) -> int:
        return len(data)


class _Gathered:
    """Holds a pickle up to a limit; beyond it, either nothing more or nothing at all."""

    def __init__(self, limit: int, *, strict: bool) -> None:
        self._limit = limit
        self._strict = strict
        self.clear()

    def clear(self) -> None:
        self._parts: list[bytes] = []
        self._size = 0
        self.overflowed = False

    def write(self, data: Any) -> int:
        self._size += len(data)
        if self._size > self._limit:
            if self._strict:
                raise NeedsCopy
            self.overflowed = True
            self._parts.clear()
        if not self.overflowed:
            self._parts.append(bytes(data))
        return len(data)

    def content(self) -> bytes:
        return b"".join(self._parts)

    def pieces(self) -> Iterator[memoryview]:
        content = memoryview(self.content())
        step = states.MAX_PIECE_BYTES
        return (content[start : start + step] for start in range(0, len(content), step))


class _Sent:
    """Sends a pickle in pieces as it comes."""

    def __init__(self, send: Send) -> None:
        self._send = send
        self._held = bytearray()
        self.digest = hashlib.sha256()

    def write(self, data: Any) -> int:
        self.digest.update(data)
        for piece in _pieces_of(memoryview(data)):
            if len(self._held) + len(piece) > states.MAX_PIECE_BYTES:
                self.flush()
            self._held += piece
        return len(data)

    def flush(self) -> None:
        if self._held:
            self._send(states.pickle_piece(self._held))
            self._held = bytearray()


# ---- large values beside the pickle


class _Blobs:
    """The large values of one snapshot; the pickle has their numbers. Without `send`, only known ones are taken."""

    def __init__(self, large: dict[int, Known], known: set[str], send: Send | None) -> None:
        self._large = large
        self._there = set(known)
        self._send = send
        self._hashes: dict[int, tuple[Any, str, int]] = {}
        self.clear()

    def clear(self) -> None:
        self.blobs: list[tuple[str, str, int]] = []
        self._numbers: dict[int, tuple[Any, int]] = {}

    def again(self) -> _Blobs:
        """Return an empty table that knows the hashes of this one."""
        self.clear()
        return self

    def take(self, value: Any) -> int:
        """Return the number of a text or of bytes."""
        number = self._numbers.get(id(value))
        if number is None:
            hash, size = self._stored(value)
            number = self._numbers[id(value)] = value, len(self.blobs)
            self.blobs.append((type(value).__name__, hash, size))
        return number[1]

    def take_buffer(self, buffer: Any) -> bool:
        """Return whether a buffer is to be in the pickle itself."""
        with buffer.raw() as view:
            if view.nbytes < LARGE:
                return True
            if self._send is None:
                raise NeedsCopy
            hash, size = self._store(lambda: _pieces_of(view))
            self.blobs.append(("readonly" if view.readonly else "buffer", hash, size))
        return False

    def hashed(self) -> list[list[Any]]:
        """Return the tokens of large values with the hashes and sizes that need not be found out again."""
        found: list[list[Any]] = []
        for key, known in self._large.items():
            if key in self._hashes:
                found.append([known.token, *self._hashes[key][1:]])
            elif known.hash is not None:
                found.append([known.token, known.hash, known.size])
        return found

    def _stored(self, value: Any) -> tuple[str, int]:
        """Return hash and size of a value after seeing to it that the host has it."""
        hashed = self._hashes.get(id(value))
        if hashed is not None:
            return hashed[1], hashed[2]
        known = self._large.get(id(value))
        if known is not None and known.hash in self._there:
            size = _size_of(value) if known.size is None else known.size
            self._hashes[id(value)] = value, str(known.hash), size
            return str(known.hash), size
        if self._send is None:
            raise NeedsCopy
        hash, size = self._store(lambda: _pieces_of_value(value))
        self._hashes[id(value)] = value, hash, size
        return hash, size

    def _store(self, read: Callable[[], Iterator[Any]]) -> tuple[str, int]:
        assert self._send is not None
        digest, size = hashlib.sha256(), 0
        for piece in read():
            digest.update(piece)
            size += len(piece)
        hash = digest.hexdigest()
        if hash not in self._there:
            self._there.add(hash)
            self._send(states.blob_start(hash, size))
            for piece in read():
                self._send(states.data_piece(piece))
        return hash, size


class _NoBlobs:
    """Takes the place of `_Blobs` where a pickle goes nowhere."""

    def take(self, value: Any) -> int:
        return 0

    def take_buffer(self, buffer: Any) -> bool:
        return False


def _pieces_of(view: memoryview) -> Iterator[memoryview]:
    step = states.MAX_PIECE_BYTES
    return (view[start : start + step] for start in range(0, len(view), step))


def _pieces_of_value(value: Any) -> Iterator[Any]:
    if type(value) is not str:
        yield from _pieces_of(memoryview(value))
        return
    for start in range(0, len(value), _CHARACTERS):
        yield from _pieces_of(memoryview(value[start : start + _CHARACTERS].encode("utf-8", "surrogatepass")))


def _size_of(value: Any) -> int:
    if type(value) is not str or value.isascii():
        return len(value)
    parts = (value[start : start + _CHARACTERS] for start in range(0, len(value), _CHARACTERS))
    return sum(len(part.encode("utf-8", "surrogatepass")) for part in parts)
