"""Every attack there is. A new module joins with one line."""

from __future__ import annotations

from tests.attacks.attack import Attack

from . import bombs, containers, escapes, files, guests, kernel, outside, stubborn

ATTACKS: tuple[Attack, ...] = (
    *files.ATTACKS,
    *outside.ATTACKS,
    *kernel.ATTACKS,
    *containers.ATTACKS,
    *escapes.ATTACKS,
    *guests.ATTACKS,
    *stubborn.ATTACKS,
    *bombs.ATTACKS,
)
