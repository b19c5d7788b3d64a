"""`rlm-mcp logs --remove` and `--prune`: trajectories that go, with the contexts that nothing names any more."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .asking import agree
from .output import FAILED, OK, USAGE, CommandFailed, Out, size

if TYPE_CHECKING:
    from rlm_runtime import KeptBound, KeptTrajectory

_MOST_SHOWN = 20

Doomed = dict[Path, "list[KeptTrajectory]"]


def add_to(parser: Any, age: Callable[[str], float]) -> None:
    """Add the flags; `age` reads how old something is, in days."""
    group = parser.add_argument_group("removing")
    group.add_argument(
        "--remove",
        nargs="+",
        metavar="TRAJECTORY",
        help="remove these, by their ids or the beginnings of them",
    )
    group.add_argument(
        "--prune",
        action="store_true",
        help="remove what is older, or more, than is kept: as the flags below say, else the settings",
    )
    group.add_argument(
        "--older-than",
        type=age,
        metavar="AGE",
        help='with --prune: runs that were over before that, such as "30d"',
    )
    group.add_argument(
        "--keep-bytes",
        type=_bytes,
        metavar="SIZE",
        help='with --prune: the oldest, until no more is left in a folder, such as "1g"',
    )
    group.add_argument("-y", "--yes", action="store_true", help="do not ask")


def _bytes(text: str) -> int:
    from ..settings import bytes_of

    try:
        return int(bytes_of(text))
    except ValueError as problem:
        raise argparse.ArgumentTypeError(f"{text!r}: {problem}") from None


def is_asked(args: argparse.Namespace) -> bool:
    """Return whether something is to be removed. Raise `CommandFailed` for flags that do not go together."""
    removing, flags = bool(args.remove) + args.prune, (args.older_than, args.keep_bytes)
    problem = ""
    if removing > 1 or (removing and (args.id or args.follow or args.event)):
        problem = "--remove ID... or --prune: one of them, and nothing that shows trajectories."
    elif not args.prune and any(each is not None for each in flags):
        problem = "--older-than and --keep-bytes say what --prune removes."
    elif args.yes and not removing:
        problem = "--yes is for --remove and --prune."
    if problem:
        raise CommandFailed(problem, code="usage", exit_code=USAGE)
    return bool(removing)


def run(args: argparse.Namespace, out: Out, folders: Sequence[Path], usual: Callable[[], KeptBound]) -> int:
    """Remove what is named, or what is too much; `usual` says how much that is by the settings."""
    doomed = _named(args.remove, folders) if args.remove else _beyond(args, folders, usual)
    if not any(doomed.values()) and not args.prune:
        raise CommandFailed("Nothing was removed.", code="in_use", exit_code=FAILED)
    if any(doomed.values()):
        _show(out, doomed)
        agree(out, "Remove them?", yes=args.yes)
    return _remove(out, doomed, folders)


def _named(ids: Sequence[str], folders: Sequence[Path]) -> Doomed:
    """Return what is named. Raise `CommandFailed` if it goes on, and `TrajectoryError` if there is no such thing."""
    from rlm_runtime import find_trajectory, is_running, kept_trajectories

    paths = list(dict.fromkeys(find_trajectory(folders, each) for each in ids))
    for path in paths:
        if is_running(path):
            hint = "It can be removed when it is over. Nothing was removed."
            raise CommandFailed(f"The run {path.stem} goes on.", hint=hint, code="in_use", exit_code=FAILED)
    doomed: Doomed = {}
    for folder in dict.fromkeys(path.parent for path in paths):
        doomed[folder] = [each for each in kept_trajectories(folder) if each.path in paths]
        for path in paths:
            if path.parent == folder and path not in {each.path for each in doomed[folder]}:
                message = f"{path} is no trajectory that this program knows. Nothing was removed."
                raise CommandFailed(message, hint="Remove the file itself.", code="trajectory")
    return doomed


def _beyond(args: argparse.Namespace, folders: Sequence[Path], usual: Callable[[], KeptBound]) -> Doomed:
    from rlm_runtime import KeptBound, trajectories_beyond

    told = args.older_than is not None or args.keep_bytes is not None
    bound = KeptBound(args.older_than, args.keep_bytes) if told else usual()
    return {folder: trajectories_beyond(folder, bound) for folder in folders if folder.is_dir()}


def _show(out: Out, doomed: Doomed) -> None:
    every = [each for some in doomed.values() for each in some]
    if out.json:
        return
    for each in every[:_MOST_SHOWN]:
        out.talk(f"  {each.id}  {size(each.size_bytes)}  {_title(each)}".rstrip())
    if len(every) > _MOST_SHOWN:
        out.talk(f"  ... and {len(every) - _MOST_SHOWN} more")


def _title(kept: KeptTrajectory) -> str:
    from rlm_runtime import TrajectoryError, summary_of

    from .trajectory_text import short

    try:
        return short(summary_of(kept.path).title, 60)
    except (OSError, TrajectoryError):
        return ""


def _remove(out: Out, doomed: Doomed, folders: Sequence[Path]) -> int:
    from rlm_runtime import remove_trajectories

    removed = [remove_trajectories(folder, some) for folder, some in doomed.items()]
    ids = [id_ for each in removed for id_ in each.ids]
    contexts, freed = sum(each.contexts for each in removed), sum(each.freed_bytes for each in removed)
    out.data({"removed": ids, "contexts": contexts, "freed_bytes": freed})
    if not ids and not contexts:
        out.say("There is nothing to remove.")
    else:
        out.say(f"Removed: {_counted(len(ids), 'run')}, {_counted(contexts, 'context')}, {size(freed)}.")
    return OK


def _counted(count: int, one: str) -> str:
    return f"{count} {one}" if count == 1 else f"{count} {one}s"
