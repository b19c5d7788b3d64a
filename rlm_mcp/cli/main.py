"""The command `rlm-mcp`, which is also `rlm`.

A command is one line in `COMMANDS`; its module is imported when it is chosen, so that `--help`, `--version` and
shell completion answer at once. Such a module has `add_to(commands)`, which adds its parser by that name, and
`run(args)`, which returns an exit code.
"""

from __future__ import annotations

import importlib
import os
import re
import sys
import traceback
from collections.abc import Sequence
from dataclasses import dataclass
from types import ModuleType
from typing import Any

from .output import (
    BROKEN_PIPE,
    FAILED,
    INTERRUPTED,
    OK,
    USAGE,
    CommandFailed,
    Out,
    failure_of,
    prepare_streams,
)
from .parsing import Parser, WrongUsage, parse

DOCUMENTATION = "https://github.com/rlm-mcp/rlm-mcp/tree/main/docs"


@dataclass(frozen=True)
class Command:
    """A command: its name, what it does in a few words, and other names for it."""

    name: str
    help: str
    aliases: tuple[str, ...] = ()

    @property
    def names(self) -> tuple[str, ...]:
        """All names of it."""
        return (self.name, *self.aliases)

    def load(self) -> ModuleType:
        """Import its module."""
        return importlib.import_module(f"rlm_mcp.cli.{self.name}")


COMMANDS = (
    Command("serve", "serve MCP clients, over stdio or HTTP", ("mcp-serve",)),
    Command("run", "have a model work on a task"),
    Command("exec", "run Python in a project's session, from the shell"),
    Command("sessions", "list, show, reset and remove sessions"),
    Command("logs", "list and show the trajectories of runs"),
    Command("replay", "play a run again, without a model"),
    Command("init", "write an rlm.toml for this project"),
    Command("install", "add the server to an MCP client"),
    Command("doctor", "find out what works here, and what does not"),
    Command("config", "show settings, and where each comes from"),
    Command("completion", "print a completion script for your shell"),
)

_DESCRIPTION = "A Python that a model can use: one jailed session for each project, whose variables stay."
_EPILOG = """\
Without a command: a server on stdio where stdin is a pipe, and a short introduction at a terminal.
`rlm-mcp COMMAND --help` tells more about one.

exit codes: 0 done, 1 failed, 2 wrong usage, 3 wrong configuration, 4 a limit was reached, 5 no sandbox here,
            124 out of time, 130 interrupted
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the program and return its exit code."""
    words = list(sys.argv[1:] if argv is None else argv)
    prepare_streams()
    out = _out_of(words)
    try:
        code = _run(words)
        sys.stdout.flush()
    except SystemExit as exit_:  # of argparse, after --help and --version
        return _end_of(exit_)
    except BrokenPipeError:
        return _reader_gone()
    except KeyboardInterrupt:
        return INTERRUPTED
    except WrongUsage as wrong:
        return _explain(out, wrong)
    except Exception as problem:  # noqa: BLE001 -- the outermost door: whatever it is, a person reads of it
        return _fail(out, problem)
    return code


def _out_of(words: Sequence[str]) -> Out:
    """Return where words go while it is not known yet whether the command line can be understood."""
    color = "always" if re.search(r"--color[ =]always\b", " ".join(words)) else "auto"
    color = "never" if re.search(r"--color[ =]never\b", " ".join(words)) else color
    return Out(as_json="--json" in words, color=color, debug="--debug" in words)


def _run(words: Sequence[str]) -> int:
    parser = parser_for(words)
    args = parse(parser, words)
    if args.version:
        Out().say(f"rlm-mcp {version()}")
        return OK
    if args.command is None:
        return _bare(words)
    module: Any = next(each for each in COMMANDS if args.command in each.names).load()
    code: int = module.run(args)
    return code


def _bare(words: Sequence[str]) -> int:
    if sys.stdin is not None and sys.stdin.isatty():
        from .welcome import welcome

        return welcome(Out.of(parse(parser_for(words), words)))
    return _run(["serve", *words])


def parser_for(words: Sequence[str], *, all_of_it: bool = False) -> Parser:
    """Return the parser, whole for the commands that are among `words`; of others it has the names."""
    parser = Parser(prog=_program(), description=_DESCRIPTION, epilog=_EPILOG)
    parser.add_argument("--version", action="store_true", help="show the version and exit")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", title="commands", parser_class=Parser)
    for each in COMMANDS:
        if all_of_it or not {*each.names}.isdisjoint(words):
            module: Any = each.load()
            module.add_to(commands)
        else:
            commands.add_parser(each.name, aliases=each.aliases, help=each.help, description=each.help)
    return parser


def version() -> str:
    """Return the version of this program."""
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version("rlm-mcp")
    except PackageNotFoundError:  # run from its sources
        return "0.dev"


def _program() -> str:
    return "rlm" if os.path.basename(sys.argv[0]) == "rlm" else "rlm-mcp"  # noqa: PTH119 -- pathlib costs more


def _end_of(exit_: SystemExit) -> int:
    try:
        sys.stdout.flush()
    except BrokenPipeError:
        return _reader_gone()
    return exit_.code if isinstance(exit_.code, int) else 0 if exit_.code is None else FAILED


def _reader_gone() -> int:
    """Be quiet about it, as are other programs whose output nobody reads on."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return BROKEN_PIPE


def _explain(out: Out, wrong: WrongUsage) -> int:
    hint = " ".join(filter(None, (wrong.hint, f"`{wrong.parser.prog} --help` shows what there is.")))
    out.fail(CommandFailed(wrong.message, hint=hint, code="usage", exit_code=USAGE))
    return USAGE


def _fail(out: Out, problem: BaseException) -> int:
    failure = failure_of(problem)
    if out.debug:
        traceback.print_exception(problem)
    if failure is None:
        hint = "" if out.debug else "This is a defect of the program; the same with --debug shows where."
        message = f"{type(problem).__name__}: {problem}"
        failure = CommandFailed(message, hint=hint, code="internal", exit_code=FAILED)
    out.fail(failure)
    return failure.exit_code


if __name__ == "__main__":
    sys.exit(main())
