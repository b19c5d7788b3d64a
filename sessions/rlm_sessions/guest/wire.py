"""The protocol between a session and the guest it runs in a sandbox.

One frame per message, each way. This module does no I/O, imports only the
standard library, and is the only place that knows the frame format.

    host -> guest   setup, then run, get, set, load, delete, variables, answer
    guest -> host   ready, then for a cell: (output | display | call)*, ran; for the rest: reply

A frame is a token, two lengths, a small JSON header and a body of plain bytes.
The host draws the token by chance and sends it before anything foreign runs, so
bytes that come from elsewhere are no frames. Both ends bound what they accept
before they hold it, and neither believes what a frame says about itself.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Iterator
from typing import Any, NamedTuple

TOKEN_BYTES = 16
MAX_HEADER_BYTES = 256 * 1024
MAX_BODY_BYTES = 64 * 1024 * 1024

_LENGTHS = struct.Struct("!II")
_HEAD_BYTES = TOKEN_BYTES + _LENGTHS.size
_to_json = json.JSONEncoder(
    separators=(",", ":")
).encode  # made once, because `dumps` would make one each time


class WireError(Exception):
    """What came in is not a frame of this protocol; nothing that follows can be trusted."""


class Frame(NamedTuple):
    """One message: its kind, a few small facts, and bytes."""

    kind: str
    facts: dict[str, Any]
    body: bytes = b""


def encode(token: bytes, frame: Frame) -> bytes:
    """Return `frame` as bytes for the other end."""
    header = _to_json([frame.kind, frame.facts]).encode()
    if len(header) > MAX_HEADER_BYTES or len(frame.body) > MAX_BODY_BYTES:
        raise WireError(
            f"a {frame.kind} frame of {len(header)} + {len(frame.body)} bytes is too large to send"
        )
    return b"".join((token, _LENGTHS.pack(len(header), len(frame.body)), header, frame.body))


class Decoder:
    """Turns bytes, cut anywhere, back into frames.

    It holds at most one frame that is not yet whole. After a `WireError` it raises the same
    again for ever.
    """

    def __init__(
        self, token: bytes, *, max_header: int = MAX_HEADER_BYTES, max_body: int = MAX_BODY_BYTES
    ) -> None:
        self._token = token
        self._max_header = max_header
        self._max_body = max_body
        self._held = bytearray()
        self._broken: WireError | None = None

    def feed(self, data: bytes) -> Iterator[Frame]:
        """Take in `data` and give the frames that are whole now, one by one."""
        if self._broken is not None:
            raise self._broken
        self._held += data
        try:
            while (frame := self._next()) is not None:
                yield frame
        except WireError as problem:
            self._broken = problem
            self._held.clear()
            raise

    def _next(self) -> Frame | None:
        start = bytes(self._held[:TOKEN_BYTES])
        if not self._token.startswith(start):
            raise WireError("bytes that are no frame came in")
        if len(self._held) < _HEAD_BYTES:
            return None
        header_length, body_length = _LENGTHS.unpack_from(self._held, TOKEN_BYTES)
        if header_length > self._max_header or body_length > self._max_body:
            raise WireError(f"a frame of {header_length} + {body_length} bytes is larger than allowed")
        end = _HEAD_BYTES + header_length + body_length
        if len(self._held) < end:
            return None
        with memoryview(self._held) as view:
            header = bytes(view[_HEAD_BYTES : _HEAD_BYTES + header_length])
            body = bytes(view[_HEAD_BYTES + header_length : end])
        del self._held[:end]
        return _parse(header, body)


def _parse(header: bytes, body: bytes) -> Frame:
    try:
        parsed = json.loads(header.decode())
    except (ValueError, RecursionError) as problem:
        raise WireError("a frame with an unreadable header came in") from problem
    if isinstance(parsed, list):
        pair: list[Any] = parsed
        if len(pair) == 2 and isinstance(pair[0], str) and isinstance(pair[1], dict):
            return Frame(pair[0], pair[1], body)
    raise WireError("a frame with a malformed header came in")
