"""`rlm-mcp init`: writes a commented rlm.toml for a project, and on request an entry in its .mcp.json.

What is there stays. A file that is replaced is kept beside the new one, and nothing is written through a
link that leads out of the project.
"""

from __future__ import annotations

import argparse
import difflib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeAlias, cast

from .output import OK, CommandFailed, Out

if TYPE_CHECKING:
    from ..client_files import ClientFile
    from ..keys import Key

_Action: TypeAlias = Literal["create", "change", "replace", "none"]

_DESCRIPTION = """\
Write an rlm.toml for a project, in which everything is explained and nothing is changed yet.

With --mcp-json, MCP clients that read the project's .mcp.json start this server too."""
_EXAMPLES = """\
examples:
  rlm-mcp init                    rlm.toml in this folder
  rlm-mcp init ~/survey --dry-run show what would be written
  rlm-mcp init --mcp-json         and an entry in .mcp.json, for all who work on this project
"""
_MCP_JSON = ".mcp.json"
_NAME = "rlm"
_ENTRY: dict[str, Any] = {"command": "uvx", "args": ["rlm-mcp"]}

_HEAD = """\
# Settings of rlm-mcp for this project. Take the "#" from a line to change what it sets; most show the default.
#
# This file may narrow what a user's own settings allow. What would widen it needs trust: it holds only for users
# who have allowed it with `rlm-mcp config trust`, and has to be allowed anew when this file changes.
# Keys and tokens do not belong here: give them in the environment.
#
# `rlm-mcp config show --all` lists all settings, what holds here, and why.
"""
_WANTED: Sequence[str] = (
    "sandbox.files",
    "sandbox.network",
    "sandbox.python",
    "sandbox.folders",
    "sandbox.policy",
    "sandbox.wall_seconds",
    "sandbox.memory_bytes",
    "sandbox.processes",
    "sessions.durable",
    "sessions.shown_characters",
    "rlm.environment",
    "rlm.docker_image",
    "rlm.docker_memory",
    "rlm.model",
    "rlm.max_depth",
    "rlm.max_subcalls",
    "rlm.token_budget",
    "rlm.snipara_project_slug",
)
_EXAMPLE_VALUES = {"sandbox.python": '".venv"'}
_NEED_TRUST = {
    "sandbox.files": '"write" needs trust.',
    "sandbox.network": "true needs trust.",
    "sandbox.python": "Needs trust.",
    "sandbox.folders": "Those outside of the project need trust.",
    "sandbox.policy": "A less strict one needs trust.",
    "rlm.docker_image": "Another one needs trust.",
    "sandbox.wall_seconds": "More needs trust, as with all numbers and sizes.",
}


@dataclass(frozen=True)
class _Plan:
    """What is to become of one file."""

    file: ClientFile
    action: _Action
    text: str
    diff: str


def add_to(commands: Any) -> None:
    """Add the command to the program's."""
    parser = commands.add_parser(
        "init", help="write an rlm.toml for this project", description=_DESCRIPTION, epilog=_EXAMPLES
    )
    parser.add_argument("folder", nargs="?", metavar="FOLDER", help="the project; else the folder you are in")
    parser.add_argument("--mcp-json", action="store_true", help="add this server to the project's .mcp.json")
    parser.add_argument(
        "--force", action="store_true", help="replace what is there and differs; a copy is kept"
    )
    parser.add_argument(
        "--dry-run", action="store_true", help="show what would be written, and write nothing"
    )
    parser.add_argument(
        "-y", "--yes", action="store_true", help="do not ask before a file that is there is changed"
    )


def run(args: argparse.Namespace) -> int:
    """Show what is to be written, ask if something is there already, and write it."""
    from .asking import agree
    from .config import folder_of

    out, folder = Out.of(args), folder_of(args)
    plans = [_plan_settings(folder, force=args.force)]
    if args.mcp_json:
        plans.append(_plan_mcp_json(folder, force=args.force))
    for plan in plans:
        _show(out, plan, whole=args.dry_run)
    if not args.dry_run:
        if any(plan.action in ("change", "replace") for plan in plans):
            agree(out, "Do this?", yes=args.yes)
        _write(out, plans)
    out.data({"project": folder, "dry_run": args.dry_run, "files": [_as_data(plan) for plan in plans]})
    return OK


def template() -> str:
    """Return an rlm.toml that explains itself and sets nothing."""
    from ..keys import KEYS

    parts, section = [_HEAD], ""
    for dotted in _WANTED:
        key = KEYS[dotted]
        if key.section != section:
            section = key.section
            parts.append(f"\n[{section}]\n")
        parts.append(_explained(key))
    return "".join(parts)


def _explained(key: Key) -> str:
    value = _EXAMPLE_VALUES.get(key.dotted) or key.shown(key.default)
    meaning = f"{key.meaning} {_NEED_TRUST.get(key.dotted, '')}".rstrip()
    return f"\n# {meaning}\n#{key.name} = {value}\n"


# ---- planning


def _plan_settings(folder: Path, *, force: bool) -> _Plan:
    file, text = _read(folder, "rlm.toml"), template()
    there = (file.data or b"").decode(errors="replace")
    if file.data is None:
        return _Plan(file, "create", text, _diff(file.path, "", text))
    if not force or there == text:
        return _Plan(file, "none", there, "")
    return _Plan(file, "replace", text, _diff(file.path, there, text))


def _plan_mcp_json(folder: Path, *, force: bool) -> _Plan:
    from .. import json_text

    file, place = _read(folder, _MCP_JSON), ("mcpServers", _NAME)
    there = file.text
    try:
        known = _entry_in(json_text.parse(there))
        if known == _ENTRY:
            return _Plan(file, "none", there, "")
        if known is not None and not force:
            raise _other_entry(file.path)
        text = json_text.with_member(there, place, _ENTRY)
    except json_text.NotEditable as problem:
        raise CommandFailed(
            f"{file.path} {problem}. Nothing was written.",
            hint=f'Mend that, or add "{_NAME}" to "mcpServers" there by hand.',
            code="not_editable",
        ) from problem
    action: _Action = "create" if file.data is None else "change"
    return _Plan(file, action, text, _diff(file.path, _masked(there), _masked(text)))


def _entry_in(config: dict[str, Any]) -> Any:
    servers: Any = config.get("mcpServers")
    return cast("dict[str, Any]", servers).get(_NAME) if isinstance(servers, dict) else None


def _masked(text: str) -> str:
    """Return the text without what may be keys of other servers."""
    from .. import json_text

    spans = [json_text.span_of(text, ("mcpServers", _NAME))]
    return json_text.masked(text, spans)


def _other_entry(path: Path) -> CommandFailed:
    return CommandFailed(
        f'{path} has another entry "{_NAME}" already. Nothing was written.',
        hint="Run it with --force to replace that entry, or without --mcp-json.",
        code="other_entry",
    )


def _read(folder: Path, name: str) -> ClientFile:
    from .. import client_files
    from ..narrowing import inside

    path = folder / name
    if not inside(path, [folder]):
        raise CommandFailed(
            f"{path} is a link that leads out of the project. Nothing was written.",
            hint="Put a file of the project's own there.",
            code="leads_out",
        )
    return client_files.read(path)


def _diff(path: Path, before: str, after: str) -> str:
    lines = difflib.unified_diff(
        before.splitlines(), after.splitlines(), f"{path} (now)", f"{path} (then)", lineterm=""
    )
    return "\n".join(lines)


# ---- doing


def _show(out: Out, plan: _Plan, *, whole: bool) -> None:
    """Say what is to become of a file; all of one that is new only if nothing is to be written."""
    if plan.action == "none":
        kept = "" if plan.text == template() or plan.file.path.name == _MCP_JSON else " (--force replaces it)"
        out.say(f"{plan.file.path} is there already, and stays as it is{kept}.")
        return
    if plan.action == "create" and not whole:
        return
    out.say(out.style(f"{plan.action} {plan.file.path}", "bold"))
    for line in plan.diff.splitlines():
        style = {"+": "green", "-": "red"}.get(line[:1], "dim")
        out.say(f"  {out.style(line, style)}")


def _write(out: Out, plans: Sequence[_Plan]) -> None:
    from .. import client_files

    for plan in plans:
        if plan.action == "none":
            continue
        backup = client_files.replace(plan.file, plan.text, shared=True)
        out.say(f"Written: {plan.file.path}" + (f" (what was there is in {backup.name})" if backup else ""))


def _as_data(plan: _Plan) -> dict[str, object]:
    return {"path": plan.file.path, "action": plan.action}
