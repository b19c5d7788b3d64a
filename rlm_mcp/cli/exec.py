"""`rlm-mcp exec`: runs Python in a project's session, the same that its server has."""

from __future__ import annotations

import argparse
import base64
import io
import re
import sys
import tempfile
import tokenize
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .interrupts import heed_interrupts
from .output import (
    FAILED,
    INTERRUPTED,
    LIMIT,
    OK,
    TIMEOUT,
    UNAVAILABLE,
    USAGE,
    CommandFailed,
    Out,
    failure_of,
    visible,
)
from .parsing import add_sandbox_settings

if TYPE_CHECKING:
    from rlm_sessions import CellResult, Project

    from .opening import Ground

_DESCRIPTION = """\
Run Python in a project's session and print what it prints, and the value of its last expression.

It is the session that MCP clients have: if a server has it open, the code runs there, in turn with its cells.
Variables stay for the next time. Settings that are given here count only where no server has the session."""
_EXAMPLES = """\
examples:
  rlm-mcp exec 'x = 6 * 7; x'
  rlm-mcp exec -f analysis.py --timeout 600
  echo 'print(x)' | rlm-mcp exec -
  rlm-mcp exec --project ~/survey --plot-dir figures 'df.plot()'

exit codes: 0 done, 1 the code failed, 4 it reached a limit, 124 it ran out of time, 130 it was interrupted;
            2, 3 and 5 as for every command. Ctrl-C interrupts the code and keeps the session; twice quits.
"""
_WAITING_SECONDS, _TELL_AFTER = 0.25, 4
_PROBLEM_CODES = {"interrupted": INTERRUPTED, "busy": LIMIT, "sandbox": UNAVAILABLE, "too_long": USAGE}
_USUAL = "The session is back from disk"  # as it is each time, where no server holds it
_OF_CALLS = re.compile(r"Pass a larger timeout_s .*? in one call\. ?")  # said to clients, who have no flags
_OURS = re.compile(r"\brlm_guest(?:\.\w+)*\.(?=\w+:)")  # where our own exceptions are defined
_WAYS_OUT = {
    "memory_bytes": "--memory SIZE allows more.",
    "docker_memory": "--set rlm.docker_memory=SIZE allows more.",
    "files": "--files write allows it.",
}
_BAR = " ["  # of what Docker says of each piece, and again
_SUFFIXES = {"image/png": ".png", "image/svg+xml": ".svg", "image/jpeg": ".jpg", "image/gif": ".gif"}


def add_to(commands: Any) -> None:
    """Add the command to the program's."""
    parser = commands.add_parser(
        "exec",
        help="run Python in a project's session, from the shell",
        description=_DESCRIPTION,
        epilog=_EXAMPLES,
    )
    parser.add_argument("code", nargs="?", metavar="CODE", help="the code; - or nothing reads it from stdin")
    parser.add_argument("-f", "--file", metavar="FILE", help="run a file")
    parser.add_argument("--timeout", type=seconds, metavar="SECONDS", help="how long the code may run")
    parser.add_argument(
        "--plot-dir",
        type=Path,
        metavar="FOLDER",
        help="where figures are saved; else in a new temporary folder",
    )
    add_sandbox_settings(parser)


def seconds(text: str) -> float:
    """Return how long something may take."""
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0 < value <= 86_400:
        raise argparse.ArgumentTypeError(f"{text!r} is no number of seconds between 0 and 86400")
    return value


def run(args: argparse.Namespace) -> int:
    """Run code, print what comes of it, and return an exit code."""
    code = _code(args)
    from .opening import Ground

    ground = Ground.of(args)
    project = _project(args, ground)
    telling = Telling(Out.of(args), project, args.plot_dir)
    facts = _facts(ground, project, code, args.timeout, telling)
    unused = [f"Not used as the project: {each}." for each in project.passed_over]
    facts["notes"] = [*(note for note in unused if note not in facts["notes"]), *facts["notes"]]
    return telling.end(facts)


# ---- what to run, and where


def _code(args: argparse.Namespace) -> str:
    if args.file is not None and args.code is not None:
        raise CommandFailed("Give the code or a file, not both.", code="usage", exit_code=USAGE)
    if args.file is not None and args.file != "-":
        return _decoded(_read(Path(args.file)), args.file)
    if args.code is not None and args.code != "-":
        return str(args.code)
    if args.code is None and args.file is None and (sys.stdin is None or sys.stdin.isatty()):
        hint = "rlm-mcp exec 'print(1)', or -f FILE, or pipe it in."
        raise CommandFailed("There is no code to run.", hint=hint, code="usage", exit_code=USAGE)
    return _decoded(sys.stdin.buffer.read(), "stdin")


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as problem:
        why = problem.strerror or str(problem)
        raise CommandFailed(f"{path} cannot be read: {why}.", code="usage", exit_code=USAGE) from problem


def _decoded(data: bytes, source: str) -> str:
    """Return the text of a program, in the encoding that it says it has."""
    try:
        encoding, _ = tokenize.detect_encoding(io.BytesIO(data).readline)
        return io.TextIOWrapper(io.BytesIO(data), encoding).read()
    except (SyntaxError, UnicodeDecodeError) as problem:
        raise CommandFailed(
            f"{source} is no Python text: {problem}.", code="usage", exit_code=USAGE
        ) from problem


def _project(args: argparse.Namespace, ground: Ground) -> Project:
    from rlm_sessions import identify

    return identify(
        named=args.project or None, setting=ground.loaded.settings.project, working_directory=Path.cwd()
    )


# ---- running it


def _facts(
    ground: Ground, project: Project, code: str, timeout_s: float | None, telling: Telling
) -> dict[str, Any]:
    """Return all that came of the code, from the server that has the session, or from here."""
    from .opening import Taken
    from .visiting import NobodyThere, owner_of

    while True:
        owner = owner_of(ground.root, project.key)
        try:
            if owner is not None and owner.here:
                telling.through = owner.pid
                return _run_there(ground, project, code, timeout_s, telling)
        except NobodyThere:
            pass
        telling.through = None
        try:
            return _run_here(ground, project, code, timeout_s, telling)
        except Taken:
            if owner is not None and not owner.here:
                raise
            _wait(ground, project, telling.out)


def _run_there(
    ground: Ground, project: Project, code: str, timeout_s: float | None, telling: Telling
) -> dict[str, Any]:
    from ..door import DoorProblem
    from . import visiting

    assert telling.through is not None
    try:
        return visiting.run(
            ground.root, telling.through, project.key, code, timeout_s=timeout_s, on_output=telling.hear
        )
    except DoorProblem as problem:
        exit_code = _PROBLEM_CODES.get(problem.code, FAILED)
        raise CommandFailed(str(problem), code=problem.code, exit_code=exit_code) from problem


def _wait(ground: Ground, project: Project, out: Out) -> None:
    """Wait until a process without a door, such as another command, is done with a project."""
    import time

    from .visiting import doors, is_free, owner_of

    looks = 0
    while not is_free(ground.root, project.key):
        looks += 1
        owner = owner_of(ground.root, project.key)
        if looks > 1 and owner is not None and owner.pid in doors(ground.root):
            return
        if looks == _TELL_AFTER:
            who = "another process" if owner is None else f"process {owner.pid}"
            out.talk(f"[waiting for {who}, which has this project open; Ctrl-C gives up]")
        time.sleep(_WAITING_SECONDS)


def _run_here(
    ground: Ground, project: Project, code: str, timeout_s: float | None, telling: Telling
) -> dict[str, Any]:
    import anyio

    try:
        return anyio.run(_run_session, ground, project, code, timeout_s, telling)
    except BaseExceptionGroup as group:
        raise (failure_of(group) or group) from group


async def _run_session(
    ground: Ground, project: Project, code: str, timeout_s: float | None, telling: Telling
) -> dict[str, Any]:
    import anyio

    from ..answering import cell_calls
    from ..door import facts_of
    from ..tenants import OWNER
    from .opening import session_here

    async def on_output(stream: str, text: str) -> None:
        if unread:
            return
        try:
            telling.hear(stream, text)
        except BrokenPipeError as problem:
            unread.append(problem)
            running.cancel()

    result: CellResult | None = None
    notes: tuple[str, ...] = ()
    unread, running = list[BrokenPipeError](), anyio.CancelScope()
    async with anyio.create_task_group() as tasks:
        await tasks.start(heed_interrupts, running)
        async with session_here(ground, project) as (app, session):
            app.on_news.append(telling.hear_news)
            with running:
                async with cell_calls(app, OWNER, project, code) as calls:
                    result = calls.result = await session.run(
                        code, on_output=on_output, wall_seconds=timeout_s, answer=calls.answer
                    )
            notes = await app.first_notes(OWNER, project)
        tasks.cancel_scope.cancel()
    if unread:
        raise unread[0]
    if result is None:
        raise _interrupted()
    facts = facts_of(result)
    facts["notes"] = [note for note in (*notes, *facts["notes"]) if not note.startswith(_USUAL)]
    return facts


def _interrupted() -> CommandFailed:
    message = "The cell was interrupted. The session keeps its variables."
    return CommandFailed(message, code="interrupted", exit_code=INTERRUPTED)


# ---- telling what came of it


class Telling:
    """Prints what code prints as it comes, and at the end what else there is to say."""

    def __init__(self, out: Out, project: Project, plot_dir: Path | None) -> None:
        self.out = out
        self.through: int | None = None
        self._project = project
        self._plot_dir = plot_dir
        self._heard: dict[str, list[str]] = {"out": [], "err": []}

    def hear(self, stream: str, text: str) -> None:
        """Take in a piece of what is printed."""
        if self.out.json:
            self._heard[stream].append(text)
            return
        target = sys.stderr if stream == "err" else sys.stdout
        target.write(text)
        target.flush()

    def hear_news(self, news: str) -> None:
        """Tell what is waited for; of what is told again and again, such as a bar, nothing."""
        if _BAR not in news:
            self.out.talk(f"[{visible(news)}]")

    def end(self, facts: dict[str, Any]) -> int:
        """Print the rest, and return the exit code."""
        if facts["error"] is not None:
            facts["error"] = _for_people(facts["error"])
        displays, failure = facts.pop("displays"), _failure_of(facts, in_server=self.through is not None)
        pictures = [shown for shown in displays if shown["mime"].startswith("image/")]
        texts = [_text_of(shown) for shown in displays if shown["mime"].startswith("text/")]
        figures = [str(path) for path in self._save(pictures)]
        if self.out.json:
            self.out.data(self._all(facts, texts, figures), failure=failure)
        else:
            self._print(facts, texts, figures)
            if failure is not None and failure.hint:
                self.out.talk(f"[hint: {failure.hint}]")
        return OK if failure is None else failure.exit_code

    def _all(self, facts: dict[str, Any], texts: list[str], figures: list[str]) -> dict[str, Any]:
        folder = self._project.folder
        heard = {f"std{stream}": "".join(pieces) for stream, pieces in self._heard.items()}
        return {
            "project": {
                "key": self._project.key,
                "name": self._project.name,
                "folder": None if folder is None else str(folder),
            },
            "server": self.through,
            **heard,
            **{
                key: fact
                for key, fact in facts.items()
                if key not in ("output", "output_characters", "left_out")
            },
            "texts": texts,
            "figures": figures,
        }

    def _print(self, facts: dict[str, Any], texts: list[str], figures: list[str]) -> None:
        for text in [*texts, *([facts["value"]] if facts["value"] is not None else [])]:
            self.out.say(text)
        sys.stdout.flush()
        if facts["error"] is not None:
            sys.stderr.write(_of_error(facts["error"]) + "\n")
        if facts["exit_code"] is not None:
            self.out.talk(f"[the code ended itself: exit({facts['exit_code']})]")
        for figure in figures:
            self.out.talk(f"[figure: {figure}]")
        for note in facts["notes"]:
            self.out.talk(f"[note: {note}]")

    def _save(self, pictures: list[dict[str, Any]]) -> list[Path]:
        if not pictures:
            return []
        folder = self._plot_dir or Path(tempfile.mkdtemp(prefix="rlm-figures-"))
        folder.mkdir(parents=True, exist_ok=True)
        return [_saved(folder, number, shown) for number, shown in enumerate(pictures, 1)]


def _saved(folder: Path, number: int, shown: dict[str, Any]) -> Path:
    """Save a picture under a name that is free."""
    suffix, count = _SUFFIXES.get(shown["mime"], ".bin"), number
    while True:
        path = folder / f"figure-{count}{suffix}"
        try:
            with path.open("xb") as file:
                file.write(base64.b64decode(shown["data"]))
        except FileExistsError:
            count += 1
        else:
            return path.absolute()


def _text_of(shown: dict[str, Any]) -> str:
    return base64.b64decode(shown["data"]).decode("utf-8", "replace")


def _of_error(error: dict[str, Any]) -> str:
    said = f"{error['name']}: {error['message']}"
    if not error["traceback"]:
        return said
    traceback = str(error["traceback"]).rstrip("\n")
    if not error["limit"]:
        return traceback
    before, newline, last = traceback.rpartition("\n")
    return f"{before if said.startswith(last) else traceback}{newline}{said}"


def _for_people(error: dict[str, Any]) -> dict[str, Any]:
    """Return an error of a cell as it is told at a terminal, where other ways out exist than for a client."""
    traceback = error["traceback"] and _OURS.sub("", error["traceback"])
    return {**error, "message": _OF_CALLS.sub("", error["message"]), "traceback": traceback}


def _failure_of(facts: dict[str, Any], *, in_server: bool) -> CommandFailed | None:
    error, exit_ = facts["error"], facts["exit_code"]
    if error is not None:
        limit = error["limit"]
        code, exit_code = ("code", FAILED) if limit is None else ("limit", LIMIT)
        if limit == "wall_seconds":
            code, exit_code = "timeout", TIMEOUT
        if error["name"] == "KeyboardInterrupt":
            code, exit_code = "interrupted", INTERRUPTED
        named = "docker_memory" if "docker_memory" in error["message"] else limit or ""
        hint = "" if in_server else _WAYS_OUT.get(named, "")
        hint = "--timeout SECONDS gives more time." if code == "timeout" else hint
        return CommandFailed(
            f"{error['name']}: {error['message']}", hint=hint, code=code, exit_code=exit_code
        )
    if exit_ not in (None, "", "0", "None"):
        return CommandFailed(f"The code ended itself: exit({exit_}).", code="exit", exit_code=FAILED)
    return None
