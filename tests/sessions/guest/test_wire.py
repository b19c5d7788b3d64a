"""The protocol: whatever is cut where, frames come whole or not at all."""

from __future__ import annotations

import struct
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rlm_sessions.guest.wire import Decoder, Frame, WireError, encode

TOKEN = bytes(range(16))

json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**60), 2**60) | st.text() | st.floats(allow_nan=False),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=10,
)
frames = st.builds(
    Frame, st.text(max_size=20), st.dictionaries(st.text(), json_values, max_size=4), st.binary(max_size=300)
)


def pieces(data: bytes, cuts: list[int]) -> list[bytes]:
    """Cut `data` at these places."""
    places = sorted({cut % (len(data) + 1) for cut in cuts})
    return [data[start:end] for start, end in zip([0, *places], [*places, len(data)], strict=True)]


def decoded(decoder: Decoder, parts: list[bytes]) -> list[Frame]:
    """Return all frames that come out of the parts."""
    return [frame for part in parts for frame in decoder.feed(part)]


@given(st.lists(frames, max_size=5), st.lists(st.integers(0, 10_000), max_size=20))
def test_frames_come_out_as_they_went_in_wherever_they_are_cut(sent: list[Frame], cuts: list[int]) -> None:
    data = b"".join(encode(TOKEN, frame) for frame in sent)

    assert decoded(Decoder(TOKEN), pieces(data, cuts)) == sent


@given(frames, st.data())
def test_nothing_comes_out_before_a_frame_is_whole(frame: Frame, data: Any) -> None:
    encoded = encode(TOKEN, frame)
    cut = data.draw(st.integers(0, len(encoded) - 1))
    decoder = Decoder(TOKEN)

    assert decoded(decoder, [encoded[:cut]]) == []
    assert decoded(decoder, [encoded[cut:]]) == [frame]


@given(st.binary(min_size=1, max_size=2000))
def test_bytes_without_the_token_never_become_a_frame(garbage: bytes) -> None:
    decoder = Decoder(TOKEN)
    try:
        out = decoded(decoder, [garbage])
    except WireError:
        out = []

    assert out == [] or garbage.startswith(TOKEN)


@given(st.lists(frames, min_size=1, max_size=3), st.binary(min_size=24, max_size=200))
def test_frames_before_garbage_come_out_and_none_after_it(sent: list[Frame], garbage: bytes) -> None:
    data = b"".join(encode(TOKEN, frame) for frame in sent)
    decoder = Decoder(TOKEN)
    out: list[Frame] = []

    with pytest.raises(WireError):
        for frame in decoder.feed(data + b"\xff" + garbage):
            out.append(frame)
    with pytest.raises(WireError):
        decoded(decoder, [encode(TOKEN, sent[0])])

    assert out == sent


@given(st.binary(max_size=300))
def test_a_spoiled_header_is_an_error_and_nothing_else(header: bytes) -> None:
    data = TOKEN + struct.pack("!II", len(header), 0) + header
    try:
        (frame,) = decoded(Decoder(TOKEN), [data])
    except WireError:
        return

    assert (type(frame.kind), type(frame.facts)) == (str, dict)


@pytest.mark.parametrize(("header", "body"), [(101, 0), (0, 1001), (2**32 - 1, 2**32 - 1)])
def test_a_frame_that_is_too_large_is_refused_before_it_is_held(header: int, body: int) -> None:
    decoder = Decoder(TOKEN, max_header=100, max_body=1000)

    with pytest.raises(WireError, match="larger than allowed"):
        decoded(decoder, [TOKEN + struct.pack("!II", header, body)])


def test_a_header_of_any_depth_or_length_of_number_is_an_error() -> None:
    for content in (b"[" * 100_000, b'["a",{"b":' + b"9" * 10_000 + b"}]"):
        with pytest.raises(WireError):
            decoded(Decoder(TOKEN), [TOKEN + struct.pack("!II", len(content), 0) + content])


def test_a_frame_that_could_not_be_received_cannot_be_sent() -> None:
    with pytest.raises(WireError, match="too large to send"):
        encode(TOKEN, Frame("set", {"name": "x" * 300_000}))


def test_text_that_is_no_unicode_crosses_unchanged() -> None:
    frame = Frame("run", {"name": "\ud800\x00😀"}, "\udcff".encode("utf-8", "surrogatepass"))

    assert decoded(Decoder(TOKEN), [encode(TOKEN, frame)]) == [frame]
