"""`rlm-mcp logs`: the trajectories of runs: a list, one as a tree, one event, all as it happens; and removing them."""

from __future__ import annotations

import argparse
import json
import re
import sys
import time
from collections.abc import Iterable, Iterator
from dataclasses import asdict
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

from . import logs_removing
from .output import FAILED, OK, USAGE, CommandFailed, Out, visible
from .parsing import absolute

if TYPE_CHECKING:
    from rlm_runtime import KeptBound, Summary, Trajectory

    from .opening import Ground

_DESCRIPTION = (
    "List the trajectories of runs, show one (all prompts, answers, code and outputs, and what they cost), "
    "or remove some."
)
_EXAMPLES = """\
examples:
  rlm-mcp logs --since 2d --failed
  rlm-mcp logs 20251121T09              a tree; the beginning of an id is enough
  rlm-mcp logs 20251121T09 --event 12   one event, whole
  rlm-mcp logs --follow                 the newest run, as it goes on
  rlm-mcp logs --prune --older-than 30d
  rlm-mcp logs 20251121T09 --json | jq '.data.events[] | select(.kind == "call_ended").cost_usd'
"""
_LISTED = 20
_HEADS = ("ID", "STATE", "MODEL", "TOKENS", "COST", "TOOK", "PROMPT")
_TITLE_WIDTH, _NARROW, _FEWEST = 60, 24, 3
_POLL_SECONDS = 0.2
_HERE = "logs"  # where the Python API writes unless it is told
_SINCE = re.compile(r"(\d{1,6})\s*([mhdw])")
_UNITS = {"m": 60.0, "h": 3600.0, "d": 86_400.0, "w": 7 * 86_400.0}


def add_to(commands: Any) -> None:
    """Add the command to the program's."""
    parser = commands.add_parser(
        "logs", help="list and show the trajectories of runs", description=_DESCRIPTION, epilog=_EXAMPLES
    )
    parser.add_argument("id", metavar="TRAJECTORY", nargs="?", help="an id, or the beginning of one")
    add_folder(parser)
    parser.add_argument(
        "--since", type=moment_of, metavar="TIME", help='runs begun since: "30m", "2h", "3d", "2w", or a date'
    )
    parser.add_argument(
        "--failed", action="store_true", help="runs that ended without an answer, or were cut off"
    )
    parser.add_argument("--model", metavar="NAME", help="runs whose model has this in its name")
    parser.add_argument(
        "--limit", type=count, metavar="N", default=_LISTED, help=f"how many (default {_LISTED})"
    )
    parser.add_argument(
        "-f", "--follow", action="store_true", help="print events as they happen, until the run ends"
    )
    parser.add_argument("--full", action="store_true", help="prompts, code, answers and outputs whole")
    parser.add_argument("--event", type=count, metavar="N", help="the event with this number, whole")
    logs_removing.add_to(parser, _days)


def add_folder(parser: Any) -> None:
    """Add the flag that says where trajectories are."""
    parser.add_argument(
        "--dir",
        metavar="PATH",
        type=absolute,
        action="append",
        help="where to look, in place of the usual places",
    )


def count(text: str) -> int:
    """Return a number of 1 or more."""
    if not text.isascii() or not text.isdigit() or not 1 <= int(text) <= 10**9:
        raise argparse.ArgumentTypeError(f"{text!r} is no number of 1 or more")
    return int(text)


def moment_of(text: str) -> str:
    """Return the time that is meant, as events have it."""
    found = _SINCE.fullmatch(text.strip())
    try:
        if found:
            when = datetime.now(UTC) - timedelta(seconds=int(found[1]) * _UNITS[found[2]])
        else:
            when = datetime.fromisoformat(text.strip()).astimezone(UTC)
    except (ValueError, OverflowError):
        raise argparse.ArgumentTypeError(f'{text!r} is no time; write "2h", "3d", or 2025-11-21') from None
    return when.isoformat(timespec="milliseconds").removesuffix("+00:00") + "Z"


def _days(text: str) -> float:
    """Return an age in days."""
    found = _SINCE.fullmatch(text.strip())
    if found is None:
        raise argparse.ArgumentTypeError(f'{text!r} is no age; write "12h", "30d" or "8w"')
    return int(found[1]) * _UNITS[found[2]] / _UNITS["d"]


def run(args: argparse.Namespace) -> int:
    """List, show, follow or remove."""
    from rlm_runtime import TrajectoryError

    out = Out.of(args)
    removing = logs_removing.is_asked(args)
    folders = places(args)
    try:
        if removing:
            return logs_removing.run(args, out, folders, lambda: _usual(args))
        if args.id is None and not args.follow:
            return _list(args, out, folders)
        path = _meant(args, folders)
        if args.event is not None:
            return _event(args, out, path)
        return _follow(out, path) if args.follow else _show(args, out, path)
    except TrajectoryError as problem:
        raise CommandFailed(str(problem), code="trajectory", exit_code=FAILED) from problem


def _usual(args: argparse.Namespace) -> KeptBound:
    from ..trajectory_places import bound_of
    from .opening import Ground

    return bound_of(Ground.of(args).loaded.settings)


def places(args: argparse.Namespace) -> list[Path]:
    """Return the folders in which the trajectories that are meant may be."""
    if args.dir:
        return [Path(each) for each in args.dir]
    from ..tenants import OWNER
    from ..trajectory_places import FOLDER, folders_of
    from .opening import Ground

    ground = Ground.of(args)
    if args.project:
        key = _key_of(ground, args.project)
        return [*_dir_of(ground), ground.root / "projects" / key / FOLDER]
    found = [
        *_dir_of(ground),
        *folders_of(ground.loaded.settings, OWNER, ground.root),
        Path(_HERE).absolute(),
    ]
    return [*dict.fromkeys(found)]


def _dir_of(ground: Ground) -> list[Path]:
    """Return where the settings of the folder that somebody is in have trajectories written, if they say so."""
    log_dir = ground.sources.load(Path.cwd()).settings.rlm.log_dir
    return [] if log_dir is None else [log_dir]


def _key_of(ground: Ground, named: str) -> str:
    from rlm_sessions import identify, is_key

    return named if is_key(named) else identify(named=named, working_directory=Path.cwd()).key


def _meant(args: argparse.Namespace, folders: list[Path]) -> Path:
    from rlm_runtime import find_trajectory

    if args.id is not None:
        return find_trajectory(folders, args.id)
    newest = next(iter(_found(args, folders)), None)
    if newest is None:
        raise CommandFailed("There is no run to follow.", code="not_found", exit_code=FAILED)
    return newest.path


# ---- the list


def _found(args: argparse.Namespace, folders: Iterable[Path]) -> list[Summary]:
    """Return the runs that are asked for, the newest first."""
    from rlm_runtime import trajectories

    found: list[Summary] = []
    for folder in folders:
        chosen = _chosen(args, trajectories(folder))
        found += [each for each, _ in zip(chosen, range(args.limit), strict=False)]
    found.sort(key=lambda each: (each.started_at, each.id), reverse=True)
    return found[: args.limit]


def _chosen(args: argparse.Namespace, summaries: Iterator[Summary]) -> Iterator[Summary]:
    for each in summaries:
        if args.since and each.started_at < args.since:
            if each.last_at < args.since and each.id[:8].isdigit():
                return  # the rest is older
            continue
        if (not args.failed or each.failed) and (not args.model or args.model.lower() in each.model.lower()):
            yield each


def _list(args: argparse.Namespace, out: Out, folders: list[Path]) -> int:
    if args.event is not None:
        raise CommandFailed("--event needs the id of a trajectory.", code="usage", exit_code=USAGE)
    found = _found(args, folders)
    out.data([facts_of(each) for each in found])
    _table(out, [_row(each) for each in found])
    if not found:
        out.talk("There are no trajectories yet." if not _filtered(args) else "No trajectory is like that.")
    return OK


def _filtered(args: argparse.Namespace) -> bool:
    return bool(args.since or args.failed or args.model)


def _table(out: Out, rows: list[tuple[str, ...]]) -> None:
    """Say the list; of a narrow terminal with as many columns as leave room for the prompts."""
    from .trajectory_text import room, short

    heads, widest = list[str](_HEADS), _TITLE_WIDTH
    columns = [list(column) for column in zip(*rows, strict=True)]
    if columns and sys.stdout.isatty():
        while (widest := room(_width(heads, columns))) <= _NARROW and len(heads) > _FEWEST:
            del heads[-2], columns[-2]
    columns[-1:] = [[short(title, widest) for title in column] for column in columns[-1:]]
    out.table([*zip(*columns, strict=True)], heads=heads)


def _width(heads: list[str], columns: list[list[str]]) -> int:
    """Return how wide a table is without its last column."""
    return sum(max(map(len, [head, *column])) + 2 for head, column in zip(heads, columns, strict=True)) - (
        max(map(len, [heads[-1], *columns[-1]])) + 2
    )


def _row(each: Summary) -> tuple[str, ...]:
    from .trajectory_text import dollars, seconds

    return (
        each.id,
        each.finish if each.state == "ended" else each.state,
        each.model,
        "" if each.tokens is None else f"{each.tokens:,}",
        ("?" if each.state == "ended" else "") if each.cost_usd is None else dollars(each.cost_usd),
        "" if each.duration_ms is None else seconds(each.duration_ms),
        each.title,
    )


def facts_of(summary: Summary) -> dict[str, Any]:
    """Return what is known of a trajectory, as JSON has it."""
    return asdict(summary) | {"path": str(summary.path), "failed": summary.failed}


# ---- one of them


def _show(args: argparse.Namespace, out: Out, path: Path) -> int:
    from rlm_runtime import read_trajectory, summary_of

    from .trajectory_text import footing, heading, tree_lines

    trajectory, summary = read_trajectory(path), summary_of(path)
    totals = trajectory.totals()
    if out.json:
        events = [trajectory.whole(event) for event in trajectory.events]
        told = {"damaged_lines": trajectory.damaged, "totals": asdict(totals), "events": events}
        out.data(facts_of(summary) | told)
        return OK
    for line in (*heading(summary, out), *tree_lines(trajectory, out, full=args.full)):
        out.say(line)
    for line in footing(summary, totals, out):
        out.say(line)
    _warn(out, trajectory)
    return OK


def _warn(out: Out, trajectory: Trajectory) -> None:
    if trajectory.damaged:
        out.talk(f"{trajectory.damaged} lines of the file are damaged and were passed over.")
    if trajectory.state == "cut":
        out.talk(f"The run was cut off. `rlm run --resume {trajectory.id}` goes on with it.")


def _event(args: argparse.Namespace, out: Out, path: Path) -> int:
    from rlm_runtime import read_trajectory

    event = read_trajectory(path).event(args.event)
    out.data(event)
    out.say(json.dumps(event, ensure_ascii=False, indent=2))
    return OK


# ---- as it happens


def _follow(out: Out, path: Path) -> int:
    from rlm_runtime import read_trajectory

    trajectory = read_trajectory(path)
    events = trajectory.events
    while True:
        for event in events:
            _tell(out, trajectory, event)
        sys.stdout.flush()
        if trajectory.state != "running":
            break
        time.sleep(_POLL_SECONDS)
        events = trajectory.read_on()
    _warn(out, trajectory)
    return OK


def _tell(out: Out, trajectory: Trajectory, event: dict[str, Any]) -> None:
    from .trajectory_text import line_of

    whole = trajectory.whole(event)
    if out.json:
        sys.stdout.write(json.dumps(whole) + "\n")
    else:
        out.say(line_of(whole, out))


def ids() -> Iterator[tuple[str, str]]:
    """Yield ids for who types one, each with what the run was about."""
    args = argparse.Namespace(dir=None, project="", set=(), since=None, failed=False, model=None, limit=100)
    for each in _found(args, places(args)):
        yield each.id, visible(each.title)
