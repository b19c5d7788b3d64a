"""`rlm-mcp config`: which settings hold and where each comes from, and which projects may ask for more."""

from __future__ import annotations

import argparse
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .output import FAILED, OK, USAGE, CommandFailed, Out, visible
from .parsing import flags_of

if TYPE_CHECKING:
    from ..keys import Key
    from ..sources import Asked, Loaded, Origin, Sources

_DESCRIPTION = """\
Show the settings that hold for a project, and where each comes from.

Flags come before the environment (RLM_...), that before the project's rlm.toml, and that before your own.
A project's file can narrow what your own settings allow, and needs your trust to widen it."""
_EXAMPLES = """\
examples:
  rlm-mcp config show                   what is not as by default
  rlm-mcp config show --all             every setting
  "$EDITOR" "$(rlm-mcp config path)"    change your own settings
  rlm-mcp config trust ~/survey         allow what the rlm.toml of that project asks for
"""
_LONGEST_SHOWN = 2000


def add_to(commands: Any) -> None:
    """Add the command to the program's."""
    parser = commands.add_parser(
        "config", help="show settings, and where each comes from", description=_DESCRIPTION, epilog=_EXAMPLES
    )
    below = parser.add_subparsers(
        dest="subcommand", metavar="WHAT", title="what to do", parser_class=type(parser)
    )
    show = below.add_parser("show", help="show settings and where each comes from (this is the default)")
    show.add_argument("--all", action="store_true", help="show also what is as by default")
    below.add_parser("path", help="print where your own settings are")
    trust = below.add_parser("trust", help="allow what a project's rlm.toml asks for")
    trust.add_argument("-y", "--yes", action="store_true", help="do not ask")
    distrust = below.add_parser("distrust", help="allow it no more")
    for each in (trust, distrust):
        each.add_argument(
            "folder", nargs="?", metavar="FOLDER", help="the project; else the folder you are in"
        )


def run(args: argparse.Namespace) -> int:
    """Do what is named."""
    from ..sources import Sources

    sources, out = Sources.of_process(flags_of(args)), Out.of(args)
    if args.subcommand == "path":
        return _path(args, sources, out)
    if args.subcommand == "trust":
        return _trust(folder_of(args), sources, out, yes=args.yes)
    if args.subcommand == "distrust":
        return _distrust(folder_of(args), sources, out)
    return _show(args, sources, out)


# ---- show


def _show(args: argparse.Namespace, sources: Sources, out: Out) -> int:
    from ..keys import KEYS

    folder = _project_folder(args, sources)
    loaded = sources.load(folder)
    shown = [
        key for key in KEYS.values() if getattr(args, "all", False) or _is_given(loaded.origins[key.dotted])
    ]
    out.data(
        {
            "project": folder,
            "settings": {key.dotted: _as_data(key, loaded) for key in KEYS.values()},
            "notes": loaded.notes,
        }
    )
    rows = [(key.dotted, _value(key, loaded), _origin_text(loaded.origins[key.dotted])) for key in shown]
    if rows:
        out.table(rows, heads=("setting", "value", "from"))
    for note in loaded.notes:
        out.say(f"\n{visible(note)}")
    if len(shown) < len(KEYS):
        out.talk(_hint(len(KEYS) - len(shown), bool(shown)))
    return OK


def _hint(others: int, some: bool) -> str:
    count = f"{others} more are" if some else "All settings are"
    return f"{count} as by default; --all shows them."


def _is_given(origin: Origin) -> bool:
    return origin.source != "default"


def _held(key: Key, loaded: Loaded) -> Any:
    section = getattr(loaded.settings, key.section) if key.section else loaded.settings
    return getattr(section, key.name)


def _value(key: Key, loaded: Loaded) -> str:
    return key.shown(_held(key, loaded), longest=_LONGEST_SHOWN)


def _as_data(key: Key, loaded: Loaded) -> dict[str, object]:
    origin, value = loaded.origins[key.dotted], _held(key, loaded)
    shown = key.shown(value) if key.secret else value
    return {"value": shown, "source": origin.source, "where": origin.where}


def _origin_text(origin: Origin) -> str:
    return f"{origin.source} ({origin.where})" if origin.where else origin.source


# ---- path


def _path(args: argparse.Namespace, sources: Sources, out: Out) -> int:
    from ..sources import FILE_NAME

    user, folder = sources.user_file, _project_folder(args, sources, lenient=True)
    project = folder / FILE_NAME if folder else None
    out.data(
        {
            "user": {"path": user, "exists": user.is_file()},
            "project": {"path": project, "exists": project.is_file()} if project else None,
        }
    )
    out.say(str(user))
    if not out.json:
        missing = "" if user.is_file() else "That file is not there yet. "
        out.talk(
            f"{missing}The project's is {project}." if project else f"{missing}There is no project's file."
        )
    return OK


# ---- trust


def _trust(folder: Path, sources: Sources, out: Out, *, yes: bool) -> int:
    from ..trust import trust
    from .asking import agree

    asked = sources.asked(folder)
    if asked is None:
        raise CommandFailed(
            f"There is no rlm.toml in {folder}, so there is nothing to trust.", code="no_file"
        )
    if not asked.wider or asked.standing == "trusted":
        already = asked.standing == "trusted"
        out.data(_trust_data(folder, asked, trusted=already, changed=False))
        why = "is trusted already" if already else "asks for nothing that needs your trust"
        out.say(f"{asked.document.path} {why}. Nothing was changed.")
        return OK
    if not out.json:
        _show_wider(folder, asked, sources, out)
    agree(out, "Allow this?", yes=yes)
    try:
        trust(sources.config_dir, folder, asked.document.digest)
    except OSError as problem:
        raise _not_written(sources, problem) from problem
    out.data(_trust_data(folder, asked, trusted=True, changed=True))
    out.say(f"{folder} is trusted, until its rlm.toml changes. `rlm-mcp config distrust` takes that back.")
    return OK


def _show_wider(folder: Path, asked: Asked, sources: Sources, out: Out) -> None:
    yours = sources.load(None)
    again = "has changed since you trusted it, and " if asked.standing == "changed" else ""
    out.say(f"{asked.document.path} {again}asks for more than your own settings allow:\n")
    rows = [
        (
            each.key.dotted,
            each.key.shown(each.value, longest=_LONGEST_SHOWN),
            _value(each.key, yours),
            each.key.meaning,
        )
        for each in asked.wider
    ]
    out.table(rows, heads=("setting", "it asks for", "now", "what it is"))
    out.say()


def _trust_data(folder: Path, asked: Asked, *, trusted: bool, changed: bool) -> dict[str, object]:
    return {
        "project": folder,
        "file": asked.document.path,
        "asks": {each.key.dotted: each.value for each in asked.wider},
        "trusted": trusted,
        "changed": changed,
    }


def _distrust(folder: Path, sources: Sources, out: Out) -> int:
    from ..trust import distrust

    try:
        changed = distrust(sources.config_dir, folder)
    except OSError as problem:
        raise _not_written(sources, problem) from problem
    out.data({"project": folder, "trusted": False, "changed": changed})
    out.say(f"{folder} is trusted no more." if changed else f"{folder} was not trusted. Nothing was changed.")
    return OK


def _not_written(sources: Sources, problem: OSError) -> CommandFailed:
    from ..trust import trust_file

    return CommandFailed(
        f"{trust_file(sources.config_dir)} cannot be written: {problem.strerror or problem}. Nothing was changed.",
        hint="Make that folder writable, or name another one in RLM_CONFIG_DIR.",
        code="not_written",
        exit_code=FAILED,
    )


# ---- which project


def folder_of(args: argparse.Namespace) -> Path:
    given = args.folder or args.project or "."
    folder = Path(given).expanduser().resolve()
    if not folder.is_dir():
        raise CommandFailed(
            f"{given} is not a folder.", hint="Name the folder of a project.", code="project", exit_code=USAGE
        )
    return folder


def _project_folder(args: argparse.Namespace, sources: Sources, *, lenient: bool = False) -> Path | None:
    """Return the folder of the project that the server would serve here; None if it has none."""
    from rlm_sessions import identify

    from ..sources import SettingsError

    try:
        setting = sources.load(None).settings.project
    except SettingsError:
        if not lenient:
            raise
        setting = ""
    return identify(
        named=args.project or None,
        setting=setting,
        host_folder=os.environ.get("CLAUDE_PROJECT_DIR"),
        working_directory=Path.cwd(),
    ).folder
