"""`rlm-mcp run`: has a model work on a task, with a REPL and calls to models from its code."""

from __future__ import annotations

import argparse
import glob
import json
import os
import sys
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .exec import seconds
from .interrupts import heed_interrupts
from .live import shown
from .logs import add_folder, places
from .opening import Ground
from .output import (
    CONFIGURATION,
    FAILED,
    INTERRUPTED,
    LIMIT,
    OK,
    TIMEOUT,
    USAGE,
    CommandFailed,
    Out,
    failure_of,
    visible,
)
from .parsing import add_sandbox_settings, add_setting, flags_of
from .trajectory_text import counted, dollars
from .trajectory_text import seconds as duration

if TYPE_CHECKING:
    from rlm_runtime import Event, Log, Outcome, RLMError, Rooms, Trajectory
    from rlm_sessions import Project

    from ..answering import Means
    from ..settings import Settings

_DESCRIPTION = """\
Have a model work on a task. What the task is about is a variable in a REPL of its own, which it looks at by code; and
code asks models about the pieces. A small task is simply asked.

The answer goes to stdout, everything else to stderr: first the id of the trajectory, which `rlm-mcp logs ID` shows."""
_EXAMPLES = """\
examples:
  rlm-mcp run "Which customers complain about the price?" --context 'tickets/*.txt'
  journalctl -b | rlm-mcp run "What went wrong first?" --context -
  rlm-mcp run "List all dates" --context log.txt --schema dates.json --json
  rlm-mcp run --resume 20251121T09

exit codes: 0 answered, 1 failed, or no answer came of it, 2 wrong usage, 3 no model or a wrong setting, 4 a budget
            ended first, 5 no sandbox or no Docker here, 124 out of time, 130 interrupted. What there is of an answer
            is printed. Ctrl-C ends the run and keeps its trajectory, with which --resume goes on; twice quits.
"""
_ALLOW = {
    "CostBudgetExhausted": "--cost-budget DOLLARS allows more.",
    "TimeBudgetExhausted": "--timeout SECONDS allows more.",
    "TokenBudgetExhausted": "--token-budget N allows more.",
}


def add_to(commands: Any) -> None:
    """Add the command to the program's."""
    parser = commands.add_parser(
        "run", help="have a model work on a task", description=_DESCRIPTION, epilog=_EXAMPLES
    )
    parser.add_argument("prompt", nargs="?", metavar="PROMPT", help="the task; - reads it from stdin")
    parser.add_argument(
        "--context",
        nargs="+",
        action="extend",
        metavar="PATH",
        default=[],
        help="files, or patterns of files, that it is about; - is stdin. One is the text `context`, several "
        "are a dictionary of texts by their names",
    )
    parser.add_argument("--system", metavar="TEXT", default="", help="what the model is told about its role")
    parser.add_argument("--schema", metavar="FILE", help="a JSON schema of the answer")
    parser.add_argument("--resume", metavar="TRAJECTORY", help="go on with a run that was cut off")
    add_folder(parser)
    parser.add_argument(
        "--recursive", action=argparse.BooleanOptionalAction, help="use a REPL always, or never"
    )
    parser.add_argument("-v", "--verbose", action="store_true", help="show events as they happen")
    _add_settings(parser)
    add_sandbox_settings(parser)


def _add_settings(parser: Any) -> None:
    number = {"metavar": "N"}
    add_setting(parser, "--model", "rlm.model", "the model that steers", metavar="NAME")
    add_setting(parser, "--sub-model", "rlm.sub_model", "the model that code asks", metavar="NAME")
    backends = ("litellm", "openai", "anthropic", "command")
    add_setting(parser, "--backend", "rlm.backend", "how the model is asked", choices=backends)
    add_setting(parser, "--api-base", "rlm.api_base", "where a compatible server listens", metavar="URL")
    places = ("local", "docker")
    add_setting(parser, "--env", "rlm.environment", "where code runs: local or docker", choices=places)
    add_setting(parser, "--max-depth", "rlm.max_depth", "how deep calls may recurse", **number)
    add_setting(parser, "--max-subcalls", "rlm.max_subcalls", "how many calls code may make", **number)
    add_setting(parser, "--token-budget", "rlm.token_budget", "how many tokens it may use", **number)
    add_setting(parser, "--cost-budget", "rlm.cost_budget_usd", "how much it may cost", metavar="DOLLARS")
    add_setting(
        parser, "--timeout", "rlm.wall_seconds", "how long it may take", metavar="SECONDS", type=seconds
    )
    add_setting(parser, "--at-once", "rlm.at_once", "how many requests may be in flight at once", **number)


def run(args: argparse.Namespace) -> int:
    """Do it, print the answer, and return an exit code."""
    import anyio

    asked, out = _asked(args), Out.of(args)
    try:
        came = anyio.run(_run, args, asked, Ground.of(args), out)
    except BaseExceptionGroup as group:
        raise (failure_of(group) or group) from group
    return _end(out, came)


# ---- what is asked


@dataclass(frozen=True)
class _Asked:
    prompt: str
    context: Any
    schema: Any


def _asked(args: argparse.Namespace) -> _Asked:
    if args.resume is not None:
        if args.prompt is not None or args.context or args.schema:
            raise _usage("--resume goes on with the task that was given then.", "Leave the rest out.")
        return _Asked("", None, None)
    if args.prompt is None:
        raise _usage("There is no task.", 'rlm-mcp run "Summarize it" --context notes.txt')
    if args.prompt == "-" and "-" in args.context:
        raise _usage("stdin cannot be both the task and the context.", "Name a file for one of them.")
    prompt = _stdin() if args.prompt == "-" else str(args.prompt)
    if not prompt.strip():
        raise _usage("The task is empty.", 'rlm-mcp run "Summarize it" --context notes.txt')
    return _Asked(prompt, _context(args.context), _schema(args.schema))


def _usage(message: str, hint: str = "") -> CommandFailed:
    return CommandFailed(message, hint=hint, code="usage", exit_code=USAGE)


def _stdin() -> str:
    return sys.stdin.buffer.read().decode("utf-8", "surrogateescape")


def _context(given: list[str]) -> Any:
    """Return a text, a file, several texts by name, or None."""
    from rlm_runtime import ContextFile

    files = [path for each in given for path in _files(each)]
    if len(files) == 1:
        return _stdin() if files[0] == "-" else ContextFile(Path(files[0]).absolute())
    return {_name(file): _stdin() if file == "-" else _text(file) for file in files} or None


def _files(given: str) -> list[str]:
    if given == "-" or os.path.isfile(given):  # noqa: PTH113 -- what is given may be a pattern
        return [given]
    if os.path.isdir(given):  # noqa: PTH112
        raise _usage(f"{given} is a folder.", f"Name its files: --context '{given.rstrip('/')}/**/*'")
    found = [each for each in sorted(glob.glob(given, recursive=True)) if os.path.isfile(each)]  # noqa: PTH113, PTH207
    if not found:
        raise _usage(f"There is no file {given!r}, and no file that it is a pattern of.")
    return found


def _name(file: str) -> str:
    return "stdin" if file == "-" else os.path.relpath(file)


def _text(file: str) -> str:
    try:
        return Path(file).read_bytes().decode("utf-8", "surrogateescape")
    except OSError as problem:
        raise _usage(f"{file} cannot be read: {problem.strerror}.") from problem


def _schema(file: str | None) -> Any:
    if file is None:
        return None
    try:
        schema = json.loads(_text(file))
    except ValueError as problem:
        raise _usage(f"{file} is no JSON: {problem}.") from problem
    if not isinstance(schema, dict):
        raise _usage(f"{file} is no JSON schema of an answer: it has to be an object.")
    return schema  # pyright: ignore[reportUnknownVariableType]


# ---- running it


@dataclass
class _Came:
    """What came of it up to now. `ended` is the last event."""

    trajectory_id: str = ""
    outcome: Outcome | None = None
    ended: Mapping[str, Any] = field(default_factory=dict[str, Any])
    cancelled: bool = False
    problem: RLMError | None = None

    def hear(self, event: Event) -> None:
        """Take in an event."""
        if event["kind"] == "run_ended":
            self.ended = event


@dataclass(frozen=True)
class _Grounds:
    """What a run stands on."""

    means: Means
    rooms: Rooms
    project: Project
    settings: Settings
    notes: Sequence[str]


async def _run(args: argparse.Namespace, asked: _Asked, ground: Ground, out: Out) -> _Came:
    import anyio

    from rlm_runtime import RLMError

    came, running = _Came(), anyio.CancelScope()
    async with anyio.create_task_group() as tasks:
        await tasks.start(heed_interrupts, running)
        with running:
            try:
                resumed = await _resumed(args)
                async with _grounds(args, ground, out) as grounds:
                    await _logged(args, asked, resumed, grounds, out, came)
            except RLMError as problem:  # before anything was asked
                came.problem = problem
        tasks.cancel_scope.cancel()
    came.cancelled = running.cancelled_caught
    return came


@asynccontextmanager
async def _grounds(args: argparse.Namespace, ground: Ground, out: Out) -> AsyncGenerator[_Grounds]:
    """Open what a run stands on, as the settings of the project say. Raise `CommandFailed` if nobody answers."""
    import anyio.to_thread

    from ..answering import Help, means_of
    from ..app import open_app
    from ..tenants import OWNER

    project = await anyio.to_thread.run_sync(_project, args, ground)
    async with open_app(ground.sources, base=ground.loaded, brief=True) as app:
        loaded, help_ = await app.loaded(project), Help()
        means = await means_of(app, OWNER, project, loaded, help_)
        if not means.model:
            raise CommandFailed(
                "No model is configured.",
                hint="Name one by --model and --backend, or a model or a command in [rlm] of the rlm.toml that "
                "`rlm-mcp config path` names.",
                code="configuration",
                exit_code=CONFIGURATION,
            )
        app.on_news.append(lambda news: out.talk(f"[{visible(news)}]"))
        notes = (*await app.first_notes(OWNER, project), *help_.notes)
        yield _Grounds(means, await app.rooms(OWNER, project), project, loaded.settings, notes)


def _project(args: argparse.Namespace, ground: Ground) -> Project:
    from rlm_sessions import identify

    return identify(
        named=args.project or None, setting=ground.loaded.settings.project, working_directory=Path.cwd()
    )


async def _resumed(args: argparse.Namespace) -> Trajectory | None:
    """Return the run to go on with; it is looked for before this run has a log that could be taken for it."""
    if args.resume is None:
        return None
    import anyio.to_thread

    from rlm_runtime import find_trajectory, read_trajectory

    folders = await anyio.to_thread.run_sync(places, args)
    return await anyio.to_thread.run_sync(lambda: read_trajectory(find_trajectory(folders, args.resume)))


async def _logged(
    args: argparse.Namespace,
    asked: _Asked,
    resumed: Trajectory | None,
    grounds: _Grounds,
    out: Out,
    came: _Came,
) -> None:
    from rlm_runtime import RLMError, open_log

    async with open_log(
        grounds.means.folder, secrets=grounds.means.secrets, bound=grounds.means.bound
    ) as log:
        came.trajectory_id = log.trajectory_id
        out.talk(f"[trajectory {log.trajectory_id}]")
        for note in grounds.notes:
            out.talk(f"[note: {note}]")
        async with shown(out, verbose=args.verbose or grounds.settings.rlm.verbose) as display:
            log.listeners += [came.hear, display.hear]
            try:
                if resumed is None:
                    came.outcome = await _begin(args, asked, grounds, log)
                else:
                    came.outcome = await _go_on(resumed, grounds, log)
            except RLMError as problem:
                came.problem = problem
        if log.problem:
            out.talk(f"[note: {log.problem}]")


async def _begin(args: argparse.Namespace, asked: _Asked, grounds: _Grounds, log: Log) -> Outcome:
    from rlm_runtime import Job, run_job

    from ..models import budget_of

    settings = grounds.settings
    job = Job(
        asked.prompt,
        contexts={} if asked.context is None else {"context": asked.context},
        system=args.system,
        schema=asked.schema,
        sub_model=settings.rlm.sub_model,
        budget=budget_of(settings.rlm),
        recursive=args.recursive,
        files=settings.sandbox.files if "sandbox.files" in flags_of(args) else "none",
        project=grounds.project.folder,
    )
    means = grounds.means
    return await run_job(job, ladder=means.ladder, rooms=grounds.rooms, log=log, store=means.store)


async def _go_on(trajectory: Trajectory, grounds: _Grounds, log: Log) -> Outcome | None:
    """Go on with a run: what it was answered comes from its log, and the rest from the model."""
    from rlm_runtime import replay_trajectory

    replayed = await replay_trajectory(
        trajectory,
        rooms=grounds.rooms,
        live=grounds.means.ladder,
        log=log,
        store=grounds.means.store,
        project=grounds.project.folder,
    )
    return replayed.outcome


# ---- telling what came of it


def _end(out: Out, came: _Came) -> int:
    outcome, failure = came.outcome, _failure_of(came)
    response = outcome.response if outcome is not None else _left(came)
    out.data(_facts(came, response), failure=failure)
    if response or failure is None:
        out.say(response)
    if outcome is not None:
        out.talk(f"[{_took(outcome)}]")
    if failure is None:
        return OK
    if not out.json:
        sys.stdout.flush()
        out.fail(failure)
    return failure.exit_code


def _left(came: _Came) -> str:
    """Return what there is of an answer of a run that was broken off."""
    said = came.problem.partial if came.problem is not None else came.ended.get("response")
    return said if isinstance(said, str) else ""


def _facts(came: _Came, response: str) -> dict[str, Any]:
    if came.outcome is not None:
        return asdict(came.outcome)
    facts = {name: came.ended.get(name) for name in ("finish", "reason", "cost_usd", "duration_ms")}
    return {"trajectory_id": came.trajectory_id, "response": response, **facts}


def _took(outcome: Outcome) -> str:
    cost = "cost unknown" if outcome.cost_usd is None else dollars(outcome.cost_usd)
    unsure = f" (and up to {outcome.unsure_tokens:,} without an answer)" if outcome.unsure_tokens else ""
    over = f" ({outcome.over_tokens:,} more than the model was allowed)" if outcome.over_tokens else ""
    return (
        f"{outcome.finish}: {counted(outcome.total_calls, 'request')}, {outcome.total_tokens:,} tokens{unsure}{over}, "
        f"{cost}, depth {outcome.depth_reached}, {duration(outcome.duration_ms)}"
    )


def _failure_of(came: _Came) -> CommandFailed | None:
    """Return why there is no whole answer; None if there is one."""
    if came.problem is not None:
        return _of_error(came.problem)
    if came.cancelled or came.outcome is None:
        again = f"`rlm-mcp run --resume {came.trajectory_id}` goes on with it." if came.trajectory_id else ""
        return CommandFailed(
            "The run was interrupted.", hint=again, code="interrupted", exit_code=INTERRUPTED
        )
    if not came.outcome.partial:
        return None
    if came.outcome.finish != "exhausted":
        return CommandFailed(came.outcome.reason, code="no_answer", exit_code=FAILED)
    from rlm_runtime import within

    kind = within(came.ended, "error", "kind")
    exit_code = TIMEOUT if kind == "TimeBudgetExhausted" else LIMIT
    message = f"This is not a whole answer. {came.outcome.reason}"
    return CommandFailed(message, hint=_ALLOW.get(str(kind), ""), code="budget", exit_code=exit_code)


def _of_error(problem: RLMError) -> CommandFailed:
    from rlm_runtime import ModelUnavailable, PriceUnknown, TrajectoryError

    if isinstance(problem, (ModelUnavailable, PriceUnknown)):
        return CommandFailed(str(problem), code="configuration", exit_code=CONFIGURATION)
    code = "trajectory" if isinstance(problem, TrajectoryError) else "model"
    return CommandFailed(str(problem), code=code, exit_code=FAILED)
