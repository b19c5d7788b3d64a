"""`rlm-mcp doctor`: what holds on this machine, what does not, and what to do about it."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

from .output import OK, UNAVAILABLE, Out, visible
from .parsing import flags_of

if TYPE_CHECKING:
    from ..checks import Check

_DESCRIPTION = """\
Find out what works here: Python and packages, settings, isolation, the place for what is kept, the server itself,
the clients that could use it, and access to models. Each is tried. Keys are named and never shown.

Exit code 5 if something that is needed fails."""
_STYLES = {"ok": ("green",), "info": ("dim",), "warn": ("yellow",), "fail": ("red", "bold")}


def add_to(commands: Any) -> None:
    """Add the command to the program's."""
    parser = commands.add_parser(
        "doctor", help="find out what works here, and what does not", description=_DESCRIPTION
    )
    parser.add_argument(
        "--online", action="store_true", help="ask the model a word, which costs a few tokens"
    )
    parser.add_argument("--fix-hints", action="store_true", help="say what to do also where nothing is amiss")


def run(args: argparse.Namespace) -> int:
    """Check all and say what was found."""
    import anyio

    from ..checks import check_all
    from ..sources import Sources

    out = Out.of(args)
    checks = anyio.run(partial(check_all, Sources.of_process(flags_of(args)), online=args.online))
    _say(out, checks, hints=args.fix_hints)
    failed = [check.name for check in checks if check.state == "fail"]
    out.data({"checks": [check.facts() for check in checks], "failed": failed})
    return UNAVAILABLE if failed else OK


def _say(out: Out, checks: Sequence[Check], *, hints: bool) -> None:
    width = max(len(check.name) for check in checks)
    for check in checks:
        state = out.style(f"{check.state:<4}", *_STYLES[check.state])
        out.say(f"{state}  {check.name:<{width}}  {visible(check.found)}")
        if check.fix and (hints or check.state in ("warn", "fail")):
            out.say(f"{'':<{width + 8}}{out.style('->', 'cyan')} {visible(check.fix)}")
    counted = {state: sum(check.state == state for check in checks) for state in ("fail", "warn")}
    out.say()
    out.say(
        f"{counted['fail']} failed, {counted['warn']} to look at."
        if any(counted.values())
        else "All is well."
    )
