"""What is known not to be held, and why. Whatever is not listed here must be held."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Literal, TypeAlias

User: TypeAlias = Literal["root", "ordinary"]


@dataclass(frozen=True)
class NotHeld:
    """Attacks that a run lets through, for one reason; `user` says for whom, if not for all."""

    runs: tuple[str, ...]
    attacks: tuple[str, ...]
    reason: str
    user: User | None = None


NOT_HELD: tuple[NotHeld, ...] = (
    NotHeld(
        ("the jail alone",),
        (
            "a-template-prints-the-insides",
            "a-template-prints-a-module",
            "a-template-map-prints-the-insides",
            "a-template-in-a-variable-prints-the-insides",
        ),
        "A process may look at itself: only the language policy speaks of names, and there is nothing of the host in it.",
    ),
    NotHeld(
        ("the jail alone", "all layers"),
        ("a-log-record-prints-the-insides",),
        "The same; behind strong walls the policy leaves the templates of library modules alone.",
    ),
    NotHeld(
        ("the jail alone",),
        ("a-lock-is-held-on-a-file-it-may-only-read",),
        "A lock by flock needs no right to write, and no filter can tell a file of the project from one of its own.",
    ),
)


def reason_for(run: str, attack: str) -> str | None:
    """Return why an attack is not held in a run, or None if it is."""
    user: User = "root" if os.geteuid() == 0 else "ordinary"
    for entry in NOT_HELD:
        if run in entry.runs and attack in entry.attacks and entry.user in (None, user):
            return entry.reason
    return None
