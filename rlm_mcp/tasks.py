"""The extension `io.modelcontextprotocol/tasks`: runs that take long become tasks, for clients that know these.

A call of `rlm_complete` that is not answered soon returns a task in place of its result. Clients ask for it by
`tasks/get` until it is over, and end it by `tasks/cancel`. A task is a job of ours, and its id the job's handle.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import anyio
from mcp.shared.exceptions import MCPError
from mcp_types import INVALID_PARAMS, CallToolResult, RequestParams
from mcp_types.version import MODERN_PROTOCOL_VERSIONS

from . import texts
from .app import App
from .callers import tenant_of
from .cell_jobs import waiting_result
from .errors import said_of
from .jobs import Job

EXTENSION = "io.modelcontextprotocol/tasks"
DIRECT_SECONDS = 2.0

_TTL_MS, _POLL_MS = 3_600_000, 1000
_COMPLETE: dict[str, Any] = {"resultType": "complete"}


class TaskParams(RequestParams):
    """Which task is meant."""

    task_id: str


def knows_tasks(ctx: Any) -> bool:
    """Return whether a client takes a task in place of a result."""
    capabilities = ctx.session.client_capabilities
    declared: object = capabilities.extensions if capabilities is not None else None
    return (
        isinstance(declared, dict)
        and EXTENSION in declared
        and ctx.protocol_version in MODERN_PROTOCOL_VERSIONS
    )


def task_of(job: Job) -> dict[str, Any]:
    """Return the task that a job is, in place of its result."""
    return {"resultType": "task", **_facts(job, "working")}


def _facts(job: Job, status: str) -> dict[str, Any]:
    now = datetime.now(UTC).isoformat()
    seconds = anyio.current_time() - job.began
    message = job.story.line(seconds) if job.story is not None else ""
    return {
        "taskId": job.handle,
        "status": status,
        "statusMessage": message,
        "createdAt": datetime.fromtimestamp(job.began_at, UTC).isoformat(),
        "lastUpdatedAt": now,
        "ttlMs": _TTL_MS,
        "pollIntervalMs": _POLL_MS,
    }


class Tasks:
    """The tasks of a server."""

    def __init__(self, app: App) -> None:
        self._app = app

    def join(self, server: Any) -> None:
        """Have a server answer what clients ask of tasks."""
        server.extensions[EXTENSION] = {}
        server.add_request_handler("tasks/get", TaskParams, self.get)
        server.add_request_handler("tasks/update", TaskParams, self.update)
        server.add_request_handler("tasks/cancel", TaskParams, self.cancel)

    async def get(self, ctx: Any, params: TaskParams) -> dict[str, Any]:
        """Answer tasks/get: how it stands, and its result when it is over, or waits for the client to answer calls."""
        job = self._app.jobs.found(params.task_id, tenant_of())
        if job is None:
            return await self._from_disk(params.task_id)
        if job.waits or (not job.over.is_set() and job.desk.open() and not await job.attend()):
            return _over(job, waiting_result(job, show=""))
        if not job.over.is_set():
            return _COMPLETE | _facts(job, "working")
        if job.cancelled:
            return _COMPLETE | _facts(job, "cancelled")
        try:
            return _over(job, job.result())
        except Exception as problem:  # noqa: BLE001 -- what a tool says of its failure is its result
            said = texts.text(texts.of_problem(said_of(problem)))
            return _over(job, CallToolResult(content=[said], is_error=True))

    async def _from_disk(self, task_id: str) -> dict[str, Any]:
        """Answer for a task that an earlier server had, or that is over for long."""
        from .runs import from_disk

        result = await from_disk(self._app, tenant_of(), task_id)
        if result is None:
            raise _no_task(task_id)
        now = datetime.now(UTC).isoformat()
        facts = {"taskId": task_id, "status": "completed", "createdAt": now, "lastUpdatedAt": now}
        return _COMPLETE | facts | {"ttlMs": _TTL_MS, "pollIntervalMs": _POLL_MS, "result": _wire(result)}

    async def update(self, ctx: Any, params: TaskParams) -> dict[str, Any]:
        """Answer tasks/update. A task of ours asks nothing that could be answered so."""
        self._found(params)
        return _COMPLETE

    async def cancel(self, ctx: Any, params: TaskParams) -> dict[str, Any]:
        """Answer tasks/cancel."""
        job = self._found(params)
        job.cancel()
        await job.over.wait()
        return _COMPLETE

    def _found(self, params: TaskParams) -> Job:
        job = self._app.jobs.found(params.task_id, tenant_of())
        if job is None:
            raise _no_task(params.task_id)
        return job


def _no_task(task_id: str) -> MCPError:
    return MCPError(INVALID_PARAMS, f"There is no task {task_id[:100]!r}.")


def _over(job: Job, result: CallToolResult) -> dict[str, Any]:
    return _COMPLETE | _facts(job, "completed") | {"result": _wire(result)}


def _wire(result: CallToolResult) -> dict[str, Any]:
    return result.model_dump(mode="json", by_alias=True, exclude_none=True)
