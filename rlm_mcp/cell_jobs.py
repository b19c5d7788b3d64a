"""What is behind the tools that run code or answer its calls: a job for each cell, begun, attended, and found again."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias

import anyio
import anyio.to_thread
from mcp_types import CallToolResult, InputRequiredResult

from . import texts
from .answering import CellCalls, Help
from .app import App, Change
from .arguments import RlmComplete
from .errors import CellWaits, NoSuchJob, TooManyWait
from .jobs import Job
from .known import places_of, root_folder
from .sampling import requests_of
from .tenants import Tenant
from .waiting import CELL, Call, Desk, Spec, is_handle, named_in
from .waiting_records import read_record, remove_record

if TYPE_CHECKING:
    from rlm_runtime import Model
    from rlm_sessions import CellResult, Project, ProjectSession

    from .progress import Teller

MOST_WAITING = 100
MOST_ROUNDS = 8  # of questions in place of a result; clients give up after some more
_AGAIN = "The server was restarted meanwhile, so the code was run again from its beginning, with the answers it had."


class Asker(Protocol):
    """Who called a tool, and hears how it goes on."""

    @property
    def tenant(self) -> Tenant:
        """Whose projects it means."""
        ...

    @property
    def sampling(self) -> Model | None:
        """Its own model, if that can be asked while its call is at work."""
        ...

    @property
    def takes_tasks(self) -> bool:
        """Whether it takes a task in place of a result."""
        ...

    @property
    def takes_questions(self) -> bool:
        """Whether its own model answers what it finds in place of a result."""
        ...

    async def progress(self, done: float, message: str) -> None:
        """Tell it how it goes on."""
        ...


Came: TypeAlias = CallToolResult | InputRequiredResult | dict[str, Any]
"""What a call comes to: a result, questions for the client, or a task."""
Body = Callable[[Job], Awaitable[CallToolResult]]


def at_work(
    app: App, asker: Asker, project: Project, session: ProjectSession | None
) -> Callable[[float], str]:
    """Return what to say of a call that takes long, and that prints nothing."""

    def said(seconds: float) -> str:
        news = app.news_of(asker.tenant, project)
        if news and session is not None and session.waking:
            return news
        waiting = session.info().waiting if session is not None else 0
        more = f"; {waiting} calls wait for this session" if waiting else ""
        return f"at work for {seconds:.0f} s{more}"

    return said


def check_room(app: App, tenant: Tenant, session: ProjectSession) -> None:
    """Raise `TooManyWait` if another call would be one too many in line."""
    info = session.info()
    waiting = max(info.waiting, app.jobs.in_line((tenant, session.project.key)))
    if waiting >= MOST_WAITING:
        raise TooManyWait(waiting, str(info))


# ---- cells


async def run_cell(
    app: App, asker: Asker, project: Project, session: ProjectSession, arguments: Mapping[str, Any]
) -> CallToolResult | InputRequiredResult:
    """Run a cell in the session of a project; return what came of it, or what the client is to answer."""
    place = app.place(asker.tenant, project)
    of_session = (asker.tenant, project.key)
    await app.jobs.check(of_session, place)
    rlm = (await app.loaded(project)).settings.rlm
    check_room(app, asker.tenant, session)
    spec = Spec(CELL, arguments, str(project.folder or project.name))
    job = Job(spec, of_session, place, answer_seconds=rlm.answer_seconds)
    app.jobs.start(job, cell_body(app, asker, project, session, arguments), in_line=True)
    return await come_of(app, asker, project, session, job, begun=True)


def cell_body(
    app: App, asker: Asker, project: Project, session: ProjectSession, arguments: Mapping[str, Any]
) -> Body:
    """Return what a job does that is a cell."""

    async def run(job: Job) -> CallToolResult:
        job.abandon = session.abandon
        help_ = Help(asker.sampling, job.desk, job.notes)
        calls = CellCalls(app, asker.tenant, project, arguments["code"], help_)
        try:
            result = calls.result = await session.run(
                arguments["code"],
                on_output=job.hear,
                wall_seconds=arguments.get("timeout_s"),
                answer=calls.answer,
            )
        finally:
            await calls.end(calls.result)
        return await _told(app, asker.tenant, project, session, result, calls, job)

    return run


async def _told(
    app: App,
    tenant: Tenant,
    project: Project,
    session: ProjectSession,
    result: CellResult,
    calls: CellCalls,
    job: Job,
) -> CallToolResult:
    notes = [*await app.first_notes(tenant, project), *calls.notes, *([_AGAIN] if job.again else [])]
    await tell_changes(app, tenant, session, listed=bool(result.output_id or result.displays))
    return CallToolResult(content=texts.of_cell(result, notes), is_error=result.error is not None)


async def tell_changes(app: App, tenant: Tenant, session: ProjectSession, *, listed: bool) -> None:
    """Tell who listens that a session is not what it was."""
    if app.listeners:
        new = session.info().step <= 1
        await app.changed(Change(tenant, f"rlm://sessions/{session.project.key}", "updated"))
        if listed or new:
            await app.changed(Change(tenant, "", "listed"))


# ---- attending


async def come_of(
    app: App,
    asker: Asker,
    project: Project,
    session: ProjectSession | None,
    job: Job,
    *,
    begun: bool = False,
    notes: Sequence[str] = (),
    show: str | None = None,
) -> CallToolResult | InputRequiredResult:
    """Return what came of a job, or what the client is to answer. Who began it ends it when it goes away.

    `show` names the calls whose prompts it wants to see: "" stands for all, None for those that are new.
    """
    try:
        with app.progress.of_call(asker, _at_work(app, asker, project, session, job)) as teller:
            over = await _attended(app, job, teller)
    finally:
        if begun and not job.waited and not job.over.is_set():
            job.cancel()
            with anyio.CancelScope(shield=True):
                await job.over.wait()
    if over:
        return _with_notes(job.result(), notes)
    if asker.takes_questions and job.rounds < MOST_ROUNDS:
        job.rounds += 1
        return InputRequiredResult(
            input_requests=dict(requests_of(job.desk.open())), request_state=job.handle
        )
    return waiting_result(job, notes, show)


def waiting_result(job: Job, notes: Sequence[str] = (), show: str | None = None) -> CallToolResult:
    """Return what a client is to answer.

    Long prompts are shown once, unless they are asked for: many agents may share the work, and each hears what is open.
    """
    open_ = job.desk.open()
    calls = named_in(show, open_) if show else open_
    if show is None and job.shown.intersection(call.id for call in calls) and not texts.take_little(calls):
        calls = []
    shown = texts.fitting(calls)
    job.shown.update(call.id for call in shown)
    missing = [f"none of the calls {show} is open"] if show and not calls else []
    told = [*notes, *missing, *job.notes, *filter(None, [job.unwritten])]
    return CallToolResult(content=texts.of_waiting(job.handle, open_, shown, told))


def _at_work(
    app: App, asker: Asker, project: Project, session: ProjectSession | None, job: Job
) -> Callable[[float], str]:
    usual = at_work(app, asker, project, session)
    return lambda seconds: usual(seconds) if job.story is None else job.story.line(seconds)


async def _attended(app: App, job: Job, teller: Teller) -> bool:
    job.listeners.append(teller)
    try:
        return await app.jobs.attend(job)
    finally:
        job.listeners.remove(teller)


def _with_notes(result: CallToolResult, notes: Sequence[str]) -> CallToolResult:
    told = texts.of_notes(notes)
    if not told:
        return result
    return result.model_copy(update={"content": [*result.content, texts.text("\n".join(told))]})


# ---- answers


async def answer(
    app: App,
    asker: Asker,
    project: Project,
    handle: str,
    answers: Mapping[str, Any],
    *,
    cancel: bool = False,
    show: str | None = None,
) -> CallToolResult | InputRequiredResult:
    """Take answers for a job, and return what comes of it then, and the calls to `show`. Raise `NoSuchJob`."""
    job = app.jobs.found(handle, asker.tenant)
    if job is None:
        async with app.jobs.waking:
            job = app.jobs.found(handle, asker.tenant) or await _woken(
                app, asker, project, handle, cancel=cancel
            )
    if job is None:
        return CallToolResult(content=[texts.text("It is cancelled, and was not run again.")])
    if cancel:
        job.cancel()
        await job.over.wait()
    told = await job.give(answers)
    return await come_of(app, asker, project, None, job, notes=told, show=show)


async def _woken(app: App, asker: Asker, project: Project, handle: str, *, cancel: bool) -> Job | None:
    """Return a job that waits since before a restart, begun again; None if it is to be no more."""
    found = await waiting_on_disk(app, asker.tenant, handle, first=app.place(asker.tenant, project))
    if found is None:
        raise NoSuchJob(handle)
    place, spec, calls = found
    project = await app.project(asker.tenant, spec.project)
    of_session = (asker.tenant, project.key)
    if cancel:
        await anyio.to_thread.run_sync(remove_record, place, handle)
        app.jobs.forget(of_session)
        return None
    rlm = (await app.loaded(project)).settings.rlm
    job = Job(spec, of_session, place, answer_seconds=rlm.answer_seconds, desk=Desk(calls), handle=handle)
    job.waited = True
    body, in_line = await body_of(app, asker, project, spec)
    app.jobs.start(job, body, in_line=in_line)
    return job


async def body_of(app: App, asker: Asker, project: Project, spec: Spec) -> tuple[Body, bool]:
    """Return what a job does that was written down, and whether it has the session to itself."""
    if spec.tool == "rlm_complete":
        from .runs import run_body

        return run_body(app, asker, project, RlmComplete.model_validate(spec.arguments)), False
    session = await app.session(asker.tenant, project)
    return cell_body(app, asker, project, session, spec.arguments), True


async def waiting_on_disk(
    app: App, tenant: Tenant, handle: str, *, first: Path | None = None
) -> tuple[Path, Spec, list[Call]] | None:
    """Return what waits since before a restart, and where it is written down; `first` is looked at first."""
    if not is_handle(handle):
        return None
    root = await root_folder(app, tenant)
    return await anyio.to_thread.run_sync(partial(_look, first, root, handle))


def _look(first: Path | None, root: Path, handle: str) -> tuple[Path, Spec, list[Call]] | None:
    places = places_of(root)
    for place in [first, *places] if first is not None else places:
        record = read_record(place, handle)
        if record is not None:
            return place, *record
    return None


async def end_waiting(app: App, tenant: Tenant, project: Project) -> None:
    """End the cell of a session that waits for the client, if one does."""
    place, of_session = app.place(tenant, project), (tenant, project.key)
    with suppress(CellWaits):
        await app.jobs.check(of_session, place)
    waiting = app.jobs.waiting_in(of_session)
    if isinstance(waiting, Job):
        waiting.cancel()
        await waiting.over.wait()
    elif waiting is not None:
        await anyio.to_thread.run_sync(remove_record, place, waiting)
        app.jobs.forget(of_session)
