"""`rlm-mcp sessions`: what sessions there are, and how to be rid of what they keep."""

from __future__ import annotations

import argparse
import contextlib
import os
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .output import FAILED, OK, USAGE, CommandFailed, Out, size, visible

if TYPE_CHECKING:
    from rlm_sessions import KeptProject, Project

    from .opening import Ground

_DESCRIPTION = """\
List, show, reset and remove sessions. A PROJECT is named by its folder, its name, or its key as the list shows it."""
_EXAMPLES = """\
examples:
  rlm-mcp sessions list --json
  rlm-mcp sessions show .
  rlm-mcp sessions reset survey         forget its variables; the journal stays
  rlm-mcp sessions purge --unused 60    remove all that is kept of projects not used for so many days
"""
_RECENT = 10
_CODE_SHOWN = 60
_DAY = 24 * 3600.0


def add_to(commands: Any) -> None:
    """Add the command to the program's."""
    parser = commands.add_parser(
        "sessions", help="list, show, reset and remove sessions", description=_DESCRIPTION, epilog=_EXAMPLES
    )
    below = parser.add_subparsers(dest="subcommand", metavar="COMMAND", title="commands")
    said = {
        "list": "list all sessions, open or kept (the default)",
        "show": "show a session's variables and last cells; it wakes for that",
        "reset": "forget all variables of a session",
        "interrupt": "interrupt the cell that runs; the session keeps its variables",
        "close": "put a session to sleep, and have its server let go of it",
        "purge": "remove all that is kept of a project, its trajectories too",
    }
    parsers = {name: below.add_parser(name, help=text, description=text) for name, text in said.items()}
    for name in ("show", "reset", "interrupt", "close"):
        parsers[name].add_argument(
            "named", metavar="PROJECT", nargs="?", help="folder, name or key; else the one you are in"
        )
    purge = parsers["purge"]
    purge.add_argument("named", metavar="PROJECT", nargs="?", help="folder, name or key")
    purge.add_argument("--all", action="store_true", help="all projects")
    purge.add_argument(
        "--unused", type=days, metavar="DAYS", help="projects that were not used for so many days"
    )
    purge.add_argument("-y", "--yes", action="store_true", help="do not ask")


def days(text: str) -> float:
    """Return a number of days."""
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 <= value <= 1e6:
        raise argparse.ArgumentTypeError(f"{text!r} is no number of days")
    return value


def run(args: argparse.Namespace) -> int:
    """Do what the command below is for."""
    from .opening import Ground

    acts: Mapping[str, Callable[[argparse.Namespace, Out, Ground], int]] = {
        "list": _list,
        "show": _show,
        "reset": _reset,
        "interrupt": _interrupt,
        "close": _close,
        "purge": _purge,
    }
    return acts[args.subcommand or "list"](args, Out.of(args), Ground.of(args))


# ---- what there is


@dataclass
class Known:
    """A project of which something is known: on disk, in a server, or both."""

    key: str
    name: str
    folder: str | None = None
    kept: dict[str, int] = field(default_factory=dict[str, int])
    last_used: float | None = None
    pid: int | None = None
    session: dict[str, Any] | None = None

    @property
    def state(self) -> str:
        """What it does, in a word."""
        if self.session is not None:
            return str(self.session["state"])
        return "kept" if self.pid is None else "open"

    def facts(self) -> dict[str, Any]:
        """Return all of it as JSON has it."""
        when = None if self.last_used is None else datetime.fromtimestamp(self.last_used, UTC).isoformat()
        kept = {**self.kept, "total": sum(self.kept.values())}
        return {**asdict(self), "state": self.state, "kept": kept, "last_used": when}


def known(ground: Ground) -> list[Known]:
    """Return all projects, the last used first."""
    from rlm_sessions import Places

    from .visiting import owner_of

    found = {each.key: _of_kept(each) for each in Places(ground.root).kept()}
    answers = _answers(ground.root)
    for pid, sessions in answers.items():
        for session in sessions:
            each = found.setdefault(session["key"], Known(session["key"], session["name"], session["folder"]))
            each.pid, each.session = pid, session
    for each in found.values():
        owner = owner_of(ground.root, each.key) if each.pid is None else None
        if owner is not None and owner.pid not in answers:  # a server that answers would have named it
            each.pid = owner.pid
    return list(found.values())


def _of_kept(kept: KeptProject) -> Known:
    return Known(kept.key, kept.name, kept.folder, kept.bytes_by_kind, kept.last_used)


def _answers(root: Path) -> dict[int, list[dict[str, Any]]]:
    """Return which sessions the servers say they have open, of those that answer."""
    from ..door import DoorProblem
    from .visiting import NobodyThere, ask, doors

    told: dict[int, list[dict[str, Any]]] = {}
    for pid in doors(root):
        with contextlib.suppress(NobodyThere, DoorProblem):
            told[pid] = ask(root, pid, "sessions")
    return told


def chosen(ground: Ground, args: argparse.Namespace) -> Known:
    """Return the project that is meant. Raise `CommandFailed` if nothing is known of it."""
    from rlm_sessions import ProjectError, identify

    every = known(ground)
    named = args.named or args.project
    by_key = next((each for each in every if each.key == named), None)
    if by_key is not None:
        return by_key
    try:
        setting, here = ground.loaded.settings.project, Path.cwd()
        key = identify(named=named or None, setting=setting, working_directory=here).key
    except ProjectError:
        key = ""  # a folder that is gone
    found = [each for each in every if each.key == key] or [each for each in every if _is_called(each, named)]
    if len(found) == 1:
        return found[0]
    if found:
        hint = "Name one by its key: " + ", ".join(each.key for each in found)
        raise CommandFailed(f"{named!r} may be any of {len(found)} projects.", hint=hint, code="ambiguous")
    message = f"Nothing is known of a project {named!r}." if named else "Nothing is known of a project here."
    raise CommandFailed(message, hint="`rlm-mcp sessions list` shows what there is.", code="not_found")


def _is_called(known: Known, named: str) -> bool:
    if not named:
        return False
    at = os.path.abspath(Path(named).expanduser())  # noqa: PTH100 -- as typed: what is gone has no real path
    return known.folder == at or known.name.casefold() == named.casefold() or known.key.startswith(named)


# ---- list and show


def _list(args: argparse.Namespace, out: Out, ground: Ground) -> int:
    every = known(ground)
    out.data([each.facts() for each in every])
    rows = [
        (
            each.key,
            _doing(each),
            "" if each.pid is None else str(each.pid),
            _kept(each),
            _when(each),
            each.folder or "",
        )
        for each in every
    ]
    out.table(rows, heads=("PROJECT", "STATE", "PROCESS", "KEPT", "LAST USED", "FOLDER"))
    if not every:
        out.talk("There are no sessions yet. `rlm-mcp exec CODE` makes one, and so does any MCP client.")
    return OK


def _doing(known: Known) -> str:
    session = known.session
    if session is None or session["state"] != "busy":
        return known.state
    waiting = f", {session['waiting']} wait" if session["waiting"] else ""
    return f"busy {session['since_seconds']:.0f} s{waiting}"


def _kept(known: Known) -> str:
    return size(sum(known.kept.values()))


def _when(known: Known) -> str:
    if known.last_used is None:
        return ""
    seconds = max(0.0, time.time() - known.last_used)
    for unit, length in (("d", _DAY), ("h", 3600), ("min", 60)):
        if seconds >= length:
            return f"{seconds // length:.0f} {unit} ago"
    return "now"


def _show(args: argparse.Namespace, out: Out, ground: Ground) -> int:
    project = chosen(ground, args)
    cells = _recent(ground, project)
    seen, problem = _seen(ground, project)
    out.data({**project.facts(), **seen, "cells": cells, "problem": problem or None})
    bold = "bold"
    out.say(f"{out.style(visible(project.name), bold)}  {visible(project.folder or '(no folder)')}")
    where = "the server with process" if project.session is not None else "process"
    server = f" in {where} {project.pid}" if project.pid is not None else ""
    out.say(
        f"key {project.key}, {_doing(project)}{server}, {_kept(project)} kept, last used {_when(project)}"
    )
    if seen["isolation"]:
        out.say(f"isolation: {seen['isolation']}")
    if problem:
        out.talk(f"[{problem}]")
    out.say()
    variables: list[dict[str, Any]] = seen["variables"] or []
    rows = [(each["name"], each["type"], size(each["size_bytes"]), each["preview"]) for each in variables]
    out.table(rows, heads=("VARIABLE", "TYPE", "SIZE", "VALUE"))
    if not rows and not problem:
        out.say("no variables")
    out.say()
    for cell in cells:
        out.say(
            f"{cell['time'][:19]}  [{cell['cell']}]  {visible(' '.join(cell['code'].split())[:_CODE_SHOWN])}"
        )
    return OK


def _recent(ground: Ground, project: Known) -> list[dict[str, Any]]:
    """Return the last cells, the newest last."""
    from rlm_sessions import Journal

    folder = ground.root / "projects" / project.key / "journal"
    if not folder.is_dir():
        return []
    with Journal.open(folder, writes=False) as journal:
        entries = journal.entries(kind="cell", limit=_RECENT, newest_first=True).entries
    facts = (
        {name: str(each.get(name, "")) for name in ("time", "code")} | {"cell": each.get("cell")}
        for each in entries
    )
    return list(facts)[::-1]


def _seen(ground: Ground, project: Known) -> tuple[dict[str, Any], str]:
    """Return what a session holds, and why it could not be looked at."""
    from rlm_sandboxes import SandboxError
    from rlm_sessions import SessionError

    from ..errors import DoorError

    unseen: dict[str, Any] = {"variables": None, "isolation": None, "strong": None}
    try:
        shown = _there_or_here(ground, project, "show", _look)
    except (DoorError, SandboxError, SessionError) as problem:
        return unseen, f"its variables cannot be shown: {problem}"
    return {name: shown[name] for name in unseen}, ""


async def _look(app: Any, session: Any) -> dict[str, Any]:
    from ..door import shown_of

    shown: dict[str, Any] = await shown_of(session)
    return shown


# ---- changing


def _reset(args: argparse.Namespace, out: Out, ground: Ground) -> int:
    project = chosen(ground, args)
    _there_or_here(ground, project, "reset", _forget)
    out.data({"key": project.key, "reset": True})
    out.say(f"All variables of {visible(project.name)} are forgotten.")
    return OK


async def _forget(app: Any, session: Any) -> bool:
    await session.reset()
    return True


def _interrupt(args: argparse.Namespace, out: Out, ground: Ground) -> int:
    project = _reachable(ground, args)
    interrupted = project.session is not None and _ask(ground, project, "interrupt")
    out.data({"key": project.key, "interrupted": bool(interrupted)})
    name = visible(project.name)
    if interrupted:
        out.say(f"The cell of {name} is interrupted; the session keeps its variables.")
    else:
        out.say(f"No cell of {name} is running.")
    return OK


def _close(args: argparse.Namespace, out: Out, ground: Ground) -> int:
    project = _reachable(ground, args)
    closed = project.session is not None and _ask(ground, project, "close")
    out.data({"key": project.key, "closed": bool(closed)})
    out.say(f"{visible(project.name)} {'is closed' if closed else 'is not open in any server'}.")
    return OK


def _reachable(ground: Ground, args: argparse.Namespace) -> Known:
    """Return the project that is meant. Raise `Taken` if a process has it open that cannot be asked."""
    from .opening import Taken

    project = chosen(ground, args)
    if project.pid is not None and project.session is None:
        raise Taken(_project_of(project), project.pid)
    return project


def _ask(ground: Ground, project: Known, do: str) -> Any:
    """Ask the server that has a project; return None if it has not any more."""
    from ..door import DoorProblem
    from .visiting import NobodyThere, ask

    assert project.pid is not None
    try:
        return ask(ground.root, project.pid, do, project.key, patient=do != "interrupt")
    except NobodyThere:
        return None
    except DoorProblem as problem:
        raise CommandFailed(str(problem), code=problem.code) from problem


def _there_or_here(ground: Ground, project: Known, do: str, act: Callable[[Any, Any], Any]) -> Any:
    """Do something with a session where it is open, or open it here for that."""
    import anyio

    answer = _ask(ground, project, do) if project.session is not None else None
    return answer if answer is not None else anyio.run(_here, ground, project, act)


async def _here(ground: Ground, project: Known, act: Callable[[Any, Any], Any]) -> Any:
    from .opening import session_here

    async with session_here(ground, _project_of(project)) as (app, session):
        return await act(app, session)


def _project_of(known: Known) -> Project:
    from rlm_sessions import Project

    folder = Path(known.folder) if known.folder and Path(known.folder).is_dir() else None
    return Project(known.key, known.name, folder)


# ---- removing


def _purge(args: argparse.Namespace, out: Out, ground: Ground) -> int:
    doomed = _doomed(args, ground)
    if not doomed:
        out.data({"removed": [], "refused": [], "freed_bytes": 0})
        out.say("There is nothing to remove.")
        return OK
    _confirm(args, out, doomed)
    removed, refused, freed = _remove(ground, doomed)
    failure = _refusal(refused) if refused else None
    out.data(
        {"removed": removed, "refused": [key for key, _ in refused], "freed_bytes": freed}, failure=failure
    )
    out.say(f"Removed: {len(removed)} project{'' if len(removed) == 1 else 's'}, {size(freed)}.")
    if failure is None or args.unused is not None:
        return OK
    if not out.json:
        out.fail(failure)
    return failure.exit_code


def _doomed(args: argparse.Namespace, ground: Ground) -> list[Known]:
    named = bool(args.named or args.project)
    if named + args.all + (args.unused is not None) != 1:
        message = "Say what to remove: a PROJECT, --all, or --unused DAYS."
        raise CommandFailed(message, code="usage", exit_code=USAGE)
    if named:
        return [chosen(ground, args)]
    before = time.time() - (args.unused or 0.0) * _DAY
    return [each for each in known(ground) if args.all or (each.last_used or 0.0) < before]


def _confirm(args: argparse.Namespace, out: Out, doomed: list[Known]) -> None:
    if args.yes:
        return
    if not sys.stdin.isatty() or out.json:
        message = "Nothing was removed: there is nobody to ask."
        raise CommandFailed(message, hint="--yes removes without asking.", code="usage", exit_code=USAGE)
    for each in doomed:
        sys.stderr.write(f"  {visible(each.name)}  {_kept(each)}  {visible(each.folder or '')}\n")
    sys.stderr.write(f"Remove all that is kept of {'it' if len(doomed) == 1 else 'these'}? [y/N] ")
    sys.stderr.flush()
    if sys.stdin.readline().strip().casefold() not in ("y", "yes"):
        raise CommandFailed("Nothing was removed.", code="declined")


def _remove(ground: Ground, doomed: list[Known]) -> tuple[list[str], list[tuple[str, str]], int]:
    from rlm_sessions import LockUnusable, PlaceError, Places

    places, removed, refused, freed = Places(ground.root), list[str](), list[tuple[str, str]](), 0
    for each in doomed:
        if running := _runs(ground, each):
            refused.append(
                (each.key, f"{visible(each.name)}: the run {running[0]} goes on. Nothing was removed.")
            )
            continue
        try:
            freed += places.purge(each.key)
            removed.append(each.key)
        except (PlaceError, LockUnusable) as problem:
            refused.append((each.key, str(problem)))
    return removed, refused, freed


def _runs(ground: Ground, project: Known) -> list[str]:
    """Return the runs of a project that go on and write to what would be removed."""
    from rlm_runtime import TrajectoryError, is_running, placed_trajectories

    from ..trajectory_places import FOLDER

    found = list[str]()
    for _, path in placed_trajectories(ground.root / "projects" / project.key / FOLDER):
        with contextlib.suppress(OSError, TrajectoryError):  # it is gone, or nobody knows what it is
            if is_running(path):
                found.append(path.stem)
    return found


def _refusal(refused: list[tuple[str, str]]) -> CommandFailed:
    message = "\n".join(said for _, said in refused)
    hint = "`rlm-mcp sessions close PROJECT` has its server let go of it."
    return CommandFailed(message, hint=hint, code="in_use", exit_code=FAILED)
