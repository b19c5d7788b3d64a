"""The stream in which a guest sends its state: snapshots of its variables, as records that the host stores unread.

A record is a type, a length and that many bytes. This module does no I/O, imports only the standard library, and is
the only place that knows the format.

    begin                             a snapshot and its number
    (blob data*)*  pickle*            mixed freely: large values that the host does not have yet, and the rest
    manifest  end                     what it all is, and the SHA-256 of every pickle record and the manifest

Instead of all this, `same` says that nothing has changed since the last snapshot that was sent whole; and `given up`,
there or anywhere before the end, that there will be none. Every length is judged before anything of it is held.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Iterator
from typing import Any, Callable, NamedTuple, Union

FORMAT = 1
MAX_PIECE_BYTES = 1024 * 1024
MAX_MANIFEST_BYTES = 64 * 1024 * 1024
MAX_FACTS_BYTES = 64 * 1024
DIGEST_BYTES = 32

_HEAD = struct.Struct("!cQ")
_HEX = frozenset("0123456789abcdef")
_to_json = json.JSONEncoder(separators=(",", ":")).encode


class StateError(Exception):
    """What came in is no stream of snapshots; nothing that follows can be trusted."""


class Begin(NamedTuple):
    """A snapshot begins."""

    number: int


class BlobStart(NamedTuple):
    """A large value begins: its hash as the guest says it, and how many bytes of data follow."""

    hash: str
    size: int


class Data(NamedTuple):
    """A piece of the blob that was begun last."""

    data: bytes


class Pickle(NamedTuple):
    """A piece of the pickle."""

    data: bytes


class Manifest(NamedTuple):
    """What the snapshot is made of, also as the bytes that its digest covers."""

    facts: dict[str, Any]
    data: bytes


class End(NamedTuple):
    """The snapshot is whole if this is the SHA-256 of its pickle pieces and its manifest."""

    digest: bytes


class Same(NamedTuple):
    """Nothing has changed since the last snapshot that was sent whole, which had this digest."""

    number: int
    digest: bytes


class GivenUp(NamedTuple):
    """There is no snapshot of that number."""

    number: int
    reason: str


Record = Union[Begin, BlobStart, Data, Pickle, Manifest, End, Same, GivenUp]


def begin(number: int) -> bytes:
    """Return the record that begins a snapshot."""
    return _facts(b"B", {"format": FORMAT, "number": number})


def blob_start(hash: str, size: int) -> bytes:
    """Return the record that begins a blob."""
    return _facts(b"H", {"hash": hash, "size": size})


def data_piece(piece: Any) -> bytes:
    """Return the record for some of a blob's bytes."""
    return _piece(b"D", piece)


def pickle_piece(piece: Any) -> bytes:
    """Return the record for some of the pickle's bytes."""
    return _piece(b"P", piece)


def manifest_bytes(facts: dict[str, Any]) -> bytes:
    """Return a manifest as it is sent and as the digest covers it."""
    return _to_json(facts).encode()


def manifest(data: bytes) -> bytes:
    """Return the record for a manifest."""
    if len(data) > MAX_MANIFEST_BYTES:
        raise StateError(f"a manifest of {len(data)} bytes is too large to send")
    return _HEAD.pack(b"M", len(data)) + data


def end(digest: bytes) -> bytes:
    """Return the record that ends a snapshot."""
    return _HEAD.pack(b"E", len(digest)) + digest


def same(number: int, digest: bytes) -> bytes:
    """Return the record that takes the place of a snapshot equal to the last, which had this digest."""
    return _facts(b"S", {"number": number, "digest": digest.hex()})


def given_up(number: int, reason: str) -> bytes:
    """Return the record that says that there will be no snapshot."""
    return _facts(b"X", {"number": number, "reason": reason[:1000]})


def _facts(kind: bytes, facts: dict[str, Any]) -> bytes:
    data = _to_json(facts).encode()
    return _HEAD.pack(kind, len(data)) + data


def _piece(kind: bytes, piece: Any) -> bytes:
    if not 0 < len(piece) <= MAX_PIECE_BYTES:
        raise StateError(f"a piece of {len(piece)} bytes cannot be sent")
    return b"".join((_HEAD.pack(kind, len(piece)), piece))


class StateDecoder:
    """Turns bytes, cut anywhere, back into records, in an order in which they make sense.

    It holds at most one record that is not yet whole. After a `StateError` it raises the same again for ever.
    Whether the digests are right is for the caller to see.
    """

    def __init__(self) -> None:
        self._held = bytearray()
        self._broken: StateError | None = None
        self._allowed = _OUTSIDE
        self._blob_left = 0

    @property
    def between(self) -> bool:
        """Whether nothing is begun, so that the stream may well end here."""
        return self._broken is None and not self._held and self._allowed == _OUTSIDE

    def feed(self, data: bytes) -> Iterator[Record]:
        """Take in `data` and give the records that are whole now, one by one."""
        if self._broken is not None:
            raise self._broken
        rest = memoryview(data)
        try:
            while True:
                rest = self._hold(rest)
                record = self._next()
                if record is not None:
                    yield record
                elif not rest:
                    return
        except StateError as problem:
            self._broken = problem
            self._held.clear()
            raise

    def _hold(self, rest: memoryview) -> memoryview:
        """Take what the next record still lacks, first of its head and then of the rest, and return what is left."""
        taken = max(self._wanted() - len(self._held), 0)
        self._held += rest[:taken]
        return rest[taken:]

    def _wanted(self) -> int:
        if len(self._held) < _HEAD.size:
            return _HEAD.size
        kind, length = _HEAD.unpack_from(self._held)
        if kind not in self._allowed:
            raise StateError(f"a record of type {kind!r} came where none may be")
        if length > _LIMITS[kind]:
            raise StateError(f"a record of type {kind!r} and {length} bytes is larger than allowed")
        return int(_HEAD.size + length)

    def _next(self) -> Record | None:
        if len(self._held) < _HEAD.size or len(self._held) < self._wanted():
            return None
        kind = bytes(self._held[:1])
        with memoryview(self._held) as view:
            data = bytes(view[_HEAD.size :])
        self._held = bytearray()
        return self._accept(kind, _PARSERS[kind](data))

    def _accept(self, kind: bytes, record: Record) -> Record:
        """Note what may come next."""
        if isinstance(record, BlobStart):
            self._blob_left = record.size
        elif isinstance(record, Data):
            self._blob_left -= len(record.data)
            if self._blob_left < 0:
                raise StateError("a blob has more data than it said")
        self._allowed = _IN_BLOB if self._blob_left else _AFTER[kind]
        if kind == b"X":
            self._allowed, self._blob_left = _OUTSIDE, 0
        return record


_OUTSIDE = frozenset({b"B", b"S", b"X"})
_INSIDE = frozenset({b"H", b"P", b"M", b"X"})
_IN_BLOB = frozenset({b"D", b"X"})
_AFTER = {
    **dict.fromkeys((b"B", b"H", b"D", b"P"), _INSIDE),
    b"M": frozenset({b"E"}),
    **dict.fromkeys((b"E", b"S", b"X"), _OUTSIDE),
}
_LIMITS = {
    **dict.fromkeys((b"B", b"H", b"S", b"X"), MAX_FACTS_BYTES),
    **dict.fromkeys((b"D", b"P"), MAX_PIECE_BYTES),
    b"M": MAX_MANIFEST_BYTES,
    b"E": DIGEST_BYTES,
}


def _parse(data: bytes) -> dict[str, Any]:
    try:
        parsed = json.loads(data.decode())
    except (ValueError, RecursionError) as problem:
        raise StateError("a record that cannot be read came in") from problem
    if not isinstance(parsed, dict):
        raise StateError("a record without facts came in")
    found: dict[str, Any] = parsed
    return found


def _fact(facts: dict[str, Any], name: str, kind: type) -> Any:
    value = facts.get(name)
    if type(value) is not kind or (isinstance(value, int) and value < 0):
        raise StateError(f"a record without a proper {name} came in")
    return value


def _parse_begin(data: bytes) -> Begin:
    facts = _parse(data)
    if facts.get("format") != FORMAT:
        raise StateError(
            f"a snapshot in format {str(facts.get('format'))[:20]} came in, and {FORMAT} is known"
        )
    return Begin(_fact(facts, "number", int))


def _parse_blob_start(data: bytes) -> BlobStart:
    facts = _parse(data)
    hash: str = _fact(facts, "hash", str)
    if len(hash) != 2 * DIGEST_BYTES or not _HEX.issuperset(hash):
        raise StateError("a blob without a proper hash came in")
    return BlobStart(hash, _fact(facts, "size", int))


def _parse_same(data: bytes) -> Same:
    facts = _parse(data)
    digest = _fact(facts, "digest", str)
    if len(digest) != 2 * DIGEST_BYTES or not _HEX.issuperset(digest):
        raise StateError("a digest that is none came in")
    return Same(_fact(facts, "number", int), bytes.fromhex(digest))


def _parse_given_up(data: bytes) -> GivenUp:
    facts = _parse(data)
    return GivenUp(_fact(facts, "number", int), _fact(facts, "reason", str))


def _parse_end(data: bytes) -> End:
    if len(data) != DIGEST_BYTES:
        raise StateError("a digest of another length came in")
    return End(data)


def _not_empty(data: bytes) -> bytes:
    if not data:
        raise StateError("an empty piece came in")
    return data


_PARSERS: dict[bytes, Callable[[bytes], Record]] = {
    b"B": _parse_begin,
    b"H": _parse_blob_start,
    b"D": lambda data: Data(_not_empty(data)),
    b"P": lambda data: Pickle(_not_empty(data)),
    b"M": lambda data: Manifest(_parse(data), data),
    b"E": _parse_end,
    b"S": _parse_same,
    b"X": _parse_given_up,
}
