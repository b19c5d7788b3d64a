"""What is known of runs that do not go on here: those that are over, and those whose server has ended.

A run that a client began is logged under an id that ends with a mark of its handle, so whoever has the handle finds
it as long as its trajectory is kept. The id of a trajectory will do in place of the handle.
"""

from __future__ import annotations

from collections.abc import Sequence
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Any

import anyio.to_thread

from . import texts
from .known import places_of, root_folder
from .trajectory_places import folders_of
from .trajectory_resources import trajectory_uri
from .waiting import is_handle
from .waiting_records import all_waiting_in

if TYPE_CHECKING:
    from rlm_runtime import Outcome, Summary, Trajectory

    from .app import App
    from .jobs import Job
    from .tenants import Tenant
    from .waiting import Call

_LISTED, _TITLE = 20, 80
_NONE = "[there are no runs; rlm_complete begins one]"


def logged_as(handle: str) -> str:
    """Return an id for the trajectory of a run with this handle. The handle cannot be told from it."""
    from rlm_runtime import new_trajectory_id

    return new_trajectory_id(_mark(handle))


def _mark(handle: str) -> str:
    return sha256(handle.encode()).hexdigest()[:16]


# ---- one


async def kept_run(app: App, tenant: Tenant, handle: str) -> Trajectory | None:
    """Return what is kept of a run, by its handle or the id of its trajectory."""
    root = await root_folder(app, tenant)

    def look() -> Trajectory | None:
        return _kept(folders_of(app.settings, tenant, root), handle)

    return await anyio.to_thread.run_sync(look)


def _kept(folders: Sequence[Path], handle: str) -> Trajectory | None:
    from rlm_runtime import TrajectoryError, read_trajectory

    ending = f"-{_mark(handle)}" if is_handle(handle) else ""
    for path in _all(folders):
        if path.stem == handle or (ending and path.stem.endswith(ending)):
            try:
                return read_trajectory(path)
            except TrajectoryError:
                return None
    return None


def _all(folders: Sequence[Path]) -> list[Path]:
    """Return all trajectories, the newest first."""
    from rlm_runtime import placed_trajectories

    found = [each for folder in folders for each in placed_trajectories(folder)]
    return [path for _, path in sorted(found, key=lambda each: (each[0], each[1].stem), reverse=True)]


def outcome_of(trajectory: Trajectory) -> Outcome | None:
    """Return what came of a run; None if it did not end, or its end is damaged. Blocks."""
    from rlm_runtime import Outcome, TrajectoryError

    if trajectory.ended is None:
        return None
    try:
        ended: dict[str, Any] = {**trajectory.whole(trajectory.ended)}
    except TrajectoryError:
        return None
    usage: dict[str, int] = ended.get("token_usage") or {}
    error: dict[str, str] = ended.get("error") or {}
    response = str(ended.get("response") or "")
    value = ended.get("value")
    return Outcome(
        response=response,
        value=response if value is None else value,
        trajectory_id=trajectory.id,
        total_calls=int(ended.get("requests") or ended.get("calls") or 0),
        total_tokens=int(usage.get("total_tokens") or 0),
        depth_reached=int(ended.get("depth_reached") or 0),
        tool_calls=(),
        duration_ms=float(ended.get("duration_ms") or 0),
        cost_usd=ended.get("cost_usd"),
        finish=ended.get("finish") or "gave_up",
        reason=str(ended.get("reason") or error.get("message") or ""),
        partial=bool(ended.get("reason") or error),
        over_tokens=int(usage.get("over_tokens") or 0),
        unsure_tokens=int(usage.get("unsure_tokens") or 0),
        unsure_cost_usd=ended.get("unsure_cost_usd"),
    )


def said_of_unended(trajectory: Trajectory) -> str:
    """Return what is to be said of a run that has no end, or not yet. Blocks."""
    totals, at = trajectory.totals(), trajectory_uri(trajectory.id)
    facts = f"{len(trajectory.events)} events, {totals.tokens} tokens{_cost(totals.cost_usd)}, {at}"
    if trajectory.state == "running":
        return f"[at work in another server or at a terminal: {facts}]"
    return f"[its server ended in the middle of it: {facts}; {way_on(trajectory.id)}]"


def way_on(trajectory_id: str) -> str:
    """Return how a run that was broken off can be gone on with."""
    return (
        f"`rlm-mcp run --resume {trajectory_id}` at a terminal goes on with it; rlm_complete begins anew, and what "
        "code asked and was answered is not asked again"
    )


# ---- all


async def listed(app: App, tenant: Tenant) -> str:
    """Return a line for each run that goes on or waits, and for the newest of those that are over."""
    jobs = app.jobs.all_of(tenant)
    root = await root_folder(app, tenant)
    going_on = [job for job in jobs if not job.over.is_set()]

    def look() -> list[str]:
        asleep = _asleep(root, {job.handle for job in jobs})
        return asleep + _over(folders_of(app.settings, tenant, root), jobs)

    return "\n".join([*map(_of_job, going_on), *await anyio.to_thread.run_sync(look)]) or _NONE


def _of_job(job: Job) -> str:
    if job.waits:
        return f"{job.handle}: waits for you, calls open: {len(job.desk.open())}; answer_calls shows them"
    seconds = anyio.current_time() - job.began
    stands = f"{seconds:.0f} s" if job.story is None else job.story.line(seconds)
    return f"{job.handle}: at work for {stands}"


def _asleep(root: Path, known: set[str]) -> list[str]:
    """Return a line for each job that waits since before a restart."""
    found = (each for place in places_of(root) for each in all_waiting_in(place))
    return [
        f"{handle}: {spec.tool} waits for you since before a restart, calls open: {len(open_of(calls))}; answer_calls "
        "goes on with it"
        for handle, spec, calls in found
        if handle not in known
    ]


def open_of(calls: Sequence[Call]) -> list[Call]:
    """Return the calls that nobody has answered."""
    return [call for call in calls if call.text is None]


def _over(folders: Sequence[Path], jobs: Sequence[Job]) -> list[str]:
    """Return a line for each of the newest runs, but for those that go on here."""
    from rlm_runtime import TrajectoryError, summary_of

    here = {job.trajectory_id: job for job in jobs if job.trajectory_id}
    lines = list[str]()
    for path in _all(folders):
        if len(lines) == _LISTED:
            break
        job = here.get(path.stem)
        if job is not None and not job.over.is_set():
            continue
        try:
            summary = summary_of(path)
        except (OSError, TrajectoryError):
            continue
        lines.append(f"{job.handle if job is not None else path.stem}: {_of_summary(summary)}")
    return lines


def _of_summary(summary: Summary) -> str:
    state = summary.finish if summary.state == "ended" else summary.state
    tokens = "" if summary.tokens is None else f", {summary.tokens} tokens{_cost(summary.cost_usd)}"
    seconds = "" if summary.duration_ms is None else f", {summary.duration_ms / 1000:.1f} s"
    return f"{state}{tokens}{seconds}: {texts.plain(summary.title[:_TITLE])!r}"


def _cost(cost_usd: float | None) -> str:
    return ", cost unknown" if cost_usd is None else f", ${cost_usd:.4f}"
