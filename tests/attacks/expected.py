"""What is known not to be held, and why. Whatever is not listed here must be held."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, TypeAlias

from tests.attacks.attack import Attack, Effect

A_CONTAINER, NO_FILTER, BARE = "a container", "a container without its filter", "a container without walls"
DOCKER_RUNS = (A_CONTAINER, NO_FILTER, BARE)

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
        ("the jail alone", A_CONTAINER),
        (
            "a-template-prints-the-insides",
            "a-template-prints-a-module",
            "a-template-map-prints-the-insides",
            "a-template-in-a-variable-prints-the-insides",
        ),
        "A process may look at itself: only the language policy speaks of names, and there is nothing of the host in it.",
    ),
    NotHeld(
        ("the jail alone", "all layers", A_CONTAINER),
        ("a-log-record-prints-the-insides",),
        "The same; behind strong walls the policy leaves the templates of library modules alone.",
    ),
    NotHeld(
        ("the jail alone", A_CONTAINER),
        ("a-lock-is-held-on-a-file-it-may-only-read",),
        "A lock by flock needs no right to write, and no filter can tell a file of the project from one of its own.",
    ),
    NotHeld(
        (A_CONTAINER,),
        ("the-devices-are-opened",),
        "A container has devices of its own by such names: shared memory, queues, its descriptors.",
    ),
    NotHeld(
        (A_CONTAINER,),
        ("the-user-list-of-the-machine-is-read",),
        "It is the image's list of users, and not the machine's.",
    ),
    NotHeld(
        (A_CONTAINER, NO_FILTER),
        ("the-parent-can-be-signalled",),
        "The parent is the guard of this one container. It heeds no signal but what the program could do to itself.",
    ),
    NotHeld(
        (A_CONTAINER,),
        (
            "garbage-is-written-to-every-descriptor",
            "the-channel-is-closed",
            "the-channel-is-replaced",
            "the-crash-report-is-filled",
        ),
        "The stream to the host is pipes, which a program can spoil for its own session; the state of before is restored.",
    ),
)


def reason_for(run: str, attack: str) -> str | None:
    """Return why an attack is not held in a run, or None if it is."""
    user: User = "root" if os.geteuid() == 0 else "ordinary"
    for entry in NOT_HELD:
        if run in entry.runs and attack in entry.attacks and entry.user in (None, user):
            return entry.reason
    return None


def assert_as_expected(run: str, attack: Attack, breaches: Mapping[Effect, str]) -> None:
    """Fail if an attack did what it may not, and also if it is held where it is listed as not."""
    known = reason_for(run, attack.name)
    if known is None:
        assert not breaches, breaches
    else:
        assert attack.effect in breaches, f"it is held by now, and was not: {known}"
        assert breaches.keys() == {attack.effect}, breaches
