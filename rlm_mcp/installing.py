"""What adding this server to a client comes to: the commands to run, or the file as it will be.

Claude Code has commands for it. For the others their file is edited, and nothing in it is touched but
the one entry. An entry of the same name that differs is left alone unless the user insists.
"""

from __future__ import annotations

import difflib
import json
import shlex
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, TypeAlias

from . import client_files, json_text
from .client_files import ClientFile, FileTrouble
from .clients import Client, Machine, Scope
from .errors import DoorError
from .json_text import object_of
from .launching import command_here, passing
from .narrowing import inside

Action: TypeAlias = Literal["add", "replace", "remove", "none", "refused"]

_OURS = ("type", "command", "args", "url", "headers")
_PROGRAM_SECONDS = 60.0


class ProgramFailed(DoorError):
    """A client's own command could not be run, or said no."""


@dataclass(frozen=True)
class Wanted:
    """What the entry is to be."""

    name: str
    remove: bool
    force: bool
    variables: tuple[str, ...]
    arguments: tuple[str, ...]


@dataclass
class Plan:
    """What is to be done for one client, and what came of it."""

    client: Client
    scope: Scope
    action: Action
    file: ClientFile | None = None
    old: Any = None
    text: str = ""
    commands: list[list[str]] = field(default_factory=list[list[str]])
    diff: str = ""
    notes: list[str] = field(default_factory=list[str])
    problem: str = ""
    done: bool = False
    backup: Path | None = None

    @property
    def changes(self) -> bool:
        """Whether there is anything to do."""
        return self.action in ("add", "replace", "remove") and not self.problem

    def facts(self) -> dict[str, Any]:
        """Return it for scripts."""
        return {
            "client": self.client.name,
            "scope": self.scope,
            "action": self.action,
            "file": str(self.client.files[self.scope]),
            "commands": self.commands,
            "diff": self.diff,
            "notes": self.notes,
            "done": self.done,
            "backup": str(self.backup) if self.backup else None,
            "problem": self.problem or None,
        }


def plan_for(client: Client, scope: Scope, wanted: Wanted, machine: Machine) -> Plan:
    """Return what is to be done for a client. Files are read, and nothing is changed."""
    try:
        return _planned(client, scope, wanted, machine)
    except FileTrouble as trouble:
        return Plan(client, scope, "refused", problem=str(trouble))
    except json_text.NotEditable as problem:
        entry = json.dumps({wanted.name: client.entry(command_here(machine, wanted.arguments))})
        advice = f'By hand, this belongs under "{client.path[scope][-1]}": {entry}'
        why = str(FileTrouble(client.files[scope], str(problem), advice))
        return Plan(client, scope, "refused", problem=why)


def _planned(client: Client, scope: Scope, wanted: Wanted, machine: Machine) -> Plan:
    if scope == "project" and not inside(client.files[scope], [machine.folder]):
        why = "is a link that leads out of the project"
        raise FileTrouble(client.files[scope], why, "Put a file of the project's own there.")
    file, path = client_files.read(client.files[scope]), (*client.path[scope], wanted.name)
    there = _there(json_text.parse(file.text), path)
    command = command_here(machine, wanted.arguments, shared=scope == "project")
    entry = client.entry(command, wanted.variables)
    plan = Plan(client, scope, _action(there, entry, wanted), file, old=there)
    if plan.action == "none":
        return plan
    if client.program:
        plan.commands = _commands(plan, wanted, entry)
    elif scope != "project" and client.name == "claude-code":
        plan.problem = _without_program(file.path)
    elif wanted.remove:
        plan.text = json_text.without_member(file.text, path)
    else:
        plan.text = json_text.with_member(file.text, path, _merged(there, entry))
    plan.diff = _difference(file, plan.text, path) if plan.text else ""
    plan.notes = [] if wanted.remove else list(_notes(plan, entry, wanted))
    if plan.action == "refused":
        plan.problem = (
            f"{client.title} has an entry {wanted.name!r} that differs; it was left as it is. "
            "Replace it with --force, or give another --name."
        )
    return plan


def _action(there: Any, entry: dict[str, Any], wanted: Wanted) -> Action:
    if wanted.remove:
        return "none" if there is None else "remove"
    if there is None:
        return "add"
    if _says(there, entry):
        return "none"
    return "replace" if wanted.force else "refused"


def _there(data: dict[str, Any], path: Sequence[str]) -> Any:
    value: Any = data
    for name in path:
        if not isinstance(value, dict):
            raise json_text.NotEditable(f'has something else than an object above "{name}"')
        value = object_of(value).get(name)
        if value is None:
            return None
    return value


def _says(there: Any, entry: dict[str, Any]) -> bool:
    """Return whether an entry does what ours would; what else a user put there stays theirs."""
    found = object_of(there)
    env, wanted = object_of(found.get("env")), object_of(entry.get("env"))
    same = "command" in found and all(
        found.get(key, entry[key]) == entry[key] for key in ("command", "args", "type") if key in entry
    )
    return same and all(env.get(name) == value for name, value in wanted.items())


def _merged(there: Any, entry: dict[str, Any]) -> dict[str, Any]:
    """Return our entry with what else a user had in theirs."""
    old = object_of(there)
    rest = {key: value for key, value in old.items() if key not in (*_OURS, "env")}
    env = {**object_of(old.get("env")), **object_of(entry.get("env"))}
    return {**entry, **({"env": env} if env else {}), **rest}


def _difference(file: ClientFile, new: str, path: Sequence[str]) -> str:
    """Return what changes, with the values of all other entries hidden, and those of variables."""
    name = str(file.path)
    lines = difflib.unified_diff(
        _shown(file.text, path).splitlines(),
        _shown(new, path).splitlines(),
        name if file.data is not None else "/dev/null",
        name,
        lineterm="",
    )
    return "\n".join(lines)


def _shown(text: str, path: Sequence[str]) -> str:
    if not text.strip():
        return text
    spans = [json_text.span_of(text, (*path, key)) for key in ("type", "command", "args")]
    return json_text.masked(text, spans)


def _commands(plan: Plan, wanted: Wanted, entry: dict[str, Any]) -> list[list[str]]:
    """Return what the client's own program is to be run with."""
    program, scope = str(plan.client.program), ["--scope", plan.scope]
    variables = object_of(entry.get("env")).items()
    env = [word for name, value in variables for word in ("-e", f"{name}={value}")]
    remove = [program, "mcp", "remove", *scope, wanted.name]
    add = [program, "mcp", "add", *scope, wanted.name, *env, "--", entry["command"], *entry["args"]]
    return {"remove": [remove], "add": [add]}.get(plan.action, [remove, add])


def _without_program(file: Path) -> str:
    return (
        f"{file} is Claude Code's own, which it writes while it runs, and its command `claude` is not on the "
        "PATH. Nothing was written. Add it to the PATH, or use --scope project, which makes a .mcp.json here."
    )


def _notes(plan: Plan, entry: dict[str, Any], wanted: Wanted) -> Iterator[str]:
    client = plan.client
    if wanted.variables and not client.variable:
        names = ", ".join(wanted.variables)
        yield f"{client.title} replaces no variables in its file: {names} left out. Put keys into your own rlm.toml."
    if client.name == "claude-desktop" and "--project" not in wanted.arguments:
        yield "It has no project of its own; name one with --project FOLDER, or all chats share one."
    if plan.scope == "project" and Path(entry["command"]).is_absolute():
        yield "Others who use this file need the same program at the same path; with uvx it would be portable."
    if passing() and entry["command"].startswith(sys.prefix):
        yield "This program lies in a cache that is emptied now and then. Install it first, with uv, pipx or pip."
    lost = [key for key, value in object_of(plan.old).items() if value and key not in (*_OURS, *entry)]
    if plan.commands and plan.action != "add" and lost:
        yield f"What else the entry has is lost: {', '.join(lost)}."


# ---- doing it


def carry_out(plan: Plan, machine: Machine) -> None:
    """Do what was planned, and note in the plan what came of it."""
    try:
        if plan.commands:
            _run_all(plan, machine)
        elif plan.file is not None:
            plan.backup = client_files.replace(plan.file, plan.text, shared=plan.scope == "project")
        plan.done = True
    except (FileTrouble, ProgramFailed) as problem:
        plan.problem = str(problem)


def _run_all(plan: Plan, machine: Machine) -> None:
    for place, command in enumerate(plan.commands):
        try:
            _run(command, machine)
        except ProgramFailed:
            if place:  # the old entry is gone already
                _put_back(plan, machine)
            raise


def _put_back(plan: Plan, machine: Machine) -> None:
    program, name = str(plan.client.program), plan.commands[0][-1]
    entry = {"type": "stdio", **object_of(plan.old)} if "command" in object_of(plan.old) else plan.old
    _run([program, "mcp", "add-json", "--scope", plan.scope, name, json.dumps(entry)], machine)


def _run(command: Sequence[str], machine: Machine) -> None:
    shown = shlex.join(command[:3])
    try:
        ran = subprocess.run(
            command,
            cwd=machine.folder,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=_PROGRAM_SECONDS,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired) as problem:
        raise ProgramFailed(
            f"`{shown}` could not be run: {type(problem).__name__}. Nothing may have changed."
        ) from None
    if ran.returncode:
        said = (ran.stderr or ran.stdout).strip()[-1000:]
        raise ProgramFailed(f"`{shown}` ended with exit code {ran.returncode}: {said}")
