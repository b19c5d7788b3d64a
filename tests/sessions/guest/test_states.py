"""The stream of snapshots: whatever is cut where, records come whole and in an order that makes sense."""

from __future__ import annotations

import hashlib
import itertools
import json
import struct
from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rlm_sessions.guest import states
from rlm_sessions.guest.states import (
    Begin,
    BlobStart,
    Data,
    End,
    GivenUp,
    Manifest,
    Pickle,
    Record,
    Same,
    StateDecoder,
    StateError,
)

HASH = "ab" * 32


def encoded(record: Any) -> bytes:
    """Return a record as bytes, by the helper that is for it."""
    if isinstance(record, Manifest):
        return states.manifest(record.data)
    helpers: dict[type, Any] = {
        Begin: states.begin,
        BlobStart: states.blob_start,
        Data: states.data_piece,
        Pickle: states.pickle_piece,
        End: states.end,
        Same: states.same,
        GivenUp: states.given_up,
    }
    data: bytes = helpers[type(record)](*record)
    return data


def joined(parts: Sequence[Sequence[Record]]) -> list[Record]:
    """Return all records of the parts."""
    return list(itertools.chain.from_iterable(parts))


def manifest(facts: dict[str, Any]) -> Manifest:
    """Return a manifest record."""
    return Manifest(facts, states.manifest_bytes(facts))


def blob(content: list[bytes]) -> list[Record]:
    """Return the records of one blob."""
    whole = b"".join(content)
    return [BlobStart(hashlib.sha256(whole).hexdigest(), len(whole)), *map(Data, content)]


numbers = st.integers(0, 2**40)
pieces = st.binary(min_size=1, max_size=50)
blobs = st.lists(pieces, max_size=3).map(blob)
bodies = st.lists(blobs | pieces.map(lambda piece: [Pickle(piece)]), max_size=5).map(joined)
manifests = st.dictionaries(st.text(max_size=5), st.integers() | st.text(max_size=9), max_size=3).map(
    manifest
)
digests = st.binary(min_size=32, max_size=32)


def whole(number: int, body: list[Record], facts: Manifest, digest: bytes) -> list[Record]:
    """Return the records of a snapshot."""
    return [Begin(number), *body, facts, End(digest)]


snapshots = st.one_of(
    st.builds(whole, numbers, bodies, manifests, digests),
    st.builds(Same, numbers, digests).map(lambda record: [record]),
    st.builds(GivenUp, numbers, st.text(max_size=20)).map(lambda record: [record]),
    st.builds(lambda number, body: [Begin(number), *body, GivenUp(number, "no")], numbers, bodies),
)
streams = st.lists(snapshots, max_size=4).map(joined)


def cut(data: bytes, places: list[int]) -> list[bytes]:
    """Cut `data` at these places."""
    at = sorted({place % (len(data) + 1) for place in places})
    return [data[start:end] for start, end in zip([0, *at], [*at, len(data)], strict=True)]


def decoded(decoder: StateDecoder, parts: list[bytes]) -> list[Record]:
    """Return all records that come out of the parts."""
    return [record for part in parts for record in decoder.feed(part)]


@given(streams, st.lists(st.integers(0, 10_000), max_size=20))
def test_records_come_out_as_they_went_in_wherever_they_are_cut(
    sent: list[Record], places: list[int]
) -> None:
    decoder = StateDecoder()

    assert decoded(decoder, cut(b"".join(map(encoded, sent)), places)) == sent
    assert decoder.between


@given(snapshots, st.data())
def test_a_stream_that_ends_early_is_not_between_snapshots(sent: list[Record], data: Any) -> None:
    stream = b"".join(map(encoded, sent))
    decoder = StateDecoder()

    decoded(decoder, [stream[: data.draw(st.integers(1, len(stream) - 1))]])

    assert not decoder.between


@given(streams, st.lists(st.tuples(st.integers(0, 10_000), st.integers(1, 255)), min_size=1, max_size=3))
def test_damage_gives_an_error_or_records_that_could_have_been_sent(
    sent: list[Record], damage: list[tuple[int, int]]
) -> None:
    stream = bytearray(b"".join(map(encoded, sent)))
    for place, bits in damage:
        if stream:
            stream[place % len(stream)] ^= bits
    decoder = StateDecoder()
    received: list[Record] = []
    try:
        for record in decoder.feed(bytes(stream)):
            received.append(record)
    except StateError as problem:
        with pytest.raises(StateError) as again:
            decoded(decoder, [encoded(Same(1, bytes(32)))])
        assert again.value is problem

    again_received = decoded(StateDecoder(), [encoded(record) for record in received])
    assert again_received == received


@given(st.binary(max_size=500))
def test_any_bytes_at_all_end_in_records_or_in_a_state_error(garbage: bytes) -> None:
    try:
        decoded(StateDecoder(), [garbage])
    except StateError:
        pass


def raw(kind: bytes, payload: bytes, length: int | None = None) -> bytes:
    """Return a record made by hand."""
    return struct.pack("!cQ", kind, len(payload) if length is None else length) + payload


def facts(**values: Any) -> bytes:
    """Return facts as JSON."""
    return json.dumps(values).encode()


BEGUN = states.begin(1)


@pytest.mark.parametrize(
    ("name", "stream"),
    {
        "a piece before the beginning": states.pickle_piece(b"x"),
        "an end before the beginning": states.end(bytes(32)),
        "a second beginning": BEGUN + BEGUN,
        "nothing changed, in the middle": BEGUN + states.same(1, bytes(32)),
        "data without a blob": BEGUN + states.data_piece(b"x"),
        "a blob that ends too early": BEGUN
        + states.blob_start(HASH, 2)
        + states.data_piece(b"x")
        + states.manifest(b"{}"),
        "a blob with too much data": BEGUN + states.blob_start(HASH, 1) + states.data_piece(b"xy"),
        "a blob with more data than none": BEGUN + states.blob_start(HASH, 0) + states.data_piece(b"x"),
        "a pickle after the manifest": BEGUN + states.manifest(b"{}") + states.pickle_piece(b"x"),
        "an end without a manifest": BEGUN + states.end(bytes(32)),
        "an unknown type": raw(b"Q", b""),
        "another format": raw(b"B", facts(format=2, number=1)),
        "no format": raw(b"B", facts(number=1)),
        "a negative number": raw(b"B", facts(format=1, number=-1)),
        "a number that is a truth": raw(b"S", facts(number=True)),
        "a number that is text": raw(b"S", facts(number="1")),
        "a reason that is none": raw(b"X", facts(number=1, reason=None)),
        "a hash that is short": BEGUN + raw(b"H", facts(hash="ab", size=1)),
        "a hash that is a path": BEGUN + raw(b"H", facts(hash="../" + "a" * 61, size=1)),
        "a hash in capitals": BEGUN + raw(b"H", facts(hash="AB" * 32, size=1)),
        "a size that is broken": BEGUN + raw(b"H", facts(hash=HASH, size=1.5)),
        "a manifest that is a list": BEGUN + raw(b"M", b"[]"),
        "a manifest that is nested too deeply": BEGUN + raw(b"M", b"[" * 100_000),
        "facts that are no text": raw(b"S", b"\xff\xfe"),
        "an empty piece": BEGUN + raw(b"P", b""),
        "an empty piece of a blob": BEGUN + states.blob_start(HASH, 1) + raw(b"D", b""),
        "a short digest": BEGUN + states.manifest(b"{}") + raw(b"E", b"x"),
    }.items(),
)
def test_what_makes_no_sense_is_refused(name: str, stream: bytes) -> None:
    with pytest.raises(StateError):
        decoded(StateDecoder(), [stream])


@pytest.mark.parametrize(
    ("before", "kind", "length"),
    [
        (b"", b"B", states.MAX_FACTS_BYTES + 1),
        (b"", b"X", 2**63),
        (BEGUN, b"P", states.MAX_PIECE_BYTES + 1),
        (BEGUN, b"H", 2**40),
        (BEGUN, b"M", states.MAX_MANIFEST_BYTES + 1),
        (BEGUN + states.blob_start(HASH, 2**40), b"D", states.MAX_PIECE_BYTES + 1),
        (BEGUN + states.manifest(b"{}"), b"E", 33),
    ],
)
def test_a_length_beyond_the_limit_is_refused_before_any_of_it_came(
    before: bytes, kind: bytes, length: int
) -> None:
    with pytest.raises(StateError, match="larger than allowed"):
        decoded(StateDecoder(), [before + raw(kind, b"", length)])


def test_of_a_large_input_no_more_than_one_record_is_held() -> None:
    decoder = StateDecoder()
    piece = states.pickle_piece(bytes(1000))
    stream = BEGUN + piece * 10_000

    most = 0
    for _ in decoder.feed(stream):
        most = max(most, len(decoder._held))

    assert most <= len(piece)


@pytest.mark.parametrize("size", [0, states.MAX_PIECE_BYTES + 1])
def test_no_piece_is_made_that_the_other_end_would_refuse(size: int) -> None:
    with pytest.raises(StateError):
        states.pickle_piece(bytes(size))
