"""Says that it is ready, then answers the first cell with what the cell's own text says to send.

The text is a Python expression of `frame(kind, facts, body)` and `raw(data)`, whose bytes go to the host.
"""

from __future__ import annotations

import json
import struct
from typing import Any


def main(channel: Any) -> None:
    token = channel.receive(16)

    def frame(kind: Any, facts: Any, body: bytes = b"") -> bytes:
        header = json.dumps([kind, facts]).encode()
        return bytes(token + struct.pack("!II", len(header), len(body)) + header + body)

    _next(channel, token)
    channel.send(frame("ready", {"python": [3, 11, 0], "policy": "off", "policy_missing": ""}))
    code = _next(channel, token)
    channel.send(eval(code, {"frame": frame, "raw": bytes, "struct": struct, "token": token}))
    while channel.receive(65536):
        pass


def _next(channel: Any, token: bytes) -> bytes:
    """Return the body of the host's next frame."""
    data = b""
    while True:
        data += channel.receive(65536)
        if len(data) >= 24:
            header, body = struct.unpack_from("!II", data, 16)
            if len(data) >= 24 + header + body:
                return bytes(data[24 + header :])
