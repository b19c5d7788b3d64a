"""Which clients are here, and whether this server is among theirs."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from .. import client_files, json_text
from ..client_files import FileTrouble
from ..clients import Client, Machine, clients
from .results import Case, Check

_PROGRAMS = ("rlm-mcp", "rlm_mcp", "rlm")


@dataclass(frozen=True)
class Entry:
    """An entry that starts this server."""

    name: str
    scope: str
    file: Path
    command: str


def entries(case: Case) -> list[Check]:
    """Say for each client that is here whether it knows this server."""
    machine = Machine.here()
    found = [client for client in clients(machine) if client.found]
    if not found:
        return [Check("Clients", "info", "none was found", "`rlm-mcp install` says where it looks.")]
    return [_client(client, machine) for client in found]


def _client(client: Client, machine: Machine) -> Check:
    name = client.title
    try:
        there = list(_entries_of(client))
    except (FileTrouble, json_text.NotEditable) as problem:
        fix = f"{client.title} may not be able to read it either; correct it."
        return Check(name, "warn", str(problem), fix)
    if not there:
        fix = f"`rlm-mcp install --client {client.name}` adds this server to it."
        return Check(name, "info", "is here, and does not know this server", fix)
    shown = "; ".join(f"{entry.name!r} in {entry.file} ({entry.scope})" for entry in there)
    missing = [entry for entry in there if not _can_start(client, entry, machine)]
    more = {"entries": [{"name": each.name, "scope": each.scope, "file": str(each.file)} for each in there]}
    if missing:
        what = ", ".join(entry.command for entry in missing)
        fix = f"Name it by its absolute path: `rlm-mcp install --client {client.name} --force`."
        return Check(name, "warn", f"{shown}; but it cannot start {what}", fix, more)
    return Check(name, "ok", shown, "", more)


def _entries_of(client: Client) -> Iterator[Entry]:
    for scope, path in client.files.items():
        data = json_text.parse(client_files.read(path).text)
        for name in client.path[scope]:
            data = json_text.object_of(data.get(name))
        for name, value in data.items():
            entry = json_text.object_of(value)
            if _is_ours(entry):
                yield Entry(name, scope, path, entry["command"])


def _is_ours(entry: dict[str, Any]) -> bool:
    command, args = entry.get("command"), entry.get("args")
    if not isinstance(command, str):
        return False
    words = [command, *(cast("list[object]", args) if isinstance(args, list) else [])]
    return any(Path(str(word).partition("==")[0].partition("@")[0]).stem in _PROGRAMS for word in words)


def _can_start(client: Client, entry: Entry, machine: Machine) -> bool:
    command = Path(entry.command)
    if command.is_absolute():
        return command.is_file()
    if client.name == "claude-desktop":
        return False  # its PATH is not that of a shell
    return "${" in entry.command or machine.program(entry.command) is not None
