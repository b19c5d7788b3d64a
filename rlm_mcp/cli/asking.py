"""Asking a person before something is done, and never a script."""

from __future__ import annotations

import sys

from .output import USAGE, CommandFailed, Out


def agree(out: Out, question: str, *, yes: bool) -> None:
    """Return if the person agrees, or agreed with --yes. Raise `CommandFailed` otherwise."""
    if yes:
        return
    if out.json or sys.stdin is None or not sys.stdin.isatty():
        raise CommandFailed(
            "There is nobody to ask, so nothing was changed.",
            hint="Run it with --yes if you agree.",
            code="not_agreed",
            exit_code=USAGE,
        )
    sys.stderr.write(f"{question} [y/N] ")
    sys.stderr.flush()
    if sys.stdin.readline().strip().lower() not in ("y", "yes"):
        raise CommandFailed("Nothing was changed.", code="not_agreed")
