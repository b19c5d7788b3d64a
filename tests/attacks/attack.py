"""One attack: what a cell tries, and by which effect outside it would be known to succeed."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal, TypeAlias

Theme: TypeAlias = Literal[
    "reading outside",
    "writing outside",
    "project",
    "symlinks",
    "proc",
    "environment",
    "descriptors",
    "wire",
    "network",
    "parent",
    "frames",
    "format strings",
    "imports",
    "pickle",
    "machine code",
    "file modes",
    "outliving",
    "interrupts",
    "processes",
    "memory",
    "disk",
    "output",
    "huge numbers",
    "regular expressions",
    "recursion",
    "loops in C",
    "source text",
    "calls",
    "hostile objects",
    "crashes",
    "standard input",
    "containers",
]

Effect: TypeAlias = Literal[
    "secret", "written", "reached", "signalled", "claimed", "left", "session", "neighbour", "host"
]
"""What an attack can bring about, as it is seen from outside:

secret      a word that lies outside came back
written     a file was changed that is not the cell's to change
reached     somebody who listens outside was spoken to
signalled   a process outside was signalled or changed
claimed     the code proved, with a word it was given for that, that it got what it must not have
left        something went on, or lay there, after the session
session     its own session was lost although the attack may not cost that
neighbour   another session of the same sandbox came to harm
host        the host raised what it should not, was held up, or its memory or descriptors grew
"""

Control: TypeAlias = Literal["succeeds", "as root", "none"]
Cost: TypeAlias = Literal["nothing", "cell", "session"]
ProjectFiles: TypeAlias = Literal["none", "read", "write"]


@dataclass(frozen=True, kw_only=True)
class Attack:
    """An attack, as data.

    `cells` are run one after the other. They find what they aim at in the variable `at`, and what they
    gain they print or leave in `loot`. `effect` is what success would bring about. `control` says whether
    the attack may run where nothing holds it, and so must succeed there: always, as root only, or never
    because it would do real harm or has nothing to show. `costs` is the most that it may cost.
    `rest_seconds` is how long the session is left alone before it is closed.
    """

    name: str
    theme: Theme
    cells: tuple[str, ...]
    effect: Effect
    control: Control = "none"
    costs: Cost = "session"
    project: ProjectFiles | None = None
    limits: dict[str, Any] = field(default_factory=dict[str, Any])
    rest_seconds: float = 0.0


def attacks(theme: Theme, effect: Effect, codes: dict[str, str], **common: Any) -> tuple[Attack, ...]:
    """Return one attack for each of `codes`, by name, which have everything else in common."""
    return tuple(
        Attack(name=name, theme=theme, effect=effect, cells=(code.strip("\n"),), **common)
        for name, code in codes.items()
    )
