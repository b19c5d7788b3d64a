"""Runs that a client starts: `rlm_complete` does one, `rlm_status` looks at one that goes on by itself.

A run is a job like a cell, but has rooms of its own, so it stands in no line.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import anyio
import anyio.to_thread
from mcp_types import CallToolResult, InputRequiredResult

from . import texts
from .answering import Help, load_runtime, means_of
from .app import App
from .arguments import RlmComplete, RlmStatus
from .cell_jobs import Asker, Body, Came, answer, come_of, waiting_on_disk
from .errors import ContextUnusable, NoSuchRun
from .jobs import Job
from .known_runs import kept_run, listed, logged_as, open_of, outcome_of, said_of_unended, way_on
from .models import budget_of
from .stories import Story, join
from .tasks import DIRECT_SECONDS, task_of
from .trajectory_resources import answer_uri
from .waiting import Call, Spec

if TYPE_CHECKING:
    from rlm_runtime import Outcome, Trajectory
    from rlm_sessions import Project

    from .tenants import Tenant

_MOST_ANSWER = texts.MOST_CHARACTERS - 5_000
_SINCE_BEFORE = "It waits since before a restart of the server. What was answered is kept."


# ---- rlm_complete


async def complete(app: App, asker: Asker, project: Project, given: RlmComplete) -> Came:
    """Have a model work on a task in a REPL of its own."""
    rlm = (await app.loaded(project)).settings.rlm
    spec = Spec("rlm_complete", given.model_dump(mode="json"), str(project.folder or project.name))
    place = app.place(asker.tenant, project)
    session = await app.session(asker.tenant, project)  # makes the places that things are kept in
    job = Job(spec, (asker.tenant, session.project.key), place, answer_seconds=rlm.answer_seconds)
    job.keeps = given.background or asker.takes_tasks
    app.jobs.start(job, run_body(app, asker, project, given), in_line=False)
    if given.background:
        said = f'[runs in the background; rlm_status(handle="{job.handle}") tells how it goes on, and its answer]'
        return CallToolResult(content=[texts.text(said)])
    if asker.takes_tasks:
        return await _soon_or_task(app, asker, project, job)
    return await come_of(app, asker, project, None, job, begun=True)


async def _soon_or_task(app: App, asker: Asker, project: Project, job: Job) -> Came:
    """Return what comes of a run that is soon over, else a task. Whoever goes away before that ends it."""
    told = False
    try:
        with anyio.move_on_after(DIRECT_SECONDS):
            came = await come_of(app, asker, project, None, job)
            told = True
            return came
        told = True
        return task_of(job)
    finally:
        if not told:
            job.cancel()


def run_body(app: App, asker: Asker, project: Project, given: RlmComplete) -> Body:
    """Return what a job does that is a run."""

    async def work(job: Job) -> CallToolResult:
        await load_runtime()
        from rlm_runtime import Job as Task
        from rlm_runtime import open_log, run_job

        loaded = await app.loaded(project)
        rlm = loaded.settings.rlm
        means = await means_of(app, asker.tenant, project, loaded, Help(asker.sampling, job.desk, job.notes))
        contexts = await _contexts(app, asker, project, given)
        wanted = Task(
            prompt=given.prompt,
            contexts=contexts,
            schema=given.output_schema,
            model=given.model or "",
            sub_model=rlm.sub_model,
            budget=budget_of(
                rlm,
                client_only=means.client_only,
                asked={str(name): most for name, most in given.budgets.items()},
            ),
        )
        story = job.story = Story()
        async with open_log(
            means.folder, logged_as(job.handle), secrets=means.secrets, bound=means.bound
        ) as log:
            join(app, asker.tenant, loaded.settings, log)
            outcome = await run_job(
                wanted,
                ladder=means.ladder,
                rooms=await app.rooms(asker.tenant, project),
                log=log,
                store=means.store,
                on_event=story.hear,
            )
        notes = [
            *await app.first_notes(asker.tenant, project),
            *job.notes,
            *([log.problem] if log.problem else []),
        ]
        return CallToolResult(content=[texts.text(said_of(outcome, notes))])

    return work


async def _contexts(app: App, asker: Asker, project: Project, given: RlmComplete) -> dict[str, Any]:
    from rlm_runtime import ContextFile

    from .tools import file_in

    contexts: dict[str, Any] = {}
    session = await app.session(asker.tenant, project)
    folders = await app.folders(asker.tenant, project, session.project.folder)
    for name, path in given.files.items():
        found: Path = await anyio.to_thread.run_sync(file_in, path, folders)
        contexts[name] = ContextFile(found)
    for name in given.variables:
        value = await session.get(name)
        contexts[name] = await anyio.to_thread.run_sync(_content, name, value.form, value.body)
    return contexts


def _content(name: str, form: str, body: bytes) -> Any:
    if form == "bytes":
        return body
    if form == "repr":
        raise ContextUnusable(name)
    text = body.decode("utf-8", "surrogatepass")
    return json.loads(text) if form == "json" else text


def said_of(outcome: Outcome, notes: list[str]) -> str:
    """Return what came of a run: its answer, and what that took."""
    cost = ", cost unknown" if outcome.cost_usd is None else f", ${outcome.cost_usd:.4f}"
    facts = (
        f"[{outcome.finish}: {outcome.total_calls} requests, {outcome.total_tokens} tokens{cost}, depth "
        f"{outcome.depth_reached}, {outcome.duration_ms / 1000:.1f} s; rlm://trajectories/{outcome.trajectory_id}]"
    )
    why = [f"[this is not a whole answer: {outcome.reason}]"] if outcome.partial else []
    if outcome.over_tokens or outcome.over_cost_usd:
        why.append(f"[{_over(outcome)} over the budget: a model took more than it was told to keep to]")
    if outcome.unsure_tokens:
        why.append(f"[up to {_unsure(outcome)} more: for requests that were sent and brought no answer]")
    return "\n".join([_answer(outcome), *why, facts, *texts.of_notes(notes)])


def _answer(outcome: Outcome) -> str:
    """Return the answer, or where all of it is, and how it begins and ends. A part of JSON never passes for all."""
    is_text = outcome.value is None or isinstance(outcome.value, str)
    answer = outcome.response if is_text else json.dumps(outcome.value, ensure_ascii=False, default=str)
    if len(answer) <= _MOST_ANSWER:
        return answer
    kind, uri = "text" if is_text else "JSON", answer_uri(outcome.trajectory_id)
    whole = f"[The answer is {kind} of {len(answer)} characters. All of it: {uri}. It begins and ends so:]"
    return f"{whole}\n{texts.shorten(answer, _MOST_ANSWER)}"


# ---- rlm_status


async def status(
    app: App, asker: Asker, project: Project, given: RlmStatus
) -> CallToolResult | InputRequiredResult:
    """Say how a run goes on, or what came of it; without a handle, which there are. Raise `NoSuchRun`."""
    if given.handle is None:
        return _said(await listed(app, asker.tenant))
    job = app.jobs.found(given.handle, asker.tenant)
    if job is None:
        return await _away(app, asker, project, given.handle, cancel=given.cancel)
    if given.cancel:
        job.cancel()
        await job.over.wait()
    with anyio.move_on_after(given.wait_s):
        return await come_of(app, asker, project, None, job)
    if job.over.is_set():
        return job.result()
    return _said("[begins]" if job.story is None else job.story.so_far(given.after))


async def _away(
    app: App, asker: Asker, project: Project, handle: str, *, cancel: bool
) -> CallToolResult | InputRequiredResult:
    if cancel and await waiting_on_disk(app, asker.tenant, handle) is not None:
        return await answer(app, asker, project, handle, {}, cancel=True)
    known = await from_disk(app, asker.tenant, handle)
    if known is None:
        raise NoSuchRun(handle)
    return known


async def from_disk(app: App, tenant: Tenant, handle: str) -> CallToolResult | None:
    """Return what is known of a run that does not go on here. Nothing is begun again by that."""
    waits = await waiting_on_disk(app, tenant, handle)
    if waits is not None:
        return _still_waiting(handle, waits[2])
    kept = await kept_run(app, tenant, handle)
    return None if kept is None else await anyio.to_thread.run_sync(_said_of_kept, kept)


def _still_waiting(handle: str, calls: list[Call]) -> CallToolResult:
    still = open_of(calls)
    if not still:
        return _said(f'[all its calls are answered; answer_calls(handle="{handle}") has it go on]')
    shown = texts.fitting([call for call in still if call.messages])  # very long ones are not written down
    return CallToolResult(content=texts.of_waiting(handle, still, shown, [_SINCE_BEFORE]))


def _said_of_kept(kept: Trajectory) -> CallToolResult:
    outcome = outcome_of(kept)
    if outcome is None:
        return _said(said_of_unended(kept))
    if outcome.finish != "cancelled":
        return _said(said_of(outcome, []))
    broken_off = f"It was cancelled, or its server was stopped: {way_on(outcome.trajectory_id)}."
    return _said(said_of(outcome, [broken_off]), is_error=True)


def _said(text: str, *, is_error: bool = False) -> CallToolResult:
    return CallToolResult(content=[texts.text(text)], is_error=is_error)


def _unsure(outcome: Outcome) -> str:
    cost = outcome.unsure_cost_usd
    price = " (cost unknown)" if cost is None else f" (${cost:.4f})" if cost else ""
    return f"{outcome.unsure_tokens} tokens{price}"


def _over(outcome: Outcome) -> str:
    tokens = [f"{outcome.over_tokens} tokens"] if outcome.over_tokens else []
    return " and ".join([*tokens, *([f"${outcome.over_cost_usd:.4f}"] if outcome.over_cost_usd else [])])
