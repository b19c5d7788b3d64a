"""How the command line is read: argparse, with flags that every command has, and the nearest right word.

The flags that every command has may stand before and after its name. None of them has a default while it is
read, so that one place does not undo what was given in the other.
"""

from __future__ import annotations

import argparse
import difflib
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NoReturn, cast

COMMON: Mapping[str, Any] = {
    "project": "",
    "set": (),
    "json": False,
    "debug": False,
    "quiet": False,
    "color": "auto",
}


class WrongUsage(Exception):
    """The command line cannot be understood."""

    def __init__(self, parser: Parser, message: str, hint: str = "") -> None:
        self.parser = parser
        self.message = message
        self.hint = hint
        super().__init__(message)


class Parser(argparse.ArgumentParser):
    """A parser of ours, for the program or for a command. It raises `WrongUsage`."""

    def __init__(self, **options: Any) -> None:
        options.setdefault("formatter_class", argparse.RawDescriptionHelpFormatter)
        options |= {"allow_abbrev": False, "add_help": False}
        super().__init__(**options)
        common = self.add_argument_group("flags of every command")
        common.add_argument("-h", "--help", action="help", help="show this help and exit")
        _add_common(common)

    def error(self, message: str) -> NoReturn:
        """Raise what is wrong, with the nearest right word."""
        wrong = re.search(r"invalid choice: '([^']*)'", message)
        words = [word for action in self._actions for word in map(str, action.choices or ())]
        raise WrongUsage(self, message, _nearest(wrong[1], words) if wrong else "")

    def commands(self) -> dict[str, Parser]:
        """Return the parsers of the commands below this one, by name."""
        return {name: parser for action in self._actions for name, parser in _parsers_of(action).items()}

    def arguments(self) -> list[argparse.Action]:
        """Return what this parser takes itself."""
        return [action for action in self._actions if not _parsers_of(action)]

    def flags(self) -> list[str]:
        """Return all long flags that may be given here, or to a command below."""
        own = [word for action in self.arguments() for word in action.option_strings if word.startswith("--")]
        return own + [word for below in self.commands().values() for word in below.flags()]


def _parsers_of(action: argparse.Action) -> dict[str, Parser]:
    choices: Any = action.choices
    if not isinstance(choices, dict):
        return {}
    found = cast("dict[str, Any]", choices)
    return {name: parser for name, parser in found.items() if isinstance(parser, Parser)}


_AFTER_DASHES = "After -- nothing is a flag: put flags before it."
_collected: list[tuple[str, str]] = []


class _Collect(argparse.Action):
    """Add to what was given already, wherever on the line the flag stands."""

    def __call__(
        self,
        parser: argparse.ArgumentParser,
        namespace: argparse.Namespace,
        values: Any,
        option: str | None = None,
    ) -> None:
        _collected.append(values)
        namespace.set = tuple(_collected)


def parse(parser: Parser, words: Sequence[str]) -> argparse.Namespace:
    """Return what a command line means. Raise `WrongUsage`."""
    _collected.clear()
    known, unknown = parser.parse_known_args(words)
    args = argparse.Namespace(**{**COMMON, **vars(known)})
    args.project = _meant(args.project)
    if unknown:
        chosen = _chosen(parser, args)
        flags = [word for word in unknown if word.startswith("-")]
        wrong = (flags or unknown)[0].partition("=")[0]
        what = "flag" if flags else "argument"
        hint = _AFTER_DASHES if wrong in chosen.flags() else _nearest(wrong, chosen.flags())
        raise WrongUsage(chosen, f"there is no {what} {wrong!r} here", hint)
    return args


def _meant(project: str) -> str:
    """Return a project as it was typed; a folder that is there, and has a slash in it, by its whole path."""
    return absolute(project) if "/" in project and Path(project).is_dir() else project


def _chosen(parser: Parser, args: argparse.Namespace) -> Parser:
    below = parser.commands()
    for name in (getattr(args, "command", None), getattr(args, "subcommand", None)):
        if name in below:
            parser = below[name]
            below = parser.commands()
    return parser


def _nearest(wrong: str, words: Sequence[str]) -> str:
    found = difflib.get_close_matches(wrong, sorted(set(words)), n=1)
    return f"Did you mean {found[0]!r}?" if found else ""


def _add_common(group: argparse._ArgumentGroup) -> None:  # pyright: ignore[reportPrivateUsage]
    unset: Any = argparse.SUPPRESS
    group.add_argument(
        "--project",
        metavar="PATH_OR_NAME",
        default=unset,
        help="the project that is meant; else the folder you are in",
    )
    group.add_argument(
        "--set",
        metavar="SECTION.KEY=VALUE",
        type=setting,
        action=_Collect,
        default=unset,
        help="set any setting, as often as needed (`rlm-mcp config show` lists them)",
    )
    group.add_argument("--json", action="store_true", default=unset, help="print one JSON object for scripts")
    group.add_argument(
        "--quiet", action="store_true", default=unset, help="print nothing that was not asked for"
    )
    group.add_argument("--debug", action="store_true", default=unset, help="show tracebacks of errors")
    group.add_argument(
        "--color",
        choices=("auto", "always", "never"),
        default=unset,
        help="use colours: auto, always or never",
    )


def setting(text: str) -> tuple[str, str]:
    """Return the key and the value of SECTION.KEY=VALUE."""
    key, equals, value = text.partition("=")
    if not equals or not key.strip():
        raise argparse.ArgumentTypeError(f"{text!r} is not of the form SECTION.KEY=VALUE")
    return key.strip(), value


# ---- flags that are settings: their `dest` is the key of the setting


def flags_of(args: argparse.Namespace) -> dict[str, object]:
    """Return the settings that were given as flags, by dotted key; the special flag wins over --set."""
    given: dict[str, object] = dict(args.set)
    given |= {key: value for key, value in vars(args).items() if "." in key}
    if args.project:
        given["project"] = args.project
    return given


def add_setting(parser: Parser, flag: str, key: str, help_: str, **options: Any) -> None:
    """Add a flag that is the setting `key`."""
    parser.add_argument(flag, dest=key, default=argparse.SUPPRESS, help=help_, **options)


def add_sandbox_settings(parser: Parser) -> None:
    """Add flags for the settings that are changed most often."""
    switch, path = argparse.BooleanOptionalAction, {"metavar": "PATH", "type": absolute}
    files = {"choices": ("none", "read", "write")}
    add_setting(parser, "--files", "sandbox.files", "what code sees of the project's folder", **files)
    add_setting(parser, "--network", "sandbox.network", "whether code has the network", action=switch)
    add_setting(
        parser, "--memory", "sandbox.memory_bytes", 'memory of a session, such as "2g"', metavar="SIZE"
    )
    add_setting(
        parser, "--python", "sandbox.python", "the Python, or virtual environment, that runs code", **path
    )
    add_setting(
        parser,
        "--durable",
        "sessions.durable",
        "whether an answer waits until all is on the disk",
        action=switch,
    )
    add_setting(parser, "--state-dir", "sessions.state_dir", "where everything is kept", **path)


def absolute(text: str) -> str:
    """Return a path that was typed here, so that it means the same elsewhere."""
    return str(Path(text).expanduser().absolute())
