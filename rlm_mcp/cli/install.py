"""`rlm-mcp install`: adds this server to the programs that can start it, and takes it out again.

Claude Code has a command for that, which is used. For the others their file is edited, and nothing in it
is touched but the one entry. All is shown before it is done.
"""

from __future__ import annotations

import argparse
import json
import re
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ..clients import Client, Machine, Scope, clients
from ..installing import Plan, Wanted, carry_out, plan_for
from ..launching import command_here
from .output import FAILED, OK, UNAVAILABLE, USAGE, CommandFailed, Out
from .parsing import add_sandbox_settings, flags_of

_NAME = re.compile(r"[A-Za-z0-9_-]{1,64}")
_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")

_DESCRIPTION = """\
Add this server to Claude Code and Claude Desktop, to VS Code, or to Cursor.

What would change is shown first, and done when you agree. Without --client, both Claudes are
meant that are found here. Settings that are given, such as --project or --files, become part of the entry."""
_EXAMPLES = """\
examples:
  rlm-mcp install --dry-run                              show what would change
  rlm-mcp install --client claude-code --scope project   in .mcp.json, for all who work on this project
  rlm-mcp install --client claude-desktop --project ~/survey
  rlm-mcp install --env ANTHROPIC_API_KEY                the entry names the variable, and never holds a value
  rlm-mcp install --remove                               take it out again
"""


def add_to(commands: Any) -> None:
    """Add the command to the program's."""
    parser = commands.add_parser(
        "install", help="add the server to an MCP client", description=_DESCRIPTION, epilog=_EXAMPLES
    )
    names = ("claude-code", "claude-desktop", "vscode", "cursor", "all")
    parser.add_argument("--client", choices=names, help="which client; all means all that are found")
    parser.add_argument(
        "--scope",
        choices=("local", "project", "user"),
        help="for whom: you here, all of this project, or you anywhere",
    )
    parser.add_argument("--name", default="rlm", help="what the client is to call the server")
    parser.add_argument(
        "--env",
        action="append",
        default=[],
        metavar="NAME",
        help="a variable to hand on, by name; may be repeated",
    )
    parser.add_argument("--dry-run", action="store_true", help="show what would change, and change nothing")
    parser.add_argument("-y", "--yes", action="store_true", help="do not ask")
    parser.add_argument("--force", action="store_true", help="replace an entry of this name that differs")
    parser.add_argument("--remove", action="store_true", help="take the entry out")
    add_sandbox_settings(parser)


def run(args: argparse.Namespace) -> int:
    """Show what changes, ask, and do it."""
    out, machine, wanted = Out.of(args), Machine.here(), _wanted(args)
    _try_settings(args)
    chosen = _chosen(args, machine)
    plans = [plan_for(client, scope, wanted, machine) for client, scope in chosen]
    for plan in plans:
        _show(out, plan)
    if not args.dry_run and any(plan.changes for plan in plans):
        _agree(out, yes=args.yes)
        for plan in filter(lambda plan: plan.changes, plans):
            carry_out(plan, machine)
            _tell(out, plan)
    out.data({"dry_run": args.dry_run, "changes": [plan.facts() for plan in plans]})
    return FAILED if any(plan.problem for plan in plans) else OK


# ---- what is wanted


def _wanted(args: argparse.Namespace) -> Wanted:
    if not _NAME.fullmatch(args.name):
        raise CommandFailed(
            f"{args.name!r} cannot be the name of a server.",
            hint="Letters, digits, - and _ make one, at most 64.",
            exit_code=USAGE,
        )
    for variable in args.env:
        if not _VARIABLE.fullmatch(variable):
            raise CommandFailed(
                "--env takes the name of a variable only.",
                hint="Values are never written. Set it where the client is started, and give --env NAME.",
                exit_code=USAGE,
            )
    return Wanted(args.name, args.remove, args.force, tuple(args.env), _arguments(flags_of(args)))


def _try_settings(args: argparse.Namespace) -> None:
    """Raise `SettingsError` if a server with these flags would not start."""
    from ..sources import Sources

    if not args.remove:
        Sources.of_process(flags_of(args)).load(None)


def _arguments(flags: dict[str, object]) -> tuple[str, ...]:
    """Return the flags of `serve` that say the same."""
    words = list[str]()
    for key, value in flags.items():
        if key == "project":
            words += ["--project", _lasting(str(value))]
        elif _is_secret(key):
            raise CommandFailed(
                f"{key} is a secret, and clients' files are read and shared by many.",
                hint="Nothing was changed. Set it in the environment, or in your own rlm.toml.",
                exit_code=USAGE,
            )
        else:
            words += ["--set", f"{key}={str(value).lower() if isinstance(value, bool) else value}"]
    return tuple(words)


def _lasting(project: str) -> str:
    """Return a project so that it means the same wherever the server is started."""
    relative = project in (".", "..") or project.startswith(("./", "../", ".\\", "..\\", "~/", "~\\"))
    return str(Path(project).expanduser().resolve()) if relative or project == "~" else project


def _is_secret(key: str) -> bool:
    from ..keys import KEYS

    return key in KEYS and KEYS[key].secret


# ---- which clients


def _chosen(args: argparse.Namespace, machine: Machine) -> list[tuple[Client, Scope]]:
    known = clients(machine)
    if args.client in (None, "all"):
        meant = [each for each in known if args.client or each.name.startswith("claude")]
        fitting = [each for each in meant if args.scope in (None, *each.files)]
        found: list[tuple[Client, Scope]] = [
            (each, args.scope or each.usual) for each in fitting if each.found
        ]
        if not found:
            raise _none_found(args, fitting or meant, machine)
        return found
    client = next(each for each in known if each.name == args.client)
    scope: Scope = args.scope or client.usual
    if scope not in client.files:
        raise CommandFailed(
            f"{client.title} has no scope {scope!r}.",
            hint=f"It has: {', '.join(client.files)}.",
            exit_code=USAGE,
        )
    in_project = scope == "project"  # its file can be made before the client is there
    if not client.found and not in_project:
        raise _none_found(args, [client], machine)
    return [(client, scope)]


def _none_found(args: argparse.Namespace, meant: Sequence[Client], machine: Machine) -> CommandFailed:
    looked = "; ".join(f"{each.title}: {_looked(each)}" for each in meant)
    wanted = _wanted(args)
    entry = {wanted.name: meant[0].entry(command_here(machine, wanted.arguments), wanted.variables)}
    where = " or ".join(str(path) for path in dict.fromkeys(meant[-1].files.values()))
    key = meant[-1].path[meant[-1].usual][-1]
    return CommandFailed(
        f"No client was found to change. Looked for: {looked}.",
        hint=f'To add it by hand, put this under "{key}" in {where}: {json.dumps(entry)}',
        code="no_client",
        exit_code=UNAVAILABLE,
    )


def _looked(client: Client) -> str:
    program = ["`claude` on the PATH"] if client.name == "claude-code" else []
    return ", ".join(program + [str(sign) for sign in client.signs])


# ---- showing, asking, doing


def _show(out: Out, plan: Plan) -> None:
    title = out.style(f"{plan.client.title} ({plan.scope})", "bold")
    if plan.action == "none":
        out.say(f"{title}: already as wanted, nothing to do.")
        return
    out.say(f"{title}: {plan.action} in {plan.client.files[plan.scope]}")
    for command in plan.commands:
        out.say(f"  $ {shlex.join(command)}")
    for line in plan.diff.splitlines():
        style = {"+": "green", "-": "red"}.get(line[:1], "dim")
        out.say(f"  {out.style(line, style)}")
    for note in plan.notes:
        out.say(f"  {note}")
    _complain(out, plan)


def _tell(out: Out, plan: Plan) -> None:
    if plan.done:
        kept = f" What was there is kept in {plan.backup}." if plan.backup else ""
        out.say(f"{plan.client.title}: done.{kept} {plan.client.restart}")
    _complain(out, plan)


def _complain(out: Out, plan: Plan) -> None:
    if plan.problem:
        out.talk(f"{out.style('error:', 'red', 'bold', on=sys.stderr)} {plan.problem}")


def _agree(out: Out, *, yes: bool) -> None:
    if yes:
        return
    if out.json or not sys.stdin.isatty():
        raise CommandFailed(
            "There is nobody to ask, so nothing was changed.",
            hint="Run it with --yes to do what is shown, or with --dry-run to see it only.",
            code="not_agreed",
            exit_code=USAGE,
        )
    sys.stderr.write("Do this? [y/N] ")
    sys.stderr.flush()
    if sys.stdin.readline().strip().lower() not in ("y", "yes"):
        raise CommandFailed("Nothing was changed.", code="not_agreed")
