"""What commands print: data on stdout, talk on stderr, one JSON object with --json, colours for people only.

Imported by every command, so it imports next to nothing.
"""

from __future__ import annotations

import argparse
import io
import json
import os
import sys
from collections.abc import Iterator, Sequence
from typing import Any, TextIO, cast

from ..errors import DoorError

OK = 0
FAILED = 1
USAGE = 2
CONFIGURATION = 3
LIMIT = 4
UNAVAILABLE = 5
TIMEOUT = 124
INTERRUPTED = 130
BROKEN_PIPE = 141  # what a shell says of a program that wrote to one

SCHEMA = 1

_STYLES = {"bold": "1", "dim": "2", "red": "31", "green": "32", "yellow": "33", "blue": "34", "cyan": "36"}


class CommandFailed(DoorError):
    """A command cannot do what it was asked for. `hint` says what to do; `code` is for scripts."""

    def __init__(
        self, message: str, *, hint: str = "", code: str = "failed", exit_code: int = FAILED
    ) -> None:
        self.message = message
        self.hint = hint
        self.code = code
        self.exit_code = exit_code
        super().__init__(message)


class Out:
    """Where a command's words go. `data` speaks only with --json, and `say` only without."""

    def __init__(
        self, *, as_json: bool = False, quiet: bool = False, color: str = "auto", debug: bool = False
    ) -> None:
        self.json = as_json
        self.quiet = quiet
        self.debug = debug
        self._color = color

    @classmethod
    def of(cls, args: argparse.Namespace) -> Out:
        """Return where the words of a command go, as its flags say."""
        return cls(as_json=args.json, quiet=args.quiet, color=args.color, debug=args.debug)

    def data(self, data: object, *, failure: CommandFailed | None = None) -> None:
        """Print what the command found as one JSON object, if that was asked for; and why it is not all well."""
        if self.json:
            error = {} if failure is None else {"error": _facts(failure)}
            _write(sys.stdout, _json({"schema": SCHEMA, "ok": failure is None, **error, "data": data}))

    def say(self, text: str = "") -> None:
        """Print a line of what the command found, unless JSON was asked for."""
        if not self.json:
            _write(sys.stdout, text)

    def talk(self, text: str) -> None:
        """Print a line about what goes on, unless quiet was asked for."""
        if not self.quiet:
            _write(sys.stderr, text)

    def fail(self, failure: CommandFailed) -> None:
        """Say why the command failed, even if it is to be quiet."""
        if self.json:
            _write(sys.stdout, _json({"schema": SCHEMA, "ok": False, "error": _facts(failure)}))
        label = self.style("error:", "red", "bold", on=sys.stderr)
        _write(sys.stderr, f"{label} {_plain(failure.message)}")
        if failure.hint:
            _write(sys.stderr, f"{self.style('hint:', 'cyan', on=sys.stderr)} {_plain(failure.hint)}")

    def style(self, text: str, *styles: str, on: TextIO | None = None) -> str:
        """Return `text` in colour, if it goes to somebody who sees colours."""
        if not styles or not self._colorful(on or sys.stdout):
            return text
        return f"\033[{';'.join(_STYLES[each] for each in styles)}m{text}\033[0m"

    @staticmethod
    def is_terminal(stream: TextIO) -> bool:
        """Return whether somebody sees there what is overwritten."""
        return os.environ.get("TERM", "dumb") != "dumb" and stream.isatty()

    def _colorful(self, stream: TextIO) -> bool:
        if self._color != "auto":
            return self._color == "always"
        if os.environ.get("NO_COLOR"):
            return False
        if os.environ.get("FORCE_COLOR"):
            return True
        return os.environ.get("TERM") != "dumb" and stream.isatty()

    def table(self, rows: Sequence[Sequence[str]], *, heads: Sequence[str] = ()) -> None:
        """Say rows in columns. Texts in them are shown plain."""
        plain = [[visible(cell) for cell in row] for row in rows]
        widths = [
            max(map(len, column)) for column in zip(*([list(heads)] if heads else []), *plain, strict=True)
        ]
        if heads and plain:
            self.say(self.style(_row(heads, widths), "bold"))
        for row in plain:
            self.say(_row(row, widths))


def _plain(text: str) -> str:
    """Return what may be somebody else's words, in the lines that it has."""
    return "\n".join(map(visible, text.split("\n")))


def visible(text: str) -> str:
    """Return `text` on one line, with nothing in it that a terminal would obey."""
    return "".join(each if each.isprintable() else ascii(each)[1:-1] for each in text)


def size(count: int) -> str:
    """Return a number of bytes as people read it."""
    number = float(count)
    for unit in ("B", "KiB", "MiB", "GiB"):
        if number < 1024:
            return f"{number:.0f} {unit}" if unit == "B" else f"{number:.1f} {unit}"
        number /= 1024
    return f"{number:.1f} TiB"


def prepare_streams() -> None:
    """See to it that no character that is printed is an error."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def failure_of(problem: BaseException) -> CommandFailed | None:
    """Return what is to be said of an error that ours raise on purpose; None for any other."""
    for leaf in _leaves(problem):
        if (failure := _failure_of(leaf)) is not None:
            return failure
    return None


def _leaves(problem: BaseException) -> Iterator[BaseException]:
    if not isinstance(problem, BaseExceptionGroup):
        yield problem
        return
    for each in cast("BaseExceptionGroup[BaseException]", problem).exceptions:
        yield from _leaves(each)


def _failure_of(problem: BaseException) -> CommandFailed | None:
    if isinstance(problem, CommandFailed):
        return problem
    for base, code, exit_code in _known():
        if isinstance(problem, base):
            return CommandFailed(str(problem), code=code, exit_code=exit_code)
    return None


def _known() -> Iterator[tuple[type[BaseException], str, int]]:
    """Yield kinds of errors, special ones first. This imports what is heavy, after something went wrong."""
    import rlm_sandboxes
    import rlm_sessions

    from ..errors import EnvironmentUnavailable
    from ..sources import SettingsError

    yield EnvironmentUnavailable, "sandbox", UNAVAILABLE
    yield SettingsError, "configuration", CONFIGURATION
    yield rlm_sandboxes.LimitsInvalid, "configuration", CONFIGURATION
    yield rlm_sessions.ProjectError, "project", USAGE
    yield rlm_sessions.AllBusy, "busy", LIMIT
    yield rlm_sessions.TooWeak, "sandbox", UNAVAILABLE
    yield rlm_sandboxes.SandboxError, "sandbox", UNAVAILABLE
    yield rlm_sessions.ProjectInUse, "in_use", FAILED
    yield rlm_sessions.SessionError, "session", FAILED
    yield from _known_of_http()
    yield DoorError, "failed", FAILED


def _known_of_http() -> Iterator[tuple[type[BaseException], str, int]]:
    """Yield the errors of serving over HTTP, if that was asked for."""
    if "rlm_mcp.http" not in sys.modules:
        return
    from ..http import AddressUnusable, ServingFailed
    from ..web.oauth import OAuthUnusable
    from ..web.tokens import TokenFileUnusable, TokensUnusable

    for kind in (TokensUnusable, TokenFileUnusable, OAuthUnusable):
        yield kind, "configuration", CONFIGURATION
    for unavailable in (AddressUnusable, ServingFailed):
        yield unavailable, "address", UNAVAILABLE


def _facts(failure: CommandFailed) -> dict[str, str]:
    return {"code": failure.code, "message": failure.message, "hint": failure.hint}


def _row(cells: Sequence[str], widths: Sequence[int]) -> str:
    return "  ".join(cell.ljust(width) for cell, width in zip(cells, widths, strict=True)).rstrip()


def _json(value: Any) -> str:
    plain = (sys.stdout.encoding or "").lower().replace("-", "") != "utf8"
    return json.dumps(value, ensure_ascii=plain, indent=2 if sys.stdout.isatty() else None, default=str)


def _write(stream: TextIO, text: str) -> None:
    stream.write(text + "\n")
