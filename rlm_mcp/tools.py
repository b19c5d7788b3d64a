"""The tools, each a doorway: check what was given, do one thing, tell a model what came of it."""

from __future__ import annotations

import os
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import anyio.to_thread
from mcp_types import CallToolResult, ContentBlock, InputRequiredResult, Tool, ToolAnnotations

from . import texts
from .app import App
from .arguments import (
    AnswerCalls,
    Arguments,
    ClearContext,
    ExecutePython,
    GetContext,
    RlmComplete,
    RlmStatus,
    SetContext,
    parse,
    schema_of,
)
from .cell_jobs import Asker, Came, answer, at_work, check_room, end_waiting, run_cell, tell_changes
from .environments import has_network
from .errors import FileNotAllowed, PartlySet
from .narrowing import inside

if TYPE_CHECKING:
    from rlm_sessions import Project, ProjectSession

_GLOB = frozenset("*?[")

_EXECUTE = """\
Run Python in this project's persistent session. Variables, functions and imports stay for later calls, also after \
errors, time-outs and restarts. Returns output, the value of the last expression, figures, and which \
variables were set. Keep large data in variables and print little: long output loses its middle (the whole is at \
rlm://outputs/ID). llm_query and llm_map ask models. \
Code is jailed: it sees the project's files, and no network unless configured."""
_GET = """\
List the session's variables (name, type, size, preview) and what it is doing. With names, show those values."""
_SET = """\
Put data into variables of the session: JSON values, or files by path, whose content never passes through you \
however large it is. Paths must lie in the project."""
_CLEAR = "Delete variables of the session: the named ones, or all of them with a fresh interpreter."

_COMPLETE = """\
Have a model do a task in a REPL of its own, on data of any length given as variables. \
Its code asks models about pieces. Returns the answer."""
_STATUS = "Tell a run's progress or answer; without handle, list runs and what waits."
_ANSWER = """\
Answer calls that code waits for, after a result that says waiting: some or all, in any order, from several agents. \
Returns what is open, or the result."""


Handler = Callable[[App, Asker, "Project", Any], Awaitable[list[ContentBlock] | Came]]


@dataclass(frozen=True)
class Doorway:
    """A tool: what a client is told of it, what it takes, and what it does."""

    name: str
    title: str
    description: str
    takes: type[Arguments]
    does: Handler
    annotations: ToolAnnotations
    always_loaded: bool = False


# ---- execute_python


async def _execute(
    app: App, asker: Asker, project: Project, given: ExecutePython
) -> CallToolResult | InputRequiredResult:
    session = await app.session(asker.tenant, project)
    return await run_cell(app, asker, project, session, {"code": given.code, "timeout_s": given.timeout_s})


# ---- get_repl_context


async def _get(app: App, asker: Asker, project: Project, given: GetContext) -> list[ContentBlock]:
    session = await app.session(asker.tenant, project)
    if given.names:
        shown = [await _value(session, name, given.max_chars) for name in given.names]
        return [_text(texts.shorten("\n".join(shown), texts.MOST_CHARACTERS))]
    if session.waking or (
        session.busy and not session.awake
    ):  # to list them would wait for the call that wakes it
        return [
            _text(f"[The session is waking up; its variables can be listed in a moment. {session.info()}]")
        ]
    variables = await session.variables()
    notes = texts.of_notes(await app.first_notes(asker.tenant, project))
    return [_text("\n".join([texts.of_variables(variables, session.info()), *notes]))]


async def _value(session: ProjectSession, name: str, max_chars: int) -> str:
    from rlm_sessions import VariableError

    if session.busy:
        return f"{name}: not shown, because {session.info()}"
    try:
        value = await session.get(name, max_bytes=max(1_000_000, 8 * max_chars))
    except VariableError as problem:
        return f"{name}: {_why_not_shown(problem.kind, str(problem))}"
    if value.form == "bytes":
        return f"{name} = {texts.shorten(repr(value.body), max_chars)}"
    return f"{name} = {texts.shorten(texts.plain(value.text()), max_chars)}"


def _why_not_shown(kind: str, problem: str) -> str:
    if kind == "TooLarge":
        return "too large to show; look at parts of it with execute_python"
    return "no such variable; get_repl_context without names lists all" if kind == "NameError" else problem


# ---- set_repl_context


async def _set(app: App, asker: Asker, project: Project, given: SetContext) -> list[ContentBlock]:
    if not given.values and not given.files:
        return [_text("Nothing to set: give `values`, or `files`.")]
    session = await app.session(asker.tenant, project)
    check_room(app, asker.tenant, session)
    folders = await app.folders(asker.tenant, project, session.project.folder)
    files = await anyio.to_thread.run_sync(_all_files, given.files, session.project.folder, folders)
    of_session = (asker.tenant, project.key)
    async with app.jobs.step(of_session, app.place(asker.tenant, project)):
        with app.progress.of_call(asker, at_work(app, asker, project, session)):
            said, notes = await _put(session, given, files)
    await tell_changes(app, asker.tenant, session, listed=False)
    notes += await app.first_notes(asker.tenant, project)
    return [_text("\n".join([*said, *texts.of_notes(notes)]))]


async def _put(
    session: ProjectSession, given: SetContext, files: Mapping[str, Path | list[Path]]
) -> tuple[list[str], list[str]]:
    """Set the variables one after another. Raise `PartlySet` if one that is not the first cannot be."""
    from rlm_sessions import SessionError

    said, notes = list[str](), list[str]()
    try:
        for name, value in given.values.items():
            notes += await session.set(name, value)
            said.append(f"{name}: {texts.of_value(value)}")
        for name, paths in files.items():
            said.append(texts.of_loaded(name, await session.load(name, paths, append=given.append)))
    except SessionError as problem:
        if not said:
            raise
        raise PartlySet(said, problem) from problem
    return said, notes


def _all_files(
    given: Mapping[str, str | list[str]], folder: Path | None, folders: Sequence[Path]
) -> dict[str, Path | list[Path]]:
    """Return what is to be loaded, all of it found before anything is changed."""
    return {name: _files(paths, folder, folders) for name, paths in given.items()}


def _files(given: str | Sequence[str], folder: Path | None, folders: Sequence[Path]) -> Path | list[Path]:
    """Return one file for a path; several for a list, and for a pattern within the project."""
    if isinstance(given, str) and not _is_pattern(given, folders):
        return file_in(given, folders)
    each = [given] if isinstance(given, str) else given
    found = [
        path
        for one in each
        for path in (
            _matching(one, folder, folders) if _is_pattern(one, folders) else [file_in(one, folders)]
        )
    ]
    return list(dict.fromkeys(found))


def _is_pattern(given: str, folders: Sequence[Path]) -> bool:
    """Return whether it is no name of a file: those may have brackets in them too."""
    if not _GLOB & set(given):
        return False
    return not (folders and inside(folders[0] / given, folders) and os.path.isfile(folders[0] / given))  # noqa: PTH113 -- never raises


def _matching(pattern: str, folder: Path | None, folders: Sequence[Path]) -> Sequence[Path]:
    from rlm_sessions import files_matching

    try:
        found = files_matching(folder if folder in folders else None, pattern)
    except (OSError, ValueError, IndexError, NotImplementedError) as problem:
        why = getattr(problem, "strerror", None) or f"it is no pattern ({problem})"
        raise FileNotAllowed(pattern, why, folders) from None
    return [found] if isinstance(found, Path) else found


def file_in(given: str, folders: Sequence[Path]) -> Path:
    """Return the real path of a file. Raise `FileNotAllowed` for one that lies elsewhere, and for none."""
    try:
        path = folders[0] / given if folders else Path(given)
        if not inside(path, folders):  # and whether it is there is not told
            raise FileNotAllowed(given, "it lies outside the project", folders)
        path = path.resolve(strict=True)
        is_file = path.is_file()
    except (OSError, ValueError, RuntimeError) as problem:
        why = getattr(problem, "strerror", None) or "it is no path"
        raise FileNotAllowed(given, str(why).lower(), folders) from None
    if not is_file:
        raise FileNotAllowed(
            given, 'it is no file; for a folder, give a pattern such as "folder/**/*"', folders
        )
    return path


# ---- clear_repl_context


async def _clear(app: App, asker: Asker, project: Project, given: ClearContext) -> list[ContentBlock]:
    session = await app.session(asker.tenant, project)
    check_room(app, asker.tenant, session)
    if given.names is None:
        await end_waiting(app, asker.tenant, project)
        await session.reset()
        said = ["All variables are gone; the next call begins in a fresh interpreter."]
        notes = list[str]()
    else:
        async with app.jobs.step((asker.tenant, project.key), app.place(asker.tenant, project)):
            said, notes = await _delete(session, given.names)
    await tell_changes(app, asker.tenant, session, listed=False)
    return [_text("\n".join([*said, *texts.of_notes(notes)]))]


async def _delete(session: ProjectSession, names: Sequence[str]) -> tuple[list[str], list[str]]:
    from rlm_sessions import VariableNotFound

    deleted, missing, notes = list[str](), list[str](), list[str]()
    for name in names:
        try:
            notes += await session.delete(name)
            deleted.append(name)
        except VariableNotFound:
            missing.append(name)
    said = [f"Deleted: {', '.join(deleted)}."] if deleted else []
    said += [f"Not there: {', '.join(missing)}."] if missing else []
    return said or ["Nothing to delete."], notes


# ---- answer_calls


async def _answer(
    app: App, asker: Asker, project: Project, given: AnswerCalls
) -> CallToolResult | InputRequiredResult:
    show = given.show or (None if given.answers else "")
    return await answer(app, asker, project, given.handle, given.answers, cancel=given.cancel, show=show)


# ---- rlm_complete, rlm_status


async def _complete(app: App, asker: Asker, project: Project, given: RlmComplete) -> Came:
    from .runs import complete

    return await complete(app, asker, project, given)


async def _status(
    app: App, asker: Asker, project: Project, given: RlmStatus
) -> CallToolResult | InputRequiredResult:
    from .runs import status

    return await status(app, asker, project, given)


# ---- all of them


def _hints(*, reads: bool, destroys: bool, again: bool, world: bool) -> ToolAnnotations:
    return ToolAnnotations(
        read_only_hint=reads, destructive_hint=destroys, idempotent_hint=again, open_world_hint=world
    )


DOORWAYS = (
    Doorway(
        "execute_python",
        "Run Python",
        _EXECUTE,
        ExecutePython,
        _execute,
        _hints(reads=False, destroys=True, again=False, world=False),
        always_loaded=True,
    ),
    Doorway(
        "get_repl_context",
        "List variables",
        _GET,
        GetContext,
        _get,
        _hints(reads=True, destroys=False, again=True, world=False),
    ),
    Doorway(
        "set_repl_context",
        "Set variables",
        _SET,
        SetContext,
        _set,
        _hints(reads=False, destroys=True, again=False, world=False),
    ),
    Doorway(
        "clear_repl_context",
        "Delete variables",
        _CLEAR,
        ClearContext,
        _clear,
        _hints(reads=False, destroys=True, again=True, world=False),
    ),
    Doorway(
        "rlm_complete",
        "Have a model work",
        _COMPLETE,
        RlmComplete,
        _complete,
        _hints(reads=False, destroys=False, again=False, world=True),
    ),
    Doorway(
        "rlm_status",
        "Look at a run",
        _STATUS,
        RlmStatus,
        _status,
        _hints(reads=False, destroys=False, again=True, world=False),
    ),
    Doorway(
        "answer_calls",
        "Answer calls",
        _ANSWER,
        AnswerCalls,
        _answer,
        _hints(reads=False, destroys=False, again=True, world=False),
    ),
)


class Tools:
    """The tools of a server."""

    def __init__(self, app: App) -> None:
        self._app = app
        self._doorways = {doorway.name: doorway for doorway in DOORWAYS}
        self.definitions = [self._definition(doorway) for doorway in DOORWAYS]

    def _definition(self, doorway: Doorway) -> Tool:
        sandbox = self._app.settings.sandbox
        maximum = {"timeout_s": sandbox.most_seconds} if doorway.takes is ExecutePython else None
        hints = doorway.annotations
        if doorway.takes is ExecutePython:
            hints = hints.model_copy(update={"open_world_hint": has_network(self._app.settings)})
        schema = schema_of(doorway.takes, maximum=maximum)
        if doorway.takes is ExecutePython:
            schema["properties"]["timeout_s"]["default"] = sandbox.wall_seconds
        return Tool(
            name=doorway.name,
            title=doorway.title,
            description=doorway.description,
            input_schema=schema,
            annotations=hints,
            _meta={"anthropic/alwaysLoad": True} if doorway.always_loaded else None,
        )

    @property
    def names(self) -> list[str]:
        """Return what they are called."""
        return list(self._doorways)

    def takes(self, name: str, given: dict[str, Any] | None) -> Arguments | None:
        """Return the arguments of a call of the tool `name`; None if there is no such tool. Raise `ArgumentsWrong`."""
        doorway = self._doorways.get(name)
        if doorway is None:
            return None
        arguments = parse(doorway.takes, given, tool=name)
        if isinstance(arguments, ExecutePython):
            self._check_time(arguments, name)
        return arguments

    def _check_time(self, arguments: ExecutePython, name: str) -> None:
        from .errors import ArgumentsWrong

        most = self._app.settings.sandbox.most_seconds
        if arguments.timeout_s is not None and arguments.timeout_s > most:
            wrong = f"timeout_s: {arguments.timeout_s:g} is over the most allowed, {most:g}"
            raise ArgumentsWrong(name, [wrong], list(ExecutePython.model_fields))

    async def call(self, asker: Asker, name: str, arguments: Arguments, *, roots: Sequence[str] = ()) -> Came:
        """Do what a tool does, in the project that is meant."""
        project = await self._app.project(asker.tenant, arguments.project, roots=roots)
        result = await self._doorways[name].does(self._app, asker, project, arguments)
        return CallToolResult(content=result) if isinstance(result, list) else result

    async def go_on(
        self, asker: Asker, arguments: Arguments, handle: str, answers: Mapping[str, Any]
    ) -> CallToolResult | InputRequiredResult:
        """Go on with a call that is made again, with the answers of the client's model."""
        project = await self._app.project(asker.tenant, arguments.project)
        return await answer(self._app, asker, project, handle, answers)


def _text(text: str) -> ContentBlock:
    return texts.text(text)
