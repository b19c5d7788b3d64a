"""`rlm-mcp replay`: a run again from its log, identical and without a model, or from an event on with one."""

from __future__ import annotations

import argparse
from collections.abc import AsyncGenerator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .logs import add_folder, count, places
from .output import FAILED, OK, CommandFailed, Out
from .parsing import add_sandbox_settings, add_setting

if TYPE_CHECKING:
    from rlm_runtime import Event, Replayed, Trajectory
    from rlm_sessions import Project

    from ..app import App
    from ..settings import Settings

_DESCRIPTION = """\
Play a run again: its code runs anew, and models, tools and the store answer what they answered then.

Without --from no model is asked, and everything must be as it was; the first difference is told, with its event.
With --from N the events before N come from the log, and from there on the configured model is asked: a new run,
with a log of its own."""
_EXAMPLES = """\
examples:
  rlm-mcp replay 20251121T09
  rlm-mcp replay 20251121T09 --from 12 --model openai/gpt-5
"""


def add_to(commands: Any) -> None:
    """Add the command to the program's."""
    parser = commands.add_parser(
        "replay", help="play a run again, without a model", description=_DESCRIPTION, epilog=_EXAMPLES
    )
    parser.add_argument("id", metavar="TRAJECTORY", help="an id, or the beginning of one")
    add_folder(parser)
    parser.add_argument("--from", dest="before", type=count, metavar="N", help="ask a model from event N on")
    parser.add_argument("-v", "--verbose", action="store_true", help="show events as they happen")
    add_setting(parser, "--model", "rlm.model", "the model to ask, with --from", metavar="NAME")
    add_sandbox_settings(parser)


def run(args: argparse.Namespace) -> int:
    """Play it again."""
    import anyio

    from rlm_runtime import ReplayDiverged, RLMError, find_trajectory, read_trajectory

    out = Out.of(args)
    try:
        trajectory = read_trajectory(find_trajectory(places(args), args.id))
        replayed, id_ = anyio.run(_replay, args, out, trajectory)
    except ReplayDiverged as problem:
        raise CommandFailed(str(problem), code="diverged", exit_code=FAILED) from problem
    except RLMError as problem:
        raise CommandFailed(str(problem), code="replay", exit_code=FAILED) from problem
    return _tell(out, trajectory, replayed, id_)


async def _replay(args: argparse.Namespace, out: Out, trajectory: Trajectory) -> tuple[Replayed, str]:
    """Return what came of it, and the trajectory that it is now; "" where it is none."""
    import anyio.to_thread

    from ..app import open_app
    from ..tenants import OWNER
    from .opening import Ground

    ground = await anyio.to_thread.run_sync(Ground.of, args)
    async with open_app(ground.sources, base=ground.loaded) as app:
        project = await app.project(OWNER, args.project or None)
        if args.before is None:
            return await _offline(app, project, trajectory, _show(args, out)), ""
        return await _live(app, project, trajectory, args.before, _show(args, out))


def _show(args: argparse.Namespace, out: Out) -> Any:
    from .trajectory_text import line_of

    def show(event: Event) -> None:
        out.talk(line_of(event, out))

    return show if args.verbose else None


async def _offline(app: App, project: Project, trajectory: Trajectory, show: Any) -> Replayed:
    from rlm_runtime import replay_trajectory

    settings = (await app.loaded(project)).settings
    async with _rooms(settings, project) as rooms:
        return await replay_trajectory(trajectory, rooms=rooms, project=project.folder, on_event=show)


async def _live(
    app: App, project: Project, trajectory: Trajectory, before: int, show: Any
) -> tuple[Replayed, str]:
    from rlm_runtime import open_log, replay_trajectory

    from ..answering import Help, means_of
    from ..tenants import OWNER

    loaded = await app.loaded(project)
    means = await means_of(app, OWNER, project, loaded, Help())
    async with AsyncExitStack() as stack:
        rooms = await stack.enter_async_context(_rooms(loaded.settings, project))
        log = await stack.enter_async_context(
            open_log(means.folder, secrets=means.secrets, bound=means.bound)
        )
        replayed = await replay_trajectory(
            trajectory,
            rooms=rooms,
            live=means.ladder,
            before=before,
            log=log,
            project=project.folder,
            on_event=show,
        )
        return replayed, log.trajectory_id


@asynccontextmanager
async def _rooms(settings: Settings, project: Project) -> AsyncGenerator[Any]:
    """Open what runs are given to work in, as the settings of a project say."""
    from rlm_runtime import Rooms

    from ..environments import environment_of, limits_of
    from ..opened import sandbox_of

    folder: Path | None = project.folder
    async with sandbox_of(environment_of(settings), None, brief=True) as sandbox:
        shows = settings.rlm.environment == "local"
        yield Rooms(
            sandbox,
            limits=limits_of(settings),
            policy=settings.sandbox.policy,
            project=folder,
            shows_files=shows,
        )


def _tell(out: Out, trajectory: Trajectory, replayed: Replayed, id_: str) -> int:
    outcome = replayed.outcome
    facts: dict[str, Any] = {
        "id": trajectory.id,
        "identical": replayed.stopped_at is None if not id_ else None,
        "events": len(replayed.events),
        "from_log": replayed.from_log,
        "asked": replayed.asked,
        "stopped_at": replayed.stopped_at,
        "trajectory_id": id_ or None,
        "response": None if outcome is None else outcome.response,
        "finish": None if outcome is None else outcome.finish,
    }
    out.data(facts)
    if outcome is not None:
        out.say(outcome.response)
    out.talk(_said(replayed, id_))
    return OK


def _said(replayed: Replayed, id_: str) -> str:
    from .trajectory_text import counted

    answers = f"{counted(replayed.from_log, 'answer')} from the log"
    if id_:
        return f"{answers}, {replayed.asked} asked anew: trajectory {id_}."
    if replayed.stopped_at is not None:
        return (
            f"Identical up to event {replayed.stopped_at}, where the run was cut off. "
            "`rlm run --resume ID` goes on with it."
        )
    return f"Identical: {counted(len(replayed.events), 'event')}, {answers}, no model asked."
