"""What the kernel asks about the copies that a program would make of itself, and how it is answered.

Where the questions arrive is told by `seccomp.install_gate`.
"""

from __future__ import annotations

import errno
import fcntl
import struct
from typing import NamedTuple

_RECEIVE, _ANSWER = 0xC0502100, 0xC0182101  # SECCOMP_IOCTL_NOTIF_RECV, SECCOMP_IOCTL_NOTIF_SEND
_QUESTION = struct.Struct("=QII64x")  # id, process, flags; then the call
_REPLY = struct.Struct("=QqiI")  # id, value, error, flags
_CONTINUE = 1


class Question(NamedTuple):
    """One question, and the number of the process that waits for the answer."""

    number: int
    asking: int


def receive(listener: int) -> Question | None:
    """Return the next question, or None if who asked is gone. Raise OSError where nobody will ask any more."""
    question = bytearray(_QUESTION.size)
    try:
        fcntl.ioctl(listener, _RECEIVE, question)
    except FileNotFoundError:
        return None
    number, asking, _ = _QUESTION.unpack(question)
    return Question(number, asking)


def answer(listener: int, question: Question, *, let: bool) -> bool:
    """Answer a question; return whether a copy was let through."""
    error, flags = (0, _CONTINUE) if let else (-errno.EPERM, 0)
    try:
        fcntl.ioctl(listener, _ANSWER, _REPLY.pack(question.number, 0, error, flags))
    except FileNotFoundError:
        return False
    return let
